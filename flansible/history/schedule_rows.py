"""The rows of schedules: how far each one has come, and what became of each time at which it was due.

Times are milliseconds since 1970. An occurrence is keyed by schedule and due time: of two processes that take one for
theirs, the database gives it to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from flansible.history.database import Database
from flansible.history.schema import schedule_occurrences, schedule_states

_LOCK = 0x666C7363  # a number of ours among PostgreSQL's advisory locks
STARTING = "starting"
STARTED = "started"
_TOGETHER_MILLISECONDS = (
    3_600_000  # skips for the same reason within it share one row: a schedule may have one a second
)


@dataclass(frozen=True)
class ScheduleState:
    """How far a schedule has come. revision: of the definition that this is about; position: up to when every due time
    has its record; paused: None where the definition decides; failures: tasks in a row that did not succeed."""

    name: str
    revision: str
    position: int
    paused: bool | None = None
    paused_by: str | None = None
    note: str | None = None
    skips: int = 0
    failures: int = 0


@dataclass(frozen=True)
class StoredOccurrence:
    """A due time and what became of it. is_open: whether its task is not known to be final. One that was skipped may
    tell of those that follow, by its detail."""

    schedule: str
    due: int
    outcome: str
    recorded: int
    detail: str | None = None
    task_id: str | None = None
    is_open: bool = False


class ScheduleRows:
    """Reads and writes them. Every method raises HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self) -> dict[str, ScheduleState]:
        with self._database.reading() as connection:
            return _states(connection)

    def state(self, name: str) -> ScheduleState | None:
        with self._database.reading() as connection:
            row = connection.execute(select(schedule_states).filter_by(name=name)).first()
        return None if row is None else ScheduleState(**row._mapping)

    def waiting(self) -> list[StoredOccurrence]:
        """Returns those whose start was begun and is not known to be over, and those whose task is not final."""
        table = schedule_occurrences
        query = select(table).where(table.c.is_open).order_by(table.c.due, table.c.schedule)
        with self._database.reading() as connection:
            return [_occurrence(row) for row in connection.execute(query)]

    def page(self, name: str, before: int | None, limit: int) -> list[StoredOccurrence]:
        """Returns those of a schedule, the latest first, from before a due time."""
        table = schedule_occurrences
        query = select(table).where(table.c.schedule == name)
        if before is not None:
            query = query.where(table.c.due < before)
        with self._database.reading() as connection:
            return [_occurrence(row) for row in connection.execute(query.order_by(table.c.due.desc()).limit(limit))]

    @contextmanager
    def writing(self) -> Iterator[ScheduleWriter]:
        """Opens a transaction; until it ends every other writer of schedules waits."""
        with self._database.writing() as connection:
            if not self._database.is_sqlite:  # SQLite's transactions that write exclude each other
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield ScheduleWriter(connection, self._database.is_sqlite)

    def prune(self, before: int) -> None:
        """Deletes occurrences that were due before this and are over."""
        table = schedule_occurrences
        with self._database.writing() as connection:
            connection.execute(delete(table).where(table.c.due < before, table.c.is_open.is_(False)))


class ScheduleWriter:
    """Reads and writes within one transaction."""

    def __init__(self, connection: Connection, is_sqlite: bool) -> None:
        self._connection = connection
        self._insert: Any = sqlite_insert if is_sqlite else postgresql_insert

    def states(self) -> dict[str, ScheduleState]:
        return _states(self._connection)

    def set_state(self, found: ScheduleState) -> None:
        values = {name: getattr(found, name) for name in ScheduleState.__dataclass_fields__}
        changed = self._connection.execute(update(schedule_states).filter_by(name=found.name).values(**values))
        if not changed.rowcount:
            self._connection.execute(insert(schedule_states).values(**values))

    def add(self, found: Iterable[StoredOccurrence]) -> list[StoredOccurrence]:
        """Adds occurrences of one schedule, in order; returns those that were not there yet. Those that were skipped
        for the same reason get one row for each hour."""
        added = []
        for series in _series(found):
            first, last = series[0], series[-1]
            if _is_skipped(first) and self._extend(first, last):
                added += series
                continue
            values = {name: getattr(first, name) for name in StoredOccurrence.__dataclass_fields__}
            if last is not first:
                values["detail"] = _detail(last)
            statement = self._insert(schedule_occurrences).values(**values).on_conflict_do_nothing()
            if self._connection.execute(statement.returning(schedule_occurrences.c.due)).first() is not None:
                added += series
        return added

    def _extend(self, first: StoredOccurrence, last: StoredOccurrence) -> bool:
        """Has the row before these tell of them as well; returns False where it is another reason's or hour's."""
        table = schedule_occurrences
        latest = select(func.max(table.c.due)).where(table.c.schedule == first.schedule).scalar_subquery()
        since = last.due - _TOGETHER_MILLISECONDS
        statement = update(table).filter_by(schedule=first.schedule, outcome=first.outcome, is_open=False)
        statement = statement.where(table.c.due == latest, table.c.due > since, table.c.due < first.due)
        changed = self._connection.execute(statement.values(detail=_detail(last), recorded=last.recorded))
        return bool(changed.rowcount)

    def settle(self, found: StoredOccurrence) -> None:
        """Writes what became of an occurrence. Another process may have started what this one has not."""
        values = {name: getattr(found, name) for name in ("outcome", "recorded", "detail", "task_id", "is_open")}
        statement = update(schedule_occurrences).filter_by(schedule=found.schedule, due=found.due)
        if found.outcome == STARTED and found.is_open:
            statement = statement.where(schedule_occurrences.c.is_open)  # not again, when its task has ended meanwhile
        if found.outcome != STARTED:
            statement = statement.where(schedule_occurrences.c.outcome == STARTING)
        self._connection.execute(statement.values(**values))


def _is_skipped(found: StoredOccurrence) -> bool:
    return not found.is_open and found.task_id is None and found.detail is None


def _series(found: Iterable[StoredOccurrence]) -> Iterator[list[StoredOccurrence]]:
    """Yields groups of occurrences, in order; each group becomes one row."""
    for _, group in groupby(found, lambda one: (one.outcome, _is_skipped(one))):
        series: list[StoredOccurrence] = []
        for one in group:
            if series and not (_is_skipped(one) and one.due - series[0].due < _TOGETHER_MILLISECONDS):
                yield series
                series = []
            series.append(one)
        yield series


def _detail(last: StoredOccurrence) -> str:
    due = datetime.fromtimestamp(last.due / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"and each due time after it up to {due}"


def _states(connection: Connection) -> dict[str, ScheduleState]:
    return {row.name: ScheduleState(**row._mapping) for row in connection.execute(select(schedule_states))}


def _occurrence(row: Row[Any]) -> StoredOccurrence:
    return replace(StoredOccurrence("", 0, "", 0), **row._mapping)
