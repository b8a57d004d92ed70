"""All connections of a web process: which of them wait for an event, and which are given up when there are too many.

A connection waits for one event at a time. Until then it is the table's; after it, it is the loop's, and then the
thread's that it is given to, until one of them lets it wait again. Only who has it may touch it.
"""

from __future__ import annotations

import itertools
import select
import threading
import time

from flansible.web.server.address_shares import AddressShares
from flansible.web.server.client_connection import ClientConnection, Phase

MAX_HELD_BYTES = 64 * 1024 * 1024  # of one process, in the buffers of all clients
_SMALL_BYTES = 16 * 1024  # buffers up to this size are charged to nobody
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_WRITABLE = select.EPOLLOUT | select.EPOLLONESHOT


class ConnectionTable:
    """Used by the loop and the request threads. most: how many connections it holds."""

    def __init__(self, most: int) -> None:
        self.epoll = select.epoll()
        self.shares = AddressShares()
        self.most = most
        self._connections: dict[int, ClientConnection] = {}
        self._lock = threading.Lock()  # held while a connection begins or ceases to wait

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: ClientConnection) -> None:
        """Takes a new connection in; it waits."""
        self._connections[connection.descriptor] = connection
        self.shares.add(connection)
        connection.is_waiting = True
        self.epoll.register(connection.descriptor, _READABLE)

    def wait(self, connection: ClientConnection) -> None:
        """Waits for the client: until it has taken more of a reply, or sends more."""
        if connection.phase is Phase.IDLE and connection.address != connection.own_address:
            self.shares.move(connection, connection.own_address)
        if connection.held_bytes or connection.buffered_bytes > _SMALL_BYTES:
            self.shares.hold(connection, connection.buffered_bytes)
            self._free_bytes()
        with self._lock:
            connection.is_waiting = True
            events = _WRITABLE if connection.phase is Phase.SENDING else _READABLE
            self.epoll.modify(connection.descriptor, events)

    def take(self, descriptor: int) -> ClientConnection | None:
        """Returns the connection that has waited for an event of this descriptor, if any."""
        connection = self._connections.get(descriptor)
        return connection if connection is not None and self._stop_waiting(connection) else None

    def remove(self, connection: ClientConnection) -> None:
        """Forgets a connection, whose socket somebody else has from now on."""
        self.epoll.unregister(connection.descriptor)
        del self._connections[connection.descriptor]
        self.shares.remove(connection)

    def drop(self, connection: ClientConnection) -> None:
        """Closes a connection."""
        del self._connections[connection.descriptor]  # before another one can have the descriptor
        self.shares.remove(connection)
        connection.sock.close()  # which epoll notices
        if connection.reply is not None:
            connection.reply.close()

    def take_expired(self, most: int) -> list[ClientConnection]:
        """Returns some of those whose time is over; they do not wait any more."""
        now = time.monotonic()
        due = (one for one in tuple(self._connections.values()) if one.deadline < now and self._stop_waiting(one))
        return list(itertools.islice(due, most))

    def close_idle(self) -> bool:
        """Closes those on which no request has begun, or all is said; returns whether others are left."""
        for connection in tuple(self._connections.values()):
            if connection.phase not in (Phase.BODY, Phase.SENDING) and not connection.received:
                if self._stop_waiting(connection):
                    self.drop(connection)
        return bool(self._connections)

    def make_room(self, address: str) -> bool:
        """Drops a connection of the address that has most, for one of `address`; returns whether there is room."""
        if len(self._connections) < self.most:
            return True
        largest = self.shares.largest_by_connections()
        if len(largest) <= self.shares.count(address):
            return False
        for connection in sorted(largest, key=lambda one: one.deadline):
            if self._stop_waiting(connection):
                self.drop(connection)
                return True
        return False

    def _free_bytes(self) -> None:
        """Drops connections while all together hold too many bytes: of the address that holds most, the largest."""
        if self.shares.held_bytes <= MAX_HELD_BYTES:
            return
        while self.shares.held_bytes > MAX_HELD_BYTES * 3 // 4:
            largest = sorted(self.shares.largest_by_bytes(), key=lambda one: one.held_bytes, reverse=True)
            victim = next((one for one in largest if self._stop_waiting(one)), None)
            if victim is None:
                return
            self.drop(victim)

    def _stop_waiting(self, connection: ClientConnection) -> bool:
        with self._lock:
            was_waiting, connection.is_waiting = connection.is_waiting, False
        return was_waiting
