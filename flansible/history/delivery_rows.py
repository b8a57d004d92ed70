"""The rows of deliveries: one for each event of a task and each notification that asks for it, under a unique key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from flansible.history.database import Database
from flansible.history.schema import deliveries

_MOST_ATTEMPTS_KEPT = 20
PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"


@dataclass(frozen=True)
class NewDelivery:
    """notification: its name, '' for a callback; receiver: for which only so many are sent at a time; payload: what is
    sent, as JSON."""

    id: str
    task_id: str
    notification: str
    event: str
    kind: str
    owner: str
    receiver: str
    payload: str = field(repr=False)
    next: int
    created: int


@dataclass(frozen=True)
class StoredDelivery(NewDelivery):
    """number: orders the list; attempts: the latest, as the API shows them."""

    number: int
    state: str
    attempt_count: int
    attempts: list[dict[str, Any]]


@dataclass(frozen=True)
class AttemptOutcome:
    """What becomes of a delivery after an attempt. next: when it is tried again, for a pending one."""

    state: str
    next: int
    attempt: dict[str, Any]


class DeliveryRows:
    """Reads and writes deliveries. Times are milliseconds since 1970. Every method raises HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, found: Sequence[NewDelivery]) -> None:
        """Adds those that are not there yet, all in one transaction."""
        with self._database.writing() as connection:
            for one in found:
                key = {"task": one.task_id, "notification": one.notification, "event": one.event}
                if connection.execute(select(deliveries.c.key).filter_by(**key)).first() is not None:
                    continue
                values = {
                    "id": one.id,
                    "kind": one.kind,
                    "owner": one.owner,
                    "receiver": one.receiver,
                    "payload": one.payload,
                    "state": PENDING,
                    "attempt_count": 0,
                    "attempts": "[]",
                    "next": one.next,
                    "created": one.created,
                }
                connection.execute(insert(deliveries).values(**key, **values))

    def take_due(
        self, now: int, until: int, limit: int, busy: Mapping[str, int], most_each: int
    ) -> list[StoredDelivery]:
        """Takes deliveries that are due, the longest due first: until then nobody else does. busy: how many each
        receiver is being sent; most_each: how many at most."""
        table, counts = deliveries, Counter(busy)
        found: list[StoredDelivery] = []
        wanted = select(table).where(table.c.state == PENDING, table.c.next <= now).order_by(table.c.next, table.c.key)
        with self._database.writing() as connection:
            while len(found) < limit:
                full = [receiver for receiver, count in counts.items() if count >= most_each]
                before = len(found)
                for row in connection.execute(wanted.where(table.c.receiver.not_in(full)).limit(limit)).all():
                    if counts[row.receiver] >= most_each or len(found) == limit:
                        continue
                    taken = update(table).where(table.c.key == row.key, table.c.next == row.next)
                    if connection.execute(taken.values(next=until)).rowcount == 1:
                        found.append(_parse(row))
                        counts[row.receiver] += 1
                if len(found) == before:
                    break
        return found

    def take_next(self, receiver: str, now: int, until: int) -> StoredDelivery | None:
        """Takes the delivery to this receiver that has been due for longest."""
        table = deliveries
        wanted = select(table).where(table.c.state == PENDING, table.c.next <= now, table.c.receiver == receiver)
        with self._database.writing() as connection:
            row = connection.execute(wanted.order_by(table.c.next, table.c.key).limit(1)).first()
            if row is None:
                return None
            taken = update(table).where(table.c.key == row.key, table.c.next == row.next)
            return _parse(row) if connection.execute(taken.values(next=until)).rowcount == 1 else None

    def finish(self, delivery_id: str, outcome: AttemptOutcome) -> None:
        """Notes an attempt."""
        table = deliveries
        with self._database.writing() as connection:
            row = connection.execute(select(table.c.attempts, table.c.state).filter_by(id=delivery_id)).first()
            if row is None:
                return
            attempts = [*json.loads(row.attempts), outcome.attempt][-_MOST_ATTEMPTS_KEPT:]
            values: dict[str, Any] = {"attempts": json.dumps(attempts), "attempt_count": table.c.attempt_count + 1}
            if row.state != DELIVERED:  # by another process, to which it was given after this one had taken too long
                values |= {"state": outcome.state, "next": outcome.next}
            connection.execute(update(table).filter_by(id=delivery_id).values(**values))

    def next_due(self) -> int | None:
        """Returns when the next one is due; None without any."""
        with self._database.reading() as connection:
            found = connection.execute(select(func.min(deliveries.c.next)).filter_by(state=PENDING)).scalar()
        return None if found is None else int(found)

    def get(self, delivery_id: str) -> StoredDelivery | None:
        with self._database.reading() as connection:
            row = connection.execute(select(deliveries).filter_by(id=delivery_id)).first()
        return None if row is None else _parse(row)

    def page(
        self, owner: str | None, before: int | None, limit: int, notification: str | None, state: str | None
    ) -> list[StoredDelivery]:
        """Returns the newest, those of one owner or (None) of all."""
        table = deliveries
        wanted = select(table).order_by(table.c.key.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(table.c.key < before)
        for column, value in ((table.c.owner, owner), (table.c.notification, notification), (table.c.state, state)):
            if value is not None:
                wanted = wanted.where(column == value)
        with self._database.reading() as connection:
            return [_parse(row) for row in connection.execute(wanted)]

    def redeliver(self, delivery_id: str, now: int) -> None:
        """Makes a delivery due once more, with all its attempts."""
        values = {"state": PENDING, "next": now, "attempt_count": 0}
        with self._database.writing() as connection:
            connection.execute(update(deliveries).filter_by(id=delivery_id).values(**values))

    def prune(self, before: int) -> None:
        """Deletes those that were made before this time and are not pending."""
        table = deliveries
        with self._database.writing() as connection:
            connection.execute(delete(table).where(table.c.created < before, table.c.state != PENDING))


def _parse(row: Row[Any]) -> StoredDelivery:
    return StoredDelivery(
        id=row.id,
        task_id=row.task,
        notification=row.notification,
        event=row.event,
        kind=row.kind,
        owner=row.owner,
        receiver=row.receiver,
        payload=row.payload,
        next=row.next,
        created=row.created,
        number=row.key,
        state=row.state,
        attempt_count=row.attempt_count,
        attempts=json.loads(row.attempts),
    )
