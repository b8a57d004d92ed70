"""Thread slots: limits how many request threads of a web process may wait at once, to three quarters of them.

For waits that the stream loop cannot take over: cancels and previews; and, with slots of its own, health.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from flansible.web.context import web_context


class Slots:
    """Counts the threads that wait for one kind of thing, and for whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: Counter[str] = Counter()

    @contextmanager
    def hold(self, limit: int, holder: str = "", most_of_one: int | None = None) -> Iterator[bool]:
        """Holds a slot while the block runs; yields whether one of so many was free, and the holder had not as many."""
        with self._lock:
            acquired = self._holders.total() < limit
            acquired &= most_of_one is None or self._holders[holder] < most_of_one
            self._holders[holder] += acquired
        try:
            yield acquired
        finally:
            with self._lock:
                self._holders[holder] -= acquired
                if not self._holders[holder]:
                    del self._holders[holder]


_slots = Slots()


def slot(user: str) -> AbstractContextManager[bool]:
    """Holds a slot while the block runs; yields whether one was free. A user has at most a third of them, or two."""
    limit = max(1, web_context().settings.web_threads * 3 // 4)
    return _slots.hold(limit, user, max(2, limit // 3))
