"""Reads output, colours, events and results of archived tasks, as `store.recordings` reads those in Redis."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, select

from flansible.history import encoding, schema
from flansible.history.database import Database
from flansible.models import State
from flansible.store import ColourMark, Position

_CACHED = 6  # unpacked segments of a process: 3 MB, and more only of huge events
_POSITIONS = 500  # ids in one statement


class ArchivedRecordings:
    """Recordings in one database. Each method says nothing of a task that is not there: it returns what is empty."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._segments = _SegmentCache()

    def positions(self, task_ids: Iterable[str]) -> dict[str, Position]:
        """Reads the positions of those of these tasks that are archived."""
        table, ids = schema.tasks, list(task_ids)
        found = {}
        with self._database.reading() as connection:
            for begin in range(0, len(ids), _POSITIONS):
                columns = (table.c.id, table.c.state, table.c.output_bytes, table.c.event_count, table.c.output_expired)
                wanted = select(*columns).where(table.c.id.in_(ids[begin : begin + _POSITIONS]))
                for row in connection.execute(wanted):
                    expired_at = encoding.moment(row.output_expired)
                    found[row.id] = Position(State(row.state), row.output_bytes, row.event_count, expired_at)
        return found

    def output(self, task_id: str, offset: int, max_bytes: int) -> bytes:
        """Reads output from a byte offset on."""
        end, pieces = offset + max_bytes, []
        with self._database.reading() as connection:
            for row in connection.execute(_chunks(task_id, offset, end - 1)):
                data = encoding.unpack(row.data)
                pieces.append(data[max(0, offset - row.start) : end - row.start])
        return b"".join(pieces)

    def colours(self, task_id: str, first: int, last: int, *, with_previous: bool = False) -> list[ColourMark]:
        """Reads the colour marks from output offset `first` to `last`, both included; with_previous: and the one before
        them."""
        found: list[ColourMark] = []
        with self._database.reading() as connection:
            for row in connection.execute(_chunks(task_id, first, last)):
                if not found:
                    found = encoding.unpack_marks(row.before)
                found += encoding.unpack_marks(row.marks)
        before = [mark for mark in found if mark.offset < first]
        wanted = [mark for mark in found if first <= mark.offset <= last]
        return [*before[-1:], *wanted] if with_previous else wanted

    def event_page(self, task_id: str, after: int, limit: int, max_bytes: int, host: str = "") -> list[dict[str, Any]]:
        """Reads events with a seq above `after`, in order: at most `limit`, and at most max_bytes of JSON, but always
        one. host: only this host's."""
        found: list[dict[str, Any]] = []
        with self._at_one_moment() as connection:
            texts = self._of_host(connection, task_id, host, after) if host else self._all(connection, task_id, after)
            for seq, text in texts:
                if found and max_bytes < len(text):
                    break
                max_bytes -= len(text)
                found.append({"seq": seq, **json.loads(text)})
                if len(found) == limit:
                    break
        return found

    def stats_event(self, task_id: str) -> dict[str, Any] | None:
        """Reads the event with the counts of every host, if there is one."""
        with self._database.reading() as connection:
            wanted = select(schema.tasks.c.stats_seq).where(schema.tasks.c.id == task_id)
            seq = connection.execute(wanted).scalar()
        found = self.event_page(task_id, seq - 1, 1, 1) if seq else []
        return found[0] if found else None

    def hosts(self, task_id: str, first: int, limit: int) -> list[str]:
        """Lists hosts with results, from position `first` on: those with a failure first, each group by name."""
        of_task, hosts = schema.task_hosts, schema.hosts
        wanted = (
            select(hosts.c.name)
            .join(of_task, of_task.c.host_key == hosts.c.key)
            .where(of_task.c.task_key == _key_of(task_id), of_task.c.position >= first)
            .order_by(of_task.c.position)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute(wanted)]

    def host_events(self, task_id: str, hosts: list[str], limit: int, max_bytes: int) -> list[list[dict[str, Any]]]:
        """Reads the first events of each of these hosts, like `event_page`. Each segment is unpacked once for all."""
        wanted = {host: _FirstEvents(limit, max_bytes) for host in hosts}
        by_name = {encoding.host_name(host): host for host in hosts}
        with self._at_one_moment() as connection:
            owners: dict[int, str] = {}
            task_key = 0
            for row in connection.execute(_results_of(task_id, list(by_name))):
                task_key = row.task_key
                owners |= dict.fromkeys(encoding.unpack_numbers(row.seqs)[:limit], by_name[row.name])
            for first, seqs in _by_segment(connection, task_key, sorted(owners)):
                seqs = [seq for seq in seqs if wanted[owners[seq]].has_room]
                if seqs:
                    texts = self._segments.texts(connection, task_id, task_key, first)
                    for seq in seqs:
                        wanted[owners[seq]].take(seq, texts[seq - first])
        return [found.events for found in wanted.values()]

    @contextmanager
    def _at_one_moment(self) -> Iterator[Connection]:
        """Opens a transaction in which events stay that are deleted meanwhile; in SQLite every one is."""
        with self._database.reading() as connection:
            if not self._database.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    def _all(self, connection: Connection, task_id: str, after: int) -> Iterator[tuple[int, bytes]]:
        table = schema.event_segments
        while True:
            wanted = (
                select(table.c.task_key, table.c.first_seq, table.c.last_seq)
                .where(table.c.task_key == _key_of(task_id), table.c.last_seq > after)
                .order_by(table.c.first_seq)
                .limit(1)
            )
            row = connection.execute(wanted).one_or_none()
            if row is None:
                return
            texts = self._segments.texts(connection, task_id, row.task_key, row.first_seq)
            for seq in range(max(row.first_seq, after + 1), row.last_seq + 1):
                yield seq, texts[seq - row.first_seq]
            after = row.last_seq

    def _of_host(self, connection: Connection, task_id: str, host: str, after: int) -> Iterator[tuple[int, bytes]]:
        row = connection.execute(_results_of(task_id, [encoding.host_name(host)])).one_or_none()
        if row is None:
            return
        later = [seq for seq in encoding.unpack_numbers(row.seqs) if seq > after]
        for first, seqs in _by_segment(connection, row.task_key, later):
            texts = self._segments.texts(connection, task_id, row.task_key, first)
            yield from ((seq, texts[seq - first]) for seq in seqs)


