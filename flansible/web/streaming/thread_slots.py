"""Thread slots: limits how many request threads of a web process may wait at once, to three quarters of them.

For waits that the stream loop cannot take over: cancels, previews, and followers whose socket cannot be handed off.
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


def acquire() -> bool:
    """Takes a slot for this thread, if one is free; the caller releases it."""
    return _slots.acquire(max(1, web_context().settings.web_threads * 3 // 4))


def release() -> None:
    _slots.release()


@contextmanager
def slot() -> Iterator[bool]:
    """Holds a slot while the block runs; yields whether one was free."""
    acquired = acquire()
    try:
        yield acquired
    finally:
        if acquired:
            release()
