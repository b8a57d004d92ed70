"""Looks in the store: claimed, run and settled as every task, and known to no list, no count and nobody afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from flansible.models import State
from flansible.store import Batch, Claim, ClaimRefusal, Progress, Store, StoredEvent
from flansible.store.task_records import HIDDEN_SECONDS
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import CLAIM, make_run, new_id, token_of

LOCK = "\0look of dev"
PLAN = Batch(Progress(), b"[WARNING]: x\n", (StoredEvent('{"event": "plan"}'),), (), 13)


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


def hidden(store: Store) -> str:
    task_id = new_id()
    store.submit(task_id, make_run(hidden=True, locks=(LOCK,)), b"sealed")
    return task_id


def claimed(store: Store) -> str:
    task_id = hidden(store)
    assert isinstance(store.claim(task_id, "worker", CLAIM), Claim)
    return task_id


def keys(raw: redis.Redis) -> dict[str, int]:
    """Every key, and the seconds it is kept; -1: for ever."""
    return {key.decode(): int(raw.ttl(key)) for key in raw.keys()}


def all_of(task_id: str, kept: dict[str, int]) -> bool:
    others = kept.keys() - {"flansible:sequence", "flansible:token", "flansible:store"}
    return all(key.startswith(f"flansible:task:{task_id}") and 0 < kept[key] <= HIDDEN_SECONDS for key in others)


def test_what_waits_is_in_no_list_and_goes_by_itself(store: Store, raw: redis.Redis) -> None:
    task_id = hidden(store)
    assert store.tasks(None, None, None, 10).tasks == ()
    assert (store.count(State.QUEUED), store.oldest_queued(10), store.oldest_queued(10, was_sent=False)) == (0, [], [])
    assert all_of(task_id, keys(raw))
    store.mark_enqueued(task_id)
    assert all_of(task_id, keys(raw))
    store.discard(task_id)
    assert keys(raw).keys() == {"flansible:sequence", "flansible:store"}


def test_what_runs_has_a_lease_and_counts_nowhere(store: Store, raw: redis.Redis) -> None:
    task_id = claimed(store)
    assert (store.count(State.RUNNING), store.tasks("dev", State.RUNNING, None, 10).tasks) == (0, ())
    assert store.append(task_id, token_of(store, task_id), PLAN).outcome == "running"
    # Should everybody die now, nothing of it stays.
    kept = {key: seconds for key, seconds in keys(raw).items() if key.startswith("flansible:task:")}
    assert all_of(task_id, kept)
    assert raw.zcard("flansible:leases") == 1


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELED, State.LOST])
def test_what_has_ended_is_kept_for_minutes_and_nothing_else_of_it(
    store: Store, raw: redis.Redis, state: State
) -> None:
    task_id = claimed(store)
    store.append(task_id, token_of(store, task_id), PLAN)
    store.settle(task_id, state, "over")
    assert [event["event"] for event in store.events(task_id)] == ["plan", "final"]
    assert all_of(task_id, keys(raw))
    assert store.prune() == 0


def test_looks_with_one_lock_go_one_after_the_other(store: Store) -> None:
    first, second = claimed(store), hidden(store)
    refusal = store.claim(second, "worker", CLAIM)
    assert isinstance(refusal, ClaimRefusal) and refusal.reason == f"locked_by: {first}"
    assert [task.task_id for task in store.settle(first, State.SUCCEEDED, "over").ready] == [second]


def test_a_canceled_look_is_never_started(store: Store) -> None:
    task_id = hidden(store)
    assert store.cancel(task_id, "dev") is State.CANCELED
    assert isinstance(store.claim(task_id, "worker", CLAIM), ClaimRefusal)