class _FirstEvents:
    """The first events of one host, as many as a page has."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.events: list[dict[str, Any]] = []
        self.has_room = True
        self._limit = limit
        self._bytes_left = max_bytes

    def take(self, seq: int, text: bytes) -> None:
        if not self.has_room:
            return
        if self.events and self._bytes_left < len(text):
            self.has_room = False
            return
        self._bytes_left -= len(text)
        self.events.append({"seq": seq, **json.loads(text)})
        self.has_room = len(self.events) < self._limit


class _SegmentCache:
    """The segments that were unpacked last: a page of results reads the same one for each host.

    By the task's id: SQLite gives the key of a deleted task to another one, and a database may be put back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, int], list[bytes]] = OrderedDict()

    def texts(self, connection: Connection, task_id: str, task_key: int, first_seq: int) -> list[bytes]:
        name = (task_id, first_seq)
        with self._lock:
            if (known := self._found.get(name)) is not None:
                self._found.move_to_end(name)
                return known
        table = schema.event_segments
        wanted = select(table.c.data).where(table.c.task_key == task_key, table.c.first_seq == first_seq)
        texts = encoding.unpack(connection.execute(wanted).scalar_one()).split(b"\n")
        with self._lock:
            self._found[name] = texts
            while len(self._found) > _CACHED:
                self._found.popitem(last=False)
        return texts


def _key_of(task_id: str) -> Any:
    return select(schema.tasks.c.key).where(schema.tasks.c.id == task_id).scalar_subquery()


def _results_of(task_id: str, names: list[str]) -> Select[Any]:
    """The seqs of the results of hosts of a task: a row for each host."""
    of_task, hosts = schema.task_hosts, schema.hosts
    return (
        select(of_task.c.task_key, of_task.c.seqs, hosts.c.name)
        .join(hosts, of_task.c.host_key == hosts.c.key)
        .where(of_task.c.task_key == _key_of(task_id), hosts.c.name.in_(names))
    )


def _by_segment(connection: Connection, task_key: int, seqs: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Yields the first seq of each segment that has some of these events, in order, and which of them."""
    table = schema.event_segments
    wanted = select(table.c.first_seq).where(table.c.task_key == task_key).order_by(table.c.first_seq)
    firsts = [first for (first,) in connection.execute(wanted)] if seqs else []
    for place, group in groupby(seqs, key=lambda seq: bisect_right(firsts, seq)):
        if place:
            yield firsts[place - 1], list(group)


def _chunks(task_id: str, first: int, last: int) -> Select[Any]:
    """The chunks that have something between two output offsets, both included, in order."""
    table = schema.output_chunks
    begins = select(table.c.start).where(table.c.task_key == _key_of(task_id), table.c.start <= first)
    begin = begins.order_by(table.c.start.desc()).limit(1).scalar_subquery()
    return (
        select(table)
        .where(table.c.task_key == _key_of(task_id), table.c.start >= begin, table.c.start <= last)
        .order_by(table.c.start)
    )
