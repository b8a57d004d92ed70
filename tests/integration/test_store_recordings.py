"""What runs leave in the store: output in segments, colours, events; each byte and each event once, at any cut."""

from __future__ import annotations

import json
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from flansible.errors import IllegalMove, TaskDeleted
from flansible.models import FINAL_STATES, State
from flansible.store import (
    AppendResult,
    Batch,
    Claim,
    ColourMark,
    Position,
    Progress,
    Store,
    StoredEvent,
)
from flansible.store.recordings import COLOURS_PER_SEGMENT, SEGMENT_BYTES
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id

UNKNOWN = "00000000-0000-4000-8000-ffffffffffff"
EVERYTHING = 1 << 30


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


class Run:
    """A run whose claim is ours, and what has been stored of it."""

    def __init__(self, store: Store, **changes: Any) -> None:
        self.store = store
        self.id = new_id()
        store.submit(self.id, make_run(**changes))
        claim = store.claim(self.id, "worker")
        assert isinstance(claim, Claim)
        self.token = claim.token
        self.progress = claim.progress

    def batch(self, output: bytes = b"", *events: StoredEvent, colours: tuple[ColourMark, ...] = ()) -> Batch:
        """The one that comes next. Its events belong to all of its output."""
        end = self.progress.output_bytes + len(output)
        return Batch(self.progress, output, events, colours, end if events else self.progress.events_end)

    def send(self, batch: Batch) -> AppendResult:
        return self.store.append(self.id, self.token, batch)

    def add(self, output: bytes = b"", *events: StoredEvent, colours: tuple[ColourMark, ...] = ()) -> Batch:
        """Stores the next batch."""
        batch = self.batch(output, *events, colours=colours)
        self.progress = after(batch)
        stored = Progress(self.progress.output_bytes, self.progress.colours, self.progress.events)
        assert self.send(batch) == AppendResult("running", stored)
        return batch

    def output(self) -> bytes:
        return self.store.output(self.id, 0, EVERYTHING)

    def events(self) -> list[dict[str, Any]]:
        return list(self.store.events(self.id))

    def end(self, state: State = State.SUCCEEDED) -> dict[str, Any]:
        """Its final event."""
        self.store.settle(self.id, state, "the end", 0, token=self.token)
        return self.events()[-1]


def after(batch: Batch) -> Progress:
    before = batch.before
    return Progress(
        before.output_bytes + len(batch.output),
        before.colours + len(batch.colours),
        before.events + len(batch.events),
        batch.events_end,
    )


def event(host: str = "", failed: bool = False, is_stats: bool = False, **fields: Any) -> StoredEvent:
    return StoredEvent(json.dumps(fields), host, failed, is_stats)


@pytest.fixture
def run(store: Store) -> Run:
    return Run(store)


# Batches


def test_output_and_events_are_stored_as_they_were_appended(run: Run) -> None:
    data = bytes(range(256)) * 3
    run.add(data[:100], event(n=1))
    run.add(data[100:], event(n=2), event(n=3, text="ünï\0"))
    assert run.output() == data
    assert run.events() == [{"seq": 1, "n": 1}, {"seq": 2, "n": 2}, {"seq": 3, "n": 3, "text": "ünï\0"}]
    assert run.store.position(run.id).output_bytes == len(data)


def test_a_batch_may_hold_anything_alone_or_nothing(run: Run) -> None:
    run.add()
    run.add(b"text")
    run.add(b"", event(n=1))
    run.add(b"", colours=(ColourMark(0, "0;31"),))
    run.add(b"more")
    assert (run.output(), run.events()) == (b"textmore", [{"seq": 1, "n": 1}])
    assert run.store.colours(run.id, 0, 9) == [ColourMark(0, "0;31")]


def test_appending_twice_changes_nothing(run: Run) -> None:
    mark = ColourMark(0, "0;32")
    first = run.add(b"one", event("web1", n=1), colours=(mark,))
    second = run.add(b"two", event("web1", n=2))
    for batch in (first, first, second, second, first):
        assert run.send(batch) == AppendResult("running", Progress(6, 1, 2))
    assert (run.output(), run.store.colours(run.id, 0, 9)) == (b"onetwo", [mark])
    assert run.events() == [{"seq": 1, "n": 1}, {"seq": 2, "n": 2}]
    assert run.store.host_events(run.id, ["web1"], 9, 999) == [run.events()]
    assert run.end()["output_start"] == 6, "an older batch does not take back where the latest event ended"


