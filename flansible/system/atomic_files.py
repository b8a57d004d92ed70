"""Small files that decide who may do what: written whole or not at all, private, and read again when they change.

rbac.json and the file of tokens, by the commands and the web processes.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flansible.errors import ConfigurationError, Fault

Stamp = tuple[int, ...]
# Told when a file was read again: what is in it now or wrong with it, and whether it is in force.
OnChange = Callable[[str, bool], object]
_MODE = 0o600


def ignore(_what: str, _is_good: bool) -> None:
    """Nobody wants to be told."""


def stamp(path: Path) -> Stamp:
    """Differs between any two versions of a file. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def replace(path: Path, text: str) -> None:
    """Write whole or not at all; never readable by others, not even for a moment. Raises ConfigurationError."""
    try:
        before = path.stat() if path.exists() else None
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), before.st_mode & 0o770 if before else _MODE)
                if before and os.geteuid() == 0:
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                elif before is None:
                    give_to_owner_of_folder(file.fileno(), path)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be written: {error}")]) from error


def give_to_owner_of_folder(descriptor: int, path: Path) -> None:
    """What root makes in the folder of the service's user would be closed to the service. Raises OSError."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


def make_folder(path: Path) -> None:
    """The folder, private, when there is none; made by root it belongs to who has the one above. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else is between reading this file and replacing it: two commands at once would lose what one has
    written. The folder is locked, since the file itself is another one afterwards. Raises OSError."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
