"""Rate-limits audit lines written for refused requests."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict

_WINDOW_SECONDS = 60.0


class AuditThrottle:
    """Limits audit lines per minute, so that a client refused a thousand times a second cannot fill the disk.

    Lines over the limit are counted instead. most_of_one: limit for one user or address; most: limit for all together,
    in each web process. Each kind of event has its own limit: unauthenticated clients, who may have any number of
    addresses, must not hide the refusals of users.
    """

    def __init__(self, most_of_one: int = 30, most: int = 300) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._lock = threading.Lock()
        self._window_ends_at = 0.0
        self._written: dict[str, Counter[str]] = defaultdict(Counter)
        self._omitted: Counter[str] = Counter()

    def admit(self, who: str, kind: str) -> int | None:
        """Admits one line, and returns how many of its kind were omitted before it; None: omit this one too."""
        with self._lock:
            if time.monotonic() >= self._window_ends_at:
                self._window_ends_at = time.monotonic() + _WINDOW_SECONDS
                self._written.clear()
            written = self._written[kind]
            if written[who] >= self._most_of_one or written.total() >= self._most:
                self._omitted[kind] += 1
                return None
            written[who] += 1
            return self._omitted.pop(kind, 0)
