"""What Redis tells of changes, for one who waits for other things as well. For the followers' thread.

It reaches into flansible.store.changes, and belongs there: as `fileno` and a `heard` that does not wait.
"""

from __future__ import annotations

import socket

from flansible.errors import StoreUnavailable
from flansible.store import Changes
from flansible.store.connection import translated

_GLANCE_SECONDS = 0.001


class Ears:
    """Store.changes() without waiting, and with something to wait on."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.follow, self.unfollow, self.close = changes.follow, changes.unfollow, changes.close

    def heard(self) -> set[str]:
        """The tasks that were told of since it was last asked. Connects anew, or raises StoreUnavailable."""
        changed: set[str] = set()
        if self._changes._pubsub.connection is None:
            return changed
        if self.socket() is None:
            changed |= self._changes.wait(_GLANCE_SECONDS)
        # Until nothing is left: what has been read off the socket does not make it readable again.
        while self._can_read():
            changed |= self._changes.wait(_GLANCE_SECONDS)
        return changed

    def socket(self) -> socket.socket | None:
        """Readable when there is something to hear. Another one after each new connection, None while there is none."""
        connection = self._changes._pubsub.connection
        return None if connection is None else connection._get_socket()

    def _can_read(self) -> bool:
        try:
            with translated():
                return bool(self._changes._pubsub.connection.can_read(timeout=0))
        except StoreUnavailable:
            return True  # the connection has ended: `wait` makes a new one
