"""Final tasks move to the history database: each once, whole, and whoever reads them sees no difference."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select, text, update

from flansible.errors import ArchiverReplaced, HistoryUnavailable, StoreUnavailable
from flansible.history import archive_writer, archived_tasks, retention, schema
from flansible.history.archive import Archive
from flansible.history.database import Database
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.models import State
from flansible.store import ListFilter, Store
from flansible.system import process_identity
from flansible.worker import archiver as archiver_module
from flansible.worker.archiver import Archiver
from tests.helpers.archived_tasks import FILTERS, MadeTask, everything, list_of, make_tasks, result
from tests.helpers.history import Databases, opened
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 5.0))
    yield records
    records.close()


@pytest.fixture
def archiver(redis_url: str, history_url: str) -> Iterator[Archiver]:
    archiver = new_archiver(redis_url, history_url)
    yield archiver
    archiver.close()


KEEPS_ALL = HistoryLimits(36500)


def new_archiver(
    redis_url: str, history_url: str, after_seconds: float = 0.0, limits: HistoryLimits = KEEPS_ALL
) -> Archiver:
    found = Archiver(Store(redis_url), history_url, after_seconds, limits)
    found._stopped.wait = lambda timeout=None: False  # type: ignore[method-assign]  # without rests
    return found


def archive_all(archiver: Archiver) -> int:
    count = 0
    while more := archiver.run_round():
        count += more
    return count


def keys_of(store: Store, task_id: str) -> list[Any]:
    return list(store._redis.scan_iter(f"flansible:task:{task_id}*"))


def count_of(url: str, table: Any) -> int:
    with opened(url) as database, database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_what_is_read_is_the_same_in_both_places(records: Records, archiver: Archiver) -> None:
    tasks = make_tasks(records)
    before = [everything(records, task_id, random.Random(number)) for number, task_id in enumerate(tasks)]
    assert archive_all(archiver) == len(tasks)
    for number, task_id in enumerate(tasks):
        assert keys_of(records, task_id) == []
        after = everything(records, task_id, random.Random(number))
        for name, value in before[number].items():
            assert after[name] == value, f"{name} of task {number}"


@pytest.mark.by_day(2)
@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize("archived", [0, 9, 24])
def test_lists_are_the_same_wherever_the_tasks_are(
    records: Records, archiver: Archiver, archived: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = make_tasks(records, large=False)
    times = [records.task(task_id).submitted_at for task_id in tasks]  # type: ignore[union-attr]
    wanted = [*FILTERS, ListFilter(since=times[5], until=times[17]), ListFilter(until=times[3], user="user1")]
    before = [list_of(records, one, limit) for one in wanted]
    assert len(before[0]) == 24 and [len(found) for found in before[1:7]].count(0) == 0
    monkeypatch.setattr(archiver_module, "_AT_ONCE", archived)
    assert archived == 0 or archiver.run_round() == archived
    MadeTask(records, user="nobody in the filters")  # what is live stays on top
    assert len(records.finished(0, 100)) == 24 - archived
    for one, found in zip(wanted, before, strict=True):
        listed = [task for task in list_of(records, one, limit) if task.user != "nobody in the filters"]
        assert listed == found, one
        assert len({task.task_id for task in listed}) == len(listed)


OPS = {"user": "user1", "entries": ("group:ops",)}
SCANNED = [
    *({"host": "web1", **more} for more in ({"state": State.LOST}, {"playbook": "site1.yml"}, {"user": "user1"}, OPS)),
    *(OPS | more for more in ({"state": State.LOST}, {"playbook": "site1.yml"}, {"template": "none"})),
    *({"template": "none", **more} for more in ({"user": "user1"}, {"state": State.LOST})),
]
INDEXED = [{}, OPS, {"host": "web1"}, {"template": "none"}, {"user": "user1", "state": State.LOST}]


def test_a_list_that_no_index_has_is_looked_for_in_windows(
    records: Records, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tasks(records, large=False)
    archive_all(archiver)
    monkeypatch.setattr(archived_tasks, "_FIRST_WINDOW", 2)
    assert records.archive is not None
    for wanted, left in (*((one, 22) for one in SCANNED), *((one, None) for one in INDEXED)):
        page = records.archive.page(ListFilter(**wanted), None, 100, give_up_at=0.0)  # type: ignore[arg-type]
        assert page.next_before == (None if left is None else left + 1), wanted


def test_a_list_is_whole_while_tasks_move(records: Records, archiver: Archiver) -> None:
    tasks = make_tasks(records, large=False)
    done = threading.Event()

    def move() -> None:
        try:
            archive_all(archiver)
        finally:
            done.set()

    thread = threading.Thread(target=move)
    thread.start()
    rounds = 0
    while not done.is_set() or rounds == 0:
        assert [task.task_id for task in list_of(records, ListFilter(), 5)] == tasks[::-1]
        rounds += 1
    thread.join()


def test_a_task_stays_in_redis_until_its_time_has_come(records: Records, redis_url: str, history_url: str) -> None:
    archiver = new_archiver(redis_url, history_url, after_seconds=3600)
    tasks = [MadeTask(records).end() for _ in range(3)]
    assert archiver.run_round() == 0
    assert count_of(history_url, schema.tasks) == 0 and all(keys_of(records, task_id) for task_id in tasks)
    archiver._after_seconds = 0
    assert archiver.run_round() == 3
    archiver.close()


def test_a_task_of_a_worker_whose_clock_is_fast_keeps_no_other_waiting(
    records: Records, redis_url: str, history_url: str
) -> None:
    archiver = new_archiver(redis_url, history_url, after_seconds=3600)
    for finished_at in ("2126-01-31T12:00:00.000Z", "2020-01-31T12:00:00.000Z"):
        records._redis.hset(f"flansible:task:{MadeTask(records).end()}", "finished_at", finished_at)
    assert archiver.run_round() == 2 and count_of(history_url, schema.tasks) == 2
    archiver.close()


def test_what_is_not_final_or_hidden_stays(records: Records, archiver: Archiver, history_url: str) -> None:
    running, queued = MadeTask(records).id, new_id()
    records.submit(queued, make_run())
    hidden = MadeTask(records, hidden=True)
    hidden.end()
    assert archiver.run_round() == 0
    assert [records.task(task_id).state for task_id in (running, queued)] == ["running", "queued"]  # type: ignore[union-attr]
    assert records.exists(hidden.id) and count_of(history_url, schema.tasks) == 0


class Crash(BaseException):
    """The archiver is killed there."""


def crashing(function: Callable[..., Any], is_after: bool) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if is_after:
            function(*args, **options)
        raise Crash

    return call


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    ("owner", "step", "is_after"),
    [
        (archive_writer.ArchiveWriter, "_insert_task", True),
        (archive_writer.ArchiveWriter, "_write_output", True),
        (archive_writer.ArchiveWriter, "_write_hosts", True),
        (archive_writer.ArchiveWriter, "_check", False),
        (archive_writer.ArchiveWriter, "_check", True),
        (Store, "forget", False),
        (Store, "forget", True),
    ],
)
def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(
    records: Records,
    redis_url: str,
    history_url: str,
    owner: Any,
    step: str,
    is_after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = MadeTask(records)
    task.add(b"text" * 1000, result("web1", "changed"), result("web2", "failed"))
    task.end(State.FAILED, 2)
    before = everything(records, task.id, random.Random(1))
    first = new_archiver(redis_url, history_url)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, crashing(getattr(owner, step), is_after))
        with pytest.raises(Crash):
            first.run_round()
    assert everything(records, task.id, random.Random(1)) == before
    assert [one.task_id for one in list_of(records, ListFilter(), 10)] == [task.id]
    first.run_round()
    first.close()
    assert everything(records, task.id, random.Random(1)) == before
    assert keys_of(records, task.id) == [] and records.finished_count() == 0
    assert count_of(history_url, schema.tasks) == 1 and count_of(history_url, schema.task_hosts) == 2


def test_a_copy_that_is_not_whole_is_made_again(
    records: Records, archiver: Archiver, history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = MadeTask(records)
    task.add(b"text" * 100_000, result("web1", "ok"))
    task.end()
    before = everything(records, task.id, random.Random(1))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget", crashing(Store.forget, False))
        with pytest.raises(Crash):
            archiver.run_round()
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(text("DELETE FROM output_chunks WHERE start > 0"))
    archiver.run_round()
    assert keys_of(records, task.id) == [] and everything(records, task.id, random.Random(1)) == before


def test_a_copy_that_does_not_read_back_is_no_reason_to_forget(
    records: Records, archiver: Archiver, monkeypatch: pytest.MonkeyPatch, history_url: str
) -> None:
    task = MadeTask(records)
    task.add(b"text")
    task.end()
    with monkeypatch.context() as patch:
        patch.setattr(archive_writer.encoding, "pack", lambda data: b"\0" + data[:-1] if data else b"")
        with pytest.raises(HistoryUnavailable, match="does not give back what was written"):
            archiver.run_round()
    assert keys_of(records, task.id) and count_of(history_url, schema.tasks) == 0
    assert archiver.run_round() == 1
    assert records.output(task.id, 0, 9) == b"text"


def as_process(archiver: Archiver, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has a round of this archiver be one of another process."""

    def run() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(process_identity, "own_identity", lambda: name)
            return archiver.run_round()

    return run


