"""The queue in the store: who may start, who waits for what, who is told, and what begins again."""

from __future__ import annotations

import collections
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from flansible.errors import IllegalMove, StoreUnavailable
from flansible.models import State, TaskStatus
from flansible.store import (
    AWAITS_REPORTS,
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    Batch,
    Claim,
    ClaimRefusal,
    Idempotency,
    Progress,
    ReadyTask,
    Store,
    StoredEvent,
    SubmitResult,
)
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id, token_of
from tests.helpers.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-ffffffffffff"


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


def queued(store: Store, *locks: str, user: str = "dev", **changes: Any) -> str:
    """A new task whose message is on the queue."""
    task_id = new_id()
    store.submit(task_id, make_run(user, locks=locks, **changes))
    store.mark_enqueued(task_id)
    return task_id


def claim(store: Store, task_id: str) -> int:
    """The token of a claim that must succeed."""
    found = store.claim(task_id, "worker")
    assert isinstance(found, Claim), found
    return found.token


def started(store: Store, *locks: str, user: str = "dev", **changes: Any) -> str:
    task_id = queued(store, *locks, user=user, **changes)
    claim(store, task_id)
    return task_id


def refusal(store: Store, task_id: str) -> ClaimRefusal:
    found = store.claim(task_id, "worker")
    assert isinstance(found, ClaimRefusal), found
    return found


def end(store: Store, task_id: str) -> list[str]:
    """Settles a run; those that may start now."""
    return ids(store.settle(task_id, State.SUCCEEDED, "fine", 0).ready)


def ids(tasks: Iterable[ReadyTask | TaskStatus]) -> list[str]:
    return [task.task_id for task in tasks]


def status(store: Store, task_id: str) -> TaskStatus:
    found = store.task(task_id)
    assert found is not None
    return found


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls that all begin at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


# Locks


def test_two_tasks_that_share_a_lock_never_run_together(store: Store) -> None:
    first, second, other = queued(store, "db", "web"), queued(store, "db"), queued(store, "cache")
    claim(store, first)
    assert refusal(store, second).reason == f"locked_by: {first}"
    claim(store, other)
    assert end(store, first) == [second]
    claim(store, second)


def test_of_twenty_that_want_one_lock_at_the_same_moment_one_gets_it(store: Store) -> None:
    for _ in range(5):
        tasks = [queued(store, "a", "b") for _ in range(20)]
        answers = at_once(*(lambda task_id=task_id: store.claim(task_id, "w") for task_id in tasks))
        won = [task_id for task_id, answer in zip(tasks, answers, strict=True) if isinstance(answer, Claim)]
        assert len(won) == 1
        for task_id in tasks:
            store.settle(task_id, State.CANCELED, "")


def test_a_refused_claim_takes_nothing(store: Store, raw: redis.Redis) -> None:
    holder, waiter = started(store, "b"), queued(store, "a", "b", "c")
    refusal(store, waiter)
    assert raw.hgetall("flansible:locks") == {b"b": holder.encode()}
    claim(store, queued(store, "a"))


@pytest.mark.parametrize("name", ["*", "a:b", "user:dev", "ünï  x", "%d+%z", "'\\\"", "x" * 5000, "line\nbreak"])
def test_any_text_can_be_the_name_of_a_lock(store: Store, raw: redis.Redis, name: str) -> None:
    holder, waiter = started(store, name), queued(store, name)
    assert refusal(store, waiter).reason == f"locked_by: {holder}"
    assert ids(store.ready_tasks()) == []
    assert end(store, holder) == [waiter]
    claim(store, waiter)
    end(store, waiter)
    assert raw.keys("flansible:waiting*") == raw.keys("flansible:locks") == []


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED, State.TIMED_OUT, State.LOST, State.ERROR])
def test_however_a_run_ends_its_locks_are_free(store: Store, state: State) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    assert ids(store.settle(holder, state, "").ready) == [waiter]
    claim(store, waiter)


def test_a_holder_that_nobody_speaks_for_gives_its_lock_to_the_next(store: Store, raw: redis.Redis) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    raw.zadd("flansible:leases", {holder: 1})
    assert ids(store.mark_lost(holder, "its worker is gone").ready) == [waiter]
    claim(store, waiter)


def test_a_holder_whose_record_is_gone_holds_nothing(store: Store, raw: redis.Redis) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    raw.delete(f"flansible:task:{holder}")
    assert ids(store.ready_tasks()) == [waiter]
    claim(store, waiter)


def test_a_queued_or_final_task_in_the_table_of_locks_holds_nothing(store: Store, raw: redis.Redis) -> None:
    final, waiting = started(store), queued(store)
    end(store, final)
    raw.hset("flansible:locks", mapping={"a": final, "b": waiting})
    claim(store, queued(store, "a", "b"))


def test_what_runs_does_not_lose_its_lock_to_the_end_of_another(store: Store, raw: redis.Redis) -> None:
    first, second = started(store, "db"), queued(store, "db")
    raw.hset("flansible:locks", "db", second)  # as after a record that was restored from an older file
    claim(store, second)
    end(store, first)
    assert raw.hget("flansible:locks", "db") == second.encode()


def test_three_that_share_two_locks_each_in_a_ring_all_run(store: Store) -> None:
    one, two, three = (queued(store, *locks) for locks in (("a", "b"), ("b", "c"), ("a", "c")))
    claim(store, one)
    assert refusal(store, two).reason == refusal(store, three).reason == f"locked_by: {one}"
    told = end(store, one)
    assert sorted(told) == [two, three]
    claim(store, two)
    assert refusal(store, three).reason == f"locked_by: {two}"
    assert end(store, two) == [three]
    claim(store, three)


def test_the_same_claim_made_again_keeps_its_locks(store: Store, raw: redis.Redis) -> None:
    task_id = queued(store, "a", "b", max_running=1)
    answers = at_once(*(lambda: store.claim(task_id, "worker", "token") for _ in range(10)))
    assert all(isinstance(answer, Claim) and answer == answers[0] for answer in answers)
    assert raw.hgetall("flansible:locks") == {b"a": task_id.encode(), b"b": task_id.encode()}
    assert refusal(store, task_id).reason == "running"
    assert refusal(store, queued(store, "a")).reason == f"locked_by: {task_id}"


