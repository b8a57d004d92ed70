"""How many lines of the audit log those may cause who are refused."""

from __future__ import annotations

import threading
import time
from collections import Counter

_WINDOW_SECONDS = 60.0


class Thrift:
    """Who is refused a thousand times a second must not fill the disk: so many lines a minute, the rest is counted.

    most_of_one: of one user or address; most: of all together, in each web process.
    """

    def __init__(self, most_of_one: int = 30, most: int = 300) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._lock = threading.Lock()
        self._turns_at = 0.0
        self._told: Counter[str] = Counter()
        self._omitted = 0

    def omitted(self, who: str) -> int | None:
        """How many lines were left out before this one; None when this one is to be left out as well."""
        with self._lock:
            if time.monotonic() >= self._turns_at:
                self._turns_at = time.monotonic() + _WINDOW_SECONDS
                self._told.clear()
            if self._told[who] >= self._most_of_one or self._told.total() >= self._most:
                self._omitted += 1
                return None
            self._told[who] += 1
            left_out, self._omitted = self._omitted, 0
            return left_out