def test_a_batch_that_overlaps_what_is_stored_adds_only_what_is_new(run: Run) -> None:
    marks = tuple(ColourMark(n, "0;32") for n in range(4))
    run.add(b"abcdef", event(n=1), event(n=2), colours=marks[:2])
    overlap = Batch(Progress(2, 1, 1, 0), b"cdefgh", (event(n=2), event(n=3)), marks[1:4], 8)
    for _ in range(2):
        assert run.send(overlap) == AppendResult("running", Progress(8, 4, 3))
    assert run.output() == b"abcdefgh"
    assert run.events() == [{"seq": n, "n": n} for n in (1, 2, 3)]
    assert run.store.colours(run.id, 0, 9) == list(marks)
    assert run.send(Batch(Progress(3, 0, 3), b"def", ())) == AppendResult("running", Progress(8, 4, 3))
    assert run.output() == b"abcdefgh"


@pytest.mark.parametrize("before", [Progress(5, 1, 1), Progress(4, 2, 1), Progress(4, 1, 2), Progress(99, 99, 99)])
def test_a_batch_that_would_leave_a_gap_stores_nothing(run: Run, raw: redis.Redis, before: Progress) -> None:
    run.add(b"text", event("web1", n=1), colours=(ColourMark(0, "0"),))
    stored = {key: raw.dump(key) for key in raw.keys()}
    answer = run.send(Batch(before, b"x", (event("web1", n=9),), (ColourMark(9, "0"),), 9))
    assert answer == AppendResult("gap", Progress(4, 1, 1))
    assert {key: raw.dump(key) for key in raw.keys()} == stored


def test_a_redis_that_lost_its_last_second_takes_no_batch_that_counts_on_it(run: Run, raw: redis.Redis) -> None:
    """It tells what it has: the worker goes back to there."""
    half = SEGMENT_BYTES // 2
    run.add(b"a" * half, event("web1", n=1), colours=(ColourMark(0, "0;32"),))
    had, older = run.progress, {key: raw.dump(key) for key in raw.keys()}
    lost = run.add(b"b" * SEGMENT_BYTES, event("web2", n=2), colours=(ColourMark(1, "0"),))
    following = run.add(b"c" * half, event("web1", n=3))
    raw.flushdb()
    for key, value in older.items():
        assert value is not None
        raw.restore(key, 0, value)

    stored = Progress(had.output_bytes, had.colours, had.events)
    assert run.send(following) == AppendResult("gap", stored)
    assert {key: raw.dump(key) for key in raw.keys()} == older
    for batch in (lost, following):
        assert run.send(batch).outcome == "running"
    assert run.output() == b"a" * half + b"b" * SEGMENT_BYTES + b"c" * half
    assert [found["n"] for found in run.events()] == [1, 2, 3]


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_what_is_appended_after_the_end_is_not_stored(run: Run, state: State) -> None:
    run.add(b"kept", event(n=1))
    run.end(state)
    events = run.events()
    assert run.send(run.batch(b"late", event("web1", n=2))).outcome == state
    assert (run.output(), run.events(), run.store.hosts(run.id, 0, 9)) == (b"kept", events, [])


def test_nothing_is_appended_to_a_task_that_is_not_running(store: Store, raw: redis.Redis) -> None:
    task_id = new_id()
    store.submit(task_id, make_run())
    early = Batch(Progress(), b"early", (event("web1", n=1),))
    assert store.append(task_id, 1, early) == AppendResult("forgotten", Progress())
    assert store.append(UNKNOWN, 1, early) == AppendResult("missing", Progress())
    assert (store.output(task_id, 0, 9), list(store.events(task_id))) == (b"", [])
    assert raw.keys(f"*{UNKNOWN}*") == []


def test_nothing_is_appended_under_another_claim(run: Run) -> None:
    run.add(b"mine", event(n=1))
    assert run.store.append(run.id, run.token - 1, run.batch(b"x")) == AppendResult("begun again", Progress(4, 0, 1))
    assert run.output() == b"mine"