def test_a_claim_that_redis_has_lost_is_restored_with_its_token_and_only_then(store: Store) -> None:
    """Redis is put back: to before the claim, to before the claim was lost and made again, and not at all."""
    task_id = queued(store, "db", on_lost="requeue")
    before, first = store._redis.dump(f"flansible:task:{task_id}"), store.claim(task_id, "w")
    assert isinstance(first, Claim)
    assert store.restore(task_id, first), "nothing was lost: it changes nothing"
    during = store._redis.dump(f"flansible:task:{task_id}")
    store.mark_lost(task_id, "killed", first.token)
    assert not store.restore(task_id, first), "it was given up"
    second = store.claim(task_id, "w")
    assert isinstance(second, Claim) and second.token > first.token and second.attempt == 2
    assert not store.restore(task_id, first)
    for older in (before, during):
        store._redis.restore(f"flansible:task:{task_id}", 0, older, replace=True)
        store._redis.delete(f"flansible:task:{task_id}:events")
        assert store.append(task_id, second.token, Batch(Progress(), b"x", ())).outcome == "forgotten"
        assert store.renew_leases("w", 1, [(task_id, second.token)]) == {(task_id, second.token): "forgotten"}
        assert store.restore(task_id, second)
        found = status(store, task_id)
        assert (found.state, found.attempt) == (State.RUNNING, 2)
        assert refusal(store, queued(store, "db")).reason == f"locked_by: {task_id}"
        assert store.renew_leases("w", 1, [(task_id, first.token)]) == {(task_id, first.token): "begun again"}
        assert store.renew_leases("w", 1, [(task_id, second.token)]) == {}
    store.settle(task_id, State.SUCCEEDED, "", 0, token=second.token)
    assert store.renew_leases("w", 1, [(task_id, second.token)]) == {(task_id, second.token): "succeeded"}


def test_tokens_grow_even_when_redis_is_put_back(store: Store, raw: redis.Redis) -> None:
    tokens = [claim(store, queued(store)) for _ in range(3)]
    raw.delete("flansible:token")
    tokens.append(claim(store, queued(store)))
    raw.set("flansible:token", int(time.time() + 60) * 1_000_000)
    tokens += [claim(store, queued(store)) for _ in range(3)]
    assert tokens == sorted(set(tokens)) and tokens[-1] == tokens[-3] + 2
    assert abs(tokens[3] / 1e6 - time.time()) < 60


# Lines


def test_those_that_wait_are_told_in_the_order_they_came(store: Store) -> None:
    holder = started(store, "db")
    line = [queued(store, "db") for _ in range(5)]
    for task_id in reversed(line):
        refusal(store, task_id)
    for task_id in line:
        assert end(store, holder) == [task_id]
        claim(store, task_id)
        holder = task_id


def test_waiting_twice_is_waiting_once(store: Store) -> None:
    holder, waiter, last = started(store, "db"), queued(store, "db"), queued(store, "db")
    for task_id in (waiter, waiter, last, waiter):
        refusal(store, task_id)
    assert end(store, holder) == [waiter]
    claim(store, waiter)
    assert end(store, waiter) == [last]


def test_the_summary_of_those_that_are_told_comes_with_them(store: Store) -> None:
    holder, waiter = started(store, "db"), queued(store, "db", summary="dev: ünï")
    refusal(store, waiter)
    assert store.settle(holder, State.FAILED, "", 2).ready == (ReadyTask(waiter, "dev: ünï"),)


def test_when_one_that_waits_is_canceled_the_next_is_told(store: Store, raw: redis.Redis) -> None:
    holder, canceled, waiter = started(store, "db"), queued(store, "db"), queued(store, "db")
    refusal(store, canceled)
    refusal(store, waiter)
    assert store.cancel(canceled, "dev") is State.CANCELED
    assert raw.zrange("flansible:waiting:lock:db", 0, -1) == [waiter.encode()]
    assert end(store, holder) == [waiter]


def test_one_that_is_discarded_leaves_its_line(store: Store, raw: redis.Redis) -> None:
    started(store, "db")
    waiter = queued(store, "db")
    refusal(store, waiter)
    store.discard(waiter)
    assert raw.keys("flansible:waiting*") == []
    assert store.ready_tasks() == ()


def test_nobody_is_told_while_the_lock_is_held_or_nobody_waits(store: Store) -> None:
    assert store.ready_tasks() == ()
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    assert store.ready_tasks() == ()
    assert end(store, holder) == [waiter]


def test_one_that_was_told_goes_on_to_wait_elsewhere_and_the_next_is_told(store: Store) -> None:
    """It leaves a lock free that it cannot use: whoever comes after it can."""
    first_a, first_b = started(store, "a"), started(store, "b")
    both, only_a = queued(store, "a", "b"), queued(store, "a")
    refusal(store, both)
    refusal(store, only_a)
    assert end(store, first_a) == [both]
    answer = refusal(store, both)
    assert (answer.reason, ids(answer.ready)) == (f"locked_by: {first_b}", [only_a])
    claim(store, only_a)
    assert end(store, first_b) == [both]
    assert refusal(store, both).reason == f"locked_by: {only_a}"
    assert end(store, only_a) == [both]
    claim(store, both)


def test_one_that_was_told_of_a_lock_and_may_not_run_yet_tells_the_next(store: Store) -> None:
    busy, holder = started(store, user="a", max_running=1), started(store, "db", user="b")
    limited, free = queued(store, "db", user="a", max_running=1), queued(store, "db", user="c")
    assert refusal(store, limited).reason == "user_limit"
    refusal(store, free)
    assert end(store, holder) == [free]
    claim(store, free)
    assert end(store, busy) == [limited]
    assert refusal(store, limited).reason == f"locked_by: {free}"


def test_one_whose_user_may_run_again_and_that_waits_for_a_lock_tells_its_users_next(store: Store) -> None:
    holder, busy = started(store, "db", user="b"), started(store, user="a", max_running=1)
    locked, free = queued(store, "db", user="a", max_running=1), queued(store, user="a", max_running=1)
    assert refusal(store, locked).reason == refusal(store, free).reason == "user_limit"
    assert end(store, busy) == [locked]
    answer = refusal(store, locked)
    assert (answer.reason, ids(answer.ready)) == (f"locked_by: {holder}", [free])
    claim(store, free)


def test_while_one_is_on_its_way_nobody_else_is_told_in_its_place(store: Store) -> None:
    """All workers may be busy for long: the whole line would be sent, and the last one sent would come first."""
    holder = started(store, "db")
    line = [queued(store, "db") for _ in range(3)]
    for task_id in line:
        refusal(store, task_id)
    assert end(store, holder) == line[:1]
    assert [store.ready_tasks() for _ in range(5)] == [()] * 5
    claim(store, line[0])
    assert end(store, line[0]) == line[1:2]


def test_a_newcomer_that_was_faster_does_not_end_the_turn_of_the_one_that_was_told(store: Store) -> None:
    holder, waiter, last = started(store, "db"), queued(store, "db"), queued(store, "db")
    refusal(store, waiter)
    refusal(store, last)
    assert end(store, holder) == [waiter]
    newcomer = started(store, "db")
    assert end(store, newcomer) == [], "it has been told already"
    newcomer = started(store, "db")
    assert refusal(store, waiter).reason == f"locked_by: {newcomer}"
    assert end(store, newcomer) == [waiter], "and is again the first"


