"""The processes of the runner on this machine, by their worker's tag: fork servers, keepers and runs.

The tag (process_identity.tag) is on their command lines; what a run starts is found below it. One that was stopped
(SIGSTOP) does nothing: a fork server starts no run, a keeper ends none, not even when its worker is dead. So each
worker continues its own, and recovery those of workers that are dead or stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterable

from flansible.system import process_identity

_PARENT_FIELD = 1  # of the fields after the name in /proc/<pid>/stat
_TAG = "worker="


def tags() -> dict[str, set[int]]:
    """Finds the processes of the runner in this PID namespace, by their worker's tag."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for pid in _process_ids():
        for word in _command_line(pid):
            # In another namespace the numbers in a tag are other processes'.
            if word.startswith(_TAG) and _is_in_our_namespace(pid):
                found[word].add(pid)
    return found


def of_worker(identity: str) -> set[int]:
    """Finds what a process of this machine has started, in sandboxes too; nothing for one of another machine."""
    tag = process_identity.tag(identity) if process_identity.is_here(identity) else ""
    return {pid for pid in _process_ids() if tag in _command_line(pid)} if tag else set()


def resume(pids: Iterable[int]) -> set[int]:
    """Continues those that were stopped; returns them."""
    stopped = {pid for pid in pids if process_identity.is_stopped(pid)}
    for pid in stopped:
        _signal(pid, signal.SIGCONT)
    return stopped


def kill(pids: Iterable[int]) -> None:
    """Kills these processes of our namespace, with everything below them."""
    for pid in _with_descendants({pid for pid in pids if _is_in_our_namespace(pid)}):
        _signal(pid, signal.SIGKILL)


def _process_ids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command_line(pid: int) -> list[str]:
    return _read(f"/proc/{pid}/cmdline").split("\0")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is not ours
        return ""


def _is_in_our_namespace(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def _with_descendants(pids: set[int]) -> set[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid in _process_ids():
        if fields := _read(f"/proc/{pid}/stat").rpartition(")")[2].split():
            children[int(fields[_PARENT_FIELD])].append(pid)
    found, ahead = set(pids), list(pids)
    while ahead:
        below = [pid for pid in children[ahead.pop()] if pid not in found]
        found.update(below)
        ahead += below
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
