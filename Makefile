# The commands of this project, the same on a laptop and in CI. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# Processes of the test run: two for each processor, since tests wait a third of the time.
JOBS ?= $(shell echo $$(($(shell nproc) * 2)))
BENCH_ARGS ?=

# Bytecode is kept, or each process that a test starts would compile Flansible again, and each run all tests.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help venv demo test test-fast test-nightly test-flaky test-matrix bench bench-compare fleets http slow ssh sandbox lines soak scale bench-history chaos docs screenshot check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, start the service, run an ad-hoc ping and a playbook with curl, then stop everything"
	@echo "make test-fast   unit tests alone, in parallel, with fewer generated values: between two edits"
	@echo "make test    install what the tests need and run them all; PYTEST_ARGS='-k word' passes options to pytest"
	@echo "make test-nightly   many rounds and further variants (hours); SHARD=3/40 for a part of them"
	@echo "make test-flaky N=20   repeat the tests that a change touched, on busy processors; BASE=commit, or TESTS='...'"
	@echo "make test-matrix   as root: the tests on Ansible, with 2.20 and 2.21 on the Python of a Debian trixie in .matrix/"
	@echo "make check   format check, lint, types, hazards in the code, known vulnerabilities, documents"
	@echo "make docs    the documents as a site, in site/; a broken link or anchor fails"
	@echo "make screenshot   docs/console.png anew, when the console looks different (needs Chromium)"
	@echo "make bench   compare runs through the API with the command line, in turn; writes docs/performance.md's tables"
	@echo "make bench-compare BASE=commit [HEAD=commit]   exits with 1 if the second is slower than the first"
	@echo "make fleets  runs on 200 to 3,000 hosts and over ssh, against the command line (half an hour)"
	@echo "make http    requests per second, and how long they take (needs wrk)"
	@echo "make slow    time of honest polls beside thousands of slow connections (hours); BENCH_ARGS='--counts 300 --seconds 5'"
	@echo "make ssh     what the fast ssh profile and Mitogen save, with a private sshd"
	@echo "make scale   several workers on this machine: waiting and computing runs; writes docs/scaling.md's tables"
	@echo "make sandbox   cost of a confined user's sandbox: start of its fork server, and runs in it"
	@echo "make lines   a million lines of output from one run, against the command line writing to a file"
	@echo "make console   the list of 100,000 tasks: time of the API for a page, of the console for its first row"
	@echo "make bench-history   the history database with a million tasks: lists, status, search (40 minutes, 10 GB)"
	@echo "make soak    half an hour of mixed load, to see whether anything grows; MINUTES=5 for less"
	@echo "make chaos   twenty rounds of each fault on a service under load (hours); ROUNDS=2 for less, CHAOS_SEED=... to repeat"
	@echo "make venv    create $(VENV) with Flansible's requirements; then: $(BIN)/flansible up"
	@echo "make clean   remove $(VENV) and the files of tools (your .flansible/ with its records stays)"
	@echo "PYTHON=python3.12 make ...   choose the Python for $(VENV) (3.11 or newer)"

venv: $(VENV)/.installed
	@echo "==> $(VENV) is up to date; start the service with: $(BIN)/flansible up"

# Stamp files record what is installed; a changed list installs again.
$(VENV)/.installed: requirements.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Flansible needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "==> On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "==> Installing Flansible's requirements (requirements.txt)"
	@$(PIP) install -r requirements.txt
	@echo "==> Installing Flansible itself"
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.installed-test: requirements-test.txt $(VENV)/.installed
	@echo "==> Installing the tests' requirements (requirements-test.txt)"
	@$(PIP) install -r requirements-test.txt
	@touch $@

# Instead of npm, which nothing else here needs.
$(VENV)/axe.min.js: scripts/fetch_axe.py $(VENV)/.installed
	@echo "==> Fetching axe-core, which checks the accessibility of the console"
	@$(BIN)/python scripts/fetch_axe.py $@

demo: $(VENV)/.installed
	@PYTHON="$(abspath $(BIN))/python" bash scripts/demo.sh

# Files in parallel, those that take longest first (tests/helpers/selection.py).
PYTEST := PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m pytest
PARALLEL := --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-test
	@FUZZ=$(or $(FUZZ),75) $(PYTEST) tests/unit -q -n $(shell nproc) $(PARALLEL) $(PYTEST_ARGS)

test: $(VENV)/.installed-test $(VENV)/axe.min.js
	@echo "==> Running the tests, $(JOBS) processes"
	@$(PYTEST) -n $(JOBS) $(PARALLEL) --durations 25 --durations-min 3 $(PYTEST_ARGS)

test-nightly: $(VENV)/.installed-test $(VENV)/axe.min.js
	@echo "==> Running the nightly tests, part $(or $(SHARD),1/1), at $$(git rev-parse --short HEAD), $$(date -u +%FT%TZ)"
	@SHARD=$(or $(SHARD),1/1) $(PYTEST) --nightly -n $(JOBS) $(PARALLEL) --durations 25 --durations-min 3 $(PYTEST_ARGS) \
	  || [ $$? = 5 ]  # a part may have no test

test-flaky: $(VENV)/.installed-test $(VENV)/axe.min.js
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python scripts/flaky.py --count $(or $(N),20) --base $(or $(BASE),HEAD~1) $(TESTS)

test-matrix:
	@bash scripts/test-matrix.sh

# -m keeps the folder itself off the module search path.
bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.bench --write $(BENCH_ARGS)

bench-compare: $(VENV)/.installed
	@$(if $(BASE),,echo "name the commit to compare with: make bench-compare BASE=HEAD~1"; exit 2)
	@$(BIN)/python -m benchmarks.compare $(BASE) $(or $(HEAD),HEAD) $(BENCH_ARGS)

fleets: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.fleets --write $(BENCH_ARGS)

http: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.web $(BENCH_ARGS)

slow: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.slowloris $(BENCH_ARGS)

ssh: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.ssh $(BENCH_ARGS)

scale: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.scale --write $(BENCH_ARGS)

sandbox: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.sandbox $(BENCH_ARGS)

lines: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.lines

console: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.console $(BENCH_ARGS)

bench-history: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks.history --write $(BENCH_ARGS)

soak: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),30)

chaos: $(VENV)/.installed-test
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m pytest tests/chaos --rounds $(or $(ROUNDS),20) $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	@echo "==> Format (ruff format --check)"
	@$(BIN)/ruff format --check .
	@echo "==> Lint (ruff check)"
	@$(BIN)/ruff check .
	@echo "==> Types (mypy --strict on the package)"
	@$(BIN)/mypy
	@echo "==> Insecure code (bandit)"
	@$(BIN)/bandit -q -c pyproject.toml -r flansible scripts
	@echo "==> Known vulnerabilities in pinned packages (pip-audit)"
	@$(BIN)/python scripts/audit.py
	@$(MAKE) --no-print-directory docs

# A broken link or anchor fails.
docs: $(VENV)/.installed-test
	@echo "==> Documents (zensical build)"
	@$(BIN)/python scripts/docs.py

screenshot: $(VENV)/.installed-test
	@$(BIN)/python -m scripts.screenshot

clean:
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
