"""Retention and readers: what is read is spared for a while; what is deleted all the same never looks whole."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import text

from flansible.cli import cli
from flansible.errors import OutputExpired, TaskDeleted
from flansible.history.archive import Archive
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.history.retention import HistoryRetention
from flansible.store import Retention, Store
from flansible.store.export import export, parse_moment
from flansible.store.recordings import MOST_READ_SECONDS, READ_SECONDS, SEGMENT_BYTES
from flansible.worker.archiver import Archiver
from tests.helpers.history import opened
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, RecordedRun, WebServer, read_head, read_to_end, result

LAST_CHUNK = b"0\r\n\r\n"
LONG = b"a line of the output\n" * 700_000  # more than the buffers of a connection hold
STREAM = "Accept: text/event-stream"


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


@pytest.fixture
def one(redis_url: str) -> Iterator[Store]:
    """A store that keeps one final task."""
    store = Store(redis_url, Retention(tasks=1))
    yield store
    store.close()


def ended(store: Store, output: bytes = b"", results: int = 0) -> RecordedRun:
    run = RecordedRun(store)
    for start in range(0, len(output), SEGMENT_BYTES):
        run.write(output[start : start + SEGMENT_BYTES])
    for number in range(0, results, 100):
        run.write(b"", *(result(f"host{number + each}", text="x" * 5000) for each in range(min(100, results - number))))
    run.end()
    return run


def in_turn(raw: redis.Redis, *runs: RecordedRun) -> None:
    """Has them end a second after one another: those of one second are deleted in any order."""
    members = {member.decode().partition(" ")[0]: member for member in raw.zrange("flansible:expiring", 0, -1)}
    first = time.time() + 86400
    raw.zadd("flansible:expiring", {members[run.task_id]: first + number for number, run in enumerate(runs)})


def keys_of(raw: redis.Redis, run: RecordedRun) -> list[bytes]:
    return sorted(raw.keys(f"flansible:task:{run.task_id}*"))


def delete(raw: redis.Redis, run: RecordedRun) -> None:
    """As an expiry does: all keys at once."""
    raw.delete(*keys_of(raw, run))


# What is read is spared


def test_the_retention_spares_what_is_read_and_deletes_no_younger_task_in_its_place(
    store: Store, one: Store, raw: redis.Redis
) -> None:
    oldest, *others, newest = (ended(store) for _ in range(4))
    in_turn(raw, oldest, *others, newest)
    store.keep_while_read([oldest.task_id])
    assert one.prune() == 2 and one.prune() == 0
    assert [bool(keys_of(raw, run)) for run in (oldest, *others, newest)] == [True, False, False, True]
    raw.zadd("flansible:reading", {oldest.task_id: time.time() - 1})  # it was read to its end
    assert one.prune() == 1 and keys_of(raw, oldest) == []
    assert keys_of(raw, newest) and raw.exists("flansible:reading") == 0


def test_the_bytes_of_what_is_read_count_as_deleted(store: Store, redis_url: str, raw: redis.Redis) -> None:
    few = Store(redis_url, Retention(bytes=3000))
    read, other, newest = ended(store, b"x" * 2000), ended(store, b"x" * 2000), ended(store, b"x" * 2000)
    in_turn(raw, read, other, newest)
    store.keep_while_read([read.task_id])
    assert few.prune() == 1
    assert [bool(keys_of(raw, run)) for run in (read, other, newest)] == [True, False, True]
    few.close()


def test_a_reader_that_takes_an_hour_is_not_waited_for(store: Store, one: Store, raw: redis.Redis) -> None:
    slow, other = ended(store), ended(store)
    in_turn(raw, slow, other)
    store.keep_while_read([slow.task_id])
    assert one.prune() == 0
    raw.hset(f"flansible:task:{slow.task_id}", "overdue", time.time() - MOST_READ_SECONDS)
    store.keep_while_read([slow.task_id])
    assert one.prune() == 1 and keys_of(raw, slow) == []


def test_an_expiry_is_put_off_for_all_of_a_task_that_is_read_but_not_for_ever(store: Store, raw: redis.Redis) -> None:
    run = ended(store, b"x" * (SEGMENT_BYTES + 1), results=3)
    soon = int(time.time()) + 5
    for key in keys_of(raw, run):
        raw.expireat(key, soon)
    store.keep_while_read([run.task_id])
    for key in keys_of(raw, run):
        assert READ_SECONDS - 5 < raw.ttl(key) <= READ_SECONDS, key
    latest = soon - MOST_READ_SECONDS + 20  # as if it had been read for nearly an hour
    raw.hset(f"flansible:task:{run.task_id}", "expires", latest)
    for key in keys_of(raw, run):
        raw.expireat(key, soon)
    store.keep_while_read([run.task_id])
    assert {raw.ttl(key) for key in keys_of(raw, run)} <= {23, 24, 25, 26}


def test_a_running_a_hidden_and_an_unknown_task_are_left_as_they_are(store: Store, raw: redis.Redis) -> None:
    going, hidden = RecordedRun(store), RecordedRun(store, hidden=True)
    hidden.end()
    before = {key: raw.ttl(key) for key in (*keys_of(raw, going), *keys_of(raw, hidden))}
    store.keep_while_read([going.task_id, hidden.task_id, "00000000-0000-4000-8000-ffffffffffff"])
    assert {key: raw.ttl(key) for key in before} == before
    assert raw.exists("flansible:reading") == 0
    going.end()


@pytest.mark.parametrize("query", ["", "?format=ansi", "?follow=true"])
def test_a_reply_that_takes_long_is_whole_though_its_task_is_due(
    server: WebServer, store: Store, one: Store, raw: redis.Redis, query: str
) -> None:
    run = ended(store, LONG)
    with slow_reader(server, run.output_path + query) as connection:
        eventually(lambda: raw.zscore("flansible:reading", run.task_id))
        for key in keys_of(raw, run):
            raw.expire(key, 1)  # it is put off when the reader says that it goes on; a follower does so each 30 s
        store.keep_while_read([run.task_id])
        in_turn(raw, run, ended(store))
        assert one.prune() == 0
        due = time.time() + 1
        eventually(lambda: time.time() > due)
        body = read_to_end(connection)
    # But for the first piece, and lines that a chunk's border cuts in two.
    assert body.endswith(LAST_CHUNK) and body.count(b"a line of the output") > 690_000


def test_pages_are_kept_until_the_next_one_is_read(server: WebServer, store: Store, raw: redis.Redis) -> None:
    run = ended(store, LONG[: 1 << 21], results=30)
    with server.client() as client:
        for path in (
            f"{run.events_path}?limit=5",
            f"/api/ansibletaskresult/{run.task_id}?limit=5",
            f"{run.output_path}?format=fragment",
        ):
            assert client.get(path).status_code == 200
            assert raw.zscore("flansible:reading", run.task_id), path
            raw.delete("flansible:reading")


# What is deleted while it is read never looks whole


@contextlib.contextmanager
def slow_reader(server: WebServer, path: str, *headers: str, version: str = "HTTP/1.1") -> Iterator[socket.socket]:
    """A client that has read the head and takes no more, until the test does."""
    with server.connect(path, "Connection: close", *headers, version=version) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head, body = read_head(connection)
        assert " 200 " in head and (body or connection.recv(10))
        yield connection


@pytest.mark.parametrize("query", ["", "?format=ansi", "?follow=true", "?follow=true&format=ansi"])
def test_output_that_is_deleted_while_it_is_read_is_cut_off(
    server: WebServer, store: Store, raw: redis.Redis, query: str
) -> None:
    run = ended(store, LONG)
    with slow_reader(server, run.output_path + query) as connection:
        delete(raw, run)
        body = read_to_end(connection)
    assert not body.endswith(LAST_CHUNK) and 0 < len(body) < len(LONG)


@pytest.mark.parametrize("query", ["", "?follow=true"])
def test_a_client_of_http_1_0_gets_an_error_and_no_end(
    server: WebServer, store: Store, raw: redis.Redis, query: str
) -> None:
    run = ended(store, LONG)
    with slow_reader(server, run.output_path + query, version="HTTP/1.0") as connection:
        delete(raw, run)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)


def test_the_client_says_that_it_did_not_get_all(server: WebServer, store: Store, raw: redis.Redis) -> None:
    run = ended(store, LONG)
    with server.client() as client, client.stream("GET", run.output_path) as reply:
        pieces = reply.iter_raw(1024)
        next(pieces)
        delete(raw, run)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)


@pytest.mark.parametrize("query", ["", "?verdict=changed", "?host=host1"])
def test_a_stream_of_events_that_are_deleted_is_cut_off(
    server: WebServer, store: Store, raw: redis.Redis, query: str
) -> None:
    """Also where the filter lets none of them through."""
    run = RecordedRun(store)
    run.write(b"", result("host0"))
    with slow_reader(server, run.events_path + query, STREAM) as connection:
        delete(raw, run)
        raw.publish(f"flansible:changed:{run.task_id}", "")
        body = read_to_end(connection)
    assert not body.endswith(LAST_CHUNK) and b"event: final" not in body


def test_a_long_stream_of_events_is_cut_off_in_the_middle(server: WebServer, store: Store, raw: redis.Redis) -> None:
    run = ended(store, results=3000)
    with slow_reader(server, run.events_path, STREAM) as connection:
        delete(raw, run)
        body = read_to_end(connection)
    assert not body.endswith(LAST_CHUNK) and b"event: final" not in body


def test_who_waits_for_events_of_a_task_that_is_deleted_gets_no_page(
    server: WebServer, store: Store, raw: redis.Redis
) -> None:
    run = RecordedRun(store)
    with server.connect(f"{run.events_path}?wait=20") as connection:
        eventually(lambda: raw.pubsub_numsub(f"flansible:changed:{run.task_id}")[0][1])
        delete(raw, run)
        raw.publish(f"flansible:changed:{run.task_id}", "")
        assert read_to_end(connection) == b""


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    found = make_app()
    assert found.test_client().get("/api/ansibletasks", auth=ADMIN).status_code == 200
    return found


# The path, and the method of the store before whose first call the task is deleted.
BETWEEN_READS = [
    ("/api/ansibletaskoutput/{}", "position"),
    ("/api/ansibletaskoutput/{}?format=html", "output"),
    ("/api/ansibletaskoutput/{}?format=fragment", "colours"),
    ("/api/ansibletaskevents/{}", "position"),
    ("/api/ansibletaskevents/{}", "event_page"),
    ("/api/ansibletaskevents/{}?host=host1", "event_page"),
    ("/api/ansibletaskevents/{}?after=1&wait=5", "event_page"),
    ("/api/ansibletaskresult/{}", "hosts"),
    ("/api/ansibletaskresult/{}", "event_page"),
    ("/api/ansibletaskresult/{}", "stats_event"),
]


@pytest.mark.parametrize(("path", "method"), BETWEEN_READS)
def test_a_page_of_what_is_deleted_between_two_reads_is_not_found(
    app: Any, store: Store, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    run = ended(store, b"text\n", results=3)
    delete_before(monkeypatch, app.extensions["flansible"].store, method, raw, run)
    reply = app.test_client().get(path.format(run.task_id), auth=ADMIN)
    assert (reply.status_code, reply.get_json()["code"]) == (404, "task_not_found"), reply.get_data()


@pytest.mark.parametrize(
    ("path", "method"), [("/api/ansibletaskoutput/{}", "output"), ("/api/ansibletaskoutput/{}?format=ansi", "colours")]
)
def test_what_is_deleted_before_its_first_piece_is_404(
    app: Any, store: Store, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    run = ended(store, b"text\n", results=3)
    delete_before(monkeypatch, app.extensions["flansible"].store, method, raw, run)
    reply = app.test_client().get(path.format(run.task_id), auth=ADMIN, buffered=True)
    assert (reply.status_code, reply.get_json()["code"]) == (404, "task_not_found")


PAGES_OF_ARCHIVED = [
    *BETWEEN_READS,
    ("/api/ansibletaskoutput/{}", "output"),
    ("/api/ansibletaskoutput/{}?format=ansi", "colours"),
    ("/api/ansibletaskresult/{}", "host_events"),
    ("/api/compare?task={0}&with={0}", "hosts"),
    ("/api/compare?task={0}&with={0}", "host_events"),
]


@pytest.mark.parametrize(("path", "method"), PAGES_OF_ARCHIVED)
def test_a_page_of_what_expires_between_two_reads_says_so(
    app: Any, store: Store, redis_url: str, history_url: str, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    run = ended(store, b"text\n", results=3)
    archive(redis_url, history_url)
    records = app.extensions["flansible"].store
    records.archive = Archive(history_url, 5.0)
    do_before(monkeypatch, records, method, lambda: expire_all(history_url))
    reply = app.test_client().get(path.format(run.task_id), auth=ADMIN, buffered=True)
    assert (reply.status_code, reply.get_json()["code"]) == (410, "output_expired"), reply.get_data()


@pytest.mark.parametrize("host", ["", "host1"])
def test_events_that_expire_in_the_middle_of_a_page_are_all_in_it(
    store: Store, redis_url: str, history_url: str, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    run = ended(store, results=300)
    before = store.event_page(run.task_id, limit=5000, host=host)
    archive(redis_url, history_url)
    with contextlib.closing(Archive(history_url, 5.0)) as archived:
        do_before(monkeypatch, archived._recordings._segments, "texts", lambda: expire_all(history_url))
        assert archived.event_page(run.task_id, 0, 5000, 1 << 30, host) == before != []
        assert archived.event_page(run.task_id, 0, 5000, 1 << 30, host) == []


def test_compared_tasks_and_results_are_spared_while_they_are_read(
    app: Any, store: Store, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended(store, results=3)
    for path in (f"/api/ansibletaskresult/{run.task_id}", f"/api/compare?task={run.task_id}&with={run.task_id}"):
        is_spared: list[bool] = []
        with monkeypatch.context() as patch:
            note = partial(note_spared, raw, run, is_spared)
            do_before(patch, app.extensions["flansible"].store, "hosts", note)
            assert app.test_client().get(path, auth=ADMIN).status_code == 200
        assert is_spared == [True], path
        raw.delete("flansible:reading")


def note_spared(raw: redis.Redis, run: RecordedRun, notes: list[bool]) -> None:
    notes.append(raw.zscore("flansible:reading", run.task_id) is not None)


def archive(redis_url: str, history_url: str) -> None:
    archiver = Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(36500))
    assert archiver.run_round() == 1
    archiver.close()


def expire_all(url: str) -> None:
    """Has the output and events of all archived tasks be older than they are kept."""
    with opened(url) as database:
        with database.writing() as connection:
            connection.execute(text("UPDATE tasks SET finished = finished - 8 * 86400000"))
        limits = HistoryLimits(36500, output_days=7)
        assert sum(HistoryRetention(database, limits).prune(lambda: (), lambda connection: None)) <= 1


def do_before(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, act: Callable[[], None]) -> None:
    """Does something just before the first call of a method."""
    call, acts = getattr(owner, method), [act]

    def first(*args: Any, **more: Any) -> Any:
        if acts:
            acts.pop()()
        return call(*args, **more)

    monkeypatch.setattr(owner, method, first)


def delete_before(
    monkeypatch: pytest.MonkeyPatch, store: Store, method: str, raw: redis.Redis, run: RecordedRun
) -> None:
    """Has the task deleted just before the first call of a method of this store."""
    call = getattr(store, method)

    def first(*args: Any, **more: Any) -> Any:
        if keys := keys_of(raw, run):
            raw.delete(*keys)
        return call(*args, **more)

    monkeypatch.setattr(store, method, first)


# Export


class Deleting(io.StringIO):
    """A file during whose writing the task is deleted, at these words."""

    def __init__(self, at: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._act = at, act

    def write(self, text: str) -> int:
        if self._at in text:
            self._act()
        return super().write(text)


@pytest.mark.parametrize("at", ['"request"', '"events"', '"output"'])
def test_an_export_of_what_is_deleted_meanwhile_fails_and_ends_no_line(store: Store, raw: redis.Redis, at: str) -> None:
    run = ended(store, b"text\n" * 1_000_000, results=3)
    file = Deleting(at, lambda: delete(raw, run))
    with pytest.raises(TaskDeleted, match="while it was read"):
        export(store, parse_moment("1h"), None, True, file)
    assert "\n" not in file.getvalue()


@pytest.mark.parametrize("at", ['"request"', '"events"', '"output"'])
def test_an_export_of_what_expires_meanwhile_fails_and_what_had_expired_is_exported(
    store: Store, redis_url: str, history_url: str, at: str
) -> None:
    ended(store, b"text\n" * 1_000_000, results=3)
    archive(redis_url, history_url)
    with contextlib.closing(Records(redis_url, Archive(history_url, 5.0))) as records:
        file = Deleting(at, lambda: expire_all(history_url))
        with pytest.raises(OutputExpired):
            export(records, parse_moment("1h"), None, True, file)
        assert "\n" not in file.getvalue()
        later = io.StringIO()
        assert export(records, parse_moment("1h"), None, True, later) == (1, 0)
        assert (json.loads(later.getvalue())["events"], json.loads(later.getvalue())["output"]) == ([], "")


def test_an_export_spares_what_it_writes_and_leaves_out_what_is_gone(
    store: Store, one: Store, raw: redis.Redis
) -> None:
    gone, first, last = ended(store), ended(store), ended(store)
    in_turn(raw, gone, first, last)
    file = Deleting(first.task_id, lambda: print(one.prune()))
    delete(raw, gone)
    assert export(store, parse_moment("1h"), None, True, file) == (2, 0)
    assert len([json.loads(line) for line in file.getvalue().splitlines()]) == 2


def test_the_command_says_what_happened_and_keeps_the_file_of_before(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, target = tmp_path / "config.ini", tmp_path / "tasks.jsonl"
    config.write_text(f"[Default]\nCELERY_RESULT_BACKEND = {own_redis.url}\nCELERY_BROKER_URL = {own_redis.url}\n")
    target.write_text("of before\n")
    with contextlib.closing(Store(own_redis.url)) as store, contextlib.closing(own_redis.client()) as client:
        run = ended(store, b"text\n")
        call = Store.output

        def output(self: Store, *args: Any) -> bytes:
            if keys := keys_of(client, run):
                client.delete(*keys)
            return call(self, *args)

        monkeypatch.setattr(Store, "output", output)
        done = CliRunner().invoke(cli, ["export", f"--config={config}", "--since=1d", f"--output={target}"])
    assert isinstance(done.exception, TaskDeleted) and target.read_text() == "of before\n"
    assert str(done.exception).startswith(f"task {run.task_id} was deleted while it was read")