def test_one_that_was_told_and_never_came_is_sent_again_by_an_idle_worker(store: Store) -> None:
    holder, waiter, last = started(store, "db"), queued(store, "db"), queued(store, "db")
    refusal(store, waiter)
    refusal(store, last)
    assert store.oldest_queued(10) == [], "those in line wait for something else than a worker"
    assert end(store, holder) == [waiter]
    assert ids(store.oldest_queued(10)) == [waiter]


def pass_half_a_minute(raw: redis.Redis, *tasks: str) -> None:
    """For those of these tasks that were told, or run."""
    for task_id in tasks:
        for field in ("told", "started"):
            if raw.hexists(f"flansible:task:{task_id}", field):
                raw.hincrbyfloat(f"flansible:task:{task_id}", field, -31)


def test_one_that_was_told_and_does_not_come_in_time_keeps_nobody_waiting(store: Store, raw: redis.Redis) -> None:
    """Workers of its queue may be busy for hours, and those of the next one's free."""
    holder, late, last = started(store, "db"), queued(store, "db"), queued(store, "db")
    refusal(store, late)
    refusal(store, last)
    assert end(store, holder) == [late]
    assert store.ready_tasks() == ()
    pass_half_a_minute(raw, late)
    assert ids(store.ready_tasks()) == [last]
    assert ids(store.oldest_queued(10)) == [late, last], "should its message have been lost"
    claim(store, last)
    assert refusal(store, late).reason == f"locked_by: {last}"
    assert end(store, last) == [late], "and it is told again"
    claim(store, late)


def test_while_workers_are_busy_each_one_that_waits_is_sent_once(store: Store, raw: redis.Redis) -> None:
    """Or the queue in the broker would grow for as long."""
    holders = [started(store, "db", user="b"), started(store, user="a", max_running=1)]
    line = [queued(store, "db", user="b") for _ in range(5)]
    line += [queued(store, user="a", max_running=1) for _ in range(5)]
    for task_id in line:
        refusal(store, task_id)
    busy = started(store)
    sent = [task_id for holder in holders for task_id in end(store, holder)]
    for _ in range(15):
        pass_half_a_minute(raw, *line, busy)
        sent += [*ids(store.ready_tasks()), *ids(store.overtaken(10, 0))]
    assert sorted(sent) == line


def test_one_that_was_told_is_sent_again_after_as_long_as_it_had_waited(store: Store, raw: redis.Redis) -> None:
    """Where runs are short, none that was started later runs for long: nothing else would find a lost message."""
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    assert end(store, holder) == [waiter]
    now = time.time()
    for told, submitted, found in ((500, 600, []), (700, 10_000, []), (700, 800, [waiter]), (9_400, 18_700, [waiter])):
        raw.hset(f"flansible:task:{waiter}", mapping={"told": now - told, "submitted": now - submitted})
        assert ids(store.overtaken(10, 0)) == found, (told, submitted)
    assert store.overtaken(10, 0) == [], "it was sent just now"


def test_one_that_was_told_is_overtaken_by_those_that_were_started_later(store: Store, raw: redis.Redis) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    before = started(store)
    assert end(store, holder) == [waiter]
    assert store.overtaken(10, 0) == [], "workers may just be busy"
    after = started(store)
    assert ids(store.overtaken(10, 0)) == [waiter]
    assert store.overtaken(10, 0) == [], "it was sent again"
    end(store, before)
    end(store, after)
    started(store)
    assert ids(store.overtaken(10, 0)) == [waiter]


def test_when_one_that_was_told_is_canceled_the_next_is_found(store: Store) -> None:
    holder, told, waiter = started(store, "db"), queued(store, "db"), queued(store, "db")
    refusal(store, told)
    refusal(store, waiter)
    assert end(store, holder) == [told]
    store.cancel(told, "dev")
    assert ids(store.ready_tasks()) == [waiter]
    claim(store, waiter)


def test_an_end_whose_answer_was_lost_tells_those_that_wait_all_the_same(store: Store) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    end(store, holder)  # nobody hears who was told
    with pytest.raises(IllegalMove):
        end(store, holder)
    assert ids(store.oldest_queued(10)) == [waiter]


def test_many_lines_are_all_looked_at(store: Store, raw: redis.Redis) -> None:
    """One look takes a hundred of them."""
    waiters = set()
    for number in range(150):
        holder, waiter = started(store, f"l{number}"), queued(store, f"l{number}")
        refusal(store, waiter)
        raw.delete(f"flansible:task:{holder}")
        waiters.add(waiter)
    found: set[str] = set()
    eventually(lambda: found.update(ids(store.ready_tasks())) or found == waiters)


# Limits of users


def test_a_user_at_the_limit_waits_and_another_does_not(store: Store) -> None:
    running = [started(store, user="a", max_running=2) for _ in range(2)]
    third, fourth = queued(store, user="a", max_running=2), queued(store, user="a", max_running=2)
    assert refusal(store, third).reason == refusal(store, fourth).reason == "user_limit"
    claim(store, queued(store, user="b", max_running=2))
    assert end(store, running[0]) == [third]
    assert end(store, running[1]) == [fourth], "though the one before has not come yet"
    claim(store, third)
    claim(store, fourth)


def test_of_twenty_claims_at_the_same_moment_no_more_than_the_limit_win(store: Store) -> None:
    tasks = [queued(store, user="a b", max_running=3) for _ in range(20)]
    answers = at_once(*(lambda task_id=task_id: store.claim(task_id, "w") for task_id in tasks))
    assert sum(isinstance(answer, Claim) for answer in answers) == 3
    assert store.count(State.RUNNING) == 3


def test_no_limit_is_no_limit(store: Store) -> None:
    for _ in range(30):
        started(store, user="a", max_running=0, max_queued=0)
    assert store.count(State.RUNNING) == 30


def test_a_user_with_too_many_tasks_waiting_is_told_so_and_nothing_is_recorded(store: Store, raw: redis.Redis) -> None:
    tasks = [queued(store, user="a", max_queued=3) for _ in range(3)]
    keys = raw.dbsize()
    key = Idempotency("key", "digest")
    assert store.submit(new_id(), make_run("a", max_queued=3), b"", key).outcome == "full"
    assert raw.dbsize() == keys, "the key is not taken"
    assert store.submit(new_id(), make_run("b", max_queued=3)).outcome == "submitted"
    claim(store, tasks[0])
    assert store.submit(new_id(), make_run("a", max_queued=3), b"", key).outcome == "submitted"


