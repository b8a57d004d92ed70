"""Deletes what is older than it is kept: output and events first, if they have a limit of their own, then whole tasks.

Called by the archiver, a hundred tasks at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, literal, select, update

from flansible.history import host_summaries, schema, summaries
from flansible.history.database import Database
from flansible.history.limits import HistoryLimits
from flansible.history.search_index import SearchIndex

_AT_ONCE = 100
_DAY_MILLISECONDS = 86_400_000
_LONGEST_READ_MILLISECONDS = 3_600_000
_RECORD_BYTES = 1000  # of a task whose output and events are gone, about; what its hosts take comes on top


class HistoryRetention:
    """Deletes in one database."""

    def __init__(self, database: Database, limits: HistoryLimits) -> None:
        self._database = database
        self._limits = limits

    def prune(self, being_read: Callable[[], Collection[str]], fence: Callable[[Connection], None]) -> Iterator[int]:
        """Deletes what is over the limits, the oldest first; yields, after each transaction, of how many tasks.

        being_read: lists the tasks that somebody reads now: they are spared, for an hour at most; fence: refuses a
        transaction of an archiver that was replaced, which may have counted before others deleted. Raises
        HistoryUnavailable and ArchiverReplaced.
        """
        limits, now = self._limits, int(time.time() * 1000)

        def until_none(delete_some: Callable[[Connection, Collection[str]], int]) -> Iterator[int]:
            while True:
                read = being_read()
                with self._database.writing() as connection:
                    fence(connection)
                    count = delete_some(connection, read)
                if not count:
                    return
                yield count

        before, output_before = (now - days * _DAY_MILLISECONDS for days in (limits.days, limits.output_days))
        yield from until_none(lambda connection, read: self._prune_tasks(connection, before, read))
        for size, most in ((literal(1), limits.tasks), (schema.tasks.c.stored_bytes, limits.bytes)):
            if most:
                yield from until_none(self._excess(size, most, now).prune)
        if limits.output_days:
            yield from until_none(lambda connection, read: self._prune_recordings(connection, now, output_before, read))

    def _prune_tasks(self, connection: Connection, before: int, read: Collection[str]) -> int:
        table = schema.tasks
        found = _unread(connection, select(table.c.key, table.c.id, table.c.finished), before, read)
        return _delete(connection, found)

    def _excess(self, size: ColumnElement[int], most: int, now: int) -> _Excess:
        # All tasks are gone through: once, and while others may write.
        archived, hour_ago = schema.tasks.c.archived, now - _LONGEST_READ_MILLISECONDS
        sums = select(func.sum(size), func.sum(case((archived < hour_ago, size), else_=0)))
        with self._database.reading() as connection:
            total, earlier = connection.execute(sums.select_from(schema.tasks)).one()
        return _Excess(size, hour_ago, int(total or 0) - most, int(earlier or 0) - most)

    def _prune_recordings(self, connection: Connection, now: int, before: int, read: Collection[str]) -> int:
        table = schema.tasks
        wanted = select(table.c.key, table.c.id, table.c.finished).where(table.c.output_expired.is_(None))
        keys = _unread(connection, wanted, before, read)
        SearchIndex(connection).remove_recordings(keys)
        for recordings in (schema.output_chunks, schema.event_segments):
            connection.execute(delete(recordings).where(recordings.c.task_key.in_(keys)))
        left = _RECORD_BYTES + host_summaries.bytes_of_hosts()
        changed = {"output_expired": now, "stored_bytes": left}
        connection.execute(update(table).where(table.c.key.in_(keys)).values(changed))
        return len(keys)


class _Excess:
    """By how much the tasks together are over a limit, in one pass: now, and without those that were archived in the
    last hour. size: of a task; hour_ago: in milliseconds."""

    def __init__(self, size: ColumnElement[int], hour_ago: int, now: int, earlier: int) -> None:
        self._size = size
        self._hour_ago = hour_ago
        self._now = now
        self._earlier = earlier

    def prune(self, connection: Connection, read: Collection[str]) -> int:
        """Deletes some of the oldest tasks while there is more than the limit. Tasks that are read count as deleted: no
        younger one goes in their place; one that was over the limit an hour ago is deleted all the same."""
        if self._now <= 0:
            return 0
        table = schema.tasks
        wanted = select(table.c.key, table.c.id, table.c.archived, self._size.label("size"))
        oldest = connection.execute(wanted.order_by(table.c.finished, table.c.key).limit(_AT_ONCE + len(read)))
        keys, now, earlier = [], self._now, self._earlier
        for row in oldest:
            if now <= 0:
                break
            of_earlier = row.size if row.archived < self._hour_ago else 0
            if row.id not in read or earlier > 0:
                keys.append(row.key)
                self._now -= row.size
                self._earlier -= of_earlier
            now, earlier = now - row.size, earlier - of_earlier
        return _delete(connection, keys)


def _delete(connection: Connection, keys: list[int]) -> int:
    if keys:
        SearchIndex(connection).remove(keys)
        summaries.delete_unused(connection, keys, delete(schema.tasks).where(schema.tasks.c.key.in_(keys)))
    return len(keys)


def _unread(connection: Connection, wanted: Select[Any], before: int, read: Collection[str]) -> list[int]:
    """Returns the keys of tasks that ended before this time, unless they are read and only just over it."""
    finished = schema.tasks.c.finished
    rows = connection.execute(wanted.where(finished < before).order_by(finished).limit(_AT_ONCE + len(read)))
    return [row.key for row in rows if row.id not in read or row.finished < before - _LONGEST_READ_MILLISECONDS][
        :_AT_ONCE
    ]
