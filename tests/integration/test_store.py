"""The store against a real Redis: who wins, what is kept, what expires, and what happens when Redis is away."""

from __future__ import annotations

import functools
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from flansible import store as store_module
from flansible.errors import IllegalMove, StoreUnavailable
from flansible.models import FINAL_STATES, State
from flansible.store import MOVES, Batch, ColourMark, Store
from tests.conftest import RedisServer
from tests.integration.conftest import make_run, new_id

Start = Callable[..., str]
UNKNOWN = "00000000-0000-4000-8000-ffffffffffff"


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


def state_of(store: Store, task_id: str) -> State:
    task = store.task(task_id)
    assert task is not None
    return task.state


def batch(output: bytes = b"", *events: dict[str, Any], offset: int = 0, seq: int = 1) -> Batch:
    return Batch(offset, output, seq, tuple(json.dumps(event) for event in events))


def everything(store: Store, task_id: str) -> tuple[bytes, list[dict[str, Any]]]:
    return store.output(task_id, 0, 1 << 30), list(store.events(task_id))


def test_a_submitted_task_is_queued_and_says_so_to_old_clients(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run("dev", summary="dev: adhoc ping on ünï"))
    task = store.task(task_id)
    assert task is not None
    assert (task.Status, task.state, task.user, task.kind) == ("PROGRESS", State.QUEUED, "dev", "adhoc")
    assert task.summary == "dev: adhoc ping on ünï"
    assert task.submitted_at.endswith("Z")
    assert (task.started_at, task.finished_at, task.returncode) == (None, None, None)


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
    task_id, run = new_id(), make_run("ü ser")
    store.submit(task_id, run)
    assert store.claim(task_id, "worker@host") == run
    task = store.task(task_id)
    assert task is not None and task.state is State.RUNNING and task.started_at is not None
    assert "worker@host" in task.description


