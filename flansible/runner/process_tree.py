"""Process tree primitives of Linux: subreaper, parent death signal, killing descendants. Used by the whole runner."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02


def become_subreaper() -> None:
    """Makes this process the parent of its orphaned descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(number: signal.Signals) -> None:
    """Sets the signal that the kernel sends us when our parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def children() -> list[int]:
    """Lists the process ids of our children; searching all processes of the machine would take milliseconds."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel built without it
        return [process.pid for process in psutil.Process().children()]


def send(process: psutil.Process, number: signal.Signals) -> None:
    # Ended already, or another user's (become): then we can only end its parent.
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def kill(found: list[psutil.Process]) -> None:
    """Kills these processes and the process groups that they lead.

    A group is killed in one step: no shell in it reaches its next command, and none survives if we are killed next.
    """
    leaders = {process.pid for process in found}
    for process in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if (group := os.getpgid(process.pid)) in leaders:
                os.killpg(group, signal.SIGKILL)
                leaders.discard(group)
    for process in found:
        send(process, signal.SIGKILL)


def kill_descendants(seconds: float) -> None:
    """Kills the descendants of this process until none is left, for at most so many seconds."""
    _repeat_until_gone(seconds, kill)


def wait_for_descendants(seconds: float) -> None:
    """Waits until this process has no descendants, for at most so many seconds."""
    _repeat_until_gone(seconds, lambda _: None)


def _repeat_until_gone(seconds: float, act: Callable[[list[psutil.Process]], None]) -> None:
    give_up_at = time.monotonic() + seconds
    # A dying process may still fork: repeat until there is none.
    while (
        left := [process for process in descendants() if process_name(process.pid)]
    ) and time.monotonic() < give_up_at:
        act(left)
        time.sleep(_POLL_SECONDS)


def process_name(pid: int) -> str | None:
    """Returns a live process's name, else None. Not from its command line, which may hold secrets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    return None if rest.split()[0] in (b"Z", b"X") else name.decode(errors="replace")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