def test_of_twenty_submissions_at_the_same_moment_no_more_than_the_limit_are_taken(store: Store) -> None:
    answers = at_once(*(lambda: store.submit(new_id(), make_run("a", max_queued=4)).outcome for _ in range(20)))
    assert collections.Counter(answers) == {"submitted": 4, "full": 16}


# All of it together


class Crew:
    """Workers that claim and settle in threads, and the queue between them. Holds each run to its locks and limits."""

    def __init__(self, store: Store, tasks: dict[str, tuple[str, tuple[str, ...], int]], seed: int) -> None:
        """tasks: id to user, locks and the user's limit."""
        self._store = store
        self._tasks = tasks
        self._random = random.Random(seed)
        self.messages: queue.Queue[str | None] = queue.Queue()
        self._mutex = threading.Lock()
        self._held: dict[str, str] = {}
        self._running: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.started: list[str] = []
        self.dies = 0.0  # how often a message, or a run, comes to nothing

    def work(self) -> None:
        while (task_id := self.messages.get()) is not None:
            if self._random.random() < self.dies:
                continue
            answer = self._store.claim(task_id, "worker")
            if isinstance(answer, ClaimRefusal):
                self.send(answer.ready)
                continue
            self._enter(task_id)
            time.sleep(self._random.random() * 0.004)
            died = self._random.random() < self.dies
            self._leave(task_id)
            if died:
                moved = self._store.mark_lost(task_id, "killed", answer.token)
                self.send(moved.ready if moved.state is not State.QUEUED else (ReadyTask(task_id, ""), *moved.ready))
            else:
                self.send(self._store.settle(task_id, State.SUCCEEDED, "", 0, token=answer.token).ready)

    def send(self, ready: Iterable[ReadyTask | TaskStatus]) -> None:
        for one in ready:
            self.messages.put(one.task_id)

    def _enter(self, task_id: str) -> None:
        user, locks, limit = self._tasks[task_id]
        with self._mutex:
            self.started.append(task_id)
            for lock in locks:
                if lock in self._held:
                    self.faults.append(f"{task_id} and {self._held[lock]} have {lock}")
                self._held[lock] = task_id
            self._running[user] += 1
            if limit and self._running[user] > limit:
                self.faults.append(f"{self._running[user]} runs of {user}")

    def _leave(self, task_id: str) -> None:
        user, locks, _ = self._tasks[task_id]
        with self._mutex:
            for lock in locks:
                self._held.pop(lock, None)
            self._running[user] -= 1


def crew_of(store: Store, seed: int, on_lost: str) -> Crew:
    """50 tasks over 5 locks and 3 users, two of them with limits."""
    chance = random.Random(seed)
    tasks = {}
    for _ in range(50):
        user, limit = chance.choice((("a", 2), ("b", 3), ("c", 0)))
        locks = tuple(sorted(chance.sample("vwxyz", chance.choice((0, 1, 1, 2, 3)))))
        tasks[queued(store, *locks, user=user, max_running=limit, on_lost=on_lost)] = (user, locks, limit)
    crew = Crew(store, tasks, seed)
    order = list(tasks)
    chance.shuffle(order)
    for task_id in order:
        crew.messages.put(task_id)
    return crew


@pytest.mark.parametrize("seed", range(3))
def test_fifty_tasks_with_locks_and_limits_all_run_once_and_nobody_is_forgotten(
    store: Store, raw: redis.Redis, seed: int
) -> None:
    """Nothing dies here, so nobody has to look for those that were forgotten: each end tells who is next."""
    crew = crew_of(store, seed, "fail")
    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(crew.work) for _ in range(8)]
        try:
            eventually(lambda: store.count(State.SUCCEEDED) == 50 or crew.faults, 30)
        finally:
            for _ in workers:
                crew.messages.put(None)
    for worker in workers:
        worker.result()
    assert crew.faults == []
    assert len(crew.started) == len(set(crew.started)) == 50
    assert raw.keys("flansible:waiting*") == raw.keys("flansible:locks") == raw.keys("flansible:leases") == []


@pytest.mark.parametrize("seed", range(2))
def test_fifty_tasks_of_which_messages_and_runs_die_all_end(store: Store, raw: redis.Redis, seed: int) -> None:
    crew = crew_of(store, seed, "requeue")
    crew.dies = 0.15
    with ThreadPoolExecutor(9) as pool:
        workers = [pool.submit(crew.work) for _ in range(8)]
        canceled = list(crew._tasks)[::7]
        canceling = pool.submit(lambda: [store.cancel(task_id, "dev") for task_id in canceled])

        def look() -> bool:
            """As recovery and an idle worker do."""
            crew.send(store.ready_tasks())
            crew.send(store.oldest_queued(50))
            return store.count(State.QUEUED) + store.count(State.RUNNING) == 0 or bool(crew.faults)

        try:
            eventually(look, 30)
        finally:
            for _ in workers:
                crew.messages.put(None)
    for done in (*workers, canceling):
        done.result()
    assert crew.faults == []
    assert max(collections.Counter(crew.started).values()) <= MAX_ATTEMPTS
    for task_id in crew._tasks:
        events = list(store.events(task_id))
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["event"] for event in events].count("final") == 1 and events[-1]["event"] == "final"
    store.ready_tasks()
    assert raw.keys("flansible:waiting*") == raw.keys("flansible:locks") == raw.keys("flansible:leases") == []


# Tasks that wait for a worker


def test_those_that_wait_for_a_worker_are_found_oldest_first(store: Store) -> None:
    first, locked = queued(store), started(store, "db")
    waits, last = queued(store, "db"), queued(store)
    refusal(store, waits)
    assert ids(store.oldest_queued(10)) == [first, last]
    assert ids(store.oldest_queued(1)) == [first]
    assert end(store, locked) == [waits]
    assert ids(store.oldest_queued(10)) == [first, waits, last]


def test_they_are_found_behind_thousands_that_wait_in_line(store: Store, raw: redis.Redis) -> None:
    pipeline = raw.pipeline()
    for seq in range(1, 2501):
        pipeline.hset(f"flansible:task:l{seq}", mapping={"state": "queued", "waits_for": "lock:db"})
        pipeline.zadd("flansible:tasks:state:queued", {f"l{seq}": seq})
    pipeline.set("flansible:sequence", 2500)
    pipeline.execute()
    behind = [queued(store) for _ in range(3)]
    assert ids(store.oldest_queued(10)) == behind
    assert ids(store.oldest_queued(2)) == behind[:2]


