"""Where the masters of the fast ssh profile have their sockets, and their end. Knows no Ansible.

A master is the process that ssh leaves behind to keep a connection for the next run (ControlPersist). Whoever can reach
its socket needs no key: so each worker has a directory of its own, with one below it for each user. Used by the worker,
which makes them and ends them as it stops, and by `flansible up`, for a worker that was killed.
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

_TITLE = b"ssh: "  # ssh calls a master so, followed by its socket and [mux]
_STOPPED_TITLE = b"[stopped mux]"  # or by this, when it takes no more sessions
_STOPPED = "stopped-"  # flansible.runner.ssh_cleanup makes a file with this and its process id for each of those
_LONGEST_TITLE_BYTES = 4096
_END_SECONDS = 1.0
_ROUND_SECONDS = 0.02
_REMOVE_SECONDS = 5.0


class Masters:
    """The directories of one worker. It holds a lock on its own; without one, its masters belong to nobody."""

    def __init__(self, root: Path) -> None:
        """Raises OSError when `root` cannot be made, or is another's."""
        with _locked(root):
            _end_the_forsaken(root)
            self._directory = root / secrets.token_hex(4)
            self._directory.mkdir(mode=0o700)
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def directory_of(self, user: str) -> str:
        """Where this user's masters have their sockets, and nobody else's. Raises OSError when it cannot be made."""
        path = self._directory / sha256(user.encode()).hexdigest()[:12]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(path)

    def close(self) -> None:
        """End them all. No run may be under way."""
        _end(self._directory)
        os.close(self._lock)


def end_forsaken(root: Path) -> None:
    """End the masters of workers that are gone, and remove what is empty then."""
    if root.is_dir():
        with _locked(root):
            _end_the_forsaken(root)
        with contextlib.suppress(OSError):
            root.rmdir()  # unless a worker has a directory there


def _end_the_forsaken(root: Path) -> None:
    for directory in root.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end(directory)
            finally:
                os.close(lock)


def _end(directory: Path) -> None:
    """TERM, after which a master removes its socket; KILL for one that does not follow."""
    give_up_at = time.monotonic() + _END_SECONDS
    number = signal.SIGTERM
    while found := list(_masters(directory)):
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
    """As far as that can be done in time; what is left is there for the next one to remove."""
    # A confined user can write there, nest folders deeper than Python's own functions can follow, and lock them.
    quiet = subprocess.DEVNULL
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if not directory.exists():
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            given = [*command, "--", str(directory)]
            subprocess.run(given, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_REMOVE_SECONDS)


def _masters(directory: Path) -> Iterator[int]:
    """The process ids of those that have, or had, a socket below `directory`."""
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
    """The path of a master's socket, or _STOPPED_TITLE; empty for any other process, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            title = file.read(_LONGEST_TITLE_BYTES)
    except OSError:
        return b""
    title = title.rstrip(b"\0")
    return title.removeprefix(_TITLE).removesuffix(b" [mux]") if title.startswith(_TITLE) else b""


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Nobody else makes or removes a worker's directory meanwhile."""
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
