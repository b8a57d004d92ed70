"""What changes in the list of tasks, as a stream: for lists that people look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from flansible.store import Position, Store
from flansible.web import serialization
from flansible.web.streaming import sse
from flansible.web.streaming.feeds import Feed, Piece

LIST = "all"  # a record of the store's that counts what changes in lists, and is followed as a task is
_AT_ONCE = 100


@dataclass(frozen=True)
class ListStream(Feed):
    """user: whose tasks are told of; None: everybody's."""

    opening: ClassVar[bytes] = sse.OPENING
    keep_alive: ClassVar[bytes] = sse.KEEP_ALIVE

    user: str | None
    after: int
    task_id: str = LIST

    def next(self, store: Store, position: Position) -> Piece:
        if self.after == position.events:
            return Piece(b"", self)
        found, last = store.listed(self.after, _AT_ONCE) if self.after < position.events else ([], None)
        if last is None:
            # A client that was away for long, or a Redis that has forgotten.
            return Piece(sse.message(position.events, "reset", "{}"), replace(self, after=position.events))
        shown = (pair for pair in found if self.user in (None, pair[1].user))
        data = b"".join(
            sse.message(number, "task", serialization.dumps(serialization.status(task))) for number, task in shown
        )
        return Piece(data, replace(self, after=last))
