"""The outbox: what has happened to tasks that somebody is to be notified of, until it is in the history database.

`lua/common/outbox.lua` writes an entry in the step that starts a task or makes it final, so none is missed. Nothing is
written where no notification asks for it and the task has no callback; the stream has 10,000 entries at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flansible.store import keys
from flansible.store.connection import Connection, text, translated

EVERY_EVENT = "*"


@dataclass(frozen=True)
class LateSchedule:
    """A schedule that could not start its template when it was due (milliseconds since 1970)."""

    name: str
    owner: str
    template: str
    due: int


@dataclass(frozen=True)
class OutboxEntry:
    """One entry. event: `started` or `final` of a task, `late` of a schedule, or `wake`: a delivery was made due;
    previous: the state of the run before it, '' for none; at: milliseconds since 1970; has_callback: the request of the
    task names one; schedule: what is late."""

    key: str
    task_id: str
    event: Literal["started", "final", "late", "wake"]
    state: str
    previous: str
    at: int
    has_callback: bool = False
    schedule: LateSchedule | None = None


class Outbox(Connection):
    """The part of Store for notifications."""

    def outbox(self, limit: int) -> list[OutboxEntry]:
        """Returns the oldest entries; they stay until `remove_from_outbox`."""
        with translated():
            found: Any = self._redis.xrange(keys.OUTBOX, count=limit)
        return [_entry(text(key), {text(name): text(value) for name, value in row.items()}) for key, row in found]

    def outbox_length(self) -> int:
        with translated():
            return int(self._redis.xlen(keys.OUTBOX))

    def remove_from_outbox(self, entries: list[OutboxEntry]) -> None:
        with translated():
            self._redis.xdel(keys.OUTBOX, *(entry.key for entry in entries))

    def add_late_schedule(self, late: LateSchedule) -> None:
        """Writes a late schedule to the outbox, where anybody asks for anything."""
        if not self.notified()[1]:
            return
        entry: Any = {"task": "", "event": "late", "name": late.name, "owner": late.owner, "template": late.template}
        with translated():
            self._redis.xadd(keys.OUTBOX, {**entry, "due": late.due}, maxlen=10_000, approximate=False)

    def wake_dispatcher(self) -> None:
        """Has the web process that delivers look for what is due."""
        entry: Any = {"task": "", "event": "wake"}
        with translated():
            self._redis.xadd(keys.OUTBOX, entry, maxlen=10_000, approximate=False)

    def elect_dispatcher(self, holder: str, seconds: float) -> bool:
        """Makes this process the one that delivers for so long, unless another one is; whether it is."""
        answer: Any = self._run("elect_archiver", [keys.DISPATCHER], holder, seconds)
        return bool(text(answer))

    def expect_notifications(self) -> None:
        """Has everything written to the outbox, until `set_notified`. Called before a definition is changed."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(keys.NOTIFIED, EVERY_EVENT, 1)
            pipeline.hincrby(keys.NOTIFIED, "version", 1)
            pipeline.execute()

    def notified(self) -> tuple[str, frozenset[str]]:
        """Returns the version, '' before any, and what is written to the outbox."""
        with translated():
            found: Any = self._redis.hgetall(keys.NOTIFIED)
        names = {text(name): text(value) for name, value in found.items()}
        return names.pop("version", ""), frozenset(names)

    def set_notified(self, version: str, events: frozenset[str]) -> bool:
        """Replaces what is written to the outbox; False when `expect_notifications` was called since that version."""
        return bool(self._run("set_notified", [keys.NOTIFIED], version, *sorted(events)))


def _entry(key: str, row: dict[str, str]) -> OutboxEntry:
    event: Any = row.get("event", "")
    at = int(row.get("at") or key.partition("-")[0])
    late = LateSchedule(row["name"], row["owner"], row["template"], int(row["due"])) if event == "late" else None
    state, previous = row.get("state", ""), row.get("previous", "")
    return OutboxEntry(key, row.get("task", ""), event, state, previous, at, row.get("callback") == "1", late)
