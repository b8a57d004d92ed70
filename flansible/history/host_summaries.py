"""Keeps, for each host, how it fared last: for each scope, since users must not learn of tasks that they do not see.

A scope is all tasks of one user with one visibility: whoever sees one of them sees all, so rights are judged once for a
scope, at the time of reading, and never for each of a million tasks. Called by the archiver alone: when it writes a
task, and for what a version before this one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, select, update

from flansible.history import encoding, schema
from flansible.history.database import Database
from flansible.history.host_records import ALL_TASKS
from flansible.models import Visibility

FAILED = ("failed", "unreachable")
_AT_ONCE = 2000
_KEYS = 500  # in one statement
_ROW_BYTES = 100  # of a host's row in `task_hosts` and its entries in the indexes, about


@dataclass(frozen=True)
class HostEnd:
    """How a host fared in a task. finished: when the task ended; groups: of the host then, None: not known."""

    host_key: int
    number: int
    finished: int
    verdict: str
    changed: bool
    groups: tuple[str, ...] | None = None


def scope_key(connection: Connection, username: str, visibility: str | None) -> int:
    """Returns the key of a scope, which is made if it is new. username, visibility: as the row of a task has them."""
    table = schema.scopes
    digest = sha256(f"{username}\0{visibility or ''}".encode()).hexdigest()
    known = connection.execute(select(table.c.key).where(table.c.digest == digest)).scalar()
    if known is not None:
        return int(known)
    values = {"username": username, "visibility": visibility or "", "digest": digest}
    made = connection.execute(insert(table).values(values)).inserted_primary_key
    assert made is not None
    key = int(made[0])
    entries = Visibility.model_validate_json(visibility).entries if visibility else ()
    if rows := [{"entry": entry, "scope_key": key} for entry in dict.fromkeys(map(encoding.to_text, entries))]:
        connection.execute(insert(schema.scope_readers), rows)
    return key


def bytes_of_hosts() -> ColumnElement[int]:
    """What the rows of a task's hosts take, and the facts that it was the last to gather: for the task of the row of
    `tasks` that a statement is about. They stay as long as the task."""
    of_task, facts = schema.task_hosts, schema.host_facts
    size = func.length(of_task.c.counts) + func.length(of_task.c.seqs) + _ROW_BYTES
    sums = (
        select(func.coalesce(func.sum(size), 0)).where(of_task.c.task_key == schema.tasks.c.key),
        select(func.coalesce(func.sum(func.length(facts.c.data)), 0)).where(facts.c.task_key == schema.tasks.c.key),
    )
    rows, gathered = (one.scalar_subquery() for one in sums)
    return rows + gathered


def bytes_of_facts(connection: Connection, scope: int, host_keys: Iterable[int]) -> dict[int, int]:
    """Returns what the facts of these hosts take in a scope, by the task that gathered them."""
    facts = schema.host_facts
    wanted = select(facts.c.task_key, func.sum(func.length(facts.c.data))).where(
        facts.c.scope_key == scope, facts.c.host_key.in_(list(host_keys))
    )
    return {int(task): int(size) for task, size in connection.execute(wanted.group_by(facts.c.task_key))}


def note(connection: Connection, scope: int, ends: Iterable[HostEnd]) -> None:
    """Writes how hosts fared in tasks of a scope, in whatever order these come; and in the scope of all tasks."""
    found = list(ends)
    _note_in(connection, scope, found)
    _note_in(connection, scope_key(connection, ALL_TASKS, None), found)


def _note_in(connection: Connection, scope: int, ends: Sequence[HostEnd]) -> None:
    by_host: dict[int, list[HostEnd]] = {}
    for end in ends:
        by_host.setdefault(end.host_key, []).append(end)
    keys = list(by_host)
    for begin in range(0, len(keys), _KEYS):
        _note(connection, scope, {key: by_host[key] for key in keys[begin : begin + _KEYS]})


def _note(connection: Connection, scope: int, by_host: dict[int, list[HostEnd]]) -> None:
    table = schema.host_scopes
    wanted = select(table).where(table.c.scope_key == scope, table.c.host_key.in_(list(by_host)))
    known = {row.host_key: dict(row._mapping) for row in connection.execute(wanted)}
    new, changed = [], []
    for key, ends in by_host.items():
        values = _latest(known.get(key), ends)
        if key in known:
            changed.append({**values, "at_host": key, "at_scope": scope})
        else:
            new.append({**values, "host_key": key, "scope_key": scope})
    if new:
        connection.execute(insert(table), new)
    if changed:
        here = (table.c.host_key == bindparam("at_host")) & (table.c.scope_key == bindparam("at_scope"))
        connection.execute(update(table).where(here), changed)


def _latest(known: dict[str, Any] | None, ends: Sequence[HostEnd]) -> dict[str, Any]:
    """Returns the columns of a host in a scope, after these ends of tasks too."""
    names = ("number", "finished", "verdict", "host_groups", "changed_number", "changed", "failed_number", "failed")
    found: dict[str, Any] = {name: known[name] if known else None for name in names}
    for end in ends:
        if _is_later(end, found["finished"], found["number"]):
            # What is entered again, from the rows of a task, has no groups: those are kept.
            groups = found["host_groups"] if end.number == found["number"] else None
            found |= {"number": end.number, "finished": end.finished, "verdict": end.verdict}
            found["host_groups"] = groups if end.groups is None else json.dumps(end.groups)
        if end.changed and _is_later(end, found["changed"], found["changed_number"]):
            found |= {"changed_number": end.number, "changed": end.finished}
        if end.verdict in FAILED and _is_later(end, found["failed"], found["failed_number"]):
            found |= {"failed_number": end.number, "failed": end.finished}
    return found


def _is_later(end: HostEnd, finished: int | None, number: int | None) -> bool:
    return finished is None or (end.finished, end.number) >= (finished, number or 0)


class HostSummaries:
    """Fills in and deletes, in one database. fence: refuses a transaction of an archiver that was replaced."""

    def __init__(self, database: Database, fence: Callable[[Connection], None]) -> None:
        self._database = database
        self._fence = fence

    def fill(self) -> int:
        """Enters some of the tasks that a version before this one has archived; returns how many: call again until it
        is 0. Raises HistoryUnavailable and ArchiverReplaced."""
        table = schema.tasks
        columns = (table.c.key, table.c.username, table.c.visibility)
        with self._database.reading() as connection:
            if connection.execute(select(table.c.key).where(table.c.scope_key.is_(None)).limit(1)).first() is None:
                return 0
        with self._database.writing() as connection:
            self._fence(connection)
            wanted = select(*columns).where(table.c.scope_key.is_(None)).order_by(table.c.number).limit(_AT_ONCE)
            scopes: dict[tuple[str, str | None], list[int]] = {}
            for row in connection.execute(wanted):
                scopes.setdefault((row.username, row.visibility), []).append(row.key)
            entered: list[HostEnd] = []
            for (username, visibility), keys in scopes.items():
                entered += _enter(connection, scope_key(connection, username, visibility), keys)
            _note_in(connection, scope_key(connection, ALL_TASKS, None), entered)
        return sum(map(len, scopes.values()))

    def prune(self) -> None:
        """Deletes what is known of hosts by tasks that are gone. Raises HistoryUnavailable and ArchiverReplaced."""
        of_task, summaries, hosts = schema.task_hosts, schema.host_scopes, schema.hosts
        last = exists().where(
            of_task.c.host_key == summaries.c.host_key,
            of_task.c.number == summaries.c.number,
        )
        with self._database.writing() as connection:
            self._fence(connection)
            connection.execute(delete(summaries).where(~last))
            unused = ~exists().where(summaries.c.host_key == hosts.c.key)
            connection.execute(delete(hosts).where(unused, ~exists().where(of_task.c.host_key == hosts.c.key)))

    def delete_facts(self) -> None:
        """Deletes all facts. Raises HistoryUnavailable and ArchiverReplaced."""
        with self._database.reading() as connection:
            if connection.execute(select(schema.host_facts.c.host_key).limit(1)).first() is None:
                return
        with self._database.writing() as connection:
            self._fence(connection)
            facts, table = schema.host_facts, schema.tasks
            gathered = select(func.sum(func.length(facts.c.data))).where(facts.c.task_key == table.c.key)
            less = update(table).where(table.c.key.in_(select(facts.c.task_key)))
            connection.execute(less.values(stored_bytes=table.c.stored_bytes - gathered.scalar_subquery()))
            connection.execute(delete(facts))


def _enter(connection: Connection, scope: int, keys: Sequence[int]) -> list[HostEnd]:
    """Enters the hosts of tasks that are of this scope; returns how they fared."""
    tasks, of_task = schema.tasks, schema.task_hosts
    wanted = (
        select(of_task.c.host_key, of_task.c.verdict, of_task.c.changed, tasks.c.number, tasks.c.finished)
        .join(tasks, tasks.c.key == of_task.c.task_key)
        .where(tasks.c.key.in_(keys))
    )
    rows = connection.execute(wanted).all()
    ends = [HostEnd(row.host_key, row.number, row.finished, row.verdict, row.changed) for row in rows]
    _note_in(connection, scope, ends)
    connection.execute(update(of_task).where(of_task.c.task_key.in_(keys)).values(scope_key=scope))
    connection.execute(update(tasks).where(tasks.c.key.in_(keys)).values(scope_key=scope))
    return ends
