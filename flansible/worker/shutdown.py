"""The worker's stop, as its supervisors see it: a descriptor to poll and the seconds they have left."""

from __future__ import annotations

import os
import time


class Shutdown:
    """Begun once, by the signal that stops the worker; then every supervisor ends its run in time."""

    def __init__(self) -> None:
        self._descriptor, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._at: float | None = None

    @property
    def descriptor(self) -> int:
        """Readable once the stop has begun."""
        return self._descriptor

    def begin(self, drain_seconds: float) -> None:
        """Runs may go on for so many seconds more; a second call can only shorten that."""
        at = time.monotonic() + drain_seconds
        self._at = at if self._at is None else min(at, self._at)
        os.write(self._write_end, b"x")

    def seconds_left(self) -> float | None:
        """None while nobody has asked the worker to stop."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())
