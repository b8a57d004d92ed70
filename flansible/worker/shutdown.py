"""The worker's stop, as its supervisors see it: a descriptor to poll and the seconds they have left."""

from __future__ import annotations

import contextlib
import os
import time


class Shutdown:
    """The stop of one worker: begun by a signal or a command; then every supervisor ends its run in time."""

    def __init__(self) -> None:
        self._descriptor, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ends_at: list[float] = []

    @property
    def descriptor(self) -> int:
        """Readable once the stop has begun."""
        return self._descriptor

    def begin(self, drain_seconds: float) -> None:
        """Lets runs continue for so many seconds; a further call can only shorten that. Safe in a signal handler."""
        self._ends_at.append(time.monotonic() + drain_seconds)  # atomic: a second signal cannot interrupt it
        with contextlib.suppress(BlockingIOError):  # the pipe is full, so it is readable already
            os.write(self._write_end, b"x")

    def seconds_left(self) -> float | None:
        """Seconds until runs must end; None while the worker is not being stopped."""
        return max(0.0, min(self._ends_at) - time.monotonic()) if self._ends_at else None
