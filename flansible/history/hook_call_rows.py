"""The rows of calls of webhooks: a log, by which a delivery that is repeated within a day is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from flansible.history.database import Database
from flansible.history.schema import hook_calls


@dataclass(frozen=True)
class StoredHookCall:
    """A call. received: milliseconds since 1970; variables: the values that it would set, as JSON; number: orders the
    list, 0 before it is stored."""

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
    number: int = 0


class HookCallRows:
    """Every method raises HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, call: StoredHookCall) -> None:
        values = {name: value for name, value in vars(call).items() if name != "number"}
        with self._database.writing() as connection:
            connection.execute(insert(hook_calls).values(**values))

    def note_task(self, call_id: str, task_id: str) -> None:
        """Notes the task that a redelivery has started."""
        values = {"task": task_id, "outcome": "started", "reason": ""}
        with self._database.writing() as connection:
            connection.execute(update(hook_calls).filter_by(id=call_id).values(**values))

    def task_of(self, webhook: str, sender_id: str, since: int) -> str | None:
        """Returns the task that a delivery of this id has started since then."""
        table = hook_calls
        wanted = select(table.c.task).where(table.c.webhook == webhook, table.c.sender_id == sender_id)
        wanted = wanted.where(table.c.received >= since, table.c.task.is_not(None)).order_by(table.c.key).limit(1)
        with self._database.reading() as connection:
            found: str | None = connection.execute(wanted).scalar()
        return found

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

    def prune(self, before: int) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(hook_calls).where(hook_calls.c.received < before))


def _parse(row: Row[Any]) -> StoredHookCall:
    values = {name: getattr(row, name) for name in StoredHookCall.__dataclass_fields__ if name != "number"}
    return StoredHookCall(**values, number=row.key)
