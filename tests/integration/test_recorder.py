"""What a run leaves on its way to a real Redis: the cap, the order, the disk that is full, the Redis that forgets."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from flansible.errors import StoreUnavailable
from flansible.models import State
from flansible.store import AppendResult, Batch, Claim, ColourMark, Progress, Store
from flansible.worker import celery_task, recorder, spill_queue
from flansible.worker.outcome import Outcome
from flansible.worker.recorder import Recorder
from flansible.worker.spill_queue import SpillQueue
from flansible.worker.store_writer import StoreWriter
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id
from tests.helpers.waiting import eventually

NO_CAP = 1 << 40


class Writing:
    """A recorder of a new task, and the writer that serves it from `start` on."""

    def __init__(self, store: Store, max_output_bytes: int = NO_CAP, **options: Any) -> None:
        self.store = store
        self.task_id = new_id()
        store.submit(self.task_id, make_run())
        claim = store.claim(self.task_id, "worker")
        assert isinstance(claim, Claim)
        self.writer = StoreWriter(store)
        self.recorder = Recorder(self.task_id, claim, max_output_bytes, None, self.writer.wake, **options)
        self.serving = self.writer.serve(self.recorder)

    def start(self) -> None:
        self.serving.__enter__()
        self.writer.wake()

    def finish(self, seconds: float = 30) -> None:
        self.recorder.finish()
        assert self.recorder.wait_until_stored(seconds)

    def close(self) -> None:
        """A batch that is still on its way would hold a connection of a store that is closed."""
        self.serving.__exit__(None, None, None)
        self.writer.wake()
        eventually(lambda: not self.writer._awake)  # a round has begun after that: the one before is over
        self.recorder.close()

    @property
    def output(self) -> bytes:
        return self.store.output(self.task_id, 0, 1 << 30)

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.store.events(self.task_id))


@pytest.fixture
def write(store: Store) -> Iterator[Callable[..., Writing]]:
    made: list[Writing] = []

    def begin(**options: Any) -> Writing:
        writing = Writing(store, **options)
        writing.start()
        made.append(writing)
        return writing

    yield begin
    for writing in made:
        writing.close()


def event(offset: int, **fields: Any) -> dict[str, Any]:
    return {"event": "host_result", "host": "h", "verdict": "ok", "offset": offset, "time": 1.5, "result": {}, **fields}


def test_an_event_is_not_told_before_its_output_and_knows_its_bytes(write: Callable[..., Writing]) -> None:
    writing = write()
    writing.recorder.add_event(event(10))
    writing.recorder.add_output(b"12345", [])
    eventually(lambda: writing.output == b"12345")
    assert writing.events == []
    writing.recorder.add_output(b"67890", [])
    writing.recorder.add_event(event(10))
    writing.finish()
    assert [(item["output_start"], item["output_end"]) for item in writing.events] == [(0, 10), (10, 10)]
    assert writing.events[0]["time"] == "1970-01-01T00:00:01.500Z"


def test_what_is_kept_of_stored_batches_is_bounded_with_their_events(write: Callable[..., Writing]) -> None:
    writing = write()
    for _ in range(20):
        writing.recorder.add_event(event(0, result={"text": "x" * 1024 * 1024}))
    writing.finish()
    assert len(writing.events) == 20
    kept = sum(len(item.json) for _, batch in writing.recorder._recent for item in batch.events)
    assert 0 < kept <= recorder._KEEP_BYTES


def test_an_event_whose_output_never_came_is_told_at_the_end(write: Callable[..., Writing]) -> None:
    writing = write()
    writing.recorder.add_output(b"123", [])
    writing.recorder.add_event(event(1000))
    writing.finish()
    assert [(item["output_start"], item["output_end"]) for item in writing.events] == [(0, 3)]


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("text", ["line\n" * 400, "äöü€😀" * 150])
def test_output_over_the_cap_ends_with_a_line_that_says_so(write: Callable[..., Writing], step: int, text: str) -> None:
    data, cap = text.encode(), 1024
    writing = write(max_output_bytes=cap)
    for start in range(0, len(data), step):
        writing.recorder.add_output(data[start : start + step], [])
    writing.recorder.add_event(event(len(data)))
    writing.finish()
    kept, _, line = writing.output.decode(errors="replace").partition("[flansible]")
    assert len(kept.encode()) <= cap + 4 and text.startswith(kept.rstrip("\n�")[:-1])
    assert len(kept.encode()) >= cap - 4
    assert line == f" The output ends here: it is over max_output_bytes ({cap}). The run goes on.\n"
    assert kept.endswith("\n")
    assert writing.recorder.offset == len(data)
    assert writing.events[0]["output_end"] == len(writing.output)


def test_a_colour_that_is_open_at_the_cap_is_ended_there(write: Callable[..., Writing]) -> None:
    writing = write(max_output_bytes=1024)
    marks = [ColourMark(0, "0;32"), ColourMark(1000, "0"), ColourMark(1010, "0;31"), ColourMark(1500, "0")]
    writing.recorder.add_output(b"x" * 2000, marks)
    writing.recorder.add_output(b"x" * 2000, [ColourMark(2100, "0;33")])
    writing.finish()
    kept = writing.store.colours(writing.task_id, 0, 5000)
    assert kept == [*marks[:3], ColourMark(1024, "0")]


def test_results_over_the_cap_are_left_out_and_say_so(write: Callable[..., Writing]) -> None:
    writing = write(max_output_bytes=4096)
    for _ in range(10):
        writing.recorder.add_event(event(0, result={"stdout": "y" * 1000}))
    writing.finish()
    assert [item["seq"] for item in writing.events] == list(range(1, 11))
    assert writing.events[0]["result"]["stdout"] == "y" * 1000
    assert "max_output_bytes" in writing.events[-1]["result"]["flansible_left_out"]
    assert writing.events[-1]["verdict"] == "ok"


def test_events_and_colours_are_bounded_however_little_they_come_with(
    write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's code can send any number of either without a result and without a character: Redis filled with them."""
    monkeypatch.setattr(recorder, "_PLAIN_EVENT_BYTES", 0)
    writing = write(max_output_bytes=4096)
    for _ in range(500):
        writing.recorder.add_event({"event": "task_start", "task": "t" * 100, "time": 0.0, "offset": 0})
        writing.recorder.add_output(b"", [ColourMark(0, "1;31"), ColourMark(0, "0")])
    writing.recorder.add_event({"event": "stats", "stats": {}, "time": 0.0, "offset": 0})
    writing.finish()
    kinds = [item["event"] for item in writing.events]
    assert kinds[-2:] == ["missing", "stats"] and set(kinds[:-2]) == {"task_start"} and 20 < len(kinds) < 60
    assert len(writing.store.colours(writing.task_id, 0, 1 << 20)) <= 4096 // 16


