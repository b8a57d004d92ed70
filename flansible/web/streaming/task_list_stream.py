"""The stream of changes to the task list, for pages that keep the list on screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from flansible.store import Position, Store
from flansible.web import serialization
from flansible.web.streaming import sse
from flansible.web.streaming.feeds import Feed, Piece
from flansible.web.streaming.viewer import Viewer

TASK_LIST = "all"  # the store's record that counts list changes; followed like a task
_CHANGES_PER_PIECE = 100


@dataclass(frozen=True)
class TaskListStream(Feed):
    """Sends each task whose list entry changed after change number `after`, as far as the viewer sees it."""

    opening: ClassVar[bytes] = sse.OPENING
    keep_alive: ClassVar[bytes] = sse.KEEP_ALIVE

    viewer: Viewer
    after: int
    task_id: str = TASK_LIST

    def next(self, store: Store, position: Position) -> Piece:
        if self.after == position.events:
            return Piece(b"", self)
        found, last = store.list_changes(self.after, _CHANGES_PER_PIECE) if self.after < position.events else ([], None)
        if last is None:
            # The client was away for too long, or Redis lost its data: it has to load the list again.
            return Piece(sse.message(position.events, "reset", "{}"), replace(self, after=position.events))
        visible = (pair for pair in found if self.viewer.may_see(pair[1]))
        data = b"".join(
            sse.message(number, "task", serialization.dumps(serialization.reply_fields(task)))
            for number, task in visible
        )
        return Piece(data, replace(self, after=last))
