"""Which process of which machine somebody is, and whether it is still there: how a dead worker is told from a slow one.

Called by the worker, which names itself in its claims, and by every reaper (flansible.broker.recovery).
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TICKS = 19  # of the fields after the name in /proc/<pid>/stat


@functools.cache
def own_name() -> str:
    """This process in words: host name, boot of its kernel, PID namespace, process id and when it began."""
    return " ".join([socket.gethostname(), *_kernel(), str(os.getpid()), _began(os.getpid()) or "?"])


def shown(name: str) -> str:
    """A process by its name, for people."""
    parts = name.split()
    return f"{parts[0]}, process {parts[3]}" if len(parts) == 5 else name


def why_gone(name: str) -> str | None:
    """What became of the process of this name when it is gone for certain; None when it lives, or cannot be seen from
    here: on another machine, in another container, or before the last boot."""
    parts = name.split()
    if len(parts) != 5 or tuple(parts[1:3]) != _kernel():
        return None
    host, _, _, pid, began = parts
    if _began(int(pid)) == began:
        return None
    return f"the worker (process {pid} on {host}) died while it ran"


def why_silent(name: str, worker: str) -> str:
    """What may have become of a process that has not been heard of for a lease."""
    parts = name.split()
    if len(parts) == 5 and parts[0] == socket.gethostname() and parts[1] != _kernel()[0]:
        return f"the machine {parts[0]} was restarted while it ran"
    return f"the worker {worker} died, or lost its connection to Redis, while it ran"


@functools.cache
def _kernel() -> tuple[str, str]:
    # Process ids mean something only within one boot and one PID namespace: containers count their own.
    return _BOOT_ID.read_text().strip(), os.readlink("/proc/self/ns/pid")


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None when there is none of this id, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[_START_TICKS]