def test_order_is_kept_through_memory_and_disk() -> None:
    pieces: list[spill_queue.Piece] = []
    queue = SpillQueue(1000, None)
    for number in range(2000):
        piece = b"%d " % number * (number % 50 + 1) if number % 3 else ColourMark(number, "0;1")
        pieces.append(piece)
        queue.add(piece)
        if number % 700 == 699:
            taken = queue.take(5000)
            queue.put_back(taken)
    assert not queue.full
    taken = []
    while queue:
        taken += queue.take(3000)
    assert taken == pieces
    queue.close()


def test_a_full_disk_loses_nothing_and_asks_the_run_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SpillQueue(1000, None)
    pwrite = os.pwrite
    room = 3000

    def cramped(descriptor: int, data: bytes, at: int) -> int:
        if at >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, bytes(data)[: room - at], at)

    monkeypatch.setattr(os, "pwrite", cramped)
    pieces = [b"%03d" % number * 50 for number in range(100)]
    for piece in pieces:
        queue.add(piece)
    assert queue.full
    taken = []
    while queue:
        taken += queue.take(500)
    assert taken == pieces
    assert not queue.full
    queue.close()


def test_a_supervisor_that_stopped_reading_is_woken_when_there_is_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when one batch takes everything that the full disk did not take."""

    def full(descriptor: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    recorder = Writing(store, memory_bytes=100).recorder
    for _ in range(3):
        recorder.add_output(b"x" * 100, [])
    assert recorder.full
    batch = recorder.next_batch()
    assert batch is not None and len(batch.output) == 300
    recorder.stored(AppendResult("running", Progress(300)))
    assert not recorder.full and os.eventfd_read(recorder.descriptor)
    recorder.close()


def test_no_file_of_the_backlog_has_a_name(tmp_path: Path) -> None:
    queue = SpillQueue(10, tmp_path)
    for _ in range(100):
        queue.add(b"x" * 100)
    assert list(tmp_path.iterdir()) == []
    queue.close()


def rolled_back(client: redis.Redis, task_id: str, **fields: int) -> None:
    """As after a Redis was killed before its last writes reached the disk."""
    task = f"flansible:task:{task_id}"
    client.hset(task, mapping=fields)
    kept = client.getrange(f"{task}:output:0", 0, fields["output_bytes"] - 1) if fields["output_bytes"] else b""
    client.set(f"{task}:output:0", kept)
    for entry_id, _ in client.xrange(f"{task}:events"):
        if int(entry_id.split(b"-")[0]) > fields["events"]:
            client.xdel(f"{task}:events", entry_id)
    client.execute_command("XSETID", f"{task}:events", f"{fields['events']}-0")


def test_what_redis_has_forgotten_is_stored_again(write: Callable[..., Writing], shared_redis: RedisServer) -> None:
    writing = write()
    for number in range(10):
        writing.recorder.add_output(b"line %d\n" % number, [])
        writing.recorder.add_event(event(7 * (number + 1), number=number))
        eventually(lambda number=number: len(writing.output) == 7 * (number + 1))  # type: ignore[misc]
    client = shared_redis.client()
    rolled_back(client, writing.task_id, output_bytes=14, events=2)
    client.close()
    writing.finish()
    assert writing.output == b"".join(b"line %d\n" % number for number in range(10))
    assert [item["number"] for item in writing.events] == list(range(10))
    assert [item["seq"] for item in writing.events] == list(range(1, 11))


def test_what_redis_loses_before_it_takes_the_final_state_is_stored_again(
    write: Callable[..., Writing], shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = write()
    writing.recorder.add_output(b"a" * 100, [])
    writing.recorder.add_event(event(100))
    writing.finish()
    settle, refused = Store.settle, list[str]()

    def settle_later(store: Store, *arguments: Any, **fields: Any) -> Any:
        if refused:
            return settle(store, *arguments, **fields)
        refused.append("once")
        client = shared_redis.client()
        rolled_back(client, writing.task_id, output_bytes=50, events=0)
        client.close()
        raise StoreUnavailable("away")

    monkeypatch.setattr(Store, "settle", settle_later)
    shared = SimpleNamespace(store=writing.store, shutdown=SimpleNamespace(seconds_left=lambda: None))
    celery_task._record_final_state(shared, writing.recorder, Outcome(State.SUCCEEDED, "it ended", 0))  # type: ignore[arg-type]
    task = writing.store.task(writing.task_id)
    assert task is not None and task.state is State.SUCCEEDED
    assert writing.output == b"a" * 100 and writing.events[0]["event"] == "host_result"


def test_what_nobody_has_any_more_is_said_to_be_lost(write: Callable[..., Writing], shared_redis: RedisServer) -> None:
    writing = write()
    writing.recorder.add_output(b"a" * 200, [ColourMark(0, "0;32")])
    writing.recorder.add_event(event(200))
    writing.recorder.finish()
    assert writing.recorder.wait_until_stored(10)
    writing.recorder._recent.clear()  # as after some seconds
    client = shared_redis.client()
    rolled_back(client, writing.task_id, output_bytes=50, events=0, colours=0)
    client.close()
    writing.recorder.add_output(b"b" * 10, [])
    writing.finish()
    assert writing.output[:50] == b"a" * 50
    assert b"Redis lost 150 bytes" in writing.output
    assert len(writing.output) == 210 and writing.output.endswith(b"b" * 10)
    assert [item["event"] for item in writing.events] == ["missing"]


def test_a_claim_that_redis_has_forgotten_is_made_again(write: Callable[..., Writing], store: Store) -> None:
    writing = write()
    writing.recorder.add_output(b"one ", [])
    eventually(lambda: writing.output == b"one ")
    # Redis comes back as it was before the claim.
    other = new_id()
    store.submit(other, make_run())
    for name in ("flansible:task:",):
        fields = store._redis.hgetall(f"{name}{writing.task_id}")
        store._redis.hset(f"{name}{writing.task_id}", mapping={**fields, b"state": b"queued"})  # type: ignore[dict-item]
        store._redis.hdel(f"{name}{writing.task_id}", "claim", "token")
    writing.recorder.add_output(b"two", [])
    writing.finish()
    assert writing.output == b"one two"
    task = store.task(writing.task_id)
    assert task is not None and task.state is State.RUNNING


def test_a_task_that_another_has_begun_again_is_not_written_to(write: Callable[..., Writing], store: Store) -> None:
    writing = write()
    writing.recorder.add_output(b"old", [])
    eventually(lambda: writing.output == b"old")
    store._redis.hset(f"flansible:task:{writing.task_id}", "token", writing.recorder.claim.token + 1)
    writing.recorder.add_output(b" and more", [])
    eventually(lambda: writing.recorder.standing == "begun again")
    assert os.eventfd_read(writing.recorder.descriptor)
    assert writing.output == b"old"


def test_events_that_wait_for_output_that_never_comes_do_not_fill_the_memory(write: Callable[..., Writing]) -> None:
    writing = write(memory_bytes=100_000)
    for _ in range(100):
        writing.recorder.add_event(event(10**9, result={"text": "x" * 10_000}))
    eventually(lambda: len(writing.events) > 80)
    writing.finish()
    assert [one["seq"] for one in writing.events] == list(range(1, 101))


def test_what_cannot_be_stored_keeps_no_other_run_waiting(
    write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = write(), write()
    append = bad.store.append

    def refuse(task_id: str, *rest: Any) -> Any:
        if task_id == bad.task_id:
            raise ValueError("of no known kind")
        return append(task_id, *rest)

    monkeypatch.setattr(bad.store, "append", refuse)
    with bad.writer.serve(good.recorder):
        bad.recorder.add_output(b"bad", [])
        eventually(lambda: bad.recorder.standing == "unstorable")
        good.recorder.add_output(b"good", [])
        bad.writer.wake()
        eventually(lambda: good.output == b"good", 5)


def test_two_runs_are_stored_side_by_side_though_one_floods(write: Callable[..., Writing]) -> None:
    """One writer for all: a quiet run must not wait for a loud one."""
    loud, quiet = write(), write()
    quiet.writer = loud.writer
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set() and loud.recorder.offset < 60_000_000:
            loud.recorder.add_output(b"x" * 100_000, [])

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        quiet.recorder.add_output(b"here", [])
        eventually(lambda: quiet.output == b"here", 5)
    finally:
        stop.set()
        thread.join()
    loud.finish(60)


def test_a_gap_is_refused_by_the_store(write: Callable[..., Writing], store: Store) -> None:
    writing = write()
    answer = store.append(writing.task_id, writing.recorder.claim.token, Batch(Progress(5), b"x", ()))
    assert (answer.outcome, answer.progress.output_bytes) == ("gap", 0)
    assert json.dumps(writing.events) == "[]"
