"""A queue in which addresses take turns: many requests of one do not keep another's waiting."""

from __future__ import annotations

import queue
import threading
from collections import deque

from flansible.web.server.client_connection import ClientConnection


class FairQueue:
    """Connections whose requests are whole; `get` waits for one. Used by the loop and by request threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_address: dict[str, deque[ClientConnection]] = {}  # in the order of their turns
        self._count: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, connection: ClientConnection) -> None:
        with self._lock:
            self._by_address.setdefault(connection.address, deque()).append(connection)
        self._count.put(None)

    def get(self) -> ClientConnection:
        self._count.get()
        with self._lock:
            address = next(iter(self._by_address))
            waiting = self._by_address.pop(address)
            connection = waiting.popleft()
            if waiting:
                self._by_address[address] = waiting
            return connection

    def is_empty(self) -> bool:
        return self._count.empty()
