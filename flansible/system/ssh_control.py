"""Directories for the control sockets of the fast ssh profile, and the end of its control masters. Without Ansible.

A control master is the process that ssh leaves behind to keep a connection for the next run (ControlPersist). Access to
its socket replaces the key: so each worker has a private directory, and below it one for each user, by each entry of
rbac.json. Used by the worker, which makes them and ends the masters as it stops, and by `flansible up`, for a worker
that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

_TITLE = b"ssh: "  # ssh sets a master's process title to this, its socket and [mux]
_STOPPED_TITLE = b"[stopped mux]"  # in place of the socket, when it accepts no more sessions
_STOPPED = "stopped-"  # flansible.runner.ssh_cleanup makes a file with this prefix and the process id of such a master
_LONGEST_TITLE_BYTES = 4096
_END_SECONDS = 1.0
_ROUND_SECONDS = 0.02
_REMOVE_SECONDS = 5.0


class ControlMasters:
    """One worker's control socket directories. It locks its own; masters below an unlocked one are orphaned."""

    def __init__(self, root: Path) -> None:
        """Raises OSError when `root` cannot be made, or belongs to another user."""
        with _exclusive_lock(root):
            _end_orphaned(root)
            self._directory = root / secrets.token_hex(4)
            self._directory.mkdir(mode=0o700)
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def directory_of(self, principal: str) -> str:
        """Returns the directory for the sockets of runs with these rights alone. Raises OSError when it cannot be made.

        principal: the user, and the group whose entry allowed the run: flansible.models.principal.
        """
        path = self._directory / sha256(principal.encode()).hexdigest()[:12]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(path)

    def close(self) -> None:
        """Ends all masters of this worker. No run may be under way."""
        _end(self._directory)
        os.close(self._lock)


def end_orphaned_masters(root: Path) -> None:
    """Ends the masters of dead workers, and removes the directories that are then empty."""
    if root.is_dir():
        with _exclusive_lock(root):
            _end_orphaned(root)
        with contextlib.suppress(OSError):
            root.rmdir()  # unless a worker has a directory there


def _end_orphaned(root: Path) -> None:
    for directory in root.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end(directory)
            finally:
                os.close(lock)


def _end(directory: Path) -> None:
    """Sends TERM, on which a master removes its socket, then KILL to those that ignore it."""
    give_up_at = time.monotonic() + _END_SECONDS
    number = signal.SIGTERM
    while found := list(_master_pids(directory)):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            break
        while time.monotonic() < give_up_at and any(_socket_of(pid) for pid in found):
            time.sleep(_ROUND_SECONDS)
        number = signal.SIGKILL if time.monotonic() >= give_up_at else signal.SIGTERM
    _remove(directory)


def _remove(directory: Path) -> None:
    """Removes a directory as far as time allows; the next worker removes the rest."""
    # A confined user can write there, nest folders deeper than Python's own functions can follow, and lock them.
    quiet = subprocess.DEVNULL
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if not directory.exists():
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            given = [*command, "--", str(directory)]
            subprocess.run(given, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_REMOVE_SECONDS)


def _master_pids(directory: Path) -> Iterator[int]:
    """Finds the masters that have, or had, a socket below `directory`."""
    for file in directory.glob(f"*/{_STOPPED}*"):
        # A confined user can write there; and in a sandbox processes have other numbers, but end with it.
        number = file.name.removeprefix(_STOPPED)
        if number.isdecimal() and _socket_of(int(number)).startswith(_STOPPED_TITLE):
            yield int(number)
    below = os.fsencode(directory) + b"/"
    for name in os.listdir("/proc"):
        if name.isdigit() and _socket_of(int(name)).startswith(below):
            yield int(name)


def _socket_of(pid: int) -> bytes:
    """Returns a master's socket path or _STOPPED_TITLE; empty for any other process, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            title = file.read(_LONGEST_TITLE_BYTES)
    except OSError:
        return b""
    title = title.rstrip(b"\0")
    return title.removeprefix(_TITLE).removesuffix(b" [mux]") if title.startswith(_TITLE) else b""


@contextlib.contextmanager
def _exclusive_lock(root: Path) -> Iterator[None]:
    """Holds the lock under which workers' directories are made and removed."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user")
    root.chmod(0o700)
    lock = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
