"""What nobody looks after is settled: by the worker's process, by its lease, and never too soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flansible.broker import app as broker_app
from flansible.broker import recovery
from flansible.broker.recovery import CONFIRM_SECONDS, SILENT_SECONDS, Recovery
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
    monkeypatch.setattr(broker_app, "enqueue", lambda task_id, summary, **_: found.append(task_id))
    return found


@pytest.fixture
def dead() -> str:
    """The name of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host, boot, namespace, _, _, machine = process_identity.own_identity().split()
    began = process_identity._start_ticks(child.pid)
    child.communicate(b"\n")
    return f"{host} {boot} {namespace} {child.pid} {began} {machine}"


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


def test_a_run_is_not_lost_before_everything_its_dead_worker_had_started_is_gone(
    store: Store, dead: str, sent: list[str]
) -> None:
    """Its keeper may still be ending it: the task must not be started again meanwhile."""
    task_id, _ = claimed(store, dead, on_lost="requeue")
    code = "import sys; print(flush=True); input()"
    left = subprocess.Popen(
        [sys.executable, "-c", code, process_identity.tag(dead)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert left.stdout is not None and left.stdout.readline()
    Recovery(store).run_round()
    assert status(store, task_id).state is State.RUNNING
    left.communicate(b"\n")
    Recovery(store).run_round()
    assert status(store, task_id).state is State.QUEUED and sent == [task_id]


UNSEEN = {"elsewhere": (0, "elsewhere"), "another container": (2, "pid:[1]"), "another machine": (5, "another")}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN)
def test_a_worker_that_cannot_be_seen_from_here_is_judged_by_its_lease(
    store: Store, dead: str, change: tuple[int, str]
) -> None:
    parts = dead.split()
    parts[1], parts[change[0]] = "another-boot", change[1]
    task_id, _ = claimed(store, " ".join(parts))
    clock = Clock()
    judge = Recovery(store, clock)
    judge.run_round()
    assert status(store, task_id).state is State.RUNNING
    lapse(store, task_id)
    for _ in range(int(CONFIRM_SECONDS) + 1):
        assert status(store, task_id).state is State.RUNNING
        judge.run_round()
        clock.seconds += 1
    assert status(store, task_id).state is State.LOST
    assert "lost its connection" in status(store, task_id).description


@pytest.mark.skipif(
    os.readlink("/proc/self/ns/pid") != process_identity._FIRST_NAMESPACE or process_identity._machine() == "?",
    reason="in a container nobody can tell a restarted machine from another one",
)
def test_a_run_on_a_machine_that_was_restarted_is_lost_at_once(store: Store, dead: str) -> None:
    parts = dead.split()
    parts[1] = "another-boot"
    task_id, _ = claimed(store, " ".join(parts))
    Recovery(store).run_round()
    assert status(store, task_id).state is State.LOST
    assert "was restarted" in status(store, task_id).description


def test_a_silent_worker_is_named_in_the_description_and_its_task_is_still_running(store: Store) -> None:
    task_id, claim = claimed(store, "there boot pid:[1] 1 1")
    clock = Clock()
    judge = Recovery(store, clock)
    left = claim.lease_seconds - SILENT_SECONDS - 1
    store._redis.zadd("flansible:leases", {task_id: time.time() + left})
    for _ in range(4):
        assert "has not been heard of" not in status(store, task_id).description, "this process has only just woken up"
        judge.run_round()
        clock.seconds += 1
    found = status(store, task_id)
    assert found.state is State.RUNNING and "running on flansible@here" in found.description
    since = datetime.fromisoformat(found.description.rpartition(" since ")[2])
    assert timedelta(seconds=SILENT_SECONDS) < datetime.now(UTC) - since < timedelta(seconds=SILENT_SECONDS + 20)
    store.renew_leases("w", 1, [(task_id, claim.token)])
    assert "has not been heard of" not in status(store, task_id).description


def test_a_silent_task_that_is_canceled_is_canceled_when_the_lease_is_over(store: Store) -> None:
    task_id, _ = claimed(store, "there boot pid:[1] 1 1", on_lost="requeue")
    assert store.cancel(task_id, "dev") is State.RUNNING
    clock = Clock()
    judge = Recovery(store, clock)
    # The end of the lease is seen to come, and is no later than it was to be.
    for left in (CONFIRM_SECONDS - 1, CONFIRM_SECONDS - 1, CONFIRM_SECONDS - 1, -1):
        assert status(store, task_id).state is State.RUNNING
        store._redis.zadd("flansible:leases", {task_id: time.time() + left})
        judge.run_round()
        clock.seconds += 2
    assert status(store, task_id).state is State.CANCELED


def test_a_worker_that_is_seen_to_run_gets_the_time_of_another_lease(store: Store) -> None:
    """Load alone makes renewals late; it is asked by its process first."""
    task_id, claim = claimed(store, process_identity.own_identity())
    clock = Clock()
    judge = Recovery(store, clock)
    for late, state in ((claim.lease_seconds - 5, State.RUNNING), (claim.lease_seconds + 5, State.LOST)):
        store._redis.zadd("flansible:leases", {task_id: time.time() - late})
        for _ in range(int(CONFIRM_SECONDS) + 2):
            judge.run_round()
            clock.seconds += 1
        assert status(store, task_id).state is state


def test_a_lease_that_is_renewed_in_time_saves_the_run(store: Store) -> None:
    task_id, claim = claimed(store, "there boot pid:[1] 1 1")
    clock = Clock()
    judge = Recovery(store, clock)
    lapse(store, task_id)
    judge.run_round()
    clock.seconds += 2
    store.renew_leases("w", 1, [(task_id, claim.token)])
    for _ in range(20):
        judge.run_round()
        clock.seconds += 1
    assert status(store, task_id).state is State.RUNNING


def test_after_redis_was_frozen_every_worker_has_time_to_speak_for_its_runs(store: Store) -> None:
    """All leases come to their end together then, and this process may be answered before the workers are heard."""
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


def test_a_dead_worker_is_not_waited_for_after_a_restart_of_redis(store: Store, dead: str) -> None:
    for name in (dead, "there boot pid:[1] 1 1"):
        store.renew_leases(name, 1, [])
    store._redis.hset("flansible:store", "run_id", "another")
    Recovery(store).run_round()
    assert store.awaited_workers() == ["there boot pid:[1] 1 1"]


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
