"""What nobody looks after is settled: by the worker's process, by its lease, and never too soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flansible.broker import app as broker_app
from flansible.broker import recovery
from flansible.broker.recovery import CONFIRM_SECONDS, Recovery
from flansible.models import State, TaskStatus
from flansible.store import Batch, Claim, Progress, Store, StoredEvent
from flansible.system import process_identity
from tests.helpers.runs import make_run, new_id


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of tasks that were put on the queue."""
    found: list[str] = []
    monkeypatch.setattr(broker_app, "enqueue", lambda task_id, summary, priority=False: found.append(task_id))
    return found


@pytest.fixture
def dead() -> str:
    """The name of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host, boot, namespace, _, _ = process_identity.own_identity().split()
    began = process_identity._start_ticks(child.pid)
    child.communicate(b"\n")
    return f"{host} {boot} {namespace} {child.pid} {began}"


def claimed(store: Store, process: str, **fields: object) -> tuple[str, Claim]:
    task_id = new_id()
    store.submit(task_id, make_run(**fields))  # type: ignore[arg-type]
    store.mark_enqueued(task_id)
    claim = store.claim(task_id, "flansible@here", process=process)
    assert isinstance(claim, Claim)
    return task_id, claim


def lapse(store: Store, *task_ids: str) -> None:
    for task_id in task_ids:
        store._redis.zadd("flansible:leases", {task_id: 1})


def status(store: Store, task_id: str) -> TaskStatus:
    found = store.task(task_id)
    assert found is not None
    return found


def test_a_run_whose_worker_is_gone_from_this_machine_is_lost_at_once(store: Store, dead: str) -> None:
    gone, _ = claimed(store, dead)
    alive, _ = claimed(store, process_identity.own_identity())
    Recovery(store).run_round()
    assert status(store, gone).state is State.LOST
    assert "died while it ran" in status(store, gone).description and dead.split()[3] in status(store, gone).description
    assert status(store, alive).state is State.RUNNING
    assert [event["event"] for event in store.events(gone)] == ["final"]


@pytest.mark.parametrize("change", [(1, "another-boot"), (2, "pid:[1]"), (0, "elsewhere")])
def test_a_worker_that_cannot_be_seen_from_here_is_judged_by_its_lease(
    store: Store, dead: str, change: tuple[int, str]
) -> None:
    parts = dead.split()
    parts[change[0]] = change[1]
    task_id, _ = claimed(store, " ".join(parts))
    clock = Clock()
    judge = Recovery(store, clock)
    judge.run_round()
    if change[0] == 0:  # another name of this machine: the same boot and the same processes
        assert status(store, task_id).state is State.LOST
        return
    assert status(store, task_id).state is State.RUNNING
    lapse(store, task_id)
    for _ in range(int(CONFIRM_SECONDS) + 1):
        assert status(store, task_id).state is State.RUNNING
        judge.run_round()
        clock.seconds += 1
    assert status(store, task_id).state is State.LOST
    word = "was restarted" if change[0] == 1 else "lost its connection"
    assert word in status(store, task_id).description


def test_a_lease_that_is_renewed_in_time_saves_the_run(store: Store) -> None:
    task_id, _ = claimed(store, "there boot pid:[1] 1 1")
    clock = Clock()
    judge = Recovery(store, clock)
    lapse(store, task_id)
    judge.run_round()
    clock.seconds += 2
    store.renew_leases("w", 1, [task_id])
    for _ in range(20):
        judge.run_round()
        clock.seconds += 1
    assert status(store, task_id).state is State.RUNNING


def test_after_redis_was_frozen_every_worker_has_time_to_speak_for_its_runs(store: Store) -> None:
    """All leases lapse together then, and the reaper's question may be answered before the worker's word is heard."""
    task_id, _ = claimed(store, "there boot pid:[1] 1 1")
    clock = Clock()
    judge = Recovery(store, clock)
    lapse(store, task_id)
    for _ in range(3):
        judge.run_round()
        clock.seconds += 1
    clock.seconds += 60
    judge.run_round()
    clock.seconds += CONFIRM_SECONDS - 2
    judge.run_round()
    assert status(store, task_id).state is State.RUNNING


def test_what_is_to_begin_again_is_sent_and_the_third_time_is_the_last(
    store: Store, dead: str, sent: list[str]
) -> None:
    task_id, claim = claimed(store, dead, on_lost="requeue")
    event = StoredEvent(json.dumps({"event": "host_result"}), "h")
    store.append(task_id, claim.token, Batch(Progress(), b"text", (event,), (), 4))
    for attempt in (2, 3):
        Recovery(store).run_round()
        found = status(store, task_id)
        assert (found.state, found.attempt) == (State.QUEUED, attempt)
        assert sent == [task_id] * (attempt - 1)
        assert store.hosts(task_id, 0, 10) == []
        assert isinstance(store.claim(task_id, "w", process=dead), Claim)
    Recovery(store).run_round()
    assert status(store, task_id).state is State.LOST
    assert sent == [task_id] * 2
    assert [item["event"] for item in store.events(task_id)] == ["host_result", "restart", "restart", "final"]
    assert store.output(task_id, 0, 100) == b"text"


def test_a_lost_run_that_was_to_be_canceled_is_canceled(store: Store, dead: str, sent: list[str]) -> None:
    task_id, _ = claimed(store, dead, on_lost="requeue")
    store.cancel(task_id, "dev")
    Recovery(store).run_round()
    assert status(store, task_id).state is State.CANCELED
    assert "canceled by dev" in status(store, task_id).description and sent == []


def test_whoever_waited_for_a_lost_run_is_sent(store: Store, dead: str, sent: list[str]) -> None:
    claimed(store, dead, locks=("l",))
    waiting = new_id()
    store.submit(waiting, make_run(locks=("l",)))
    store.mark_enqueued(waiting)
    assert not isinstance(store.claim(waiting, "w"), Claim)
    Recovery(store).run_round()
    assert sent == [waiting]


def test_what_was_never_put_on_the_queue_ends_and_says_so(store: Store) -> None:
    task_id, fresh = new_id(), new_id()
    for one in (task_id, fresh):
        store.submit(one, make_run())
    old = (datetime.now(UTC) - timedelta(seconds=1200)).isoformat()
    store._redis.hset(f"flansible:task:{task_id}", "submitted_at", old)
    Recovery(store).run_round()
    assert status(store, task_id).state is State.ERROR
    assert "never put on the queue" in status(store, task_id).description
    assert status(store, fresh).state is State.QUEUED


@pytest.fixture
def started(store: Store) -> Iterator[Callable[[], Recovery]]:
    made: list[Recovery] = []

    def start() -> Recovery:
        made.append(Recovery(store))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()
        one._thread.join(5)


def test_several_reapers_at_once_lose_a_run_once(
    store: Store, dead: str, started: Callable[[], Recovery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "TICK_SECONDS", 0.01)
    for _ in range(4):
        started()
    ids = [claimed(store, dead)[0] for _ in range(20)]
    give_up_at = datetime.now(UTC) + timedelta(seconds=20)
    while any(status(store, task_id).state is State.RUNNING for task_id in ids):
        assert datetime.now(UTC) < give_up_at
        os.sched_yield()
    for task_id in ids:
        assert [event["event"] for event in store.events(task_id)] == ["final"]
