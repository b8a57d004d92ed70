"""The store against a real Redis: who wins, what is listed and found, and what happens when Redis is away."""

from __future__ import annotations

import functools
import inspect
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from flansible.errors import IllegalMove, StoreUnavailable, TaskDeleted
from flansible.models import FINAL_STATES, STATES, Confinement, Rights, State
from flansible.store import (
    AnsweredRequest,
    Batch,
    Claim,
    ClaimRefusal,
    FinishedTask,
    Idempotency,
    KeptTree,
    KnownCommit,
    LateSchedule,
    ListFilter,
    LoginLimits,
    OutboxEntry,
    Progress,
    RecordPage,
    RemoteState,
    Run,
    Session,
    Store,
    StoredEvent,
    task_queries,
)
from flansible.store import changes as changes_module
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import CLAIM, make_run, new_id, token_of
from tests.helpers.waiting import eventually

Start = Callable[..., str]
UNKNOWN = "00000000-0000-4000-8000-ffffffffffff"
TEXT = Batch(Progress(), b"marker", (StoredEvent('{"n": 1}', "web1"),), (), 6)


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


def state_of(store: Store, task_id: str) -> State:
    task = store.task(task_id)
    assert task is not None
    return task.state


def everything(store: Store, task_id: str) -> tuple[bytes, list[dict[str, Any]]]:
    return store.output(task_id, 0, 1 << 30), list(store.events(task_id))


def start(store: Store, **changes: Any) -> str:
    """A new run under CLAIM."""
    task_id = new_id()
    store.submit(task_id, make_run(**changes), b"sealed")
    assert isinstance(store.claim(task_id, "worker", CLAIM), Claim)
    return task_id


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls that all begin at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


# Submitted, claimed, canceled, settled


def test_a_submitted_task_is_queued_and_says_so_to_old_clients(store: Store) -> None:
    task_id, run = new_id(), make_run("dev", summary="dev: adhoc ping on ünï")
    submitted = store.submit(task_id, run)
    assert (submitted.outcome, submitted.task_id) == ("submitted", task_id)
    task = store.task(task_id)
    assert task is not None
    assert (task.Status, task.state, task.user, task.kind) == ("PROGRESS", State.QUEUED, "dev", "adhoc")
    assert task.summary == "dev: adhoc ping on ünï"
    assert task.submitted_at.endswith("Z")
    assert (task.started_at, task.finished_at, task.returncode) == (None, None, None)
    assert store.authorized_run(task_id) == run
    assert store.authorized_run(UNKNOWN) is None


def test_submitting_twice_changes_nothing(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run("dev"))
    store.claim(task_id, "worker")
    store.submit(task_id, make_run("other"))
    task = store.task(task_id)
    assert task is not None and (task.user, task.state) == ("dev", State.RUNNING)
    assert store.count(State.QUEUED) == 0
    assert len(store.tasks(None, None, None, 10).tasks) == 1


def test_a_claim_gives_the_run_as_it_was_submitted(store: Store) -> None:
    task_id, run = new_id(), make_run("ü ser", locks=("ünï", "x"), on_lost="requeue", max_running=3)
    store.submit(task_id, run)
    claim = store.claim(task_id, "worker@host", "token")
    assert isinstance(claim, Claim)
    assert (claim.run, claim.nonce, claim.attempt, claim.progress) == (run, "token", 1, Progress())
    task = store.task(task_id)
    assert task is not None and task.state is State.RUNNING and task.started_at is not None
    assert "worker@host" in task.description


