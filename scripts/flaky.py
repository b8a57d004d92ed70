"""Repeats the tests that a change touched, with every processor kept busy: `make test-flaky N=20`.

A test that fails now and then fails here. What a change touched: test files that differ from BASE, and test files that
import a module of the package that differs. TESTS names tests in place of these. Exit code: pytest's; 0 when there is
nothing to repeat.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="how often each test is run")
    parser.add_argument("--base", default="HEAD~1", help="the commit that the change is counted from")
    parser.add_argument("tests", nargs="*", help="files or tests, as pytest names them")
    options = parser.parse_args()
    tests = options.tests or [str(path) for path in touched(options.base)]
    if not tests:
        print(f"nothing that tests cover differs from {options.base}")
        return 0
    print(f"==> {options.count} times, on busy processors: {' '.join(tests)}", flush=True)
    with busy():
        command = [sys.executable, "-m", "pytest", "--count", str(options.count), "-q", *tests]
        return subprocess.run(command, cwd=TOP, check=False).returncode


def touched(base: str) -> list[Path]:
    """Test files that differ from this commit, or import what does. Raises CalledProcessError for no such commit."""
    words = ["git", "diff", "--name-only", "--diff-filter=d", base]
    names = subprocess.run(words, cwd=TOP, check=True, capture_output=True, text=True).stdout.splitlines()
    changed = {module_name(Path(name)) for name in names if name.endswith(".py")}
    files = sorted(TOP.glob("tests/**/test_*.py"))
    return [
        path.relative_to(TOP)
        for path in files
        if str(path.relative_to(TOP)) in names or not changed.isdisjoint(imported(path))
    ]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


@contextmanager
def busy() -> Iterator[None]:
    """Two processes for each processor that compute without end; they end with this one, however it ends."""
    running = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