def test_a_task_that_was_recorded_and_never_sent_is_known(store: Store) -> None:
    unsent = new_id()
    store.submit(unsent, make_run())
    sent = queued(store)
    assert ids(store.oldest_queued(10, was_sent=False)) == [unsent]
    assert ids(store.oldest_queued(10)) == [sent]
    store.mark_enqueued(unsent)
    assert store.oldest_queued(10, was_sent=False) == []
    assert ids(store.oldest_queued(10)) == [unsent, sent]


@pytest.mark.parametrize("what", ["claimed", "in line", "canceled", "discarded"])
def test_a_task_of_which_more_is_known_is_not_one_that_was_never_sent(
    store: Store, raw: redis.Redis, what: str
) -> None:
    started(store, "db")
    task_id = new_id()
    store.submit(task_id, make_run(locks=("db",) if what == "in line" else ()))
    if what in ("claimed", "in line"):
        store.claim(task_id, "worker")
    elif what == "canceled":
        store.cancel(task_id, "dev")
    else:
        store.discard(task_id)
    assert store.oldest_queued(10, was_sent=False) == []
    assert raw.exists("flansible:unsent") == 0


def test_what_is_sent_after_it_is_gone_leaves_nothing(store: Store, raw: redis.Redis) -> None:
    store.mark_enqueued(UNKNOWN)
    assert raw.keys() == []


# Lost, and begun again


def lose(store: Store, task_id: str, token: int) -> State:
    return store.mark_lost(task_id, "killed", token).state


def test_a_lost_run_is_over_unless_its_request_says_otherwise(store: Store) -> None:
    for on_lost, state in (("fail", State.LOST), ("requeue", State.QUEUED)):
        task_id = queued(store, on_lost=on_lost)
        assert lose(store, task_id, claim(store, task_id)) is state
        assert status(store, task_id).state is state


def test_the_third_loss_is_the_last(store: Store) -> None:
    task_id = queued(store, on_lost="requeue")
    for attempt in (1, 2, 3):
        answer = store.claim(task_id, "worker")
        assert isinstance(answer, Claim) and answer.attempt == attempt
        assert status(store, task_id).attempt == (attempt if attempt > 1 else None)
        assert lose(store, task_id, answer.token) is (State.QUEUED if attempt < 3 else State.LOST)
    assert [event["event"] for event in store.events(task_id)] == ["restart", "restart", "final"]


def test_a_task_that_begins_again_goes_on_where_its_record_ends(store: Store) -> None:
    task_id = queued(store, on_lost="requeue")
    token = claim(store, task_id)
    first = Batch(Progress(), b"one\n", (StoredEvent('{"n": 1}', "web1"), StoredEvent('{"n": 2}', "web2", True)), (), 4)
    store.append(task_id, token, first)
    lose(store, task_id, token)
    found = status(store, task_id)
    assert (found.state, found.started_at, found.finished_at) == (State.QUEUED, None, None)
    assert "killed" in found.description and "2 of 3" in found.description
    assert store.hosts(task_id, 0, 10) == [], "what the first attempt found out does not count any more"
    assert store.stats_event(task_id) is None

    again = store.claim(task_id, "worker")
    assert isinstance(again, Claim)
    assert (again.attempt, again.progress) == (2, Progress(4, 0, 3, 4))
    store.append(task_id, again.token, Batch(again.progress, b"two\n", (StoredEvent('{"n": 4}', "web1"),), (), 8))
    store.settle(task_id, State.SUCCEEDED, "fine", 0, token=again.token)
    events = list(store.events(task_id))
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert [event.get("event") for event in events] == [None, None, "restart", None, "final"]
    assert store.output(task_id, 0, 100) == b"one\ntwo\n"
    assert store.hosts(task_id, 0, 10) == ["web1"]
    assert [[event["n"] for event in found] for found in store.host_events(task_id, ["web1"], 10, 10**6)] == [[4]]


def test_the_secrets_are_there_for_the_second_attempt_and_gone_at_the_end(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run(on_lost="requeue"), b"sealed")
    token = claim(store, task_id)
    assert store.secrets(task_id) == b"sealed"
    lose(store, task_id, token)
    token = claim(store, task_id)
    assert store.secrets(task_id) == store.secrets(task_id) == b"sealed"
    end(store, task_id)
    assert store.secrets(task_id) is None


def test_secrets_that_are_forgotten_are_gone(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run(), b"sealed")
    claim(store, task_id)
    store.delete_secrets(task_id)
    assert store.secrets(task_id) is None
    assert store.secrets(UNKNOWN) is None


def test_the_worker_of_an_earlier_attempt_changes_nothing(store: Store, raw: redis.Redis) -> None:
    task_id = queued(store, on_lost="requeue")
    old = claim(store, task_id)
    lose(store, task_id, old)

    def is_refused() -> None:
        before = snapshot(raw)
        with pytest.raises(IllegalMove):
            store.settle(task_id, State.SUCCEEDED, "old", 0, token=old)
        with pytest.raises(IllegalMove):
            store.mark_lost(task_id, "again", old)
        with pytest.raises(IllegalMove):
            store.mark_lost(task_id, "again")
        late = Batch(Progress(), b"old", (StoredEvent("{}", "web1"),))
        assert store.append(task_id, old, late).outcome in ("queued", "begun again")
        assert store.renew_leases("old worker", 4, [(task_id, old)]) == {(task_id, old): "begun again"}
        assert snapshot(raw) == before

    is_refused()
    new = claim(store, task_id)
    is_refused()
    store.settle(task_id, State.SUCCEEDED, "new", 0, token=new)
    assert status(store, task_id).description == "new"


def snapshot(raw: redis.Redis) -> dict[bytes, Any]:
    """All that is stored, but for who lives, and when Redis was used."""
    return {key: raw.dump(key) for key in raw.keys() if b"workers" not in key and key != b"flansible:store"}


def test_a_canceled_run_that_is_lost_is_canceled_and_does_not_begin_again(store: Store) -> None:
    task_id = queued(store, on_lost="requeue")
    token = claim(store, task_id)
    assert store.cancel(task_id, "ann") is State.RUNNING
    assert lose(store, task_id, token) is State.CANCELED
    found = status(store, task_id)
    assert found.state is State.CANCELED
    assert "ann" in found.description and "killed" in found.description


@pytest.mark.parametrize("round_", range(10))
def test_a_cancel_while_a_run_is_being_lost_is_never_forgotten(store: Store, round_: int) -> None:
    """Whoever asks is told that it is canceled, or that it will be: then it must not run to its end once more."""
    tasks = [(task_id, claim(store, task_id)) for task_id in (queued(store, on_lost="requeue") for _ in range(10))]
    for task_id, token in tasks:
        # Both know nothing of each other; which comes first is decided in Redis.
        answer, _ = at_once(
            lambda task_id=task_id: store.cancel(task_id, "ann"),
            lambda task_id=task_id, token=token: lose(store, task_id, token),
        )
        assert answer in (State.RUNNING, State.CANCELED)
        assert status(store, task_id).state is State.CANCELED