def test_a_second_claim_is_refused(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert isinstance(store.claim(task_id, "one"), Claim)
    assert store.claim(task_id, "two") == ClaimRefusal("running")
    assert store.claim(UNKNOWN, "one") == ClaimRefusal("missing")


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_of_twenty_threads_that_claim_one_wins(store: Store, submitted: Start, redis_url: str, shared: bool) -> None:
    stores = [store] * 20 if shared else [Store(redis_url) for _ in range(20)]
    for _ in range(10):
        task_id = submitted()
        answers = at_once(*(functools.partial(one.claim, task_id, "worker") for one in stores))
        assert sum(isinstance(answer, Claim) for answer in answers) == 1
    for one in stores:
        one.close()


def test_the_same_claim_made_again_is_answered_again_and_another_is_not(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert store.claim(task_id, "worker", "one") == store.claim(task_id, "worker", "one")
    assert store.claim(task_id, "worker", "two") == store.claim(task_id, "worker") == ClaimRefusal("running")
    store.settle(task_id, State.FAILED, "", 2)
    assert store.claim(task_id, "worker", "one") == ClaimRefusal("failed")


def test_of_a_cancel_and_a_claim_at_the_same_moment_one_wins(store: Store, submitted: Start) -> None:
    for _ in range(30):
        task_id = submitted()
        claim, cancel = functools.partial(store.claim, task_id, "w"), functools.partial(store.cancel, task_id, "dev")
        answer, state = at_once(claim, cancel)
        assert (isinstance(answer, Claim), state) in ((True, State.RUNNING), (False, State.CANCELED))
        assert state_of(store, task_id) is state


def test_cancelling_a_queued_task_never_starts_it(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert store.cancel(task_id, "dev") is State.CANCELED
    assert store.claim(task_id, "worker") == ClaimRefusal("canceled")
    assert state_of(store, task_id) is State.CANCELED


def test_cancelling_a_running_task_asks_its_worker_and_keeps_who_asked_first(store: Store, running: Start) -> None:
    task_id, other = running(), running()
    assert store.cancel(task_id, "dev") is State.RUNNING
    assert store.cancel(task_id, "admin") is State.RUNNING
    assert store.cancel_requests([other, task_id, UNKNOWN]) == {task_id: "dev"}
    assert store.cancel_requests([]) == {}


def test_cancelling_what_is_over_or_unknown_changes_nothing(store: Store, running: Start) -> None:
    task_id = running()
    store.settle(task_id, State.SUCCEEDED, "fine", 0)
    assert store.cancel(task_id, "dev") is State.SUCCEEDED
    assert store.cancel(UNKNOWN, "dev") is None
    assert state_of(store, task_id) is State.SUCCEEDED


def test_of_several_that_revoke_a_task_one_has_done_it(store: Store) -> None:
    queued, running, canceled = new_id(), start(store), start(store)
    store.submit(queued, make_run())
    store.cancel(canceled, "dev")
    for task_id, times in ((queued, 1), (running, 1), (canceled, 0), (UNKNOWN, 0)):
        assert at_once(*[lambda task_id=task_id: store.revoke(task_id, "rbac.json")] * 8).count(True) == times
    assert state_of(store, queued) is State.CANCELED
    assert store.cancel_requests([running, canceled]) == {running: "rbac.json", canceled: "dev"}


# Rights


def test_of_several_that_publish_the_same_rights_one_gets_what_was_there(store: Store) -> None:
    limits = Confinement(readable=("/srv/caf\udce9",), hosts=("web1",))
    before = {name: Rights(entry="1", confinement=limits) for name in ("dev", "gone", "same")}
    assert store.rights_of(["dev"]) is None and store.rights() == {}
    assert store.publish_rights(before) == {} and store.rights() == before
    now = {"same": before["same"], "dev": Rights(entry="2", confinement=None), "new": before["dev"]}
    answers = at_once(*[lambda: store.publish_rights(now)] * 6)
    assert sorted(map(sorted, answers)) == [[]] * 5 + [["dev", "gone"]]
    assert {"dev": before["dev"], "gone": before["gone"]} in answers
    assert store.rights_of(["dev", "gone", "new"]) == {"dev": now["dev"], "gone": None, "new": now["new"]}
    assert store.rights_of([]) == {}


def test_rights_of_a_newer_version_are_read_without_what_is_new(store: Store, raw: redis.Redis) -> None:
    raw.hset("flansible:rights", "dev", '{"entry": "1", "confinement": {"readable": ["/a"], "newer": 1}, "newer": 2}')
    assert store.rights() == {"dev": Rights(entry="1", confinement=Confinement(readable=("/a",)))}


WORDS = {
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FLANSIBLE_TASK_FAILURE",
    State.CANCELED: "CANCELED",
    State.TIMED_OUT: "TIMEOUT",
    State.LOST: "LOST",
    State.ERROR: "CELERY_FAILURE: why",
}


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_a_settled_task_says_how_it_ended(store: Store, running: Start, state: State) -> None:
    task_id = running()
    ended, token = ("ssh (12)", "sleep (13)"), token_of(store, task_id)
    moved = store.settle(task_id, state, "why", 4, ended, token, warning="no hosts matched")
    assert (moved.state, moved.ready) == (state, ())
    task = store.task(task_id)
    assert task is not None and task.finished_at is not None
    assert (task.Status, task.state, task.description, task.returncode) == (WORDS[state], state, "why", 4)
    assert (task.ended, task.warning) == (["ssh (12)", "sleep (13)"], "no hosts matched")
    assert store.tasks(None, state, None, 10).tasks[0] == task


def test_a_task_may_be_settled_without_an_exit_code(store: Store, running: Start) -> None:
    task_id = running()
    store.settle(task_id, State.LOST, "gone")
    task = store.task(task_id)
    assert task is not None and (task.returncode, task.ended) == (None, None)


def bring_to(store: Store, state: State) -> str:
    task_id = new_id()
    store.submit(task_id, make_run())
    if state is State.QUEUED:
        return task_id
    store.claim(task_id, "worker")
    if state is not State.RUNNING:
        store.settle(task_id, state, "")
    return task_id


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", sorted(FINAL_STATES))
def test_only_the_moves_of_the_table_are_made(store: Store, before: State, after: State) -> None:
    task_id = bring_to(store, before)
    if after in STATES[before].next_states:
        store.settle(task_id, after, "moved", 0)
        assert state_of(store, task_id) is after
    else:
        with pytest.raises(IllegalMove, match=f"is {before} and cannot become {after}"):
            store.settle(task_id, after, "moved", 0)
        assert state_of(store, task_id) is before


def test_an_unknown_task_cannot_be_moved(store: Store) -> None:
    with pytest.raises(IllegalMove, match="missing"):
        store.settle(UNKNOWN, State.SUCCEEDED, "", 0)
    with pytest.raises(IllegalMove, match="missing"):
        store.mark_lost(UNKNOWN, "", 1)
    assert store.task(UNKNOWN) is None


def test_what_cannot_be_enqueued_is_forgotten_whole(store: Store, raw: redis.Redis) -> None:
    task_id = new_id()
    store.submit(task_id, make_run("dev user", locks=("db",)), b"sealed", Idempotency("key", "digest"))
    store.discard(task_id)
    # Counters, and for lists the id of what is no more.
    left = {b"flansible:sequence", b"flansible:store", b"flansible:metrics", b"flansible:task:all", b"flansible:listed"}
    assert set(raw.keys()) == left


def test_what_a_worker_has_claimed_meanwhile_is_not_forgotten(store: Store, running: Start) -> None:
    task_id = running()
    store.discard(task_id)
    store.discard(UNKNOWN)
    assert state_of(store, task_id) is State.RUNNING


# Lists and search


def listed(store: Store, *args: Any) -> list[str]:
    return ids(store.tasks(*args))


def ids(page: RecordPage) -> list[str]:
    return [task.task_id for task in page.tasks]


def all_pages(read: Callable[[int | None], RecordPage], between: Callable[[], Any] = lambda: None) -> list[str]:
    found, before = [], None
    while True:
        page = read(before)
        found += ids(page)
        before = page.next_before
        if before is None:
            return found
        between()


def test_the_list_is_newest_first_and_goes_on_at_the_cursor(store: Store, submitted: Start) -> None:
    tasks = [submitted() for _ in range(7)][::-1]
    assert listed(store, None, None, None, 50) == tasks
    # What comes meanwhile is newer and must not shift the pages.
    assert all_pages(lambda before: store.tasks(None, None, before, 3), submitted) == tasks


def test_the_list_is_by_user_and_by_state(store: Store, submitted: Start, running: Start) -> None:
    queued = {user: submitted(user) for user in ("a", "b", "a b")}
    started = {user: running(user) for user in ("a", "b")}
    assert listed(store, "a", None, None, 9) == [started["a"], queued["a"]]
    assert listed(store, "a b", None, None, 9) == [queued["a b"]]
    assert listed(store, None, State.RUNNING, None, 9) == [started["b"], started["a"]]
    assert listed(store, "b", State.QUEUED, None, 9) == [queued["b"]]
    assert listed(store, "b", State.FAILED, None, 9) == listed(store, "nobody", None, None, 9) == []
    assert (store.count(State.QUEUED), store.count(State.RUNNING), store.count(State.LOST)) == (3, 2, 0)


def test_a_move_changes_the_lists_by_state(store: Store) -> None:
    task_id = start(store, on_lost="requeue")

    def is_listed_as(state: State) -> None:
        for user in (None, "dev"):
            assert listed(store, user, None, None, 9) == [task_id]
            assert [other for other in State if listed(store, user, other, None, 9)] == [state]

    is_listed_as(State.RUNNING)
    store.mark_lost(task_id, "killed", token_of(store, task_id))
    is_listed_as(State.QUEUED)
    store.claim(task_id, "worker")
    is_listed_as(State.RUNNING)
    store.settle(task_id, State.FAILED, "", 2)
    is_listed_as(State.FAILED)


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_a_page_with_expired_tasks_is_not_the_last_one(
    store: Store, running: Start, raw: redis.Redis, page_size: int
) -> None:
    """Between expiry and pruning the lists still hold them: paging must go on to those that are left."""
    tasks = [running() for _ in range(8)]
    for task_id in (*tasks[:1], *tasks[3:6], *tasks[7:]):
        raw.delete(f"flansible:task:{task_id}")
    left = [tasks[6], tasks[2], tasks[1]]
    assert all_pages(lambda before: store.tasks(None, None, before, page_size)) == left
    assert all_pages(lambda before: store.search(ListFilter(words="adhoc"), before, page_size)) == left


SUMMARIES = ["dev: adhoc ping on web1", "dev: ADHOC Ping on Ünï", "dev: 100% of [a-z]* (x.y)", "dev: ping", ""]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ping", [3, 1, 0]),
        ("PING", [3, 1, 0]),
        ("adhoc Ping on", [1, 0]),
        ("Ünï", [1]),
        ("ÜNï", [1]),
        ("ünï", []),
        ("100% of [A-Z]* (", [2]),
        ("%d+", []),
        (".", [2]),
        (" ", [3, 2, 1, 0]),
        ("", [4, 3, 2, 1, 0]),
        ("\0", []),
        ("\udcff", []),
        ("nothing of the kind", []),
    ],
)
def test_words_are_found_as_they_are_but_for_the_case_of_ascii_letters(
    store: Store, words: str, found: list[int]
) -> None:
    tasks = [new_id() for _ in SUMMARIES]
    for task_id, summary in zip(tasks, SUMMARIES, strict=True):
        store.submit(task_id, make_run(summary=summary))
    assert ids(store.search(ListFilter(words=words), None, 9)) == [tasks[index] for index in found]


def test_a_search_is_by_user_state_kind_and_words(store: Store) -> None:
    tasks = {}
    for user in ("a", "b"):
        for kind in ("adhoc", "git"):
            for word in ("x", "y"):
                tasks[user, kind, word] = start(store, user=user, kind=kind, summary=word)
    store.settle(tasks["a", "git", "x"], State.LOST, "")

    def search(*whose: Any, **conditions: Any) -> RecordPage:
        return store.search(ListFilter(*whose, **conditions), None, 9)

    assert ids(search("a", None, kind="git")) == [tasks["a", "git", "y"], tasks["a", "git", "x"]]
    assert ids(search(None, State.LOST)) == ids(search("a", State.LOST, kind="git", words="X"))
    assert ids(search("a", State.LOST)) == [tasks["a", "git", "x"]]
    assert ids(search(None, None, kind="adhoc", words="y")) == [tasks["b", "adhoc", "y"], tasks["a", "adhoc", "y"]]
    assert ids(search("b", State.LOST)) == ids(search(None, None, kind="playbook")) == []


def test_a_search_among_many_ends_early_and_goes_on(
    store: Store, submitted: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is to look through, Redis is kept for some milliseconds at a time, and the client answered."""
    monkeypatch.setattr(task_queries, "_SEARCH_BUDGET", 7)
    monkeypatch.setattr(task_queries, "_SEARCH_SECONDS", 0.0)
    wanted = []
    for number in range(100):
        submitted()
        if number % 20 == 3:
            wanted.append(start(store, summary="rare"))
    pages: list[int] = []

    def read(before: int | None) -> RecordPage:
        page = store.search(ListFilter(words="rare"), before, 2)
        pages.append(len(page.tasks))
        return page

    assert all_pages(read, submitted) == wanted[::-1]
    assert 15 <= len(pages) <= 40 and max(pages) <= 2
    monkeypatch.setattr(task_queries, "_SEARCH_SECONDS", 10.0)
    assert ids(store.search(ListFilter(words="rare"), None, 5)) == wanted[::-1]


# Changes


def test_a_change_is_told_as_it_happens(store: Store, running: Start, submitted: Start) -> None:
    changes, task_id, other = store.changes(), running(), running()
    changes.follow(task_id)
    assert changes.wait(0.05) == set()
    store.append(other, token_of(store, other), TEXT)
    assert changes.wait(0.05) == set()
    for change in (
        lambda: store.append(task_id, token_of(store, task_id), TEXT),
        lambda: store.settle(task_id, State.SUCCEEDED, "", 0),
    ):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: (changes.wait(10), time.monotonic()))
            time.sleep(0.02)
            change()
            changed_at = time.monotonic()
            found, told_at = waiting.result()
        assert found == {task_id}
        assert told_at - changed_at < 1
    queued = submitted()
    changes.follow(queued)
    store.claim(queued, "worker")
    assert changes.wait(5) == {queued}
    changes.close()


def test_many_changes_before_a_look_are_told_at_once_and_once(store: Store, running: Start) -> None:
    changes, tasks = store.changes(), [running() for _ in range(3)]
    for task_id in tasks:
        changes.follow(task_id)
    for task_id in tasks:
        store.append(task_id, token_of(store, task_id), TEXT)
        store.settle(task_id, State.LOST, "")
    found = eventually(lambda: changes.wait(0))
    while more := changes.wait(0.05):
        found |= more
    assert found == set(tasks)
    assert changes.wait(0) == set()
    changes.close()


def test_a_look_without_patience_tells_what_has_changed(store: Store, running: Start) -> None:
    changes, task_id = store.changes(), running()
    changes.follow(task_id)
    assert changes.wait(0) == set()
    store.append(task_id, token_of(store, task_id), TEXT)
    began = time.monotonic()
    assert eventually(lambda: changes.wait(0), 2) == {task_id}
    assert time.monotonic() - began < 1
    changes.close()


def test_what_is_not_followed_any_more_is_not_told(store: Store, running: Start) -> None:
    changes, task_id, other = store.changes(), running(), running()
    changes.follow(task_id)
    changes.follow(other)
    store.append(task_id, token_of(store, task_id), TEXT)
    changes.unfollow(task_id)
    store.append(other, token_of(store, other), TEXT)
    assert changes.wait(5) == {other}
    store.settle(task_id, State.LOST, "")
    assert changes.wait(0.05) == set()
    changes.unfollow(other)
    began = time.monotonic()
    assert changes.wait(0.05) == set() and time.monotonic() - began >= 0.04, "with nothing to follow, it waits"
    changes.close()


def test_who_follows_is_told_that_redis_is_away_and_goes_on_when_it_is_back(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    followed, dropped, later = (start(store) for _ in range(3))
    changes = store.changes()
    changes.follow(followed)
    changes.follow(dropped)
    own_redis.kill()
    began = time.monotonic()
    for call in (
        lambda: changes.wait(10),
        lambda: changes.follow(later),
        lambda: changes.unfollow(dropped),
        lambda: changes.wait(10),
        lambda: store.changes().follow(later),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    assert time.monotonic() - began < 5, "at once"
    own_redis.start()
    assert changes.wait(0) == {followed}, "it may have changed meanwhile"
    assert changes.wait(0.05) == set()
    for task_id in (dropped, later, followed):
        store.append(task_id, token_of(store, task_id), TEXT)
    found = changes.wait(5) | changes.wait(0.1)
    assert found == {followed, later}
    changes.close()
    store.close()


def test_a_change_right_after_the_wish_to_follow_is_told(store: Store, raw: redis.Redis) -> None:
    changes = store.changes()
    for number in range(2000):
        changes.follow(str(number))
        raw.publish(f"flansible:changed:{number}", "")
        assert changes.wait(5) == {str(number)}
        changes.unfollow(str(number))
    changes.close()


def test_what_a_new_connection_may_have_missed_is_told(store: Store, running: Start, raw: redis.Redis) -> None:
    """A connection that broke and was made again in silence tells nobody of what came in between."""
    changes, task_id = store.changes(), running()
    changes.follow(task_id)
    raw.client_kill_filter(_type="pubsub")
    store.settle(task_id, State.LOST, "")
    assert changes.wait(5) == {task_id}
    assert changes.wait(0.05) == set()
    changes.close()


def test_a_frozen_redis_confirms_nothing(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "CONNECT_TIMEOUT_SECONDS", 0.05)
    store = Store(own_redis.url)
    changes = store.changes()
    changes.follow("one")
    own_redis.freeze()
    for call in (lambda: changes.follow("two"), lambda: changes.wait(10)):
        with pytest.raises(StoreUnavailable):
            call()
    own_redis.thaw()
    changes.wait(0)
    client = own_redis.client()
    client.publish("flansible:changed:two", "")
    assert eventually(lambda: "two" in changes.wait(0.1))
    client.close()
    changes.close()
    store.close()


# Redis away


def test_the_servers_settings_tell_what_decides_whether_records_survive(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    found = store.server_settings()
    assert set(found) == {"redis_version", "appendonly", "save", "maxmemory", "maxmemory-policy"}
    assert found["appendonly"] == "yes"
    assert found["redis_version"][0].isdigit()
    store.close()


# Every public method, with arguments that reach Redis. A test below fails when one is missing here.
CALLS: dict[str, Callable[[Store], Any]] = {
    "check_writes": lambda store: store.check_writes(),
    "server_settings": lambda store: store.server_settings(),
    "submit": lambda store: store.submit(UNKNOWN, make_run()),
    "mark_enqueued": lambda store: store.mark_enqueued(UNKNOWN),
    "discard": lambda store: store.discard(UNKNOWN),
    "claim": lambda store: store.claim(UNKNOWN, "worker"),
    "set_hosts": lambda store: store.set_hosts(UNKNOWN, ["web1"]),
    "ready_tasks": lambda store: store.ready_tasks(),
    "oldest_queued": lambda store: store.oldest_queued(10),
    "overtaken": lambda store: store.overtaken(10, 1.0),
    "secrets": lambda store: store.secrets(UNKNOWN),
    "settle": lambda store: store.settle(UNKNOWN, State.LOST, ""),
    "cancel": lambda store: store.cancel(UNKNOWN, "dev"),
    "revoke": lambda store: store.revoke(UNKNOWN, "rbac.json"),
    "cancel_requests": lambda store: store.cancel_requests([UNKNOWN]),
    "prune": lambda store: store.prune(),
    "task": lambda store: store.task(UNKNOWN),
    "authorized_run": lambda store: store.authorized_run(UNKNOWN),
    "tasks": lambda store: store.tasks(None, None, None, 10),
    "search": lambda store: store.search(ListFilter(words="x"), None, 10),
    "has_archiver": lambda store: store.has_archiver(),
    "run_id": lambda store: store.run_id(),
    "being_read": lambda store: store.being_read(),
    "mark_read": lambda store: store.mark_read([UNKNOWN]),
    "exists": lambda store: store.exists(UNKNOWN),
    "raise_sequence": lambda store: store.raise_sequence(1),
    "elect_archiver": lambda store: store.elect_archiver("process", 1.0),
    "report_archiver": lambda store: store.report_archiver(1, ""),
    "archiver_report": lambda store: store.archiver_report(),
    "finished_count": lambda store: store.finished_count(),
    "finished": lambda store: store.finished(0, 10),
    "final_record": lambda store: store.final_record(UNKNOWN),
    "event_texts": lambda store: store.event_texts(UNKNOWN, 0, 10, 100),
    "forget": lambda store: store.forget(FinishedTask(UNKNOWN, f"{UNKNOWN} dev lost 1"), 1, Progress()),
    "count": lambda store: store.count(State.QUEUED),
    "renew_leases": lambda store: store.renew_leases("worker", 1, [(UNKNOWN, 1)]),
    "remove_worker": lambda store: store.remove_worker("worker"),
    "awaited_workers": lambda store: store.awaited_workers(),
    "mark_silent": lambda store: store.mark_silent(Run(UNKNOWN, 1, "", "", 1.0, 1.0, False), ""),
    "restore": lambda store: store.restore(UNKNOWN, Claim(make_run(), 1, 1, Progress())),
    "runs": lambda store: store.runs(),
    "lease_orphans": lambda store: store.lease_orphans(),
    "mark_lost": lambda store: store.mark_lost(UNKNOWN, "gone"),
    "end_lost_run": lambda store: store.end_lost_run(UNKNOWN, "gone", "requeue", 1, "claim:1"),
    "append": lambda store: store.append(UNKNOWN, 1, TEXT),
    "positions": lambda store: store.positions([UNKNOWN]),
    "position": lambda store: store.position(UNKNOWN),
    "recorded_position": lambda store: store.recorded_position(UNKNOWN),
    "keep_while_read": lambda store: store.keep_while_read([UNKNOWN]),
    "output": lambda store: store.output(UNKNOWN, 0, 10),
    "colours": lambda store: store.colours(UNKNOWN, 0, 10),
    "event_page": lambda store: store.event_page(UNKNOWN),
    "events": lambda store: list(store.events(UNKNOWN)),
    "stats_event": lambda store: store.stats_event(UNKNOWN),
    "hosts": lambda store: store.hosts(UNKNOWN, 0, 10),
    "count_schedule_skips": lambda store: store.count_schedule_skips({"late": 1}),
    "note_schedule_success": lambda store: store.note_schedule_success("nightly", 1.0),
    "keep_schedule_successes": lambda store: store.keep_schedule_successes(["nightly"]),
    "count_delivery": lambda store: store.count_delivery("webhook", "delivered"),
    "outbox": lambda store: store.outbox(10),
    "outbox_length": lambda store: store.outbox_length(),
    "remove_from_outbox": lambda store: store.remove_from_outbox([OutboxEntry("1-0", "", "wake", "", "", 0)]),
    "add_late_schedule": lambda store: store.add_late_schedule(LateSchedule("nightly", "dev", "deploy", 0)),
    "wake_dispatcher": lambda store: store.wake_dispatcher(),
    "elect_dispatcher": lambda store: store.elect_dispatcher("process", 1.0),
    "expect_notifications": lambda store: store.expect_notifications(),
    "notified": lambda store: store.notified(),
    "set_notified": lambda store: store.set_notified("1", frozenset({"final"})),
    "count_requests": lambda store: store.count_requests({AnsweredRequest("GET", "/", 200): 1}),
    "metrics": lambda store: store.metrics(),
    "login_blocked_seconds": lambda store: store.login_blocked_seconds("dev", "10.0.0.1", LoginLimits()),
    "count_failed_login": lambda store: store.count_failed_login("dev", "10.0.0.1", LoginLimits()),
    "begin_session": lambda store: store.begin_session("cookie", Session("dev", "csrf", "digest", 0.0), 60),
    "session": lambda store: store.session("cookie", 60),
    "end_session": lambda store: store.end_session("cookie"),
    "publish_rights": lambda store: store.publish_rights({"dev": Rights(entry="x", confinement=None)}),
    "rights": lambda store: store.rights(),
    "known_choices": lambda store: store.known_choices("url x"),
    "keep_choices": lambda store: store.keep_choices("url x", ["1"], 30),
    "announce_lookup": lambda store: store.announce_lookup(UNKNOWN, "default"),
    "next_lookup": lambda store: store.next_lookup(["default"], 1),
    "known_commit": lambda store: store.known_commit("shop", "https://h/x", "main"),
    "keep_commit": lambda store: store.keep_commit("shop", "https://h/x", "main", KnownCommit("c" * 40, "main", 0.0)),
    "remote_state": lambda store: store.remote_state("shop"),
    "keep_remote_state": lambda store: store.keep_remote_state("shop", RemoteState(0.0)),
    "report_trees": lambda store: store.report_trees("w@host", "shop", [KeptTree("c" * 40, True, 0.0, 0.0, 1)]),
    "trees": lambda store: store.trees("shop"),
    "take_retry": lambda store: store.take_retry(60),
    "end_retry": lambda store: store.end_retry(UNKNOWN),
    "count_launch": lambda store: store.count_launch("deploy"),
    "lock_loads": lambda store: store.lock_loads(["db"]),
    "hold_scheduler_lease": lambda store: store.hold_scheduler_lease("token", 6.0),
    "rights_of": lambda store: store.rights_of(["dev"]),
    "list_changes": lambda store: store.list_changes(0, 10),
    "counts": lambda store: store.counts("dev", 3),
    "queued_and_running": lambda store: store.queued_and_running("dev"),
    "workers": lambda store: store.workers(),
    "report_worker": lambda store: store.report_worker("worker", "process", ""),
    "remove_worker_record": lambda store: store.remove_worker_record("worker", "process"),
    "worker_records": lambda store: store.worker_records(),
    "host_events": lambda store: store.host_events(UNKNOWN, ["web1"], 10, 100),
}
# It is no fault when it comes to nothing; `changes` has a test of its own.
SILENT: dict[str, Callable[[Store], Any]] = {"delete_secrets": lambda store: store.delete_secrets(UNKNOWN)}


def test_the_table_of_calls_holds_every_public_method() -> None:
    public = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert public - {"close", "changes"} == set(CALLS) | set(SILENT)


def never_started(server: RedisServer) -> None:
    server.kill()
    server.socket.unlink()


def killed(server: RedisServer) -> None:
    server.kill()


def frozen(server: RedisServer) -> None:
    server.freeze()


def is_writable(store: Store) -> bool:
    try:
        store.check_writes()
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("fault", [never_started, killed, frozen])
def test_whatever_happens_to_redis_no_method_raises_anything_but_ours(
    own_redis: RedisServer, fault: Callable[[RedisServer], None]
) -> None:
    connected, fresh = (Store(own_redis.url, reply_timeout_seconds=0.03) for _ in range(2))
    eventually(lambda: is_writable(connected))  # on busy processors the first reply may come later than that
    fault(own_redis)
    for store in (connected, fresh):
        for name, call in CALLS.items():
            try:
                call(store)
            except StoreUnavailable as error:
                assert str(error), name
            else:
                pytest.fail(f"{name} said nothing")
        for call in SILENT.values():
            call(store)
        store.close()


def test_every_method_works_again_when_redis_is_back(own_redis: RedisServer) -> None:
    """Their scripts have to be loaded anew."""
    store = Store(own_redis.url)
    for _ in range(2):
        for call in (*CALLS.values(), *SILENT.values()):
            try:
                call(store)
            except (IllegalMove, TaskDeleted):
                continue
        store.discard(UNKNOWN)
        own_redis.kill()
        own_redis.start()
    store.close()


def test_redis_is_found_again_however_often_it_was_asked_for_while_away(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    own_redis.kill()
    for _ in range(200):
        with pytest.raises(StoreUnavailable):
            store.task(UNKNOWN)
    own_redis.start()
    assert store.task(UNKNOWN) is None
    store.close()


def test_a_password_that_redis_refuses_is_our_error_without_the_password(own_redis: RedisServer) -> None:
    client = own_redis.client()
    client.config_set("requirepass", "right")
    client.close()
    store = Store(own_redis.url.replace("redis+socket://", "redis+socket://:marker-secret@"))
    with pytest.raises(StoreUnavailable) as caught:
        store.check_writes()
    assert "marker-secret" not in str(caught.value)
    store.close()


def test_a_redis_without_memory_is_our_error_and_nothing_is_half_stored(own_redis: RedisServer) -> None:
    store, client = Store(own_redis.url), own_redis.client()
    task_id, waiting, other = start(store, locks=("db",), on_lost="requeue"), new_id(), new_id()
    store.submit(waiting, make_run(locks=("db",)))
    before = {key: client.dump(key) for key in client.keys()}
    client.config_set("maxmemory", 1)
    for call in (
        lambda: store.submit(other, make_run(), b"sealed", Idempotency("key", "digest")),
        lambda: store.append(task_id, token_of(store, task_id), TEXT),
        lambda: store.settle(task_id, State.SUCCEEDED, "", 0),
        lambda: store.mark_lost(task_id, "killed", token_of(store, task_id)),
        lambda: store.cancel(waiting, "dev"),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    client.config_set("maxmemory", 0)
    assert {key: client.dump(key) for key in client.keys()} == before
    client.close()
    store.close()


def test_a_store_finds_its_redis_again_after_a_restart(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    task_id = new_id()
    store.submit(task_id, make_run())
    own_redis.kill()
    own_redis.start()
    assert state_of(store, task_id) is State.QUEUED, "the append-only file has it"
    assert isinstance(store.claim(task_id, "worker"), Claim), "and scripts are loaded again"
    store.close()


def test_a_redis_whose_file_lost_its_end_has_whole_steps_only(own_redis: RedisServer) -> None:
    """As after a power cut: the last second was never written, or half of it."""
    store = Store(own_redis.url)
    first = start(store, locks=("db",), on_lost="requeue")
    second = new_id()
    store.submit(second, make_run(locks=("db",)), b"sealed")
    store.claim(second, "worker")
    for n in range(5):
        event = StoredEvent('{"n": 1}', f"web{n}")
        store.append(first, token_of(store, first), Batch(Progress(6 * n, 0, n), b"marker", (event,), (), 6 * n + 6))
    store.mark_lost(first, "killed", token_of(store, first))
    store.claim(second, "worker", CLAIM)
    store.settle(second, State.SUCCEEDED, "", 0)
    own_redis.kill()
    file = max(own_redis.folder.rglob("*.aof"), key=lambda path: path.stat().st_size)
    data = file.read_bytes()
    for cut in random.Random(1).sample(range(len(data)), 12):
        file.write_bytes(data[:cut])
        own_redis.start()
        for task_id in (first, second):
            is_consistent(store, task_id)
        assert sum(store.count(state) for state in State) == len(listed(store, None, None, None, 9))
        own_redis.kill()
    store.close()


def is_consistent(store: Store, task_id: str) -> None:
    task = store.task(task_id)
    indexes = [state for state in State if task_id in listed(store, "dev", state, None, 9)]
    assert indexes == ([task.state] if task else [])
    position = store.positions([task_id])[task_id]
    output, events = everything(store, task_id)
    assert (position.output_bytes, position.events) == (len(output), len(events))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    if task is None:
        return
    assert (task.state in FINAL_STATES) == (events[-1:] != [] and events[-1].get("event") == "final")
    assert (task_id in [run.task_id for run in store.runs()]) == (task.state is State.RUNNING)
    assert store.authorized_run(task_id) is not None


class LossyLink:
    """A socket in front of Redis that can lose answers: Redis did what was asked, and the connection breaks."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._words: tuple[bytes, ...] = ()
        self._left = 0
        self.lost = 0
        path = server.folder / "l"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.url = f"redis+socket://{path}"

    def lose(self, answers: int, *words: bytes) -> None:
        """Lose the answers to the next requests that hold all of these words."""
        self._words, self._left, self.lost = words, answers, 0

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._server.socket))
            asked = b""
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 20)
                    if not data or (ready is server and self._is_lost(asked, data)):
                        return
                    asked = asked + data if ready is client else b""
                    (server if ready is client else client).sendall(data)

    def _is_lost(self, asked: bytes, answer: bytes) -> bool:
        if not self._left or b"NOSCRIPT" in answer or not all(word in asked for word in self._words):
            return False
        self._left -= 1
        self.lost += 1
        return True


