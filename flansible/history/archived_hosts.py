"""Reads hosts: how each fared last, the tasks that touched it, and its facts, as far as one user sees the tasks.

A host is an inventory and a name. What is said of it comes from the tasks that the user sees, and from no other: a
user who sees some of a host's tasks must not learn when others ran, or how.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select, tuple_

from flansible.history import encoding, schema
from flansible.history.database import Database
from flansible.history.host_records import (
    ALL_TASKS,
    HostFilter,
    HostPage,
    HostSummary,
    HostTask,
    StoredFacts,
    TaskOnHost,
    TaskViewer,
)

_HOSTS = 200  # read at once
_SECONDS = 0.1  # of a page, then it is returned as it is


class ArchivedHosts:
    """Hosts in one database, as one user sees them."""

    def __init__(self, database: Database, viewer: TaskViewer) -> None:
        self._database = database
        self._viewer = viewer
        self._seen: dict[int, bool] = {}

    def page(self, wanted: HostFilter, after: tuple[str, str] | None, limit: int) -> HostPage:
        """Lists hosts by name and inventory, behind `after`; when the time is over, also fewer than fill a page."""
        found: list[HostSummary] = []
        give_up_at = time.monotonic() + _SECONDS
        with self._database.reading() as connection:
            while True:
                rows = connection.execute(self._hosts(wanted, after).limit(_HOSTS)).all()
                for host in self._summaries(connection, rows):
                    if _matches(host, wanted):
                        found.append(host)
                    if len(found) > limit:
                        last = found[limit - 1]
                        return HostPage(tuple(found[:limit]), (last.name, last.inventory))
                if len(rows) < _HOSTS:
                    return HostPage(tuple(found), None)
                after = rows[-1].name, rows[-1].inventory
                if time.monotonic() > give_up_at:
                    return HostPage(tuple(found), after)

    def named(self, name: str, inventory: str | None = None) -> list[HostSummary]:
        """Returns the hosts of this name, one for each inventory that has it."""
        with self._database.reading() as connection:
            return list(self._summaries(connection, connection.execute(_of_name(name, inventory)).all()))

    def runs(self, name: str, inventory: str | None, before: int | None, limit: int) -> list[TaskOnHost]:
        """Returns how the hosts of this name fared, in the latest tasks with a number below `before`, newest first."""
        of_task, tasks = schema.task_hosts, schema.tasks
        found: list[TaskOnHost] = []
        with self._database.reading() as connection:
            for host in connection.execute(_of_name(name, inventory)).all():
                wanted = select(of_task, tasks.c.id).join(tasks, tasks.c.key == of_task.c.task_key)
                wanted = wanted.where(of_task.c.host_key == host.key)
                if before is not None:
                    wanted = wanted.where(of_task.c.number < before)
                if self._viewer.user is not None:
                    seen = [row.scope_key for row in self._scopes(connection, [host.key])]
                    wanted = wanted.where(of_task.c.scope_key.in_(seen))
                rows = connection.execute(wanted.order_by(of_task.c.number.desc()).limit(limit))
                found += [_run(row, host.inventory) for row in rows]
        return sorted(found, key=lambda run: run.number, reverse=True)[:limit]

    def facts_gathered(self, name: str, inventory: str | None) -> int | None:
        """Returns when the facts were gathered that `facts` returns, in milliseconds."""
        with self._database.reading() as connection:
            row = self._latest_facts(connection, name, inventory)
        return None if row is None else int(row.gathered)

    def facts(self, name: str, inventory: str | None) -> StoredFacts | None:
        """Returns the latest facts of the hosts of this name that a task which is seen has gathered."""
        facts = schema.host_facts
        with self._database.reading() as connection:
            row = self._latest_facts(connection, name, inventory)
            if row is None:
                return None
            this = (facts.c.host_key == row.host_key, facts.c.scope_key == row.scope_key)
            data = connection.execute(select(facts.c.data).where(*this)).scalar_one()
        return StoredFacts(row.inventory, row.id, row.gathered, json.loads(encoding.unpack(data)))

    def _latest_facts(self, connection: Connection, name: str, inventory: str | None) -> Any:
        facts, tasks, hosts = schema.host_facts, schema.tasks, schema.hosts
        keys = [row.key for row in connection.execute(_of_name(name, inventory))]
        scopes = {(row.host_key, row.scope_key) for row in self._scopes(connection, keys)}
        sees_all = self._viewer.user is None
        columns = (facts.c.host_key, facts.c.scope_key, facts.c.gathered, tasks.c.id, hosts.c.inventory)
        wanted = (
            select(*columns)
            .join(tasks, tasks.c.key == facts.c.task_key)
            .join(hosts, hosts.c.key == facts.c.host_key)
            .where(facts.c.host_key.in_(keys))
        )
        seen = [row for row in connection.execute(wanted) if sees_all or (row.host_key, row.scope_key) in scopes]
        return max(seen, key=lambda row: row.gathered, default=None)

    def _hosts(self, wanted: HostFilter, after: tuple[str, str] | None) -> Select[Any]:
        """Returns the statement for all hosts behind `after` that may be listed."""
        hosts = schema.hosts
        statement = select(hosts).order_by(hosts.c.name, hosts.c.inventory)
        if after is not None:
            statement = statement.where(tuple_(hosts.c.name, hosts.c.inventory) > tuple_(*map(encoding.to_text, after)))
        if wanted.inventory is not None:
            statement = statement.where(hosts.c.inventory == encoding.to_text(wanted.inventory))
        if wanted.name:
            words = encoding.to_text(wanted.name).encode().lower().decode()  # ASCII letters alone
            lowered = func.lower(hosts.c.name if self._database.is_sqlite else hosts.c.name.collate("C"))
            contains = func.instr if self._database.is_sqlite else func.strpos
            statement = statement.where(contains(lowered, words) > 0)
        if self._viewer.user is not None:
            summaries = schema.host_scopes
            seen = select(summaries.c.scope_key).where(summaries.c.host_key == hosts.c.key, self._may_be_seen())
            statement = statement.where(seen.exists())
        return statement

    def _may_be_seen(self) -> ColumnElement[bool]:
        """The condition on `host_scopes` for the scopes that the viewer may see, by what the tasks were then."""
        scopes, readers, summaries = schema.scopes.alias(), schema.scope_readers, schema.host_scopes
        own = select(scopes.c.key).where(scopes.c.username == self._viewer.scope_user)
        others = select(readers.c.scope_key).where(
            readers.c.entry.in_(list(map(encoding.to_text, self._viewer.entries)))
        )
        return or_(summaries.c.scope_key.in_(own), summaries.c.scope_key.in_(others))

    def _scopes(self, connection: Connection, host_keys: Sequence[int]) -> list[Row[Any]]:
        """Returns the rows of hosts in the scopes that are seen now."""
        summaries, scopes = schema.host_scopes, schema.scopes
        wanted = (
            select(summaries, scopes.c.username, scopes.c.visibility)
            .join(scopes, scopes.c.key == summaries.c.scope_key)
            .where(summaries.c.host_key.in_(list(host_keys)))
        )
        wanted = wanted.where(self._may_be_seen())
        return [row for row in connection.execute(wanted) if self._is_seen(row)]

    def _is_seen(self, row: Row[Any]) -> bool:
        known = self._seen.get(row.scope_key)
        if known is None:
            known = self._seen[row.scope_key] = self._viewer.sees_scope(row.username, row.visibility)
        return known

    def _summaries(self, connection: Connection, hosts: Sequence[Row[Any]]) -> Iterator[HostSummary]:
        """Yields what is known of these hosts, in their order; not those of which no task is seen."""
        by_host: dict[int, list[Row[Any]]] = {}
        for row in self._scopes(connection, [host.key for host in hosts]):
            by_host.setdefault(row.host_key, []).append(row)
        latest = {key: _Latest.of(rows) for key, rows in by_host.items()}
        tasks = _tasks(connection, [place for found in latest.values() for place in found.places if place])
        for host in hosts:
            if (found := latest.get(host.key)) is not None and (last := tasks.get(found.last)) is not None:
                groups = found.groups
                yield HostSummary(
                    name=host.name,
                    inventory=host.inventory,
                    verdict=found.verdict,
                    groups=None if groups is None else tuple(json.loads(groups)),
                    last=last,
                    changed=tasks.get(found.changed) if found.changed else None,
                    failed=tasks.get(found.failed) if found.failed else None,
                )


# The number and the scope of a task. A Redis that was put back may have given a number twice, the second time to a task
# that the viewer does not see. None: whoever sees all.
_Place = tuple[int, int | None]


@dataclass(frozen=True)
class _Latest:
    """Of a host's scopes: the task that ended last and how the host fared in it, the last one that changed it, and the
    last one in which it failed."""

    last: _Place
    verdict: str
    groups: str | None
    changed: _Place | None
    failed: _Place | None

    @classmethod
    def of(cls, rows: Sequence[Row[Any]]) -> _Latest:
        last = max(rows, key=lambda row: (row.finished, row.number))
        changed = max(
            (row for row in rows if row.changed), key=lambda row: (row.changed, row.changed_number), default=None
        )
        failed = max((row for row in rows if row.failed), key=lambda row: (row.failed, row.failed_number), default=None)
        return cls(
            (last.number, _scope(last)),
            last.verdict,
            last.host_groups,
            None if changed is None else (changed.changed_number, _scope(changed)),
            None if failed is None else (failed.failed_number, _scope(failed)),
        )

    @property
    def places(self) -> tuple[_Place | None, ...]:
        return self.last, self.changed, self.failed


def _scope(row: Row[Any]) -> int | None:
    return None if row.username == ALL_TASKS else int(row.scope_key)


def _tasks(connection: Connection, places: Iterable[_Place]) -> dict[_Place, HostTask]:
    """Reads tasks; some may have been deleted."""
    table = schema.tasks
    names = ("number", "id", "finished", "kind", "username", "summary", "state", "scope_key")
    numbers = sorted({number for number, _ in places})
    wanted = select(*(table.c[name] for name in names)).where(table.c.number.in_(numbers))
    found: dict[_Place, HostTask] = {}
    for row in connection.execute(wanted):
        task = HostTask(row.id, row.number, row.finished, row.kind, row.username, row.summary, row.state)
        found[row.number, row.scope_key] = found[row.number, None] = task
    return found


def _of_name(name: str, inventory: str | None) -> Select[Any]:
    hosts = schema.hosts
    wanted = select(hosts).where(hosts.c.name == encoding.host_name(name)).order_by(hosts.c.inventory)
    return wanted if inventory is None else wanted.where(hosts.c.inventory == encoding.to_text(inventory))


def _matches(host: HostSummary, wanted: HostFilter) -> bool:
    if wanted.verdict and host.verdict != wanted.verdict:
        return False
    if wanted.group and wanted.group not in (host.groups or ()):
        return False
    return wanted.stale_since is None or host.last.finished < wanted.stale_since


def _run(row: Row[Any], inventory: str) -> TaskOnHost:
    return TaskOnHost(row.id, row.number, inventory, row.verdict, row.changed, json.loads(row.counts))
