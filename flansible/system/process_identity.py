"""Identifies a process across machines and reboots, and checks whether it is alive: a dead worker, or a slow one?

Used by the worker, which puts its identity into its leases, and by recovery (flansible.broker.recovery).
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19  # of the fields after the name in /proc/<pid>/stat


@functools.cache
def own_identity() -> str:
    """Returns this process's identity: host name, boot id, PID namespace, process id, start time; spaces between."""
    return " ".join([socket.gethostname(), *_kernel(), str(os.getpid()), _start_ticks(os.getpid()) or "?"])


def describe(identity: str) -> str:
    """Formats an identity for people: host and process id."""
    parts = identity.split()
    return f"{parts[0]}, process {parts[3]}" if len(parts) == 5 else identity


def explain_death(identity: str) -> str | None:
    """Returns the message for a process that is certainly dead; None when it lives or cannot be seen from here.

    It cannot be seen on another machine, in another container, or from before the last boot.
    """
    parts = identity.split()
    if len(parts) != 5 or tuple(parts[1:3]) != _kernel():
        return None
    host, _, _, pid, started = parts
    if _start_ticks(int(pid)) == started:
        return None
    return f"the worker (process {pid} on {host}) died while it ran"


def lives_here(identity: str) -> bool:
    """Whether another process than this one is alive and can be seen from here."""
    parts = identity.split()
    if len(parts) != 5 or tuple(parts[1:3]) != _kernel() or identity == own_identity():
        return False
    return _start_ticks(int(parts[3])) == parts[4]


def explain_silence(identity: str, worker: str) -> str:
    """Returns the message for a process that let its lease expire: the likely cause."""
    parts = identity.split()
    if len(parts) == 5 and parts[0] == socket.gethostname() and parts[1] != _kernel()[0]:
        return f"the machine {parts[0]} was restarted while it ran"
    return f"the worker {worker} died, or lost its connection to Redis, while it ran"


@functools.cache
def _kernel() -> tuple[str, str]:
    # Process ids mean something only within one boot and one PID namespace: containers count their own.
    return _BOOT_ID.read_text().strip(), os.readlink("/proc/self/ns/pid")


def _start_ticks(pid: int) -> str | None:
    """Returns a process's start time in ticks since boot; None when it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[_START_FIELD]
