"""Celery's revoke and terminate, by its command and from Python: the same as the cancel route, queued or running."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import servers
from tests.helpers.process_tree import detached, sleepers
from tests.helpers.services import Service, start_service
from tests.helpers.waiting import eventually

UNKNOWN = "7d4be01c-4f0f-4dc6-9d8c-1c1f0e0a5a52"
SLEEP = {"module": "command", "module_args": "sleep 60"}


@pytest.fixture(scope="module")
def service(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One slot: a second task waits. The broker is another Redis, and is there while a test freezes the store."""
    broker = servers.redis(tmp_path_factory.mktemp("broker"), "word")
    broker.start()
    running = start_service(
        root, f"CELERY_BROKER_URL = redis://:word@127.0.0.1:{broker.port}/0\nworker_concurrency = 1\n"
    )
    yield running
    assert running.stop() < 10
    broker.stop()


def control(service: Service, *words: str) -> str:
    """What `celery control` prints; at least one worker has answered."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "celery"), "-A", "flansible.celery_app", "control", *words],
        cwd=service.root,
        env=service.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    return done.stdout


def python(service: Service, statement: str) -> None:
    """A statement of a program that uses our Celery app."""
    code = f"from flansible.celery_app import app\n{statement}"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=service.root, env=service.environ, check=True, timeout=60)


def run_and_wait(service: Service, running: str, queued: int = 1) -> tuple[str, list[str]]:
    """A task that runs, with sleepers of this mark, and some that wait behind it."""
    first = service.submit("ansiblecommand", detached(running))
    eventually(lambda: len(sleepers(running)) >= 4)
    return first, [service.submit("ansiblecommand", SLEEP) for _ in range(queued)]


def state(service: Service, task_id: str) -> str:
    return str(service.status(task_id)["state"])


def test_a_queued_task_is_canceled_at_once_and_never_begins(service: Service) -> None:
    mark = f"81{os.getpid()}.25"
    running, (queued, other, last) = run_and_wait(service, mark, queued=3)
    said = control(service, "revoke", queued, other, "nonsense", UNKNOWN)
    for line in (f"{queued}: canceled", f"{other}: canceled", "nonsense: unknown", f"{UNKNOWN}: unknown"):
        assert line in said
    assert [state(service, task_id) for task_id in (running, queued, other, last)] == [
        "running",
        "canceled",
        "canceled",
        "queued",
    ]
    assert service.status(queued)["description"] == "canceled by Celery's revoke before it started"
    control(service, "revoke", running)
    eventually(lambda: state(service, last) == "running")  # the messages of the others were dropped on the way
    service.client().post(f"/api/ansibletaskcancel/{last}")
    assert service.wait(running)["state"] == service.wait(last)["state"] == "canceled"
    assert service.status(queued)["started_at"] is None


@pytest.mark.by_day(1)
@pytest.mark.parametrize("words", [("revoke",), ("terminate", "KILL")])
def test_a_run_is_ended_with_all_it_started(service: Service, words: tuple[str, ...]) -> None:
    mark = f"82{len(words)}{os.getpid()}.25"
    running, _ = run_and_wait(service, mark, queued=0)
    assert f"{running}: is being ended" in control(service, *words, running)
    status = service.wait(running)
    assert (status["Status"], status["state"]) == ("CANCELED", "canceled")
    assert status["description"].startswith("canceled by Celery's revoke; ")
    assert sleepers(mark) == []
    assert f"{running}: canceled" in control(service, *words, running)  # asking again changes nothing
    assert service.status(running) == status


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    "call",
    [
        "app.control.revoke({ids})",
        "app.control.revoke({ids}, terminate=True, signal='KILL')",
        "app.control.terminate({ids})",
        "[app.AsyncResult(task_id).revoke(terminate=True) for task_id in {ids}]",
    ],
)
def test_a_program_revokes_several_at_once(service: Service, call: str) -> None:
    mark = f"83{os.getpid()}.25"
    running, queued = run_and_wait(service, mark)
    python(service, call.format(ids=[running, *queued]))
    for task_id in (running, *queued):
        assert service.wait(task_id)["state"] == "canceled"
    assert sleepers(mark) == []


@pytest.mark.nightly
def test_a_final_task_stays_what_it_is(service: Service) -> None:
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    before = service.wait(task_id)
    assert f"{task_id}: succeeded" in control(service, "revoke", task_id)
    assert service.status(task_id) == before


def test_nothing_of_that_is_a_fault_in_the_log(service: Service) -> None:
    said = service.log.read_text()
    assert "Traceback" not in said and "ERROR" not in said, said


def test_while_the_store_is_frozen_the_worker_answers_and_the_task_is_canceled_afterwards(service: Service) -> None:
    running = service.submit("ansiblecommand", SLEEP)
    eventually(lambda: state(service, running) == "running")
    queued = service.submit("ansiblecommand", SLEEP)
    store = next(c for c in psutil.Process(service.process.pid).children() if "redis" in c.cmdline()[0])
    store.suspend()
    try:
        assert f"{queued}: will be canceled" in control(service, "revoke", queued, running)
        assert "OK" in control(service, "enable_events")  # the consumer is not held up
    finally:
        store.resume()
    assert service.wait(queued)["state"] == service.wait(running)["state"] == "canceled"
