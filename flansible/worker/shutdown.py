"""The worker's stop, as its supervisors see it: a descriptor to poll and the seconds they have left."""

from __future__ import annotations

import contextlib
import os
import time


class Shutdown:
    """Begun by whatever stops the worker; then every supervisor ends its run in time."""

    def __init__(self) -> None:
        self._descriptor, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._moments: list[float] = []

    @property
    def descriptor(self) -> int:
        """Readable once the stop has begun."""
        return self._descriptor

    def begin(self, drain_seconds: float) -> None:
        """Runs may go on for so many seconds more; a further call can only shorten that. Safe in a signal handler."""
        self._moments.append(time.monotonic() + drain_seconds)  # one step, which a second signal cannot cut in two
        with contextlib.suppress(BlockingIOError):  # full: it has been readable for long
            os.write(self._write_end, b"x")

    def seconds_left(self) -> float | None:
        """None while nobody has asked the worker to stop."""
        return max(0.0, min(self._moments) - time.monotonic()) if self._moments else None
