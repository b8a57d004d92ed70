"""Thread slots: limits how many request threads of a web process may wait at once, to three quarters of them.

For waits that the stream loop cannot take over: cancels and previews; and, with slots of its own, health.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from flansible.web.context import web_context


class Slots:
    """Counts the threads that wait for one kind of thing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @contextmanager
    def hold(self, limit: int) -> Iterator[bool]:
        """Holds a slot while the block runs; yields whether one of so many was free."""
        with self._lock:
            acquired = self._count < limit
            self._count += acquired
        try:
            yield acquired
        finally:
            with self._lock:
                self._count -= acquired


_slots = Slots()


def slot() -> AbstractContextManager[bool]:
    """Holds a slot while the block runs; yields whether one was free."""
    return _slots.hold(max(1, web_context().settings.web_threads * 3 // 4))