@pytest.fixture
def link(own_redis: RedisServer) -> Iterator[LossyLink]:
    link = LossyLink(own_redis)
    yield link
    link.close()


@pytest.fixture
def linked(link: LossyLink) -> Iterator[Store]:
    """A store behind the link."""
    store = Store(link.url)
    yield store
    store.close()


def insisting(call: Callable[[], Any]) -> Any:
    """As the supervisor and the Celery task do: again, while the store is away."""
    while True:
        try:
            return call()
        except StoreUnavailable:
            continue


# One lost answer is hidden by the connection's own second try; two reach the caller.
either = pytest.mark.parametrize("answers", [1, 2])


@either
def test_a_submission_whose_answer_is_lost_is_recorded_once(link: LossyLink, linked: Store, answers: int) -> None:
    task_id, key = new_id(), Idempotency("key", "digest")
    link.lose(answers, task_id.encode(), b"digest")
    submitted = insisting(lambda: linked.submit(task_id, make_run(max_queued=1), b"", key))
    assert link.lost == answers
    assert submitted.outcome == "submitted"
    assert listed(linked, None, None, None, 9) == [task_id]


@either
def test_a_claim_whose_answer_is_lost_still_gives_the_run_to_one(link: LossyLink, linked: Store, answers: int) -> None:
    """Otherwise the task is running for ever, and nobody runs it."""
    task_id = new_id()
    linked.submit(task_id, make_run(locks=("db",), max_running=1))
    link.lose(answers, task_id.encode(), b"this claim")
    answer = insisting(lambda: linked.claim(task_id, "worker", "this claim"))
    assert link.lost == answers
    assert isinstance(answer, Claim) and answer.attempt == 1


