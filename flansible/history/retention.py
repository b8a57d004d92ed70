"""Deletes what is older than it is kept: output and events first, if they have a limit of their own, then whole tasks.

Called by the archiver, a hundred tasks at a time.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, literal, select, update

from flansible.history import schema, summaries
from flansible.history.database import Database
from flansible.history.limits import HistoryLimits
from flansible.history.search_index import SearchIndex

_AT_ONCE = 100
_DAY_MILLISECONDS = 86_400_000
_LONGEST_READ_MILLISECONDS = 3_600_000
_RECORD_BYTES = 1000  # of a task whose output and events are gone, about


class HistoryRetention:
    """Deletes in one database."""

    def __init__(self, database: Database, limits: HistoryLimits) -> None:
        self._database = database
        self._limits = limits

    def prune(self, read: Collection[str]) -> int:
        """Deletes some of what is over the limits, the oldest first; returns of how many tasks: call again until it is
        0. read: tasks that somebody reads now: they are spared, for an hour at most. Raises HistoryUnavailable."""
        limits, now = self._limits, int(time.time() * 1000)
        with self._database.writing() as connection:
            count = self._prune_tasks(connection, now - limits.days * _DAY_MILLISECONDS, read)
            if limits.tasks and not count:
                count = self._prune_excess(connection, literal(1), limits.tasks, read)
            if limits.bytes and not count:
                count = self._prune_excess(connection, schema.tasks.c.stored_bytes, limits.bytes, read)
            if limits.output_days and not count:
                count = self._prune_recordings(connection, now, now - limits.output_days * _DAY_MILLISECONDS, read)
        return count

    def _prune_tasks(self, connection: Connection, before: int, read: Collection[str]) -> int:
        table = schema.tasks
        found = _unread(connection, select(table.c.key, table.c.id, table.c.finished), before, read)
        return self._delete(connection, found)

    def _prune_excess(self, connection: Connection, size: ColumnElement[int], most: int, read: Collection[str]) -> int:
        """Deletes the oldest tasks while there is more than `most` of all sizes together. Tasks that are read count as
        deleted: no younger one goes in their place."""
        table = schema.tasks
        excess = int(connection.execute(select(func.sum(size)).select_from(table)).scalar() or 0) - most
        if excess <= 0:
            return 0
        oldest = select(table.c.key, table.c.id, size.label("size")).order_by(table.c.finished, table.c.key)
        keys = []
        for row in connection.execute(oldest.limit(_AT_ONCE + len(read))):
            if excess <= 0:
                break
            excess -= row.size
            if row.id not in read:
                keys.append(row.key)
        return self._delete(connection, keys)

    def _prune_recordings(self, connection: Connection, now: int, before: int, read: Collection[str]) -> int:
        table = schema.tasks
        wanted = select(table.c.key, table.c.id, table.c.finished).where(table.c.output_expired.is_(None))
        keys = _unread(connection, wanted, before, read)
        SearchIndex(connection).remove_recordings(keys)
        for recordings in (schema.output_chunks, schema.event_segments):
            connection.execute(delete(recordings).where(recordings.c.task_key.in_(keys)))
        changed = {"output_expired": now, "stored_bytes": _RECORD_BYTES}
        connection.execute(update(table).where(table.c.key.in_(keys)).values(changed))
        return len(keys)

    def _delete(self, connection: Connection, keys: list[int]) -> int:
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