def test_a_cancel_between_the_look_and_the_loss_is_not_forgotten(store: Store, redis_url: str) -> None:
    """The narrowest moment: it is asked for when the decision to begin again has been taken."""
    asker = Store(redis_url)

    class Late(Store):
        def cancel_requests(self, task_ids: list[str]) -> dict[str, str]:
            found = super().cancel_requests(task_ids)
            asker.cancel(task_ids[0], "ann")
            return found

    late = Late(redis_url)
    task_id = queued(store, on_lost="requeue")
    assert lose(late, task_id, claim(store, task_id)) is State.CANCELED
    asker.close()
    late.close()


def test_a_cancel_of_a_run_that_is_queued_again_in_that_moment_cancels_it(store: Store, redis_url: str) -> None:
    class Late(Store):
        """Between the two steps of a cancel the run is lost."""

        lost = False

        def _run(self, name: str, *args: Any) -> Any:
            if name == "request_cancel" and not self.lost:
                self.lost = True
                lose(store, task_id, token)
            return super()._run(name, *args)

    late = Late(redis_url)
    task_id = queued(store, on_lost="requeue")
    token = claim(store, task_id)
    assert late.cancel(task_id, "ann") is State.CANCELED
    assert status(store, task_id).state is State.CANCELED
    late.close()


def test_a_run_that_was_lost_gives_its_locks_and_its_place_to_others(store: Store) -> None:
    task_id = queued(store, "db", user="a", max_running=1, on_lost="requeue")
    locked, limited = queued(store, "db", user="b"), queued(store, user="a", max_running=1)
    token = claim(store, task_id)
    refusal(store, locked)
    refusal(store, limited)
    moved = store.mark_lost(task_id, "killed", token)
    assert (moved.state, ids(moved.ready)) == (State.QUEUED, [locked, limited])
    claim(store, locked)
    claim(store, limited)
    assert refusal(store, task_id).reason == "user_limit"


def test_a_task_that_begins_again_keeps_its_place_in_the_queue(store: Store) -> None:
    task_id = queued(store, on_lost="requeue")
    token = claim(store, task_id)
    queued(store)
    lose(store, task_id, token)
    assert status(store, task_id).queue_position == 1
    assert ids(store.oldest_queued(10))[0] == task_id, "and is sent again, should nobody do it now"


def test_the_key_of_a_task_that_begins_again_still_stands_for_it(store: Store) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    run = make_run(on_lost="requeue")
    store.submit(task_id, run, b"", key)
    store.mark_enqueued(task_id)
    lose(store, task_id, claim(store, task_id))
    answer = store.submit(new_id(), run, b"", key)
    assert (answer.outcome, answer.task_id) == ("known", task_id)


def test_a_run_is_lost_once(store: Store) -> None:
    task_id = queued(store, on_lost="requeue")
    token = claim(store, task_id)

    def try_to_lose() -> bool:
        try:
            lose(store, task_id, token)
        except IllegalMove:
            return False
        return True

    assert sum(at_once(*(try_to_lose for _ in range(10)))) == 1
    answer = store.claim(task_id, "worker")
    assert isinstance(answer, Claim) and answer.attempt == 2


# Who lives


def test_a_lease_that_ends_makes_the_task_lost_and_one_that_is_renewed_does_not(store: Store, raw: redis.Redis) -> None:
    spoken_for, silent = started(store), queued(store)
    token = claim(store, silent)
    spoken = (spoken_for, token_of(store, spoken_for))
    assert all(run.seconds_left > LEASE_SECONDS - 5 and run.seconds_silent < 5 for run in store.runs())
    with pytest.raises(IllegalMove, match="alive"):
        store.mark_lost(silent, "silent")
    raw.zadd("flansible:leases", {spoken_for: 1, silent: 1})
    assert store.renew_leases("worker", 4, [spoken]) == {}
    assert [run.task_id for run in store.runs() if run.seconds_left < 0] == [silent]
    store.mark_lost(silent, "silent")
    assert (status(store, silent).state, status(store, spoken_for).state) == (State.LOST, State.RUNNING)
    end(store, spoken_for)
    claims = [spoken, (silent, token)]
    assert store.renew_leases("worker", 4, claims) == dict(zip(claims, ("succeeded", "lost"), strict=True))
    assert raw.zcard("flansible:leases") == 0


def test_a_silent_worker_is_named_until_it_is_heard_again(store: Store, raw: redis.Redis) -> None:
    task_id = started(store)
    (run,) = store.runs()
    before = status(store, task_id).description
    store.mark_silent(run, "nothing was heard of it")
    assert status(store, task_id).description == "nothing was heard of it"
    assert [run.is_silent for run in store.runs()] == [True]
    assert listed_changes(raw)[-1] == task_id
    store.renew_leases("worker", 1, [(task_id, run.token)])
    assert status(store, task_id).description == before and [run.is_silent for run in store.runs()] == [False]
    end(store, task_id)
    store.mark_silent(run, "too late")
    assert status(store, task_id).description == "fine"


def listed_changes(raw: redis.Redis) -> list[str]:
    return [fields[b"id"].decode() for _, fields in raw.xrange("flansible:listed")]


# Redis was away


def test_after_redis_was_away_every_lease_has_its_full_length_again(store: Store, raw: redis.Redis) -> None:
    task_id = started(store)
    checks: list[Callable[[], object]] = [
        store.runs,
        lambda: store.claim(queued(store), "w"),
        lambda: store.renew_leases("w", 1, []),
        lambda: pytest.raises(IllegalMove, store.mark_lost, task_id, "silent"),
    ]
    for check in checks:
        for field, value in (("run_id", "another"), ("at", time.time() - 4), ("at", time.time() + 4)):
            raw.zadd("flansible:leases", {task_id: 1})
            raw.hset("flansible:store", field, value)
            check()
            assert raw.zscore("flansible:leases", task_id) > time.time() + LEASE_SECONDS - 5, (field, value)
    raw.zadd("flansible:leases", {task_id: 1})
    store.mark_lost(task_id, "silent")


def test_after_a_restart_of_redis_nothing_is_claimed_before_every_worker_has_reported(
    store: Store, raw: redis.Redis
) -> None:
    for name in ("one", "two", "three"):
        store.renew_leases(name, 1, [])
    raw.zadd("flansible:workers", {"long gone": time.time() - 100})
    task_id = queued(store)
    raw.hset("flansible:store", "run_id", "another")
    assert refusal(store, task_id).reason == AWAITS_REPORTS
    assert set(store.awaited_workers()) == {"one", "two", "three"}
    store.renew_leases("one", 1, [])
    store.remove_worker("two")
    assert refusal(store, task_id).reason == AWAITS_REPORTS
    raw.zadd("flansible:awaited", {"three": time.time() - 1})  # its lease is over
    claim(store, task_id)


