"""Identifies a process across machines and reboots, and checks whether it is alive: a dead worker, or a slow one?

Used by the worker, which puts its identity into its leases, and by recovery (flansible.broker.recovery).
"""

from __future__ import annotations

import functools
import os
import re
import socket
from hashlib import sha256
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_FIRST_NAMESPACE = "pid:[4026531836]"  # the kernel's own PID namespace, the same number on every machine
_TAG = re.compile(r"worker=([0-9]{1,9}):([0-9]+)")
_START_FIELD = 19  # of the fields after the name in /proc/<pid>/stat


@functools.cache
def own_identity() -> str:
    """Returns this process's identity: host name, boot id, PID namespace, process id, start time, machine; spaces
    between."""
    started = _start_ticks(os.getpid()) or "?"
    return " ".join([socket.gethostname(), *_kernel(), str(os.getpid()), started, _machine()])


def describe(identity: str) -> str:
    """Formats an identity for people: host and process id."""
    parts = identity.split()
    return f"{parts[0]}, process {parts[3]}" if len(parts) >= 5 else identity


def tag(identity: str) -> str:
    """Returns the word that is on the command line of everything that this worker forks."""
    parts = identity.split()
    return f"worker={parts[3]}:{parts[4]}"


def explain_death(identity: str) -> str | None:
    """Returns the message for a process that is certainly dead; None when it lives or cannot be seen from here.

    It cannot be seen on another machine, and in another container.
    """
    parts = identity.split()
    if len(parts) < 5:
        return None
    host, boot, namespace, pid, started = parts[:5]
    if (boot, namespace) == _kernel():
        is_alive = _is_alive(int(pid), started, if_unknown=True)
        return None if is_alive else f"the worker (process {pid} on {host}) died while it ran"
    is_this_machine = parts[5:] == [_machine()] != ["?"] and host == socket.gethostname()
    if is_this_machine and boot != _kernel()[0] and namespace == _kernel()[1] == _FIRST_NAMESPACE:
        return f"the machine {host} was restarted while it ran"
    return None


def lives_here(identity: str) -> bool:
    """Whether another process than this one is alive and can be seen from here."""
    parts = identity.split()
    if len(parts) < 5 or tuple(parts[1:3]) != _kernel() or identity == own_identity():
        return False
    return _is_alive(int(parts[3]), parts[4], if_unknown=False)


def is_here(identity: str) -> bool:
    """Whether the process was started on this machine, in this boot and PID namespace: it and its runs can be seen."""
    parts = identity.split()
    return len(parts) >= 5 and tuple(parts[1:3]) == _kernel()


def is_running(identity: str) -> bool:
    """Whether the process is seen from here and is not stopped: it is slow, rather than gone."""
    parts = identity.split()
    return is_here(identity) and _is_alive(int(parts[3]), parts[4], if_unknown=False, without="ZXTt")


def is_tag_of_dead(word: str) -> bool:
    """Whether the process of this `tag` is not alive. It must have been one of this PID namespace."""
    found = _TAG.fullmatch(word)
    return found is not None and not _is_alive(int(found[1]), found[2], if_unknown=True)


def is_tag_of_stopped(word: str) -> bool:
    found = _TAG.fullmatch(word)
    return found is not None and is_stopped(int(found[1]))


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped by a signal (SIGSTOP)."""
    try:
        return _start_ticks(pid) is not None and _start_ticks(pid, "T") is None
    except OSError:
        return False


def explain_silence(worker: str) -> str:
    """Returns the message for a process that let its lease end: the likely cause."""
    return f"the worker {worker} died, or lost its connection to Redis, while it ran"


@functools.cache
def _machine() -> str:
    """Returns a digest of this machine's id, which itself is to be kept confidential; "?" without one."""
    try:
        text = _MACHINE_ID.read_text().strip()
    except OSError:
        return "?"
    return sha256(f"flansible {text}".encode()).hexdigest()[:16] if text else "?"


@functools.cache
def _kernel() -> tuple[str, str]:
    # Process ids mean something only within one boot and one PID namespace: containers count their own.
    return _BOOT_ID.read_text().strip(), os.readlink("/proc/self/ns/pid")


def _is_alive(pid: int, started: str, *, if_unknown: bool, without: str = "ZX") -> bool:
    """Whether the process that started then is there, and in none of these states.

    if_unknown: the answer when that cannot be found out, for want of a descriptor, say. Death has to be certain: what
    is taken for dead is judged, and killed.
    """
    try:
        return _start_ticks(pid, without) == started
    except OSError:
        return if_unknown


def _start_ticks(pid: int, without: str = "ZX") -> str | None:
    """Returns a process's start time in ticks since boot; None when it does not exist or is in one of these states: by
    default, when it is a zombie. Raises OSError when that cannot be found out."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if _exists(pid):
            raise  # /proc hides other users' processes (hidepid)
        return None
    return None if fields[0] in without else fields[_START_FIELD]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
