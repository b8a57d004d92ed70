"""The archiver killed at random moments: no task is lost, none is there twice, and each byte and event is as it was."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from flansible.history import schema
from flansible.history.archive import Archive
from flansible.history.merged_records import Records
from flansible.store import ListFilter
from tests.helpers.archived_tasks import everything, list_of, make_tasks
from tests.helpers.history import opened
from tests.helpers.waiting import eventually

_ARCHIVES = """
import sys, time
from flansible.history.limits import HistoryLimits
from flansible.store import Store
from flansible.worker import archiver
redis_url, history_url = sys.stdin.read().split()
archiver.ELECTED_SECONDS = 0.5  # the next one need not wait for long
archiver._RENEW_SECONDS = 0.1
found = archiver.Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(365))
print("ready", flush=True)
while True:
    found.tick()
    time.sleep(0.01)
"""


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 10.0))
    yield records
    records.close()


def start_archiver(redis_url: str, history_url: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _ARCHIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{redis_url} {history_url}")
    process.stdin.close()
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])])
def test_an_archiver_that_is_killed_again_and_again(
    records: Records, redis_url: str, history_url: str, rounds: int
) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    tasks: list[str] = []
    before = []
    for number in range(rounds):
        tasks += make_tasks(records, seed=number)
        before += [everything(records, task_id, random.Random(task_id)) for task_id in tasks[len(before) :]]
        process = start_archiver(redis_url, history_url)
        time.sleep(dice.uniform(0.0, 1.5))  # the moment of the kill
        end(process)
        assert [task.task_id for task in list_of(records, ListFilter(), 50)] == tasks[::-1], seed
    process = start_archiver(redis_url, history_url)
    eventually(lambda: records.finished_count() == 0, 60)
    end(process)
    for task_id, found in zip(tasks, before, strict=True):
        assert everything(records, task_id, random.Random(task_id)) == found, (seed, task_id)
    assert [task.task_id for task in list_of(records, ListFilter(), 50)] == tasks[::-1], seed
    assert not list(records._redis.scan_iter("flansible:task:0*"))
    with opened(history_url) as database, database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.tasks)).scalar() == len(tasks)
        assert (
            connection.execute(select(func.sum(schema.tasks.c.output_bytes))).scalar()
            == connection.execute(select(func.sum(schema.output_chunks.c.size))).scalar()
        )
