"""The rows of calls of webhooks: a log, by which a delivery that is repeated within a day is known, and the queue of
those that wait for others of their webhook and ref.

A call that waits is the first of them: later ones are merged into it, and leave it their values. It is in the database
with its values and its time, so that nothing is lost when a process ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, text, update

from flansible.history.database import Database
from flansible.history.schema import hook_calls

WAITING, STARTING, STARTED, MERGED = "waiting", "starting", "started", "merged"
IGNORED, REFUSED = "ignored", "refused"
_LOCK = 0x666C6863  # a number of ours among PostgreSQL's advisory locks


@dataclass(frozen=True)
class StoredHookCall:
    """A call. Times are milliseconds since 1970. variables: the values that it would set, as JSON; commit: that
    is run, '' where the template decides; repetition: what
    repetitions of it have in common, '' for nothing; due: when it starts; merged_into: the call that starts for it;
    number: orders the list, 0 before it is stored."""

    id: str
    webhook: str
    owner: str
    sender_id: str
    received: int
    address: str
    event: str
    ref: str
    outcome: str
    reason: str
    task: str | None
    variables: str = field(repr=False)
    commit: str = ""
    repetition: str = ""
    due: int | None = None
    merged_into: str | None = None
    number: int = 0


_COLUMNS = tuple(name for name in StoredHookCall.__dataclass_fields__ if name != "number")


class HookCallRows:
    """Every method raises HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, call: StoredHookCall) -> None:
        with self._database.writing() as connection:
            _insert(connection, call)

    def add_waiting(self, call: StoredHookCall, due: int, since: int) -> StoredHookCall:
        """Adds a call that starts when it is due, or with the one of its webhook and ref that waits already, which gets
        its values. Returns it with the time at which it starts, or the call since then that it repeats."""
        table = hook_calls
        with self._one_at_a_time() as connection:
            if known := _known(connection, call, since):
                return known
            of_same = select(table).filter_by(webhook=call.webhook, owner=call.owner, ref=call.ref, outcome=WAITING)
            first = connection.execute(of_same.order_by(table.c.key).limit(1)).first()
            if first is None:
                waiting = replace(call, outcome=WAITING, due=due)
                _insert(connection, waiting)
                return waiting
            merged = replace(call, outcome=MERGED, merged_into=first.id)
            last = {"variables": call.variables, "commit": call.commit}
            connection.execute(update(table).filter_by(id=first.id).values(**last))
            _insert(connection, merged)
        return replace(merged, due=first.due)

    def take_due(self, now: int, until: int) -> StoredHookCall | None:
        """Takes the call that has been due for longest: until then no other process does."""
        table = hook_calls
        with self._database.reading() as connection:
            first = connection.execute(select(func.min(table.c.due))).scalar()
        if first is None or first > now:
            return None
        with self._one_at_a_time() as connection:
            row = connection.execute(select(table).where(table.c.due <= now).order_by(table.c.due).limit(1)).first()
            if row is None:
                return None
            connection.execute(update(table).where(table.c.key == row.key).values(outcome=STARTING, due=until))
        return _parse(row)

    def postpone(self, call_id: str, due: int) -> None:
        """Has a call that was taken taken again later."""
        with self._database.writing() as connection:
            connection.execute(update(hook_calls).filter_by(id=call_id, outcome=STARTING).values(due=due))

    def settle(self, call_id: str, outcome: str, task_id: str | None, reason: str = "") -> None:
        """Notes what became of a call, and of those that were merged into it."""
        table = hook_calls
        merged = update(table).where(table.c.merged_into == call_id, table.c.task.is_(None))
        with self._one_at_a_time() as connection:
            own = update(table).filter_by(id=call_id)
            connection.execute(own.values(outcome=outcome, task=task_id, reason=reason, due=None))
            connection.execute(merged.values(task=task_id, reason=reason))

    def known(self, call: StoredHookCall, since: int) -> StoredHookCall | None:
        """Returns the call since then that this one repeats, if it has started a task or will."""
        with self._database.reading() as connection:
            return _known(connection, call, since)

    def get(self, call_id: str) -> StoredHookCall | None:
        with self._database.reading() as connection:
            row = connection.execute(select(hook_calls).filter_by(id=call_id)).first()
        return None if row is None else _parse(row)

    def page(self, owner: str | None, before: int | None, limit: int, webhook: str | None) -> list[StoredHookCall]:
        """Returns the newest, those of one owner or (None) of all."""
        table = hook_calls
        wanted = select(table).order_by(table.c.key.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(table.c.key < before)
        for column, value in ((table.c.owner, owner), (table.c.webhook, webhook)):
            if value is not None:
                wanted = wanted.where(column == value)
        with self._database.reading() as connection:
            return [_parse(row) for row in connection.execute(wanted)]

    @contextmanager
    def _one_at_a_time(self) -> Iterator[Connection]:
        """Opens a transaction; until it ends, others of this kind wait."""
        with self._database.writing() as connection:
            if not self._database.is_sqlite:  # SQLite's transactions that write exclude each other
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection

    def prune(self, before: int) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(hook_calls).where(hook_calls.c.received < before))


def _insert(connection: Connection, call: StoredHookCall) -> None:
    connection.execute(insert(hook_calls).values({name: getattr(call, name) for name in _COLUMNS}))


def _known(connection: Connection, call: StoredHookCall, since: int) -> StoredHookCall | None:
    same = {"sender_id": call.sender_id, "repetition": call.repetition}
    columns = hook_calls.c
    is_same = [columns[name] == value for name, value in same.items() if value]
    if not is_same:
        return None
    will_start = columns.outcome.in_((WAITING, STARTING, MERGED)) & (columns.reason == "")
    wanted = select(hook_calls).filter_by(webhook=call.webhook, owner=call.owner)
    wanted = wanted.where(columns.received >= since, or_(*is_same))
    wanted = wanted.where(columns.task.is_not(None) | will_start).order_by(columns.key).limit(1)
    row = connection.execute(wanted).first()
    return None if row is None else _parse(row)


def _parse(row: Row[Any]) -> StoredHookCall:
    return StoredHookCall(**{name: getattr(row, name) for name in _COLUMNS}, number=row.key)
