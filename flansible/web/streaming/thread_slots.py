"""Threads of a web process that wait for something, and how many may: a quarter is kept for everyone else.

For those that cannot wait in the followers' thread: cancels, and followers that cannot be handed over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flansible.web.context import services


class _Places:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def take(self, limit: int) -> bool:
        with self._lock:
            if self._count >= limit:
                return False
            self._count += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._count -= 1


_places = _Places()


def take() -> bool:
    """A place for this thread, if there is one. Who takes it gives it back."""
    return _places.take(max(1, services().settings.web_threads * 3 // 4))


def give_back() -> None:
    _places.give_back()


@contextmanager
def one() -> Iterator[bool]:
    """A place while the block runs, if there is one."""
    taken = take()
    try:
        yield taken
    finally:
        if taken:
            give_back()
