"""Hashes that cost next to nothing, and a throttle that counts, for the tests of passwords."""

from __future__ import annotations

CHEAP_HASHES = "scrypt:256:8:1"  # in production 32768 for 256


class CountingThrottle:
    """A throttle that lets so many wrong passwords through."""

    def __init__(self, most: int = 1000) -> None:
        self.entered = self.wrong = 0
        self._most = most

    def check(self) -> None:
        if self.wrong >= self._most:
            raise PermissionError
        self.entered += 1

    def record_failure(self) -> None:
        self.wrong += 1