def test_of_two_workers_one_archives_and_the_other_takes_over(
    records: Records, redis_url: str, history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (new_archiver(redis_url, history_url) for _ in range(2))
    run_one, run_other = as_process(one, "one", monkeypatch), as_process(other, "other", monkeypatch)
    MadeTask(records).end()
    assert run_one() == 1
    MadeTask(records).end()
    assert run_other() == 0
    records._redis.hset("flansible:archiver", "until", 1)
    assert run_other() == 1
    MadeTask(records).end()
    assert run_one() == 0 and run_other() == 1
    one.close()
    other.close()


@pytest.mark.parametrize("step", ["_insert_task", "_check"])
def test_an_archiver_that_was_paused_and_comes_back_does_nothing(
    records: Records, redis_url: str, history_url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of its transaction, or with its copy made: another one has done all of it meanwhile."""
    one, other = (new_archiver(redis_url, history_url) for _ in range(2))
    task = MadeTask(records)
    task.add(b"text", result("web1", "ok"))
    task.end()
    before = everything(records, task.id, random.Random(1))
    writer, paused = archive_writer.ArchiveWriter, []
    original = getattr(writer, step)

    def pause(self: Any, *args: Any) -> Any:
        if not paused:
            paused.append(1)
            records._redis.hset("flansible:archiver", "until", 1)
            if step == "_check":  # the lock of its transaction would keep SQLite's others waiting
                assert as_process(other, "other", monkeypatch)() == 1
            else:
                records.elect_archiver("other", 30)
                self._still_elected = lambda: True  # it does not know yet
        return original(self, *args)

    monkeypatch.setattr(writer, step, pause)
    with pytest.raises((ArchiverReplaced, HistoryUnavailable)):
        as_process(one, "one", monkeypatch)()
    assert everything(records, task.id, random.Random(1)) == before
    one.close()
    records._redis.hset("flansible:archiver", "until", 1)
    as_process(other, "other", monkeypatch)()
    assert count_of(history_url, schema.tasks) == 1 and keys_of(records, task.id) == []
    assert everything(records, task.id, random.Random(1)) == before
    other.close()


def test_the_database_refuses_whoever_comes_after_a_later_archiver(
    records: Records, archiver: Archiver, history_url: str
) -> None:
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(text("UPDATE archiver SET token = 9000000000000000000"))
    task_id = MadeTask(records).end()
    with pytest.raises(ArchiverReplaced):
        archiver.run_round()
    assert keys_of(records, task_id) and count_of(history_url, schema.tasks) == 0


def test_numbers_go_on_above_the_archived_ones_after_redis_was_emptied(records: Records, archiver: Archiver) -> None:
    old = [MadeTask(records).end() for _ in range(5)]
    archive_all(archiver)
    records._redis.flushall()
    new = [MadeTask(records).id for _ in range(2)]
    assert [task.task_id for task in list_of(records, ListFilter(), 2)] == [*new[::-1], *old[::-1]]


def test_what_a_redis_that_was_put_back_takes_for_live_is_ended(records: Records, archiver: Archiver) -> None:
    task = MadeTask(records)
    saved = {key: records._redis.dump(key) for key in records._redis.keys("*")}  # type: ignore[union-attr]
    task.add(b"text")
    task.end(State.FAILED, 2)
    archive_all(archiver)
    newest = MadeTask(records).end()
    archive_all(archiver)
    records._redis.flushall()
    for key, value in saved.items():
        records._redis.restore(key, 0, value)
    archive_all(archiver)
    found = records.task(task.id)
    assert found is not None and (found.state, found.returncode) == (State.FAILED, 2)
    assert records.output(task.id, 0, 9) == b"text"
    assert [one.task_id for one in list_of(records, ListFilter(), 5)] == [newest, task.id]
    assert records.count(State.RUNNING) == 0
    assert MadeTask(records).id == list_of(records, ListFilter(), 5)[0].task_id


def test_what_a_redis_that_was_put_back_has_of_a_task_replaces_no_record_whose_output_has_expired(
    records: Records, redis_url: str, history_url: str
) -> None:
    archiver = new_archiver(redis_url, history_url, limits=HistoryLimits(365, output_days=25))
    task = MadeTask(records)
    task.add(b"text", result("web1", "changed"))
    saved = {key: records._redis.dump(key) for key in records._redis.keys("*")}  # type: ignore[union-attr]
    task.end(State.FAILED, 2)
    archive_all(archiver)
    aged(history_url, {task.id: 30})
    archiver._prune_at = 0.0
    archive_all(archiver)
    known = records.task(task.id)
    assert known is not None and known.output_expired_at is not None
    records._redis.flushall()
    for key, value in saved.items():
        records._redis.restore(key, 0, value)
    archive_all(archiver)
    assert keys_of(records, task.id) == [] and records.task(task.id) == known
    archiver.close()


def test_a_reader_in_the_middle_goes_on_from_the_other_place(records: Records, archiver: Archiver) -> None:
    task = MadeTask(records)
    dice = random.Random(5)
    output = b"".join(dice.randbytes(50_000) for _ in range(20))
    for begin in range(0, len(output), 100_000):
        task.add(output[begin : begin + 100_000], result("web1", "ok", n=begin), result("web2", "changed", n=begin))
    task.end()
    expected = list(records.events(task.id))
    got, events = records.output(task.id, 0, 300_001), records.event_page(task.id, 0, 7)
    of_host = records.event_page(task.id, 0, 3, host="web2")
    archive_all(archiver)
    while piece := records.output(task.id, len(got), 70_000):
        got += piece
    assert got == output
    while page := records.event_page(task.id, events[-1]["seq"], 4):
        events += page
    assert events == expected
    while page := records.event_page(task.id, of_host[-1]["seq"], 2, host="web2"):
        of_host += page
    assert of_host == [event for event in expected if event.get("host") == "web2"]


def test_a_key_that_is_used_again_shows_no_event_of_the_task_before(
    records: Records, archiver: Archiver, history_url: str
) -> None:
    for number in range(2):
        task = MadeTask(records)
        task.add(b"text", result("web1", "ok", n=number))
        task.end()
        archive_all(archiver)
        assert [event["n"] for event in records.event_page(task.id)[:1]] == [number]
        assert [event["n"] for event in records.event_page(task.id, host="web1")] == [number]
        assert [event["n"] for event in records.host_events(task.id, ["web1"], 5, 1 << 20)[0]] == [number]
        with opened(history_url) as database, database.writing() as connection:
            connection.execute(delete(schema.tasks))


def test_a_status_of_a_live_task_is_one_command_and_asks_no_database(
    records: Records, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = MadeTask(records)
    records.task(task.id)
    monkeypatch.setattr(Database, "reading", lambda self: pytest.fail("the database was asked"))
    client = shared_redis.client()
    before = client.info("commandstats")
    for _ in range(10):
        assert records.task(task.id) is not None
    after = client.info("commandstats")
    client.close()
    calls = {name: row["calls"] - before.get(name, {"calls": 0})["calls"] for name, row in after.items()}
    assert calls["cmdstat_evalsha"] == 10 and calls.get("cmdstat_hmget", 0) == 10
    assert {name for name, count in calls.items() if count} <= {"cmdstat_evalsha", "cmdstat_hmget", "cmdstat_info"}


def test_while_the_database_is_away_what_is_live_is_read_and_what_is_archived_is_not_missing(
    redis_url: str, tmp_path: Any
) -> None:
    records = Records(redis_url, Archive(f"sqlite:///{tmp_path}/gone/history.sqlite3", 1.0))
    with pytest.raises(HistoryUnavailable):
        MadeTask(records)  # which numbers are taken?
    records.raise_sequence(0)
    task = MadeTask(records)
    task.add(b"text")
    assert records.output(task.id, 0, 10) == b"text" and records.output(task.id, 4, 10) == b""
    assert records.event_page(task.id) == [] and records.colours(task.id, 0, 9) == []
    assert records.task(task.id) is not None
    assert set(records.positions([task.id, new_id()])) == {task.id}
    for read in (records.task, records.position, records.authorized_run):
        with pytest.raises(HistoryUnavailable):
            read(new_id())
    with pytest.raises(StoreUnavailable):
        records.search(ListFilter(), None, 10)
    assert records.search(ListFilter(state=State.RUNNING), None, 10).tasks
    records.close()


def put_back(records: Records, number: int) -> None:
    """Makes this Redis one that was restarted with what it had when this was its last number."""
    records._redis.set("flansible:sequence", number)
    records._redis.hset("flansible:store", mapping={"run_id": "of before", "numbered": "of before"})


def test_numbers_go_on_above_the_archived_ones_in_a_redis_that_was_put_back(
    records: Records, archiver: Archiver
) -> None:
    first = [MadeTask(records).end() for _ in range(3)]
    archive_all(archiver)
    put_back(records, 1)
    later = [MadeTask(records).end() for _ in range(2)]
    archive_all(archiver)
    assert records.archive is not None
    numbers = [task.number for task in records.archive.tasks([*first, *later]).values()]
    assert sorted(numbers) == [1, 2, 3, 4, 5]


def test_a_restarted_redis_takes_tasks_while_the_database_is_away(redis_url: str, tmp_path: Any) -> None:
    folder = tmp_path / "away"
    records = Records(redis_url, Archive(f"sqlite:///{folder}/history.sqlite3", 1.0))
    records.raise_sequence(7)
    put_back(records, 7)
    tasks = [MadeTask(records).id for _ in range(2)]
    assert [record.number for record in records.live_page(ListFilter(), None, 9, 0.0).tasks] == [9, 8]
    assert all(records.task(task_id) for task_id in tasks)
    records.close()


def test_it_catches_up_by_itself_when_the_database_is_back(
    records: Records,
    redis_url: str,
    history_url: str,
    tmp_path: Any,
    databases: Databases,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "later"
    url = f"sqlite:///{folder}/history.sqlite3"
    archiver = new_archiver(redis_url, url)
    tasks = [MadeTask(records).end() for _ in range(4)]
    archiver.tick()
    archiver.tick()
    report = records.archiver_report()
    assert "cannot be opened" in report.problem and report.age_seconds is not None and report.age_seconds < 5
    assert [said.levelname for said in caplog.records] == ["ERROR"]
    assert all(keys_of(records, task_id) for task_id in tasks) and records.finished_count() == 4
    folder.mkdir()
    archiver.tick()
    assert records.archiver_report().problem == "" and records.finished_count() == 0
    assert [said.message for said in caplog.records][1:] == ["finished tasks are archived again"]
    archiver.close()
    assert count_of(url, schema.tasks) == 4


def test_a_damaged_record_stops_no_other(records: Records, archiver: Archiver, history_url: str) -> None:
    damaged, well = MadeTask(records).end(), MadeTask(records).end()
    records._redis.hset(f"flansible:task:{damaged}", "kind", "no such kind")
    archiver.run_round()
    archiver.run_round()
    assert keys_of(records, damaged) and keys_of(records, well) == []
    assert count_of(history_url, schema.tasks) == 1


def test_a_task_that_the_database_refuses_stops_no_other(
    records: Records, archiver: Archiver, history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, well = MadeTask(records).end(), MadeTask(records).end()
    original = archive_writer.ArchiveWriter._insert_task

    def insert(self: Any, connection: Any, record: Any) -> int:
        if record.status.task_id == refused:
            connection.execute(text("SELECT * FROM no_such_table"))
        return original(self, connection, record)

    monkeypatch.setattr(archive_writer.ArchiveWriter, "_insert_task", insert)
    archiver.tick()
    assert keys_of(records, refused) and keys_of(records, well) == []
    assert count_of(history_url, schema.tasks) == 1


def test_a_task_that_is_left_is_no_work_until_it_is_tried_again(records: Records, archiver: Archiver) -> None:
    task_id = MadeTask(records).end()
    record = f"flansible:task:{task_id}"
    kind = str(records._redis.hget(record, "kind"), "ascii")  # type: ignore[arg-type]
    records._redis.hset(record, "kind", "no such kind")
    assert [archiver.run_round() for _ in range(2)] == [0, 0], "its process would never end"
    records._redis.hset(record, "kind", kind)
    assert archiver.run_round() == 0 and "1 tasks cannot be archived" in records.archiver_report().problem
    archiver._retry_at = 0.0
    assert archiver.run_round() == 1 and records.archiver_report().problem == ""


def test_a_host_whose_name_is_too_long_for_an_index_is_archived(records: Records, archiver: Archiver) -> None:
    task, name = MadeTask(records), random.Random(1).randbytes(30_000).hex()
    task.add(b"text", result(name, "changed"), result("web1", "ok"))
    task.end()
    before = records.event_page(task.id, host=name)
    assert len(before) == 1 and records.host_events(task.id, [name], 5, 1 << 20) == [before]
    archiver.tick()
    assert keys_of(records, task.id) == []
    cut, other = records.hosts(task.id, 0, 9)
    assert cut.startswith(name[:200]) and len(cut) < 300 and other == "web1"
    for asked in (name, cut):
        assert records.event_page(task.id, host=asked) == before
        assert records.host_events(task.id, [asked], 5, 1 << 20) == [before]


def test_a_full_disk_leaves_all_in_redis(records: Records, redis_url: str, databases: Databases, tmp_path: Any) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    url = databases.migrated("sqlite", folder)
    archiver = new_archiver(redis_url, url)
    with archiver._database._engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()

    def limit(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")

    event.listen(archiver._database._engine, "checkout", limit)
    task = MadeTask(records)
    task.add(random.Random(1).randbytes(500_000))
    task.end()
    archiver.tick()
    assert "the disk is full" in records.archiver_report().problem
    assert len(records.output(task.id, 0, 1 << 20)) == 500_000
    event.remove(archiver._database._engine, "checkout", limit)
    archiver._database.close()
    archiver.tick()
    assert records.archiver_report().problem == "" and keys_of(records, task.id) == []
    archiver.close()


def aged(url: str, days: dict[str, float]) -> None:
    """Has these tasks have ended so many days ago."""
    with opened(url) as database, database.writing() as connection:
        for task_id, age in days.items():
            finished = int((time.time() - age * 86400) * 1000)
            table = schema.tasks
            connection.execute(update(table).where(table.c.id == task_id).values(finished=finished))


def archived_and_aged(records: Records, redis_url: str, url: str, limits: HistoryLimits) -> tuple[Archiver, list[str]]:
    """Four archived tasks, 40, 30, 20 and 10 days old, and the archiver that may prune them."""
    archiver = new_archiver(redis_url, url, limits=limits)
    archiver._prune_at = time.monotonic() + 3600
    tasks = []
    for _ in range(4):
        task = MadeTask(records)
        task.add(b"text" * 1000, result("web1", "changed"))
        tasks.append(task.end())
    archive_all(archiver)
    aged(url, dict(zip(tasks, (40, 30, 20, 10), strict=True)))
    archiver._prune_at = 0.0
    return archiver, tasks


def stored_bytes(url: str) -> int:
    with opened(url) as database, database.reading() as connection:
        return int(connection.execute(select(func.max(schema.tasks.c.stored_bytes))).scalar_one())


def test_what_is_over_a_limit_is_deleted_the_oldest_first(records: Records, redis_url: str, history_url: str) -> None:
    for limits, left in ((HistoryLimits(25), 2), (HistoryLimits(365, tasks=3), 3), (HistoryLimits(365), 4)):
        archiver, tasks = archived_and_aged(records, redis_url, history_url, limits)
        archiver.run_round()
        assert [records.task(task_id) is not None for task_id in tasks] == [False] * (4 - left) + [True] * left
        assert count_of(history_url, schema.output_chunks) == count_of(history_url, schema.task_hosts) == left
        with opened(history_url) as database, database.writing() as connection:
            connection.execute(delete(schema.tasks))
        archiver.close()
    most = int(2.5 * stored_bytes_of_one(records, redis_url, history_url))
    archiver, tasks = archived_and_aged(records, redis_url, history_url, HistoryLimits(365, bytes=most))
    archiver.run_round()
    assert [records.task(task_id) is not None for task_id in tasks] == [False, False, True, True]
    archiver.close()


def stored_bytes_of_one(records: Records, redis_url: str, url: str) -> int:
    archiver, _ = archived_and_aged(records, redis_url, url, KEEPS_ALL)
    archiver.close()
    size = stored_bytes(url)
    with opened(url) as database, database.writing() as connection:
        connection.execute(delete(schema.tasks))
    return size


def bytes_of(url: str, task_id: str) -> int:
    with opened(url) as database, database.reading() as connection:
        wanted = select(schema.tasks.c.stored_bytes).where(schema.tasks.c.id == task_id)
        return int(connection.execute(wanted).scalar_one())


def test_the_hosts_of_a_task_count_as_long_as_it_is_kept(records: Records, redis_url: str, history_url: str) -> None:
    archiver = new_archiver(redis_url, history_url, limits=HistoryLimits(365, output_days=25))
    dice, hosts = random.Random(1), [f"web{number}" for number in range(600)]
    tasks = []
    for _ in range(2):
        task = MadeTask(records)
        for host in hosts:
            gathered = {"ansible_facts": {"key": dice.randbytes(500).hex()}}
            task.add(b"x" * 10, result(host, "ok", module="setup", result=gathered))
        tasks.append(task.end())
        archive_all(archiver)
        assert bytes_of(history_url, task.id) > 600 * (500 + 500 + 100)  # its events, its facts, its rows
    first, second = tasks
    less = bytes_of(history_url, second) - bytes_of(history_url, first)
    assert 600 * 480 < less < 600 * 600, "only the latest facts are kept"
    aged(history_url, dict.fromkeys(tasks, 30))
    archiver._prune_at = 0.0
    archive_all(archiver)
    assert 600 * 100 < bytes_of(history_url, first) < 600 * 200
    assert 600 * 600 < bytes_of(history_url, second) < 600 * 800
    archiver.close()
    forgetful = Archiver(Store(redis_url), history_url, 0.0, KEEPS_ALL, keep_facts=False)
    forgetful.run_round()
    assert 600 * 100 < bytes_of(history_url, second) < 600 * 200
    forgetful.close()


def test_what_is_deleted_does_not_keep_what_has_ended_waiting(
    records: Records, redis_url: str, history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "_PRUNE_ROUND_SECONDS", -1.0)
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    for limits in (HistoryLimits(5), HistoryLimits(365, tasks=1), HistoryLimits(365, bytes=1)):
        archiver, tasks = archived_and_aged(records, redis_url, history_url, limits)
        assert archiver.run_round() > 0, "there is more to delete"
        assert [records.task(task_id) is not None for task_id in tasks] == [False, True, True, True]
        later = MadeTask(records).end()
        assert archiver.run_round() > 0 and keys_of(records, later) == []
        assert [records.task(task_id) is not None for task_id in tasks] == [False, False, True, True]
        archive_all(archiver)
        assert records.task(tasks[2]) is None
        with opened(history_url) as database, database.writing() as connection:
            connection.execute(delete(schema.tasks))
        archiver.close()


def test_who_is_elected_again_counts_again(
    records: Records, redis_url: str, history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "_PRUNE_ROUND_SECONDS", -1.0)
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    archiver, tasks = archived_and_aged(records, redis_url, history_url, HistoryLimits(365, tasks=2))
    archiver.run_round()
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(delete(schema.tasks).where(schema.tasks.c.id == tasks[1]))  # as another archiver does
    records._redis.delete("flansible:archiver")
    archive_all(archiver)
    assert [records.task(task_id) is not None for task_id in tasks] == [False, False, True, True]
    archiver.close()


def test_output_and_events_may_go_before_their_task(records: Records, redis_url: str, history_url: str) -> None:
    archiver, tasks = archived_and_aged(records, redis_url, history_url, HistoryLimits(365, output_days=25))
    archiver.run_round()
    for task_id in tasks[:2]:
        found, position = records.task(task_id), records.position(task_id)
        assert found is not None and found.output_expired_at == position.expired_at is not None
        assert records.output(task_id, 0, 10) == b"" and records.event_page(task_id) == []
        assert records.authorized_run(task_id) is not None and records.hosts(task_id, 0, 9) == ["web1"]
    for task_id in tasks[2:]:
        found = records.task(task_id)
        assert found is not None and found.output_expired_at is None and records.position(task_id).expired_at is None
        assert records.output(task_id, 0, 10) == b"texttextte"
    archiver.close()


def test_a_task_that_is_read_is_spared_for_a_while(records: Records, redis_url: str, history_url: str) -> None:
    archiver, tasks = archived_and_aged(records, redis_url, history_url, HistoryLimits(25))
    aged(history_url, {tasks[1]: 25.01})
    records.keep_while_read(tasks)
    archiver.run_round()
    assert [records.task(task_id) is not None for task_id in tasks] == [False, True, True, True]
    records._redis.delete("flansible:reading")
    archiver._prune_at = 0.0
    archiver.run_round()
    assert [records.task(task_id) is not None for task_id in tasks] == [False, False, True, True]
    archiver.close()


@pytest.mark.parametrize("limits", [HistoryLimits(365, tasks=3), HistoryLimits(365, bytes=1)])
def test_a_task_that_is_over_a_limit_is_spared_for_an_hour_at_most(
    records: Records, redis_url: str, history_url: str, limits: HistoryLimits
) -> None:
    archiver, tasks = archived_and_aged(records, redis_url, history_url, limits)
    records.keep_while_read(tasks)
    archiver.run_round()
    assert all(records.task(task_id) for task_id in tasks)
    with opened(history_url) as database, database.writing() as connection:
        connection.execute(update(schema.tasks).values(archived=schema.tasks.c.archived - 3_601_000))
    archiver._prune_at = 0.0
    archiver.run_round()
    assert [records.task(task_id) is not None for task_id in tasks] == [False, *([not limits.bytes] * 3)]
    archiver.close()
