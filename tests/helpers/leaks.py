"""What a test left behind: child processes, descriptors, Ansible temp directories; see tests/conftest.py."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.waiting import pause

LEAK_PATIENCE_SECONDS = 15.0  # a module may still be being packed, on a machine that has other things to do


@dataclass(frozen=True)
class Belongings:
    """What this process has at one moment."""

    children: dict[int, str]
    descriptors: dict[int, str]
    temp_dirs: frozenset[Path]

    def left_behind(self, before: Belongings) -> list[str]:
        found = [f"process {pid}: {line}" for pid, line in self.children.items() if pid not in before.children]
        if len(self.descriptors) > len(before.descriptors):
            new = self.descriptors.items() - before.descriptors.items()
            found += [f"descriptor {number}: {target}" for number, target in sorted(new)]
        return found + [f"directory {path}" for path in sorted(self.temp_dirs - before.temp_dirs)]


def belongings(home: Path, keeps_connections: bool) -> Belongings:
    children = {pid: _line(pid) for pid in _children()}
    descriptors = _descriptors()
    if keeps_connections:
        descriptors = {
            number: target
            for number, target in descriptors.items()
            if not (target.startswith("socket:") and _is_tcp(number))
        }
    places = (home / ".ansible" / "tmp", Path(tempfile.gettempdir()))
    names = ("ansible-local-*", "flansible-new-*")
    temp_dirs = frozenset(path for place in places for name in names for path in place.glob(name))
    return Belongings(children, descriptors, temp_dirs)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def _is_tcp(number: int) -> bool:
    """Asks the socket itself: one that the other side has reset is in no table of connections any more."""
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM
    except OSError:
        return False  # closed meanwhile


def _children() -> list[int]:
    """Our child processes, whichever thread started them. (Asking psutil would read every process of the machine.)"""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            found += Path(f"/proc/self/task/{thread}/children").read_text().split()
        except OSError:
            continue  # this thread has just ended
    return [int(word) for word in found]


def reap_orphans(before: Belongings) -> None:
    """What is over and came to us, the subreaper. (A Popen nobody waited for warns by itself, and that is an error.)"""
    for pid in _children():
        if pid not in before.children:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def fail_on_leaks(home: Path, keeps_connections: bool, what: str) -> Iterator[None]:
    """The body of a fixture: fails, after what it is for, when there is more than before and it does not go away."""
    before = belongings(home, keeps_connections)
    yield
    began = time.monotonic()
    while left := belongings(home, keeps_connections).left_behind(before):
        reap_orphans(before)
        waited = time.monotonic() - began
        if waited > LEAK_PATIENCE_SECONDS:
            pytest.fail(f"left behind by this {what}:\n" + "\n".join(left), pytrace=False)
        gc.collect()
        pause(waited)
