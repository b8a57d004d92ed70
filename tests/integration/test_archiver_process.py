"""The process that archives: there when something is to be done, gone when nothing is, or when its worker is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from flansible.history import schema
from flansible.history.limits import HistoryLimits
from flansible.store import Store
from flansible.worker.archiver_process import ArchiverOrder, ArchiverProcess
from tests.helpers.archived_tasks import MadeTask
from tests.helpers.history import Databases, opened
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually

Make = Callable[..., ArchiverProcess]


@pytest.fixture
def make(redis_url: str) -> Iterator[Make]:
    made: list[ArchiverProcess] = []

    def new(url: str, after_seconds: float = 0.0) -> ArchiverProcess:
        order = ArchiverOrder(redis_url, url, after_seconds, HistoryLimits(365), "warning")
        made.append(ArchiverProcess(Store(redis_url), order))
        return made[-1]

    yield new
    for found in made:
        found.stop()


def is_running(found: ArchiverProcess) -> bool:
    return found._process is not None and found._process.poll() is None


def test_it_migrates_at_the_start_and_is_gone_when_there_is_nothing_to_do(
    make: Make, databases: Databases, tmp_path: Path
) -> None:
    url = databases.empty("sqlite", tmp_path)
    found = make(url)
    found.tick()
    assert is_running(found)
    eventually(lambda: not is_running(found))
    with opened(url) as database:
        assert database.version() == schema.VERSION
    for _ in range(3):
        found.tick()
        assert found._process is None


def test_it_migrates_at_the_start_although_a_killed_one_is_still_elected(
    make: Make, store: Store, databases: Databases, tmp_path: Path
) -> None:
    """Killed just before the upgrade, or elected when the backup was made from which Redis came back."""
    url = databases.empty("sqlite", tmp_path)
    assert store.elect_archiver("killed", 1.0) is not None
    found = make(url)
    found.tick()
    assert found._process is None, "it could do nothing, and would not be started again for an hour"
    eventually(lambda: found.tick() or is_running(found))
    eventually(lambda: not is_running(found))
    with opened(url) as database:
        assert database.version() == schema.VERSION


def test_it_is_started_for_a_task_that_is_due(make: Make, store: Store, history_url: str) -> None:
    found = make(history_url)
    found.tick()
    eventually(lambda: not is_running(found))
    late = make(history_url, 3600.0)
    late._hourly_at, late._run_id = time.monotonic() + 3600, store.run_id()
    MadeTask(store).end()
    late.tick()
    assert late._process is None, "an hour has not passed"
    found.tick()
    assert is_running(found)
    eventually(lambda: store.finished_count() == 0)
    MadeTask(store).end()
    eventually(lambda: store.finished_count() == 0)  # it has waited for a moment
    assert is_running(found)
    found.stop()
    assert not is_running(found)
    with opened(history_url) as database, database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.tasks)).scalar() == 2


def test_a_task_that_cannot_be_archived_keeps_none_running_and_is_a_reason_each_hour_alone(
    make: Make, store: Store, history_url: str
) -> None:
    damaged = MadeTask(store).end()
    store._redis.hset(f"flansible:task:{damaged}", "kind", "no such kind")
    found = make(history_url)
    found.tick()
    eventually(lambda: not is_running(found))
    for _ in range(3):
        found.tick()
        assert found._process is None
    MadeTask(store).end()
    found.tick()
    assert is_running(found)
    eventually(lambda: store.finished_count() == 1)
    eventually(lambda: not is_running(found))
    found.tick()
    assert found._process is None
    found._hourly_at = 0.0
    found.tick()
    assert is_running(found)


def test_it_is_started_for_a_task_of_a_worker_whose_clock_is_fast(make: Make, store: Store, history_url: str) -> None:
    found = make(history_url, 3600.0)
    found._hourly_at, found._run_id = time.monotonic() + 3600, store.run_id()
    store._redis.hset(f"flansible:task:{MadeTask(store).end()}", "finished_at", "2126-01-31T12:00:00.000Z")
    found.tick()
    assert is_running(found)
    eventually(lambda: store.finished_count() == 0)


def test_none_is_started_while_another_worker_has_one(make: Make, store: Store, history_url: str) -> None:
    found = make(history_url)
    found._hourly_at, found._run_id = time.monotonic() + 3600, store.run_id()
    MadeTask(store).end()
    assert store.elect_archiver("another worker's", 30.0)
    found.tick()
    assert found._process is None
    assert store.elect_archiver("another worker's", 0.0)
    found.tick()
    assert is_running(found)


def test_a_restarted_redis_is_a_reason(
    make: Make, own_redis: RedisServer, databases: Databases, tmp_path: Path
) -> None:
    order = ArchiverOrder(own_redis.url, databases.migrated("sqlite", tmp_path), 0.0, HistoryLimits(365), "warning")
    found = ArchiverProcess(Store(own_redis.url), order)
    found._hourly_at, found._run_id = time.monotonic() + 3600, found._store.run_id()
    found.tick()
    assert found._process is None
    own_redis.kill()
    found.tick()  # Redis is away
    own_redis.start()
    found.tick()
    assert is_running(found)
    found.stop()


_WORKER = """
import json, sys, time
from flansible.history.limits import HistoryLimits
from flansible.store import Store
from flansible.worker.archiver_process import ArchiverOrder, ArchiverProcess
redis_url, url = json.loads(sys.stdin.readline())
found = ArchiverProcess(Store(redis_url), ArchiverOrder(redis_url, url, 0.0, HistoryLimits(365), "warning"))
found.start()
print("started", flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_worker_and_shows_no_password(redis_url: str, databases: Databases, store: Store) -> None:
    url = databases.migrated("postgresql", Path("/"))
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(json.dumps([redis_url, url]) + "\n")
    worker.stdin.close()
    assert worker.stdout.readline() == "started\n"
    for _ in range(300):
        MadeTask(store).end()
    try:
        [process] = eventually(lambda: psutil.Process(worker.pid).children())
        eventually(lambda: store.finished_count() < 300)
        shown = " ".join(process.cmdline()) + str(process.environ())
        assert "pass-w" not in shown and "w%C3" not in shown
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
