"""Atomic replacement and locking of small private files that decide rights: rbac.json, the token file, keys.

Used by the commands and by the web processes, which read such a file again when its stamp changes.
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
# Called when a file was read again, with what it now holds or what is wrong with it, and whether it is in force.
OnChange = Callable[[str, bool], object]
_MODE = 0o600


def ignore_change(_what: str, _is_good: bool) -> None:
    """Does nothing: the default OnChange callback."""


def stamp(path: Path) -> Stamp:
    """Identifies the version of a file: any two versions differ. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def replace(path: Path, text: str) -> None:
    """Replaces a file atomically; others can never read it, not even for a moment. Raises ConfigurationError."""
    try:
        before = path.stat() if path.exists() else None
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), before.st_mode & 0o770 if before else _MODE)
                if before and os.geteuid() == 0:
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                elif before is None:
                    chown_to_folder_owner(file.fileno(), path)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be written: {error}")]) from error


def chown_to_folder_owner(descriptor: int, path: Path) -> None:
    """Gives a file that root made to its folder's owner: the service could not read it otherwise. Raises OSError."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


def make_private_folder(path: Path) -> None:
    """Makes a folder with mode 0700 if it is missing; as root, its parent's owner gets it. Raises OSError."""
    if path.is_dir():
        return
    make_private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock for a read-modify-write: of two commands at once, one's change would be lost.

    Locks the folder, because replacing the file gives it another inode. Raises OSError.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
