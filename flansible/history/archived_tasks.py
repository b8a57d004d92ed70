"""Reads the records of archived tasks: one, several, and pages of the list with its filters."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, func, or_, select

from flansible.errors import RecordUnreadable
from flansible.history import encoding, schema, summaries
from flansible.history.database import Database
from flansible.history.encoding import milliseconds
from flansible.models import AuthorizedRun, TaskStatus
from flansible.store import ListFilter, NumberedPage, NumberedTask, record_parsing, status

log = logging.getLogger(__name__)

# A filter that no index serves reads tasks by number, window by window: what a rare match costs stays bounded.
_FIRST_WINDOW, _LARGEST_WINDOW = 2_000, 64_000
# Which conditions together an index has, with the order of numbers, in `tasks` or in the table of the source.
_INDEXED = {
    frozenset(names.split())
    for names in (
        *("", "user", "state", "user state", "playbook", "user playbook"),
        *("returncode", "template", "host", "user entries"),
    )
}
_CLOCKS_MILLISECONDS = 300_000
_ABOUT = ("playbook", "module", "hosts", "inventory", "project", "ref", "commit")
_Source = tuple[Select[Any], Column[Any]]
READ = [column for column in schema.tasks.c if column.name != "run"]


class ArchivedTasks:
    """Task records in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def task(self, task_id: str) -> TaskStatus | None:
        """Reads one task. Raises RecordUnreadable."""
        with self._database.reading() as connection:
            row = connection.execute(select(*READ).where(schema.tasks.c.id == task_id)).one_or_none()
        return None if row is None else status_of(row)

    def tasks(self, task_ids: Iterable[str]) -> dict[str, NumberedTask]:
        """Reads those of these tasks that are archived; not unreadable ones."""
        with self._database.reading() as connection:
            rows = connection.execute(select(*READ).where(schema.tasks.c.id.in_(list(task_ids)))).all()
        return {found.status.task_id: found for found in _readable(rows)}

    def authorized_run(self, task_id: str) -> AuthorizedRun | None:
        """Reads what was submitted. Raises RecordUnreadable."""
        with self._database.reading() as connection:
            found = connection.execute(select(schema.tasks.c.run).where(schema.tasks.c.id == task_id)).scalar()
        return None if found is None else record_parsing.authorized_run(task_id, encoding.unpack(found))

    def highest_number(self) -> int:
        """Returns the number of the newest task, 0 without one."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.max(schema.tasks.c.number))).scalar() or 0)

    def page(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float = math.inf) -> NumberedPage:
        """Lists tasks, newest first, like `store.task_queries`; may return before the page is full when the time is
        over."""
        found: list[Row[Any]] = []
        with self._database.reading() as connection:
            lowest, highest = self._bounds(connection, wanted)
            if lowest is None:
                return NumberedPage((), None)
            sources = self._sources(connection, wanted)
            before = min(highest + 1, before) if before is not None else highest + 1
            is_scanned = _conditions_of(wanted) not in _INDEXED
            if wanted.words and (keys := self._tasks_with_text(connection, wanted.words)) is not None:
                is_scanned = False
                sources = [(source.where(schema.tasks.c.key.in_(keys)), number) for source, number in sources if keys]
            window = _FIRST_WINDOW if is_scanned else highest + 1
            while before > lowest and len(found) < limit and sources:
                floor = max(lowest, before - window)
                missing = limit - len(found)
                rows: dict[int, Row[Any]] = {}  # a task may be in several sources
                for source, number in sources:
                    part = source.where(number < before, number >= floor).order_by(number.desc()).limit(missing)
                    rows |= {row.key: row for row in connection.execute(part)}
                found += sorted(rows.values(), key=_number, reverse=True)[:missing]
                before = found[-1].number if len(found) == limit else floor
                window = min(2 * window, _LARGEST_WINDOW)
                if time.monotonic() > give_up_at:
                    break
        return NumberedPage(tuple(_readable(found)), before if sources and before > lowest else None)

    def _sources(self, connection: Connection, wanted: ListFilter) -> list[_Source]:
        """Returns the statements whose rows together are the list, each with the column that has their order: of a
        host's tasks, and of those that an entry sees, the index is another table's."""
        if wanted.host:
            number = schema.task_hosts.c.number
            return [(self._filtered(wanted, key), number) for key in self._host_keys(connection, wanted.host)]
        own: _Source = (self._filtered(wanted, None), schema.tasks.c.number)
        reader = schema.task_readers
        of_entries = (
            select(*READ).join(reader, reader.c.task_key == schema.tasks.c.key).where(reader.c.entry == entry)
            for entry in map(encoding.to_text, wanted.entries)
        )
        of_others = replace(wanted, user=None, entries=())
        return [own, *((self._conditions(statement, of_others), reader.c.number) for statement in of_entries)]

    def _bounds(self, connection: Connection, wanted: ListFilter) -> tuple[int | None, int]:
        """Returns the lowest and the highest number that may match; the lowest is None when there is no task."""
        number, submitted = schema.tasks.c.number, schema.tasks.c.submitted
        lowest = connection.execute(select(func.min(number))).scalar()
        highest = connection.execute(select(func.max(number))).scalar() or 0
        # Numbers rise with time, as far as the clocks of the web servers agree.
        if wanted.since is not None:
            earlier = select(number).where(submitted < milliseconds(wanted.since) - _CLOCKS_MILLISECONDS)
            before = connection.execute(earlier.order_by(submitted.desc()).limit(1)).scalar()
            lowest = lowest if before is None else before
        if wanted.until is not None:
            later = select(number).where(submitted >= milliseconds(wanted.until) + _CLOCKS_MILLISECONDS)
            after = connection.execute(later.order_by(submitted).limit(1)).scalar()
            highest = highest if after is None else after
        return lowest, highest

    def _host_keys(self, connection: Connection, host: str) -> list[int | None]:
        """Returns the keys of all hosts of this name, one for each inventory that has it; [None] for no condition."""
        if not host:
            return [None]
        wanted = select(schema.hosts.c.key).where(schema.hosts.c.name == encoding.host_name(host))
        return [int(key) for (key,) in connection.execute(wanted)]

    def _filtered(self, wanted: ListFilter, host_key: int | None) -> Select[Any]:
        """Returns the statement for these conditions; host_key: only tasks with results of this host."""
        table, of_task = schema.tasks, schema.task_hosts
        statement = select(*READ)
        if host_key is not None:
            statement = statement.join(of_task, of_task.c.task_key == table.c.key).where(of_task.c.host_key == host_key)
        if wanted.user is not None:
            statement = statement.where(is_seen_by(wanted.user, wanted.entries if host_key is not None else ()))
        return self._conditions(statement, wanted)

    def _conditions(self, statement: Select[Any], wanted: ListFilter) -> Select[Any]:
        """Adds the conditions on the tasks themselves."""
        table = schema.tasks
        equal: dict[Column[Any], Any] = {
            table.c.username: encoding.to_text(wanted.of_user) if wanted.of_user else None,
            table.c.state: wanted.state,
            table.c.kind: wanted.kind or None,
            table.c.playbook: encoding.to_text(wanted.playbook) if wanted.playbook else None,
            table.c.template: wanted.template or None,
            table.c.changed: wanted.changed,
            table.c.returncode: wanted.returncode,
        }
        for column, value in equal.items():
            if value is not None:
                statement = statement.where(column == value)
        if wanted.words:
            statement = statement.where(self._contains(table.c.summary, _lowered(wanted.words)))
        if wanted.since is not None:
            statement = statement.where(table.c.submitted >= milliseconds(wanted.since))
        if wanted.until is not None:
            statement = statement.where(table.c.submitted < milliseconds(wanted.until))
        return statement

    def _tasks_with_text(self, connection: Connection, words: str) -> list[int] | None:
        """Returns the keys of all tasks with a text in their summary, None where they are many."""
        return summaries.tasks_with(connection, self._contains(schema.summaries.c.text, _lowered(words)))

    def _contains(self, column: Any, words: str) -> Any:
        """Whether a column has this text; the case of ASCII letters is ignored, as Redis does it."""
        if self._database.is_sqlite:
            return func.instr(func.lower(column), words) > 0
        return func.strpos(func.lower(column.collate("C")), words) > 0


def _conditions_of(wanted: ListFilter) -> frozenset[str]:
    """Returns which of its conditions a filter has."""
    names = (one.name for one in fields(wanted))
    return frozenset(name for name in names if getattr(wanted, name) not in (None, "", ()))


def _lowered(words: str) -> str:
    return encoding.to_text(words).encode().lower().decode()  # ASCII letters alone


def is_seen_by(user: str, entries: Iterable[str]) -> ColumnElement[bool]:
    """The condition on tasks that they are this user's, or seen by one of these entries of rbac.json."""
    is_own = schema.tasks.c.username == encoding.to_text(user)
    names = list(map(encoding.to_text, entries))
    if not names:
        return is_own
    reader = schema.task_readers
    seen = select(reader.c.entry).where(reader.c.task_key == schema.tasks.c.key, reader.c.entry.in_(names))
    return or_(is_own, seen.exists())


def _number(row: Row[Any]) -> int:
    return int(row.number)


def _readable(rows: Iterable[Row[Any]]) -> Iterable[NumberedTask]:
    for row in rows:
        try:
            yield NumberedTask(row.number, status_of(row))
        except RecordUnreadable as error:
            log.warning("%s", error)


def status_of(row: Row[Any]) -> TaskStatus:
    """Makes the status of the same fields as Redis has."""
    about = {name: value for name in _ABOUT if (value := getattr(row, name)) is not None}
    about |= json.loads(row.origin) if row.origin else {}
    fields: dict[str, Any] = {
        "state": row.state,
        "description": row.description,
        "returncode": row.returncode,
        "user": row.username,
        "kind": row.kind,
        "summary": row.summary,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "attempt": row.attempt,
        "ended": row.ended,
        "about": json.dumps(about),
        "counts": row.counts,
        "warning": row.warning,
        "visibility": row.visibility,
    }
    found = status.status(row.id, [fields.get(name) for name in status.STATUS_FIELDS])
    assert found is not None
    if row.output_expired is not None:
        return found.model_copy(update={"output_expired_at": encoding.moment(row.output_expired)})
    return found
