"""What the runner needs of Linux to keep a tree of processes together; used by fork server, keeper, run and workers."""

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
_ROUND_SECONDS = 0.02


def become_subreaper() -> None:
    """From now on the orphans among our descendants become our children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_told_of_parents_death(number: signal.Signals) -> None:
    """From now on the kernel sends us this signal when our parent ends, whatever ended it."""
    _prctl(_PR_SET_PDEATHSIG, number)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def children() -> list[int]:
    """The process ids of our children. Looking through all processes there are would take milliseconds."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel built without it
        return [process.pid for process in psutil.Process().children()]


def send(process: psutil.Process, number: signal.Signals) -> None:
    # Gone already, or another user's (become): its parent's end is all we can bring about.
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def kill(found: list[psutil.Process]) -> None:
    """KILL these and what else is in the process groups that they lead.

    A group goes in one step: no shell in it gets to its next command, and nothing escapes should we be killed then.
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
    """KILL all that descends from this process until nothing is left, for so long at most."""
    _until_none_is_left(seconds, kill)


def await_descendants(seconds: float) -> None:
    """Wait until nothing descends from this process, for so long at most."""
    _until_none_is_left(seconds, lambda _: None)


def _until_none_is_left(seconds: float, act: Callable[[list[psutil.Process]], None]) -> None:
    give_up_at = time.monotonic() + seconds
    # A dying process may still fork: look again until there is none.
    while (left := [process for process in descendants() if name_of(process.pid)]) and time.monotonic() < give_up_at:
        act(left)
        time.sleep(_ROUND_SECONDS)


def name_of(pid: int) -> str | None:
    """The name of a process that has not ended. Not from its command line, which may hold secrets."""
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
