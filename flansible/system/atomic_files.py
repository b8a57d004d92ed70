"""Files and folders that appear whole, and locking of the private files that decide rights: rbac.json, tokens, keys.

Used by every process; web processes read such a file again when its stamp changes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def replacing(path: Path, mode: int = _MODE, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yields a temporary file to write, which gets its name when the block ends without an error. Raises OSError.

    So a reader never sees half a file, and a failure leaves the earlier one. keep_existing: if another process was
    first, its file stays.
    """
    prefix = f".{path.name}.new-"

    def make() -> str:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix)
        os.close(descriptor)
        return name

    with _new(path.parent, prefix, make) as temporary:
        try:
            temporary.chmod(mode)
            yield temporary
            if keep_existing:
                with suppress(FileExistsError):
                    os.link(temporary, path)
            else:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a new folder, for the caller to fill and rename; removes what has not been renamed. Raises OSError."""
    with _new(parent, prefix, lambda: tempfile.mkdtemp(dir=parent, prefix=prefix)) as temporary:
        try:
            yield temporary
        finally:
            with suppress(OSError):
                remove_folder(temporary)


@contextmanager
def _new(folder: Path, prefix: str, make: Callable[[], str]) -> Iterator[Path]:
    """Yields what `make` has made, locked. What nobody holds locked a killed process has left: the next one of the same
    prefix removes it."""
    remove_abandoned(folder, prefix)
    descriptor, name = _make_locked(make)
    try:
        yield Path(name)
    finally:
        os.close(descriptor)


def _make_locked(make: Callable[[], str]) -> tuple[int, str]:
    while True:
        name = make()
        with suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            with suppress(OSError):  # a file system without locks: nobody can lock it to remove it, either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.lexists(name):
                return descriptor, name
            os.close(descriptor)
        # Another process took it for abandoned, before it was locked.


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Removes what killed processes have left of `new_folder` and `replacing`."""
    ours = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")  # as tempfile names them
    with suppress(OSError):
        for name in filter(ours.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                _remove_unless_locked(folder / name)


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it, or what has its name; does nothing if there is none. Raises OSError if something
    stays.

    A run that can write there may have closed folders, and nested them thousandfold, and may put links in the place of
    folders meanwhile. So descriptors are used and never paths, and few of them: what lies deeper is moved up first.
    """
    with suppress(OSError):
        try:
            with writable_folder(path) as top:
                waiting = list(_clear(top, top))
                while waiting:
                    name = waiting.pop()
                    with suppress(OSError), writable_folder(name, top) as folder:
                        waiting.extend(_clear(folder, top))
                        os.rmdir(name, dir_fd=top)
            path.rmdir()
        except NotADirectoryError:
            path.unlink()
    if os.path.lexists(path):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))


def _clear(folder: int, top: int) -> Iterator[str]:
    """Removes the files of a folder and moves its folders to the top; yields the names that these have there."""
    for name in os.listdir(f"/proc/self/fd/{folder}"):
        with suppress(OSError):
            try:
                os.unlink(name, dir_fd=folder)
            except IsADirectoryError:
                moved = name if folder == top else secrets.token_hex(8)
                with writable_folder(name, folder):
                    os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
                yield moved


@contextmanager
def writable_folder(path: Path | str, above: int | None = None) -> Iterator[int]:
    """Yields a descriptor (O_PATH) of a folder, which its owner may read, write and enter from now on; only such a
    folder can be moved to another. Follows no link.

    above: a descriptor of the folder that the path begins at. Raises OSError, NotADirectoryError for a link too.
    """
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if (mode := os.fstat(folder).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{folder}", stat.S_IMODE(mode) | stat.S_IRWXU)
        yield folder
    finally:
        os.close(folder)


def _remove_unless_locked(path: Path) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except PermissionError:
        with writable_folder(path) as folder:
            descriptor = os.open(".", flags, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            remove_folder(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def replace(path: Path, text: str) -> None:
    """Replaces a text file durably, keeping its owner and mode; others can never read it. Raises ConfigurationError."""
    try:
        before = path.stat() if path.exists() else None
        mode = before.st_mode & 0o770 if before else _MODE
        with replacing(path, mode) as temporary, open(temporary, "w", encoding="utf-8") as file:
            if before and os.geteuid() == 0:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            elif before is None:
                chown_to_folder_owner(file.fileno(), path)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
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