def test_a_redis_without_memory_still_renews_leases(own_redis: RedisServer) -> None:
    store, client = Store(own_redis.url), own_redis.client()
    task_id = started(store)
    claims = [(task_id, token_of(store, task_id))]
    client.config_set("maxmemory", 1)
    assert store.renew_leases("worker", 1, claims) == {}
    client.config_set("maxmemory", 0)
    assert client.zscore("flansible:leases", task_id) > time.time() + LEASE_SECONDS - 5
    client.close()
    store.close()


def test_a_claim_begins_with_a_lease(store: Store, raw: redis.Redis) -> None:
    task_id = started(store)
    lease = raw.zscore("flansible:leases", task_id)
    assert lease is not None and LEASE_SECONDS - 2 < lease - time.time() <= LEASE_SECONDS + 1


def test_every_run_tells_whose_it_is(store: Store) -> None:
    task_id = queued(store)
    store.claim(task_id, "worker@host", "token", "boot:12:34")
    (run,) = store.runs()
    assert (run.task_id, run.process, run.worker) == (task_id, "boot:12:34", "worker@host")
    assert run.token == token_of(store, task_id)
    end(store, task_id)
    assert store.runs() == []


def test_a_worker_that_is_silent_or_signs_off_carries_nothing(store: Store, raw: redis.Redis) -> None:
    store.renew_leases("one", 4, [])
    store.renew_leases("two", 2, [])
    task_id = queued(store)
    assert status(store, task_id).reason == "starting"
    store.remove_worker("one")
    raw.zadd("flansible:workers", {"two": time.time() - 1})
    assert status(store, task_id).reason == "no_worker"
    raw.zadd("flansible:workers", {"two": time.time() - 4000})
    store.renew_leases("three", 1, [])
    assert raw.zrange("flansible:workers", 0, -1) == raw.hkeys("flansible:workers:slots") == [b"three"]


# What a queued task says


def seconds_until(moment: str | None) -> float:
    assert moment is not None
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


@pytest.fixture
def minutes(raw: redis.Redis, redis_url: str) -> None:
    """The latest runs took a minute each."""
    raw.hset("flansible:durations", "mean", 60)


def test_without_a_worker_nobody_knows_when(store: Store, minutes: None) -> None:
    found = status(store, queued(store))
    assert (found.queue_position, found.reason, found.expected_start) == (1, "no_worker", None)


def test_a_task_for_which_a_worker_is_free_is_about_to_start(store: Store) -> None:
    store.renew_leases("worker", 1, [])
    found = status(store, queued(store))
    assert (found.queue_position, found.reason) == (1, "starting")
    assert -2 < seconds_until(found.expected_start) < 2


def test_behind_busy_workers_the_wait_grows_with_the_place(store: Store, minutes: None) -> None:
    store.renew_leases("one", 1, [])
    store.renew_leases("two", 1, [])
    for _ in range(2):
        started(store)
    found = [status(store, task_id) for task_id in [queued(store) for _ in range(4)]]
    assert [one.queue_position for one in found] == [1, 2, 3, 4]
    assert {one.reason for one in found} == {"workers_busy"}
    waits = [seconds_until(one.expected_start) for one in found]
    assert waits == sorted(waits)
    assert 5 < waits[0] < 60 and 60 < waits[3] < 180


def test_before_any_run_has_ended_nobody_knows_how_long_they_take(store: Store) -> None:
    store.renew_leases("worker", 1, [])
    started(store, "db")
    locked, busy = queued(store, "db"), queued(store)
    refusal(store, locked)
    assert [status(store, task_id).expected_start for task_id in (locked, busy)] == [None, None]


def test_one_that_waits_for_a_lock_names_the_run_that_has_it(store: Store, minutes: None) -> None:
    store.renew_leases("worker", 8, [])
    holder = started(store, "db")
    first, second = queued(store, "db"), queued(store, "db")
    refusal(store, first)
    refusal(store, second)
    found = [status(store, task_id) for task_id in (first, second)]
    assert [one.reason for one in found] == [f"locked_by: {holder}"] * 2
    waits = [seconds_until(one.expected_start) for one in found]
    assert 50 < waits[0] <= 60 and 110 < waits[1] <= 120
    end(store, holder)
    claim(store, first)
    assert status(store, second).reason == f"locked_by: {first}", "not the one that had it when it began to wait"
    assert status(store, first).reason is None


def test_a_holder_that_takes_longer_than_usual_is_expected_to_end_now(
    store: Store, raw: redis.Redis, minutes: None
) -> None:
    holder, waiter = started(store, "db"), queued(store, "db")
    raw.hset(f"flansible:task:{holder}", "started", time.time() - 3600)
    refusal(store, waiter)
    store.renew_leases("worker", 2, [])
    assert -2 < seconds_until(status(store, waiter).expected_start) < 2


def test_one_that_waits_for_its_users_other_runs_says_so(store: Store, minutes: None) -> None:
    store.renew_leases("worker", 8, [])
    for _ in range(2):
        started(store, user="a", max_running=2)
    waiting = [queued(store, user="a", max_running=2) for _ in range(3)]
    for task_id in waiting:
        refusal(store, task_id)
    found = [status(store, task_id) for task_id in waiting]
    assert {one.reason for one in found} == {"user_limit"}
    waits = [seconds_until(one.expected_start) for one in found]
    assert waits == sorted(waits) and 0 < waits[0] < 60 < waits[2] < 120


def test_one_that_was_told_waits_for_a_worker_alone(store: Store) -> None:
    store.renew_leases("worker", 1, [])
    holder, waiter = started(store, "db"), queued(store, "db")
    refusal(store, waiter)
    end(store, holder)
    assert status(store, waiter).reason == "starting"
    started(store)
    assert status(store, waiter).reason == "workers_busy"


def test_only_a_queued_task_says_what_it_waits_for(store: Store) -> None:
    holder, task_id = started(store, "db"), queued(store, "db")
    refusal(store, task_id)
    end(store, holder)
    claim(store, task_id)
    for _ in range(2):
        found = status(store, task_id)
        assert (found.queue_position, found.reason, found.expected_start) == (None, None, None)
        if found.state is State.RUNNING:
            end(store, task_id)


