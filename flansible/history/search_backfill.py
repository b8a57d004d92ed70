"""Makes those tasks searchable that were archived by a version without search, the newest first, and gives them the
key of their summary.

Called by the archiver while it has nothing else to do, some tasks at a time: no migration has to wait for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import Connection, Select, func, select, update

from flansible.errors import HistoryUnavailable
from flansible.history import encoding, schema, summaries
from flansible.history.database import Database
from flansible.history.search_index import TaskIndexer

log = logging.getLogger(__name__)

_AT_ONCE = 20
_LOOKED_AT = 1000  # newest tasks


class SearchBackfill:
    """Works in one database. fence: called in each transaction; raises where another archiver was elected."""

    def __init__(self, database: Database, fence: Callable[[Connection], None]) -> None:
        self._database = database
        self._fence = fence

    def look_for_missing(self) -> None:
        """Begins again where a worker of an earlier version has archived since. Raises HistoryUnavailable."""
        tasks, records, progress = schema.tasks, schema.search_records, schema.search_backfill
        newest = select(func.max(tasks.c.key)).scalar_subquery()
        missing = (
            select(tasks.c.key)
            .outerjoin(records, records.c.task_key == tasks.c.key)
            .where(tasks.c.key > newest - _LOOKED_AT, records.c.task_key.is_(None))
            .order_by(tasks.c.key.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            key = connection.execute(missing).scalar()
            next_key = connection.execute(select(progress.c.next_key)).scalar()
        if key is not None and (next_key is None or next_key < key):
            with self._database.writing() as connection:
                self._fence(connection)
                connection.execute(update(progress).values(next_key=key))

    def run(self) -> int:
        """Takes some tasks; returns how many, 0 when all are done. Raises HistoryUnavailable."""
        progress = schema.search_backfill
        with self._database.reading() as connection:
            next_key = connection.execute(select(progress.c.next_key)).scalar()
        if next_key is None:
            return 0
        with self._database.writing() as connection:
            self._fence(connection)
            rows = connection.execute(_tasks(next_key)).all()
            for row in rows:
                if row.task_key is None:
                    _make_searchable(connection, row.key, row.playbook)
                if row.summary_key is None:
                    changed = {"summary_key": summaries.key_of(connection, row.summary)}
                    connection.execute(update(schema.tasks).where(schema.tasks.c.key == row.key).values(changed))
            following = rows[-1].key - 1 if len(rows) == _AT_ONCE else None
            connection.execute(update(progress).values(next_key=following))
        return len(rows)


def _tasks(next_key: int) -> Select[tuple[int, str | None, str, int | None, int | None]]:
    tasks, records = schema.tasks, schema.search_records
    return (
        select(tasks.c.key, tasks.c.playbook, tasks.c.summary, tasks.c.summary_key, records.c.task_key)
        .outerjoin(records, records.c.task_key == tasks.c.key)
        .where(tasks.c.key <= next_key)
        .order_by(tasks.c.key.desc())
        .limit(_AT_ONCE)
    )


def _make_searchable(connection: Connection, key: int, playbook: str | None) -> None:
    indexer = TaskIndexer(connection, key)
    chunks, segments = schema.output_chunks, schema.event_segments
    output = select(chunks.c.data).where(chunks.c.task_key == key).order_by(chunks.c.start)
    for row in connection.execute(output.execution_options(yield_per=16)):
        if (data := _unpacked(row.data)) is None:
            break  # what comes after it would stand at other offsets
        indexer.add_output(data)
    events = select(segments.c.first_seq, segments.c.data).where(segments.c.task_key == key)
    for row in connection.execute(events.order_by(segments.c.first_seq).execution_options(yield_per=16)):
        if data := _unpacked(row.data):
            indexer.add_events(row.first_seq, data.split(b"\n"))
    hosts, of_task = schema.hosts, schema.task_hosts
    named = select(hosts.c.name).join(of_task, of_task.c.host_key == hosts.c.key).where(of_task.c.task_key == key)
    indexer.finish(playbook, [name for (name,) in connection.execute(named.order_by(of_task.c.position))])


def _unpacked(data: bytes) -> bytes | None:
    try:
        return encoding.unpack(data)
    except HistoryUnavailable as error:
        log.error("a part of an archived task is not searchable: %s", error)
        return None
