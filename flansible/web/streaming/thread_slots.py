"""Thread slots: limits how many request threads of a web process may wait at once, to three quarters of them.

For waits that the stream loop cannot take over: cancels and previews.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flansible.web.context import web_context


class _Slots:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def acquire(self, limit: int) -> bool:
        with self._lock:
            if self._count >= limit:
                return False
            self._count += 1
            return True

    def release(self) -> None:
        with self._lock:
            self._count -= 1


_slots = _Slots()


@contextmanager
def slot() -> Iterator[bool]:
    """Holds a slot while the block runs; yields whether one was free."""
    acquired = _slots.acquire(max(1, web_context().settings.web_threads * 3 // 4))
    try:
        yield acquired
    finally:
        if acquired:
            _slots.release()