def test_the_mean_follows_the_latest_runs_that_came_to_their_end(store: Store, raw: redis.Redis) -> None:
    for took, state in ((10, State.SUCCEEDED), (20, State.FAILED), (1000, State.CANCELED), (1000, State.LOST)):
        task_id = started(store)
        raw.hset(f"flansible:task:{task_id}", "started", time.time() - took)
        store.settle(task_id, state, "")
    mean = raw.hget("flansible:durations", "mean")
    assert mean is not None and 11.9 < float(mean) < 12.5


def until_ping(monitor: Any) -> Iterator[dict[str, str]]:
    for command in monitor.listen():
        if command["command"] == "PING":
            return
        yield command


@pytest.mark.parametrize("state", ["queued", "in line", "final"])
def test_a_task_is_asked_for_in_one_round_trip(store: Store, raw: redis.Redis, state: str) -> None:
    started(store, "db")
    task_id = queued(store, "db")
    if state != "queued":
        refusal(store, task_id)
    if state == "final":
        store.cancel(task_id, "dev")
    store.task(task_id)
    store._redis.ping()  # the connections are made, and the script is known
    with raw.monitor() as monitor:
        store.task(task_id)
        store._redis.ping()
        asked = [command["command"].split()[0] for command in until_ping(monitor) if command["client_type"] != "lua"]
    assert asked == ["EVALSHA"]


def test_a_connection_that_was_closed_while_it_was_idle_fails_nobody(store: Store, raw: redis.Redis) -> None:
    task_id = queued(store, "db")
    store.task(task_id)
    raw.client_kill_filter(_type="normal", skipme=True)
    found = store.task(task_id)
    assert found is not None and found.task_id == task_id


def test_scripts_that_redis_has_forgotten_are_loaded_again(store: Store, raw: redis.Redis) -> None:
    task_id = queued(store, "db")
    raw.script_flush()
    assert store.task(task_id) is not None


def test_an_answer_that_comes_too_late_is_not_taken_for_another(redis_url: str, store: Store, raw: redis.Redis) -> None:
    first, second = queued(store, "db"), queued(store, "web")
    hasty = Store(redis_url, reply_timeout_seconds=0.2)
    try:
        hasty.task(first)
        raw.client_pause(1000)
        with pytest.raises(StoreUnavailable):
            hasty.task(first)
        raw.ping()  # answered when the pause is over
        found = hasty.task(second)
        assert found is not None and found.summary == "dev: adhoc" and found.queue_position == 2
    finally:
        hasty.close()


# Idempotency


def test_of_twenty_equal_submissions_at_the_same_moment_one_becomes_a_task(store: Store) -> None:
    key = Idempotency("key", "digest")
    tasks = [new_id() for _ in range(20)]
    answers = at_once(*(lambda task_id=task_id: store.submit(task_id, make_run(), b"", key) for task_id in tasks))
    assert collections.Counter(answer.outcome for answer in answers) == {"submitted": 1, "in_flight": 19}
    assert len({answer.task_id for answer in answers}) == 1
    assert store.count(State.QUEUED) == 1


def test_a_key_stands_for_its_task_from_when_that_is_on_the_queue(store: Store) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    assert store.submit(task_id, make_run(), b"", key) == SubmitResult("submitted", task_id)
    assert store.submit(new_id(), make_run(), b"", key) == SubmitResult("in_flight", task_id)
    store.mark_enqueued(task_id)
    for _ in range(2):
        assert store.submit(new_id(), make_run(), b"", key) == SubmitResult("known", task_id)
        store.cancel(task_id, "dev")
    assert store.count(State.QUEUED) == 0


def test_a_submission_made_again_because_its_answer_was_lost_is_the_same(store: Store) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    for _ in range(2):
        assert store.submit(task_id, make_run(), b"", key).outcome == "submitted"


def test_a_request_that_died_before_the_queue_had_it_is_not_in_flight_for_ever(store: Store, raw: redis.Redis) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    store.submit(task_id, make_run(), b"", key)
    raw.hset("flansible:idempotency:dev:key", "at", time.time() - 31)
    assert store.submit(new_id(), make_run(), b"", key) == SubmitResult("unsent", task_id)
    store.mark_enqueued(task_id)
    assert store.submit(new_id(), make_run(), b"", key) == SubmitResult("known", task_id)


def test_another_request_under_the_same_key_is_a_conflict(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run(), b"", Idempotency("key", "digest"))
    for _ in range(2):
        answer = store.submit(new_id(), make_run(), b"", Idempotency("key", "another"))
        assert (answer.outcome, answer.task_id) == ("conflict", task_id)
        store.mark_enqueued(task_id)
    assert store.count(State.QUEUED) == 1


def test_a_key_is_its_users_own(store: Store) -> None:
    key = Idempotency("key", "digest")
    answers = [store.submit(new_id(), make_run(user), b"", key).outcome for user in ("a", "b", "a b")]
    assert answers == ["submitted"] * 3


def test_a_key_is_free_again_when_its_task_could_not_be_enqueued(store: Store) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    store.submit(task_id, make_run(), b"", key)
    store.discard(task_id)
    assert store.submit(new_id(), make_run(), b"", Idempotency("key", "another")).outcome == "submitted"


def test_a_key_is_kept_for_a_day_whatever_becomes_of_its_task(store: Store, raw: redis.Redis) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    store.submit(task_id, make_run(), b"", key)
    store.mark_enqueued(task_id)
    claim(store, task_id)
    end(store, task_id)
    name = "flansible:idempotency:dev:key"
    assert 86400 - 60 < raw.ttl(name) <= 86400
    raw.delete(name)  # a day later
    assert store.submit(new_id(), make_run(), b"", key).outcome == "submitted"


def test_a_known_request_is_answered_even_where_too_many_wait(store: Store) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    run = make_run(max_queued=1)
    store.submit(task_id, run, b"", key)
    store.mark_enqueued(task_id)
    assert store.submit(new_id(), run, b"", key).task_id == task_id
    assert store.submit(new_id(), run).outcome == "full"


def test_a_task_that_younger_ones_have_overtaken_long_ago_is_found(store: Store) -> None:
    """Its message was lost with a worker, and no other one is ever free: nobody would miss it."""
    ids = [new_id() for _ in range(4)]
    for task_id, locks in zip(ids, ((), ("l",), ("l",), ()), strict=True):
        store.submit(task_id, make_run(locks=locks))
        store.mark_enqueued(task_id)
    lost, holder, waiting, youngest = ids
    store.claim(holder, "w")
    store.claim(waiting, "w")
    store.claim(youngest, "w")
    assert store.overtaken(10, 30) == []
    assert [task.task_id for task in store.overtaken(10, 0)] == [lost]
    store.settle(youngest, State.SUCCEEDED, "done")
    store.settle(holder, State.SUCCEEDED, "done")
    assert store.overtaken(10, 0) == []
