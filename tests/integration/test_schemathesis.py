"""The whole API against its own document: generated requests, good and bad, as admin and as a restricted user.

Every status, content type, header and body must be one that /api/openapi.json names, and none a 500. There is no
worker, so nothing that is generated ever runs; what is queued is canceled at once, and its followers come to an end.
CASES=20000 asks for more of them, as the nightly tests do.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flansible.models import State
from flansible.store import Store
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import require_program
from tests.helpers.webserver import ADMIN, DEV, RecordedRun, WebServer, counts, result

HERE = Path(__file__).parent / "schemathesis"
_FEW = 1800
CASES = int(os.environ.get("CASES", _FEW))
SEED = 20261122
# For each operation and user. By day admin tries the values at the borders, the restricted user what is drawn.
EXAMPLES = max(5, (CASES - 3600) // 20)
# Drawing their bodies takes longer than all the rest together: by day tests/unit/test_fuzz.py draws them, and admin
# tries their borders.
NOT_DRAWN_BY_DAY = """
[[operations]]
include-path-regex = "^/api/(ansiblecommand|ansibleplaybook|preview)$"

[operations.phases.fuzzing]
enabled = false
"""
# Health is 503 without a worker, and says so in the document; here it is to show its other side. And so many wrong
# passwords come that nobody's would be looked at. Definitions need a database.
BEFORE = """
from flansible import config
from flansible.broker import app
from flansible.notifications import dispatcher
from flansible.store import Store, WorkerRecord
Store.worker_records = lambda store: [WorkerRecord('nobody', '', '', 0.0)]
app.ping_worker = lambda names: names[0]
config.Settings.model_fields["login_failures"].default = 0
config.Settings.model_rebuild(force=True)
dispatcher.Dispatcher.tick = lambda self: None  # hosts at random are not dialled
config.Settings.database_url = property(lambda settings: f"sqlite:///{settings.data_dir}/history.sqlite3")
"""


@pytest.fixture(scope="module")
def server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "hosts").write_text("web1\n")
    (folder / "site.yml").write_text("- hosts: all\n")
    with shared_redis.client() as client:
        client.flushall()  # a run that a test before has left would be waited for by each cancel
    running = WebServer(folder, shared_redis.url, inventories=("hosts",), before=BEFORE)
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


def final_task(redis_url: str, user: str) -> str:
    """A task of this user, with output, events and results."""
    store = Store(redis_url)
    run = RecordedRun(store, user)
    run.write(b"some output\n", result("web1"), result("web2", "failed"), counts(web1=1, web2=1))
    run.end()
    store.close()
    return run.task_id


@contextmanager
def canceled_at_once(redis_url: str) -> Iterator[None]:
    """Whatever is queued meanwhile is final soon after."""
    is_over = threading.Event()

    def work() -> None:
        store = Store(redis_url)
        while not is_over.wait(0.1):
            for task in store.tasks(None, State.QUEUED, None, 1000).tasks:
                store.cancel(task.task_id, "admin")
        store.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.generates
@pytest.mark.timeout(max(600, CASES // 10))
def test_each_reply_is_one_that_the_document_names(
    server: WebServer, shared_redis: RedisServer, tmp_path: Path
) -> None:
    require_program("schemathesis")
    users = {login[0]: login for login in (ADMIN, DEV)}
    with canceled_at_once(shared_redis.url), ExitStack() as running:
        # Side by side, a process each: within one, Hypothesis' own threads stumble over each other.
        asking = {
            name: running.enter_context(ask(server, login, final_task(shared_redis.url, name), tmp_path))
            for name, login in users.items()
        }
        said = {name: process.communicate()[0] for name, process in asking.items()}
    for name, process in asking.items():
        assert process.returncode == 0, "\n".join(line[:500] for line in said[name].splitlines())
    told = {name: json.loads(report(tmp_path, name).read_text()) for name in users}
    assert all(one["operations"]["tested"] == one["operations"]["total"] >= 11 for one in told.values())
    cases = {name: one["test_cases"]["generated"] for name, one in told.items()}
    print(f"cases: {cases}")
    assert sum(cases.values()) >= CASES


def report(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def ask(server: WebServer, login: tuple[str, str], task_id: str, folder: Path) -> subprocess.Popen[str]:
    """schemathesis, as one user, who has this task."""
    config = folder / f"{login[0]}.toml"
    is_drawn = login == DEV and CASES == _FEW
    config.write_text((HERE / "schemathesis.toml").read_text() + (NOT_DRAWN_BY_DAY if is_drawn else ""))
    command = [require_program("schemathesis"), "--config-file", str(config), "run"]
    command += [f"{server.url}/api/openapi.json", "--auth", ":".join(login), "--seed", str(SEED)]
    command += ["--max-examples", str(EXAMPLES), "--suppress-health-check", "all", "--continue-on-failure"]
    command += ["--no-shrink", "--request-timeout", "30"]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "TASK_ID": task_id}
    if CASES == _FEW:
        command += ["--phases", "examples,fuzzing,stateful" if login == DEV else "coverage"]
        environ["EVERY"] = "1" if login == DEV else "3"
    command += ["--report", "json", "--report-json-path", str(report(folder, login[0]))]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