@either
def test_a_refusal_whose_answer_is_lost_is_given_again(link: LossyLink, linked: Store, answers: int) -> None:
    holder, task_id = start(linked, locks=("db",)), new_id()
    linked.submit(task_id, make_run(locks=("db",)))
    link.lose(answers, task_id.encode(), b"this claim")
    answer = insisting(lambda: linked.claim(task_id, "worker", "this claim"))
    assert (link.lost, answer) == (answers, ClaimRefusal(f"locked_by: {holder}"))
    assert [one.task_id for one in linked.settle(holder, State.LOST, "").ready] == [task_id]


@either
def test_a_batch_whose_answer_is_lost_is_stored_once(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = start(linked)
    link.lose(answers, task_id.encode(), b"marker")
    appended = insisting(lambda: linked.append(task_id, token_of(linked, task_id), TEXT))
    assert link.lost == answers
    assert (appended.outcome, appended.progress) == ("running", Progress(6, 0, 1))
    assert everything(linked, task_id) == (b"marker", [{"seq": 1, "n": 1}])


@either
def test_an_end_whose_answer_is_lost_is_kept(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = start(linked)
    link.lose(answers, task_id.encode(), b"succeeded")
    try:
        insisting(lambda: linked.settle(task_id, State.SUCCEEDED, "fine", 0))
    except IllegalMove:
        pass  # it has been done; the Celery task logs it
    assert link.lost == answers
    assert state_of(linked, task_id) is State.SUCCEEDED
    assert [event["event"] for event in linked.events(task_id)] == ["final"]


@either
def test_a_loss_whose_answer_is_lost_counts_once(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = start(linked, on_lost="requeue")
    link.lose(answers, task_id.encode(), b"killed")
    try:
        insisting(lambda: linked.mark_lost(task_id, "killed", token_of(linked, task_id)))
    except IllegalMove:
        pass  # it has been done, and an idle worker finds the task
    assert link.lost == answers
    assert [task.task_id for task in linked.oldest_queued(9)] == [task_id]
    claim = linked.claim(task_id, "worker")
    assert isinstance(claim, Claim) and claim.attempt == 2


@either
@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_a_cancel_whose_answer_is_lost_is_kept(link: LossyLink, linked: Store, answers: int, state: State) -> None:
    task_id = bring_to(linked, state)
    link.lose(answers, task_id.encode(), b"ann")
    answer = insisting(lambda: linked.cancel(task_id, "ann"))
    assert link.lost == answers
    assert answer is (State.CANCELED if state is State.QUEUED else State.RUNNING)
    assert (linked.cancel_requests([task_id]) == {task_id: "ann"}) == (state is State.RUNNING)


@either
def test_secrets_whose_answer_is_lost_are_not_lost(link: LossyLink, linked: Store, answers: int) -> None:
    """Otherwise the run goes without its passwords, and nobody can say why."""
    task_id = start(linked)
    link.lose(answers, f"{task_id}:secrets".encode())
    assert insisting(lambda: linked.secrets(task_id)) == b"sealed"
    assert link.lost == answers