# Output


PATTERN = random.Random(1).randbytes(1009)  # a prime: no two segments look the same


def data_from(offset: int, length: int) -> bytes:
    start = offset % len(PATTERN)
    return (PATTERN * ((start + length) // len(PATTERN) + 1))[start : start + length]


@pytest.mark.parametrize("around", [-2, -1, 0, 1, 2])
def test_output_is_whole_wherever_batches_meet_segments(run: Run, raw: redis.Redis, around: int) -> None:
    cuts = [0, SEGMENT_BYTES + around, SEGMENT_BYTES + around + 3, 2 * SEGMENT_BYTES + around, 3 * SEGMENT_BYTES + 5]
    for start, end in zip(cuts, cuts[1:], strict=False):
        batch = run.add(data_from(start, end - start))
        run.send(batch)
    assert run.output() == data_from(0, cuts[-1])
    assert raw.strlen(f"flansible:task:{run.id}:output:0") == SEGMENT_BYTES
    assert raw.strlen(f"flansible:task:{run.id}:output:3") == 5
    for border in (SEGMENT_BYTES, 2 * SEGMENT_BYTES):
        for start in range(border - 3, border + 4):
            for length in (0, 1, 2, 5):
                assert run.store.output(run.id, start, length) == data_from(start, length)
    assert run.store.output(run.id, SEGMENT_BYTES - 1, 2 * SEGMENT_BYTES) == data_from(
        SEGMENT_BYTES - 1, 2 * SEGMENT_BYTES
    )
    assert run.store.output(run.id, cuts[-1] - 2, 99) == data_from(cuts[-1] - 2, 2)
    assert run.store.output(run.id, cuts[-1], 99) == run.store.output(run.id, 9 * SEGMENT_BYTES, 99) == b""


def test_a_batch_larger_than_a_segment_is_stored_whole(run: Run) -> None:
    run.add(b"x" * 7)
    run.add(data_from(7, 9 * 1024 * 1024))
    assert run.output() == b"x" * 7 + data_from(7, 9 * 1024 * 1024)


@pytest.mark.parametrize("seed", range(3))
def test_batches_that_repeat_and_overlap_around_a_border_store_each_byte_once(run: Run, seed: int) -> None:
    chance = random.Random(seed)
    run.add(data_from(0, SEGMENT_BYTES - 500))
    stored = SEGMENT_BYTES - 500
    while stored < SEGMENT_BYTES + 500:
        start = chance.randint(max(0, stored - 300), stored)
        length = chance.randint(0, 400)
        answer = run.send(Batch(Progress(start), data_from(start, length), ()))
        stored = max(stored, start + length)
        assert answer == AppendResult("running", Progress(stored))
    assert run.output() == data_from(0, stored)


def test_a_reader_never_sees_a_hole_while_output_grows_over_a_border(run: Run, redis_url: str) -> None:
    base = SEGMENT_BYTES - 50_000
    run.add(data_from(0, base))
    done = threading.Event()

    def write() -> None:
        for start in range(base, base + 100_000, 500):
            run.add(data_from(start, 500))
        done.set()

    reader = Store(redis_url)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set():
            found = reader.output(run.id, base - 10, EVERYTHING)
            assert found == data_from(base - 10, len(found))
        writing.result()
    reader.close()
    assert run.output() == data_from(0, base + 100_000)


def test_a_batch_costs_the_same_however_much_is_stored_before_it(run: Run) -> None:
    data, count = b"x" * 64 * 1024, 960
    took = []
    for _ in range(count):
        batch = run.batch(data, event("web1", n=1))
        run.progress = after(batch)
        began = time.perf_counter()
        run.send(batch)
        took.append(time.perf_counter() - began)
    assert run.store.position(run.id).output_bytes == 60 * 1024 * 1024
    quarters = [sorted(took[start : start + count // 4])[count // 8] for start in (0, 3 * count // 4)]
    assert quarters[1] < 3 * quarters[0] + 0.001


def test_output_of_nothing_is_nothing(run: Run) -> None:
    assert run.output() == run.store.output(UNKNOWN, 0, 4) == b""
    assert run.store.position(run.id).output_bytes == 0
    with pytest.raises(TaskDeleted):
        run.store.position(UNKNOWN)


# Colours


def test_colours_are_found_by_the_offset_of_their_text(run: Run) -> None:
    marks = tuple(ColourMark(offset, code) for offset, code in ((0, "0;32"), (5, "0"), (5, "1;31"), (9, "38;5;255")))
    run.add(b"0123456789", colours=marks)
    assert run.store.colours(run.id, 0, 9) == list(marks)
    assert run.store.colours(run.id, 1, 8) == list(marks[1:3])
    assert run.store.colours(run.id, 6, 8) == run.store.colours(UNKNOWN, 0, 9) == []


def test_colours_are_whole_over_the_border_of_their_keys(run: Run, raw: redis.Redis) -> None:
    count = 2 * COLOURS_PER_SEGMENT + 10
    marks = tuple(ColourMark(3 * n, f"0;{n % 38}") for n in range(count))
    cuts = [0, COLOURS_PER_SEGMENT - 1, COLOURS_PER_SEGMENT + 1, COLOURS_PER_SEGMENT + 2, count - 10, count]
    for start, end in zip(cuts, cuts[1:], strict=False):
        run.send(run.add(b"", colours=marks[start:end]))
    for border in (COLOURS_PER_SEGMENT, 2 * COLOURS_PER_SEGMENT):
        assert raw.strlen(f"flansible:task:{run.id}:colours:{border // COLOURS_PER_SEGMENT - 1}") == 1 << 20
        for first in range(border - 3, border + 3):
            for last in range(first, first + 5):
                assert run.store.colours(run.id, 3 * first, 3 * last) == list(marks[first : last + 1])
                assert run.store.colours(run.id, 3 * first - 2, 3 * last + 2) == list(marks[first : last + 1])
    assert run.store.colours(run.id, 0, 3 * count) == list(marks)


def test_the_longest_offset_and_code_fit(run: Run, raw: redis.Redis) -> None:
    offset = 1 << 45
    run.add(b"", colours=(ColourMark(offset, "38;5;255"),))
    assert run.store.colours(run.id, offset, offset) == [ColourMark(offset, "38;5;255")]
    assert raw.get(f"flansible:task:{run.id}:colours:0") == struct.pack(">Q8s", offset, b"38;5;255")


# Events


def test_many_events_are_read_page_by_page_without_a_gap(run: Run) -> None:
    for start in range(1, 1202, 400):
        run.add(b"", *(event(n=start + index) for index in range(400)))
    assert [found["seq"] for found in run.events()] == list(range(1, 1601))
    assert [found["n"] for found in run.store.events(run.id, after=1595)] == [1596, 1597, 1598, 1599, 1600]
    assert list(run.store.events(run.id, after=1600)) == list(run.store.events(UNKNOWN)) == []


@pytest.mark.parametrize("limit", [1, 31, 32, 33, 64, 100])
def test_a_page_has_no_more_events_than_asked_for(run: Run, limit: int) -> None:
    run.add(b"", *(event("web1", n=n) for n in range(100)))
    for host in ("", "web1"):
        page = run.store.event_page(run.id, 0, limit, 10**6, host)
        assert [found["n"] for found in page] == list(range(limit))
        page = run.store.event_page(run.id, 95, limit, 10**6, host)
        assert [found["n"] for found in page] == list(range(95, min(95 + limit, 100)))


def test_a_page_has_no_more_bytes_than_asked_for_but_one_event_at_least(run: Run) -> None:
    size = len(event(text="x" * 1000).json)
    run.add(b"", *(event("web1", text="x" * 1000) for _ in range(10)))
    for host in ("", "web1"):
        for asked, count in ((1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (10 * size, 10), (10**6, 10)):
            assert len(run.store.event_page(run.id, 0, 100, asked, host)) == count


def test_an_event_that_is_larger_than_a_page_does_not_stop_the_reader(run: Run) -> None:
    large = "x" * (5 * 1024 * 1024)
    run.add(b"", event(n=1), event(n=2, text=large), event(n=3))
    assert [found["n"] for found in run.events()] == [1, 2, 3]
    assert len(run.events()[1]["text"]) == len(large)


HOSTS = [
    "web1",
    "web10",
    "web",
    "web1:",
    "a b",
    " ",
    "ünï",
    "日本",
    "a/b",
    "../..",
    "::1",
    "[fe80::1%eth0]",
    "*",
    "a\0",
    "a",
    "a\0000000000001",
    "a\0000000000001\0",
    "1:a",
    "line\nbreak",
    "x" * 20_000,
    "x" * 20_001,
    "-1",
    "\x7f",
    "\U0010ffff",
]


def test_the_results_of_a_host_are_its_own_whatever_it_is_called(run: Run) -> None:
    for round_ in range(3):
        run.add(b"", *(event(host, n=round_, name=host) for host in HOSTS))
    assert run.store.hosts(run.id, 0, 99) == sorted(HOSTS, key=str.encode)
    for host, found in zip(HOSTS, run.store.host_events(run.id, HOSTS, 99, 10**6), strict=True):
        assert [(one["name"], one["n"]) for one in found] == [(host, 0), (host, 1), (host, 2)]
        second = found[0]["seq"]
        assert run.store.event_page(run.id, second, 1, 10**6, host) == found[1:2]
        assert run.store.event_page(run.id, second, 99, 10**6, host) == found[1:]
    assert run.store.event_page(run.id, 0, 99, 10**6, "nobody") == []


def test_the_results_of_a_host_are_found_among_those_of_many_others(run: Run) -> None:
    """Over several parts of its index, some of which have none of it."""
    numbers = {1, 2, 4095, 4096, 4097, 9000, 16384, 16385, 17000}
    for first in range(1, 17001, 1000):
        run.add(b"", *(event("rare" if seq in numbers else "usual", n=seq) for seq in range(first, first + 1000)))
    for after in (0, 1, 2, 4094, 4095, 4096, 8999, 9000, 16384, 17000):
        found = run.store.event_page(run.id, after, 99, 10**6, "rare")
        assert [one["seq"] for one in found] == sorted(number for number in numbers if number > after)
    assert len(run.store.event_page(run.id, 0, 20_000, 10**9, "usual")) == 17_000 - len(numbers)


def test_a_result_costs_few_bytes_in_the_index_by_host(run: Run, raw: redis.Redis) -> None:
    hosts = [f"a-host-with-a-long-name-{number}.example.org" for number in range(100)]
    for _ in range(50):
        run.add(b"", *(event(host) for host in hosts))
    size: Any = raw.memory_usage(f"flansible:task:{run.id}:by_host", samples=0)
    assert size < 5000 * 10  # 169 a result with the name in each


def test_results_that_an_older_version_has_indexed_are_found(run: Run, raw: redis.Redis) -> None:
    run.add(b"", *(event("web1" if number % 2 else "web10", n=number) for number in range(1, 7)))
    key = f"flansible:task:{run.id}:by_host"
    raw.delete(key)
    for number in range(1, 7):
        host = "web1" if number % 2 else "web10"
        raw.zadd(key, {f"{len(host)}:{host}\0{number:012d}": 0})
    assert [one["seq"] for one in run.store.event_page(run.id, 1, 9, 999, "web1")] == [3, 5]
    assert [one["seq"] for one in run.store.event_page(run.id, 0, 2, 999, "web10")] == [2, 4]


def test_a_host_whose_name_is_not_text_does_not_stop_the_record(run: Run) -> None:
    """Ansible makes half a surrogate pair of each byte that is not UTF-8."""
    run.add(b"", event("web\udcff", n=1))
    (host,) = run.store.hosts(run.id, 0, 9)
    assert host == "web\\udcff"
    assert run.store.event_page(run.id, host=host) == run.store.event_page(run.id, host="web\udcff") == run.events()


def test_hosts_that_failed_come_first_and_stay_there(run: Run) -> None:
    run.add(b"", event("c"), event("b", failed=True), event("a"))
    run.add(b"", event("a", failed=True), event("b"), event("d"))
    assert run.store.hosts(run.id, 0, 99) == ["a", "b", "c", "d"]
    assert [run.store.hosts(run.id, first, 2) for first in (0, 1, 3, 4)] == [["a", "b"], ["b", "c"], ["d"], []]
    run.send(Batch(run.progress, b"", (event("d", failed=True),)))
    assert run.store.hosts(run.id, 0, 99) == ["a", "b", "d", "c"]


def test_the_event_with_the_counts_is_found_among_many(run: Run) -> None:
    assert run.store.stats_event(run.id) is None
    run.add(b"", *(event(n=n) for n in range(100)), event(is_stats=True, n=100), event(n=101))
    found = run.store.stats_event(run.id)
    assert found is not None and (found["seq"], found["n"]) == (101, 100)
    assert run.store.stats_event(UNKNOWN) is None


def test_positions_of_many_are_told_at_once(store: Store, run: Run) -> None:
    run.add(b"text", event(n=1))
    queued = new_id()
    store.submit(queued, make_run())
    assert store.positions([run.id, queued, UNKNOWN]) == {
        run.id: Position(State.RUNNING, 4, 1),
        queued: Position(State.QUEUED, 0, 0),
        UNKNOWN: Position(None, 0, 0),
    }
    assert store.positions([]) == {}


# The end


def test_the_final_event_tells_how_it_ended_and_what_was_printed_last(run: Run) -> None:
    run.add(b"play", event(n=1))
    run.add(b"recap")
    run.store.settle(run.id, State.FAILED, 'ended with 2: "ünï"\0/', 2, ("sleep (12)",), run.token)
    assert run.events()[-1] == {
        "seq": 2,
        "event": "final",
        "time": run.events()[-1]["time"],
        "state": "failed",
        "description": 'ended with 2: "ünï"\0/',
        "returncode": 2,
        "output_start": 4,
        "output_end": 9,
    }
    task = run.store.task(run.id)
    assert task is not None and task.ended == ["sleep (12)"]
    assert task.finished_at == run.events()[-1]["time"]


def test_a_task_that_never_ran_has_a_final_event_too(store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run())
    store.cancel(task_id, "dev")
    (final,) = store.events(task_id)
    assert (final["seq"], final["event"], final["state"]) == (1, "final", "canceled")
    assert (final["output_start"], final["output_end"]) == (0, 0)
    assert "returncode" not in final


def test_however_many_end_it_at_once_it_ends_once(store: Store, raw: redis.Redis) -> None:
    for round_ in range(20):
        run = Run(store, on_lost="requeue" if round_ % 2 else "fail")
        if round_ % 4 > 1:
            raw.zadd("flansible:leases", {run.id: 1})
        ways: list[Callable[[], Any]] = [
            lambda run=run: store.settle(run.id, State.SUCCEEDED, "", 0, token=run.token),
            lambda run=run: store.settle(run.id, State.TIMED_OUT, "", token=run.token),
            lambda run=run: store.mark_lost(run.id, "killed", run.token),
            lambda run=run: store.mark_lost(run.id, "silent"),
            lambda run=run: store.cancel(run.id, "dev"),
            lambda run=run: run.send(run.batch(b"x", event(n=1))),
        ]
        with ThreadPoolExecutor(len(ways)) as pool:
            for done in [pool.submit(way) for way in ways * 2]:
                error = done.exception()
                assert error is None or isinstance(error, IllegalMove)
        events = list(store.events(run.id))
        assert [found["seq"] for found in events] == list(range(1, len(events) + 1))
        task = store.task(run.id)
        assert task is not None
        finals = [found.get("state") for found in events if found.get("event") == "final"]
        assert finals == ([task.state] if task.state in FINAL_STATES else [])
        if finals:
            assert events[-1]["event"] == "final"


def test_whoever_sees_that_a_task_is_final_sees_all_of_it(store: Store, redis_url: str) -> None:
    reader = Store(redis_url)
    for _ in range(20):
        run = Run(store)

        def write(run: Run = run) -> None:
            for n in range(20):
                run.add(b"line\n", event(n=n))
            run.end()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while True:
                position = reader.positions([run.id])[run.id]
                events = list(reader.events(run.id))
                assert len(events) >= position.events
                if position.state in FINAL_STATES:
                    break
            writing.result()
        assert (len(events), events[-1]["event"]) == (21, "final")
        assert position == Position(State.SUCCEEDED, 100, 21)
    reader.close()
