"""How many lines of the audit log those may cause who are refused."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict

_WINDOW_SECONDS = 60.0


class AuditThrottle:
    """Who is refused a thousand times a second must not fill the disk: so many lines a minute, the rest is counted.

    most_of_one: of one user or address; most: of all together, in each web process. Each kind of line is counted apart:
    strangers, who may have any number of addresses, must not hide what users are refused.
    """

    def __init__(self, most_of_one: int = 30, most: int = 300) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._lock = threading.Lock()
        self._turns_at = 0.0
        self._told: dict[str, Counter[str]] = defaultdict(Counter)
        self._omitted: Counter[str] = Counter()

    def omitted(self, who: str, kind: str) -> int | None:
        """How many lines of this kind were left out before this one; None when this one is to be left out as well."""
        with self._lock:
            if time.monotonic() >= self._turns_at:
                self._turns_at = time.monotonic() + _WINDOW_SECONDS
                self._told.clear()
            told = self._told[kind]
            if told[who] >= self._most_of_one or told.total() >= self._most:
                self._omitted[kind] += 1
                return None
            told[who] += 1
            return self._omitted.pop(kind, 0)
