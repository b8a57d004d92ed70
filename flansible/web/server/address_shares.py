"""Counts the connections and buffered bytes of each address in this web process, so that none takes all.

Used by the loop and by request threads (flansible.web.server.worker).
"""

from __future__ import annotations

import threading

from flansible.web.server.client_connection import ClientConnection


class AddressShares:
    """The connections of each address; `held_bytes` is the sum over all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[str, set[ClientConnection]] = {}
        self.held_bytes = 0

    def add(self, connection: ClientConnection) -> None:
        with self._lock:
            self._connections.setdefault(connection.address, set()).add(connection)

    def remove(self, connection: ClientConnection) -> None:
        with self._lock:
            self.held_bytes -= connection.held_bytes
            connection.held_bytes = 0
            own = self._connections.get(connection.address, set())
            own.discard(connection)
            if not own:
                self._connections.pop(connection.address, None)

    def move(self, connection: ClientConnection, address: str) -> None:
        """Counts a connection for another address."""
        held = connection.held_bytes
        self.remove(connection)
        connection.address = address
        self.add(connection)
        self.hold(connection, held)

    def count(self, address: str) -> int:
        return len(self._connections.get(address, ()))

    def hold(self, connection: ClientConnection, count: int) -> None:
        """Charges the address for what the connection buffers now."""
        with self._lock:
            self.held_bytes += count - connection.held_bytes
            connection.held_bytes = count

    def largest_by_connections(self) -> list[ClientConnection]:
        """Returns the connections of the address that has most."""
        with self._lock:
            return list(max(self._connections.values(), key=len, default=()))

    def largest_by_bytes(self) -> list[ClientConnection]:
        """Returns the connections of the address that is charged most bytes."""
        with self._lock:
            return list(max(self._connections.values(), key=_held_bytes, default=()))


def _held_bytes(connections: set[ClientConnection]) -> int:
    return sum(one.held_bytes for one in connections)
