"""Queues in the store: which workers count for a task, and whose lost messages are sent again by whom."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from flansible.config import values
from flansible.identity import rbac_schema
from flansible.models import State, TaskStatus
from flansible.models.request_fields import QueueName
from flansible.store import Claim, ReadyTask, Store
from tests.helpers.runs import make_run, new_id


def queued(store: Store, queue: str = "default", *locks: str, **changes: Any) -> str:
    task_id = new_id()
    store.submit(task_id, make_run(queue=queue, locks=locks, **changes))
    store.mark_enqueued(task_id)
    return task_id


def status(store: Store, task_id: str) -> TaskStatus:
    found = store.task(task_id)
    assert found is not None
    return found


def ids(tasks: list[TaskStatus]) -> list[str]:
    return [task.task_id for task in tasks]


def test_a_task_whose_queue_nobody_serves_says_so(store: Store) -> None:
    store.renew_leases("one", 4, [])
    task_id = queued(store, "dmz")
    found = status(store, task_id)
    assert (found.reason, found.queue) == ("no_worker", "dmz")
    assert found.description == "waiting for a worker: none is running that serves queue dmz"
    assert status(store, queued(store)).reason == "starting"
    store.renew_leases("two", 1, [], queues=("lan", "dmz"))
    assert status(store, task_id).reason == "starting"
    store.remove_worker("two")
    assert status(store, task_id).reason == "no_worker"


def test_a_worker_of_another_queue_is_none_of_the_default_one(store: Store) -> None:
    store.renew_leases("one", 4, [], queues=("dmz",))
    found = status(store, queued(store))
    assert (found.reason, found.queue, found.description) == (
        "no_worker",
        None,
        "waiting for a worker: none is running",
    )


def test_runs_of_other_queues_take_no_slot(store: Store) -> None:
    busy = queued(store)
    assert isinstance(store.claim(busy, "worker"), Claim)
    store.renew_leases("one", 1, [(busy, int(store._redis.hget(f"flansible:task:{busy}", "token") or 0))])  # type: ignore[arg-type]
    store.renew_leases("two", 1, [], queues=("dmz",))
    assert status(store, queued(store, "dmz")).reason == "starting"
    assert status(store, queued(store)).reason == "workers_busy"


def test_a_queue_is_shown_until_the_end(store: Store) -> None:
    task_id = queued(store, "dmz")
    assert isinstance(claim := store.claim(task_id, "worker"), Claim)
    assert (status(store, task_id).queue, claim.run.queue) == ("dmz", "dmz")
    store.settle(task_id, State.SUCCEEDED, "done")
    assert status(store, task_id).queue is None


def test_a_waiter_is_announced_with_its_queue(store: Store) -> None:
    holder = queued(store, "default", "db")
    store.claim(holder, "worker")
    waiters = [queued(store, queue, "db", summary=queue) for queue in ("dmz", "default")]
    for waiter in waiters:
        store.claim(waiter, "worker")
    assert store.settle(holder, State.SUCCEEDED, "").ready == (ReadyTask(waiters[0], "dmz", "dmz"),)
    store.claim(waiters[0], "worker")
    assert store.settle(waiters[0], State.SUCCEEDED, "").ready == (ReadyTask(waiters[1], "default", "default"),)


def announced(ready: tuple[ReadyTask, ...]) -> list[str]:
    return [one.task_id for one in ready]


@pytest.mark.parametrize(
    ("locks", "changes"),
    [(("db",), {}), ((), {"max_running": 1}), ((), {"exclusive": "hosts"})],
    ids=["lock", "user", "hosts"],
)
@pytest.mark.parametrize("is_announced", [False, True])
def test_a_waiter_whose_worker_is_gone_blocks_nobody(
    store: Store, locks: tuple[str, ...], changes: dict[str, Any], is_announced: bool
) -> None:
    def waits(queue: str) -> str:
        task_id = queued(store, queue, *locks, **changes)
        store.set_hosts(task_id, ["web1"])
        assert not isinstance(store.claim(task_id, "worker"), Claim)
        return task_id

    store.renew_leases("one", 4, [])
    store.renew_leases("two", 1, [], queues=("dmz",))
    holder = queued(store, "default", *locks, **changes)
    store.set_hosts(holder, ["web1"])
    store.claim(holder, "worker")
    first, second = waits("dmz"), waits("default")
    if is_announced:
        assert announced(store.settle(holder, State.SUCCEEDED, "").ready)[0] == first
        store.remove_worker("two")
    else:
        store.remove_worker("two")
        assert first in announced(store.settle(holder, State.SUCCEEDED, "").ready)
    store.ready_tasks()
    assert store._redis.hget(f"flansible:task:{second}", "told"), "or nobody would send its message"
    assert isinstance(store.claim(second, "worker"), Claim)
    assert store.ready_tasks() == ()
    assert (status(store, first).reason, status(store, first).queue) == ("no_worker", "dmz")
    store.renew_leases("two", 1, [], queues=("dmz",))
    assert first in ids(store.oldest_queued(9, queues=("dmz",))), "should its message have been lost"
    assert not isinstance(store.claim(first, "two"), Claim), "it waits in its place again"
    assert announced(store.settle(second, State.SUCCEEDED, "").ready) == [first]
    assert isinstance(store.claim(first, "two"), Claim)


def test_waiters_of_a_queue_that_nobody_serves_are_passed_over_however_many(store: Store) -> None:
    store.renew_leases("one", 4, [])
    holder = queued(store, "default", "db")
    store.claim(holder, "worker")
    others, ours = [queued(store, "dmz", "db") for _ in range(250)], queued(store, "default", "db")
    for task_id in (*others, ours):
        store.claim(task_id, "worker")
    sent = announced(store.settle(holder, State.SUCCEEDED, "").ready)
    assert len(sent) == 100, "no step is long"
    for _ in range(3):
        sent += announced(store.ready_tasks())
    assert sent == [*others, ours], "each once"


def test_while_no_worker_is_alive_waiters_keep_their_places(store: Store) -> None:
    holder = queued(store, "default", "db")
    store.claim(holder, "worker")
    waiters = [queued(store, "default", "db") for _ in range(3)]
    for waiter in waiters:
        store.claim(waiter, "worker")
    assert announced(store.settle(holder, State.SUCCEEDED, "").ready) == waiters[:1]
    assert store.ready_tasks() == ()


def test_those_that_wait_are_found_by_queue_behind_any_number_of_others(store: Store) -> None:
    others = [queued(store, "dmz") for _ in range(1100)]
    ours, more = queued(store), queued(store, "lan")
    assert ids(store.oldest_queued(5, queues=("default",))) == [ours]
    assert ids(store.oldest_queued(5, queues=("lan", "default"))) == [ours, more]
    assert ids(store.oldest_queued(3, queues=("dmz",))) == others[:3]
    assert ids(store.oldest_queued(3)) == others[:3]


def test_a_task_is_overtaken_by_those_of_its_own_queue_alone(store: Store) -> None:
    of_dmz, of_default = queued(store, "dmz"), queued(store)
    later = queued(store)
    store.claim(later, "worker")
    assert ids(store.overtaken(10, 0)) == [of_default]
    assert store.overtaken(10, 0) == [], "each of its messages waits for a worker"
    latest = queued(store, "dmz")
    store.claim(latest, "worker")
    assert ids(store.overtaken(10, 0)) == [of_dmz]


def test_workers_report_their_queues(store: Store) -> None:
    store.report_worker("a@host", "one", "", queues=("dmz", "default"))
    store.report_worker("b@host", "two", "")
    assert [record.queues for record in store.worker_records()] == [("dmz", "default"), ("default",)]


@pytest.mark.parametrize("name", ["default", "dmz-1", "A_b", "x" * 63])
def test_a_name_is_one_wherever_it_is_written(name: str) -> None:
    assert values.queue_names(f" {name} ") == name
    for kind in (rbac_schema.QueueName, QueueName):
        assert TypeAdapter(kind).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "d.m", "-x", "x" * 64, "a b", "ü", "a,,a"])
def test_what_is_no_name_is_none_anywhere(name: str) -> None:
    with pytest.raises(ValueError):
        values.queue_names(name)
    for kind in (rbac_schema.QueueName, QueueName):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(name)
    assert get_args(QueueName)