def test_a_second_claim_gets_nothing(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert store.claim(task_id, "one") is not None
    assert store.claim(task_id, "two") is None
    assert store.claim(UNKNOWN, "one") is None


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """The results of calls that all begin at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_of_twenty_threads_that_claim_one_wins(store: Store, submitted: Start, redis_url: str, shared: bool) -> None:
    stores = [store] * 20 if shared else [Store(redis_url) for _ in range(20)]
    for _ in range(10):
        task_id = submitted()
        won = at_once(*(functools.partial(one.claim, task_id, "worker") for one in stores))
        assert sum(run is not None for run in won) == 1
    for one in stores:
        one.close()


def test_of_a_cancel_and_a_claim_at_the_same_moment_one_wins(store: Store, submitted: Start) -> None:
    for _ in range(30):
        task_id = submitted()
        claim, cancel = functools.partial(store.claim, task_id, "w"), functools.partial(store.cancel, task_id, "dev")
        run, state = at_once(claim, cancel)
        assert (run is not None, state) in ((True, State.RUNNING), (False, State.CANCELED))
        assert state_of(store, task_id) is state


def test_cancelling_a_queued_task_never_starts_it(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert store.cancel(task_id, "dev") is State.CANCELED
    assert store.claim(task_id, "worker") is None
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


WORDS = {
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FLANSIBLE_TASK_FAILURE",
    State.CANCELED: "CANCELED",
    State.TIMED_OUT: "TIMEOUT",
    State.LOST: "LOST",
    State.ERROR: "CELERY_FAILURE: why",
}


@pytest.mark.parametrize("state", FINAL_STATES)
def test_a_settled_task_says_how_it_ended(store: Store, running: Start, state: State) -> None:
    task_id = running()
    store.settle(task_id, state, "why", 4)
    task = store.task(task_id)
    assert task is not None and task.finished_at is not None
    assert (task.Status, task.state, task.description, task.returncode) == (WORDS[state], state, "why", 4)


def test_a_task_may_be_settled_without_an_exit_code(store: Store, running: Start) -> None:
    task_id = running()
    store.settle(task_id, State.LOST, "gone", None)
    task = store.task(task_id)
    assert task is not None and task.returncode is None


def bring_to(store: Store, state: State) -> str:
    task_id = new_id()
    store.submit(task_id, make_run())
    if state is State.QUEUED:
        return task_id
    store.claim(task_id, "worker")
    if state is not State.RUNNING:
        store.settle(task_id, state, "", None)
    return task_id


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", FINAL_STATES)
def test_only_the_moves_of_the_table_are_made(store: Store, before: State, after: State) -> None:
    task_id = bring_to(store, before)
    if after in MOVES.get(before, ()):
        store.settle(task_id, after, "moved", 0)
        assert state_of(store, task_id) is after
    else:
        with pytest.raises(IllegalMove, match=f"is {before} and cannot become {after}"):
            store.settle(task_id, after, "moved", 0)
        assert state_of(store, task_id) is before


def test_an_unknown_task_cannot_be_moved(store: Store) -> None:
    with pytest.raises(IllegalMove, match="missing"):
        store.settle(UNKNOWN, State.SUCCEEDED, "", 0)
    assert store.task(UNKNOWN) is None


def test_what_cannot_be_enqueued_is_forgotten_whole(store: Store, submitted: Start, raw: redis.Redis) -> None:
    store.discard(submitted("dev user"))
    assert [key for key in raw.keys() if key != b"flansible:sequence"] == []


def test_what_a_worker_has_claimed_meanwhile_is_not_forgotten(store: Store, running: Start) -> None:
    task_id = running()
    store.discard(task_id)
    store.discard(UNKNOWN)
    assert state_of(store, task_id) is State.RUNNING


def test_output_and_events_are_stored_as_they_were_appended(store: Store, running: Start) -> None:
    task_id = running()
    data = bytes(range(256)) * 3
    assert store.append(task_id, batch(data[:100], {"n": 1})) is State.RUNNING
    assert store.append(task_id, batch(data[100:], {"n": 2}, {"n": 3}, offset=100, seq=2)) is State.RUNNING
    assert everything(store, task_id) == (data, [{"seq": n, "n": n} for n in (1, 2, 3)])
    assert store.output_size(task_id) == len(data)


def test_appending_twice_changes_nothing(store: Store, running: Start) -> None:
    task_id = running()
    first, second = batch(b"one", {"n": 1}), batch(b"two", {"n": 2}, offset=3, seq=2)
    for item in (first, first, second, second, first):
        store.append(task_id, item)
    assert everything(store, task_id) == (b"onetwo", [{"seq": 1, "n": 1}, {"seq": 2, "n": 2}])


def test_a_batch_that_overlaps_what_is_stored_adds_only_what_is_new(store: Store, running: Start) -> None:
    task_id = running()
    store.append(task_id, batch(b"abcdef", {"n": 1}, {"n": 2}))
    store.append(task_id, batch(b"cdefgh", {"n": 2}, {"n": 3}, offset=2, seq=2))
    assert everything(store, task_id) == (b"abcdefgh", [{"seq": n, "n": n} for n in (1, 2, 3)])
    store.append(task_id, batch(b"def", offset=3, seq=4))
    assert store.output(task_id, 0, 100) == b"abcdefgh"


def test_a_batch_may_hold_output_alone_or_events_alone(store: Store, running: Start) -> None:
    task_id = running()
    store.append(task_id, batch(b"text"))
    store.append(task_id, batch(b"", {"n": 1}, offset=4))
    store.append(task_id, batch(b"more", offset=4, seq=2))
    assert everything(store, task_id) == (b"textmore", [{"seq": 1, "n": 1}])


def test_many_events_are_read_page_by_page_without_a_gap(store: Store, running: Start) -> None:
    task_id = running()
    for seq in range(1, 1202, 400):
        store.append(task_id, batch(b"", *({"n": seq + index} for index in range(400)), seq=seq))
    assert [event["seq"] for event in store.events(task_id)] == list(range(1, 1601))
    assert [event["n"] for event in store.events(task_id, after=1595)] == [1596, 1597, 1598, 1599, 1600]
    assert list(store.events(task_id, after=1600)) == []


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_what_is_appended_after_the_end_is_not_stored(store: Store, running: Start, state: State) -> None:
    task_id = running()
    store.append(task_id, batch(b"kept", {"n": 1}))
    store.settle(task_id, state, "", None)
    assert store.append(task_id, batch(b"late", {"n": 2}, offset=4, seq=2)) is state
    assert everything(store, task_id) == (b"kept", [{"seq": 1, "n": 1}])


def test_nothing_is_appended_to_a_task_that_is_not_running(store: Store, submitted: Start, raw: redis.Redis) -> None:
    task_id = submitted()
    assert store.append(task_id, batch(b"early", {"n": 1})) is State.QUEUED
    assert store.append(UNKNOWN, batch(b"x", {"n": 1})) is None
    assert everything(store, task_id) == (b"", [])
    assert raw.keys(f"*{UNKNOWN}*") == []


def test_output_is_read_in_pieces(store: Store, running: Start) -> None:
    task_id = running()
    store.append(task_id, batch(b"0123456789"))
    assert [store.output(task_id, offset, 4) for offset in (0, 4, 8, 12)] == [b"0123", b"4567", b"89", b""]
    assert store.output(UNKNOWN, 0, 4) == b""


def test_colours_are_found_by_the_offset_of_their_text(store: Store, running: Start) -> None:
    task_id = running()
    marks = tuple(ColourMark(offset, code) for offset, code in ((0, "0;32"), (5, "0"), (5, "1;31"), (9, "38;5;255")))
    for _ in range(2):
        store.append(task_id, Batch(0, b"0123456789", 1, (), 0, marks))
    assert store.colours(task_id, 0, 9) == list(marks)
    assert store.colours(task_id, 1, 8) == list(marks[1:3])
    assert store.colours(task_id, 6, 8) == store.colours(UNKNOWN, 0, 9) == []


def listed(store: Store, *args: Any) -> list[str]:
    return [task.task_id for task in store.tasks(*args).tasks]


def test_the_list_is_newest_first_and_goes_on_at_the_cursor(store: Store, submitted: Start) -> None:
    ids = [submitted() for _ in range(7)][::-1]
    assert listed(store, None, None, None, 50) == ids
    found, before = [], None
    while True:
        page = store.tasks(None, None, before, 3)
        found += [task.task_id for task in page.tasks]
        before = page.next_before
        if before is None:
            break
        submitted()  # what comes meanwhile is newer and must not shift the pages
    assert found == ids


def test_the_list_is_by_user_and_by_state(store: Store, submitted: Start, running: Start) -> None:
    queued = {user: submitted(user) for user in ("a", "b", "a b")}
    started = {user: running(user) for user in ("a", "b")}
    assert listed(store, "a", None, None, 9) == [started["a"], queued["a"]]
    assert listed(store, "a b", None, None, 9) == [queued["a b"]]
    assert listed(store, None, State.RUNNING, None, 9) == [started["b"], started["a"]]
    assert listed(store, "b", State.QUEUED, None, 9) == [queued["b"]]
    assert listed(store, "b", State.FAILED, None, 9) == listed(store, "nobody", None, None, 9) == []
    assert (store.count(State.QUEUED), store.count(State.RUNNING), store.count(State.LOST)) == (3, 2, 0)


def test_a_move_changes_the_lists_by_state(store: Store, running: Start) -> None:
    task_id = running()
    store.settle(task_id, State.FAILED, "", 2)
    for user in (None, "dev"):
        assert listed(store, user, State.RUNNING, None, 9) == []
        assert listed(store, user, State.FAILED, None, 9) == listed(store, user, None, None, 9) == [task_id]


def test_everything_of_a_final_task_expires_and_nothing_before(
    store: Store, running: Start, raw: redis.Redis, redis_url: str
) -> None:
    task_id = running()
    store.append(task_id, Batch(0, b"x", 1, ('{"n": 1}',), 0, (ColourMark(0, "0;32"),)))
    keys = [f"flansible:task:{task_id}{part}" for part in ("", ":run", ":output", ":events", ":colours")]
    assert sorted(raw.keys(f"flansible:task:{task_id}*")) == sorted(key.encode() for key in keys)
    assert [raw.ttl(key) for key in keys] == [-1] * 5
    store.settle(task_id, State.SUCCEEDED, "", 0)
    month = 30 * 86400
    assert all(month - 60 < raw.ttl(key) <= month for key in keys)


@pytest.mark.parametrize("user", ["dev", "a b", "x succeeded", "ünï", "%S+", "queued"])
def test_what_has_expired_is_pruned_from_every_list(redis_url: str, raw: redis.Redis, user: str) -> None:
    short, long = Store(redis_url, retention_days=0), Store(redis_url)
    kept = new_id()
    for store, task_id in ((short, new_id()), (short, new_id()), (long, kept)):
        store.submit(task_id, make_run(user))
        store.claim(task_id, "worker")
        store.settle(task_id, State.SUCCEEDED, "", 0)
    assert listed(long, None, None, None, 9) == listed(long, user, State.SUCCEEDED, None, 9) == [kept]
    assert long.count(State.SUCCEEDED) == 1
    assert {raw.zcard(key) for key in raw.keys("flansible:*") if raw.type(key) == b"zset"} == {1}
    short.close()
    long.close()


def test_a_page_with_expired_tasks_is_not_the_last_one(store: Store, running: Start, raw: redis.Redis) -> None:
    """Between expiry and pruning the lists still hold them: paging must go on to those that are left."""
    ids = [running() for _ in range(6)]
    for task_id in ids[2:5]:
        raw.delete(f"flansible:task:{task_id}")
    found, before = [], None
    for _ in range(10):
        page = store.tasks(None, None, before, 2)
        found += [task.task_id for task in page.tasks]
        before = page.next_before
        if before is None:
            break
    assert found == [ids[5], ids[1], ids[0]]


def test_the_servers_settings_tell_what_decides_whether_records_survive(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    found = store.server_settings()
    assert set(found) == {"redis_version", "appendonly", "save", "maxmemory", "maxmemory-policy"}
    assert found["appendonly"] == "yes"
    assert found["redis_version"][0].isdigit()
    store.close()


# Every public method, with arguments that reach Redis. The test below fails when one is missing here.
CALLS: dict[str, Callable[[Store], Any]] = {
    "ping": lambda store: store.ping(),
    "server_settings": lambda store: store.server_settings(),
    "submit": lambda store: store.submit(UNKNOWN, make_run()),
    "discard": lambda store: store.discard(UNKNOWN),
    "claim": lambda store: store.claim(UNKNOWN, "worker"),
    "settle": lambda store: store.settle(UNKNOWN, State.LOST, "", None),
    "cancel": lambda store: store.cancel(UNKNOWN, "dev"),
    "renew_leases": lambda store: store.renew_leases([UNKNOWN]),
    "lapsed_leases": lambda store: store.lapsed_leases(),
    "lose": lambda store: store.lose(UNKNOWN),
    "oldest_queued": lambda store: store.oldest_queued(10),
    "take_secrets": lambda store: store.take_secrets(UNKNOWN),
    "cancel_requests": lambda store: store.cancel_requests([UNKNOWN]),
    "append": lambda store: store.append(UNKNOWN, batch(b"x", {"n": 1})),
    "task": lambda store: store.task(UNKNOWN),
    "tasks": lambda store: store.tasks(None, None, None, 10),
    "count": lambda store: store.count(State.QUEUED),
    "output_size": lambda store: store.output_size(UNKNOWN),
    "output": lambda store: store.output(UNKNOWN, 0, 10),
    "colours": lambda store: store.colours(UNKNOWN, 0, 10),
    "events": lambda store: list(store.events(UNKNOWN)),
}


def test_the_table_of_calls_holds_every_public_method() -> None:
    public = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert public - {"close"} == set(CALLS)


def never_started(server: RedisServer) -> None:
    server.kill()
    server.socket.unlink()


def killed(server: RedisServer) -> None:
    server.kill()


def frozen(server: RedisServer) -> None:
    server.freeze()


@pytest.mark.parametrize("fault", [never_started, killed, frozen])
def test_whatever_happens_to_redis_no_method_raises_anything_but_ours(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, fault: Callable[[RedisServer], None]
) -> None:
    monkeypatch.setattr(store_module, "REPLY_TIMEOUT_SECONDS", 0.03)
    connected, fresh = Store(own_redis.url), Store(own_redis.url)
    connected.ping()
    fault(own_redis)
    for name, call in CALLS.items():
        for store in (connected, fresh):
            try:
                call(store)
            except StoreUnavailable as error:
                assert str(error), name
            else:
                pytest.fail(f"{name} said nothing")
    connected.close()
    fresh.close()


def test_a_password_that_redis_refuses_is_our_error_without_the_password(own_redis: RedisServer) -> None:
    client = own_redis.client()
    client.config_set("requirepass", "right")
    client.close()
    store = Store(own_redis.url.replace("redis+socket://", "redis+socket://:marker-secret@"))
    with pytest.raises(StoreUnavailable) as caught:
        store.ping()
    assert "marker-secret" not in str(caught.value)
    store.close()


def test_a_redis_without_memory_is_our_error_and_nothing_is_half_stored(own_redis: RedisServer) -> None:
    store, client = Store(own_redis.url), own_redis.client()
    task_id, other = new_id(), new_id()
    store.submit(task_id, make_run())
    store.claim(task_id, "worker")
    client.config_set("maxmemory", 1)
    for call in (
        lambda: store.submit(other, make_run()),
        lambda: store.append(task_id, batch(b"x", {"n": 1})),
        lambda: store.settle(task_id, State.SUCCEEDED, "", 0),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    client.config_set("maxmemory", 0)
    assert store.task(other) is None
    assert state_of(store, task_id) is State.RUNNING
    assert everything(store, task_id) == (b"", [])
    client.close()
    store.close()


def test_a_store_finds_its_redis_again_after_a_restart(own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    task_id = new_id()
    store.submit(task_id, make_run())
    own_redis.kill()
    own_redis.start()
    assert state_of(store, task_id) is State.QUEUED, "the append-only file has it"
    assert store.claim(task_id, "worker") is not None, "and scripts are loaded again"
    store.close()


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
        self._words, self._left = words, answers

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
            while request := client.recv(1 << 20):
                server.sendall(request)
                answer = server.recv(1 << 20)
                if self._left and all(word in request for word in self._words) and b"NOSCRIPT" not in answer:
                    self._left -= 1
                    self.lost += 1
                    return
                client.sendall(answer)


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
@pytest.mark.parametrize("answers", [1, 2])
def test_a_submission_whose_answer_is_lost_is_recorded_once(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = new_id()
    link.lose(answers, task_id.encode(), b"waiting for a worker")
    insisting(lambda: linked.submit(task_id, make_run()))
    assert link.lost == answers
    assert listed(linked, None, None, None, 9) == [task_id]


@pytest.mark.parametrize("answers", [1, 2])
def test_a_claim_whose_answer_is_lost_still_gives_the_run_to_one(link: LossyLink, linked: Store, answers: int) -> None:
    """Otherwise the task is running for ever, and nobody runs it."""
    task_id = new_id()
    linked.submit(task_id, make_run())
    link.lose(answers, task_id.encode(), b"running")
    run = insisting(lambda: linked.claim(task_id, "worker", "this claim"))
    assert link.lost == answers
    assert run is not None or state_of(linked, task_id) is State.QUEUED


@pytest.mark.parametrize("answers", [1, 2])
def test_a_claim_that_is_cut_off_before_the_run_was_read_can_be_repeated(
    link: LossyLink, linked: Store, answers: int
) -> None:
    task_id = new_id()
    linked.submit(task_id, make_run())
    link.lose(answers, b"GET", f"{task_id}:run".encode())
    run = insisting(lambda: linked.claim(task_id, "worker", "this claim"))
    assert run is not None or state_of(linked, task_id) is State.QUEUED


@pytest.mark.parametrize("answers", [1, 2])
def test_a_batch_whose_answer_is_lost_is_stored_once(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = new_id()
    linked.submit(task_id, make_run())
    linked.claim(task_id, "worker")
    link.lose(answers, task_id.encode(), b"marker")
    insisting(lambda: linked.append(task_id, batch(b"marker", {"n": 1})))
    assert link.lost == answers
    assert everything(linked, task_id) == (b"marker", [{"seq": 1, "n": 1}])


@pytest.mark.parametrize("answers", [1, 2])
def test_an_end_whose_answer_is_lost_is_kept(link: LossyLink, linked: Store, answers: int) -> None:
    task_id = new_id()
    linked.submit(task_id, make_run())
    linked.claim(task_id, "worker")
    link.lose(answers, task_id.encode(), b"succeeded")
    try:
        insisting(lambda: linked.settle(task_id, State.SUCCEEDED, "fine", 0))
    except IllegalMove:
        pass  # it has been done; the Celery task logs it
    assert link.lost == answers
    assert state_of(linked, task_id) is State.SUCCEEDED


def test_the_same_claim_made_again_is_answered_again_and_another_is_not(store: Store, submitted: Start) -> None:
    task_id = submitted()
    assert store.claim(task_id, "worker", "one") is not None
    assert store.claim(task_id, "worker", "one") is not None
    assert store.claim(task_id, "worker", "two") is None
    assert store.claim(task_id, "worker") is None


def test_a_lease_that_lapses_makes_the_task_lost_and_one_that_is_renewed_does_not(
    store: Store, running: Start, raw: redis.Redis
) -> None:
    spoken_for, silent = running(), running()
    assert store.lapsed_leases() == []
    with pytest.raises(IllegalMove):
        store.lose(silent)
    for task_id in (spoken_for, silent):
        raw.zadd("flansible:leases", {task_id: 1})
    store.renew_leases([spoken_for])
    assert store.lapsed_leases() == [silent]
    store.lose(silent)
    assert (state_of(store, silent), state_of(store, spoken_for)) == (State.LOST, State.RUNNING)
    store.settle(spoken_for, State.SUCCEEDED, "fine", 0)
    store.renew_leases([spoken_for, silent])
    assert raw.zcard("flansible:leases") == 0


@pytest.mark.parametrize("answers", [1, 2])
def test_secrets_whose_answer_is_lost_are_not_lost(link: LossyLink, linked: Store, answers: int) -> None:
    """Otherwise the run goes without its passwords, and nobody can say why."""
    task_id = new_id()
    linked.submit(task_id, make_run(), b"sealed")
    linked.claim(task_id, "worker")
    link.lose(answers, f"{task_id}:secrets".encode())
    assert insisting(lambda: linked.take_secrets(task_id)) == b"sealed"
    assert link.lost == answers
