"""The line that a part of the service prints when it is ready. Who started it may read it, or not."""

from __future__ import annotations

import contextlib
import os
import sys


def write_line(line: str) -> None:
    """Writes to this process's own standard output; drops the line where that is closed, full, or a pipe nobody reads.

    Past sys.stdout, which Celery replaces, and which would keep the line and fail again at the end of the process.
    """
    if sys.__stdout__ is not None:
        with contextlib.suppress(OSError):
            os.write(sys.__stdout__.fileno(), f"{line}\n".encode())
