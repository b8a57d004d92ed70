"""A shelf: folders that are built once, shared read-only by all runs that need them, and removed when none does.

    shown/<shelf>/<key>/          the folder, as runs see it
    shown/locks/<shelf>-<key>     shared lock of each run that uses it
    kept/<shelf>-<key>.lock       shared lock of each worker whose run uses it; its time is that of the last use
    kept/<shelf>-<key>.json       written last: the folder is complete, how large it is, and when it was changed
    kept/<shelf>-<key>.build      exclusive lock of who builds it

Locks are the kernel's (flock), so whoever is killed has let go of them. A run has its lease itself, beside that of its
worker: the runs of a killed worker live some seconds longer. A user's code can hold the run's lock for ever, which
keeps the folder from being removed and nobody from using it: nobody waits for that lock. The worker's lock file goes
with the folder; who has opened it meanwhile sees that the name is another file now, and begins again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flansible.system.atomic_files import new_folder, remove_folder, replacing

_NEW, _GONE = ".new-", ".gone-"
_BLOCK = 512


@dataclass(frozen=True)
class Stamp:
    """What a complete folder was when it was built. changed: the latest change of an entry's inode, nanoseconds."""

    bytes: int
    entries: int
    changed: int


@dataclass(frozen=True)
class FolderLease:
    """Keeps one folder from being removed, until it is closed. run_lock: the file that its run locks."""

    path: Path
    run_lock: Path
    descriptor: int

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True)
class Item:
    """One folder of a shelf. since: when it was built; used: when a run took it last; seconds since 1970."""

    shelf: Shelf
    key: str
    since: float
    used: float
    bytes: int


class Shelf:
    """One shelf of a project. folder: the project's; name: the shelf's."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / "shown" / name
        self._locks = folder / "shown" / "locks"
        self._kept = folder / "kept"
        self._name = name

    def make(self) -> None:
        """Makes its folders. Raises OSError."""
        for path in (self._folder, self._locks, self._kept):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        return self._folder / key

    def is_there(self, key: str) -> bool:
        """Whether the folder is complete. Only who holds a lease may count on it."""
        return self._stamp_file(key).exists()

    def lease(self, key: str) -> FolderLease:
        """Waits while the folder is being removed. Raises OSError."""
        lock = self._lock_file(key)
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if _is_same(descriptor, lock):
                    os.utime(descriptor)
                    self._run_lock(key).touch()
                    return FolderLease(self.path(key), self._run_lock(key), descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    @contextmanager
    def building(self, key: str, may_wait: bool = True) -> Iterator[Path | None]:
        """Yields a folder to build in, which then gets its name at once; None when another process has built it.

        The caller holds a lease. One builds and the others wait, or get a BlockingIOError. Raises OSError.
        """
        with open(self._kept / f"{self._name}-{key}.build", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if may_wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.is_there(key):
                yield None
                return
            with new_folder(self._folder, _NEW) as aside:
                yield aside
                os.chmod(aside, 0o755)  # nosec B103: runs as other users read it; data_dir is private
                self._set_aside(key)  # what a killed process has left half finished
                os.rename(aside, self.path(key))
            _make_read_only(self.path(key))
            with replacing(self._stamp_file(key), mode=0o644) as temporary:
                temporary.write_text(json.dumps(vars(measure(self.path(key)))))

    def size(self, key: str) -> int:
        """Returns the bytes of a complete folder. Raises OSError."""
        return self._stamp(key).bytes

    def is_changed(self, key: str) -> bool:
        """Whether something has written into the folder since it was built."""
        try:
            return measure(self.path(key)) != self._stamp(key)
        except (OSError, ValueError, RecursionError):
            return True

    def withdraw(self, key: str) -> None:
        """Has the next run build the folder anew; those that use it go on in what they have."""
        self._stamp_file(key).unlink(missing_ok=True)
        self._set_aside(key)

    def items(self) -> Iterator[Item]:
        """Yields the complete folders."""
        for path in self._kept.glob(f"{self._name}-*.json"):
            key = path.name.removeprefix(f"{self._name}-").removesuffix(".json")
            with contextlib.suppress(OSError, ValueError):
                yield Item(
                    self, key, path.stat().st_mtime, self._lock_file(key).stat().st_mtime, self._stamp(key).bytes
                )

    def is_used(self, key: str) -> bool:
        """Whether a worker on this machine has a lease. Who wants one at this moment waits for the answer."""
        with contextlib.suppress(FileNotFoundError), open(self._lock_file(key), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def remove_unused(self, key: str) -> bool:
        """Removes a folder that nobody has a lease on; whether it did. Raises OSError."""
        with ExitStack() as stack:
            if not self._is_unused(key, stack):
                return False
            self._stamp_file(key).unlink(missing_ok=True)
            gone = self._set_aside(key)
            (self._kept / f"{self._name}-{key}.build").unlink(missing_ok=True)
            for lock in (self._run_lock(key), self._lock_file(key)):
                lock.unlink(missing_ok=True)
        if gone is not None:
            remove_folder(gone)
        return True

    def sweep(self) -> None:
        """Removes what is set aside or incomplete and no run uses: a killed process has left it, or its run ended."""
        for path in self._kept.glob(f"{self._name}-*.lock"):
            key = path.name.removeprefix(f"{self._name}-").removesuffix(".lock")
            if not self.is_there(key):
                with contextlib.suppress(OSError):
                    self.remove_unused(key)
        for path in self._folder.glob(f"{_GONE}*"):
            key = path.name.removeprefix(_GONE).rpartition("-")[0]
            with contextlib.suppress(OSError), ExitStack() as stack:
                if self._is_unused(key, stack):
                    remove_folder(path)

    def _is_unused(self, key: str, stack: ExitStack) -> bool:
        """Whether nobody has a lease; until the stack is closed nobody gets one. Raises OSError."""
        for path in (self._lock_file(key), self._run_lock(key)):
            with contextlib.suppress(FileNotFoundError):  # then nobody has it
                lock = stack.enter_context(open(path, "rb"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                if not _is_same(lock.fileno(), path):
                    return False
        return True

    def _set_aside(self, key: str) -> Path | None:
        gone = self._folder / f"{_GONE}{key}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(key), gone)
            return gone
        return None

    def _stamp(self, key: str) -> Stamp:
        return Stamp(**json.loads(self._stamp_file(key).read_text()))

    def _stamp_file(self, key: str) -> Path:
        return self._kept / f"{self._name}-{key}.json"

    def _lock_file(self, key: str) -> Path:
        return self._kept / f"{self._name}-{key}.lock"

    def _run_lock(self, key: str) -> Path:
        return self._locks / f"{self._name}-{key}"


def make_room(shelves: list[Shelf], most_bytes: int, kept_seconds: float, now: float) -> None:
    """Removes folders that no run uses: those not used for so long, then the longest unused, until the rest fits."""
    for shelf in shelves:
        shelf.sweep()
    found = sorted((item for shelf in shelves for item in shelf.items()), key=lambda item: item.used)
    total = sum(item.bytes for item in found)
    for item in found:
        if total <= most_bytes and now - item.used <= kept_seconds:
            continue
        with contextlib.suppress(OSError):
            if item.shelf.remove_unused(item.key):
                total -= item.bytes


def measure(folder: Path) -> Stamp:
    """Measures a folder with all in it. Raises OSError."""
    size = entries = changed = 0
    # The folder itself is left out: making it got its name changes it.
    for above, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            found = os.lstat(os.path.join(above, name))
            size += found.st_blocks * _BLOCK
            entries += 1
            changed = max(changed, found.st_ctime_ns)
    return Stamp(size, entries, changed)


def make_writable(folder: Path) -> None:
    """Gives the owner the right to write in a folder and all in it. Raises OSError."""
    for above, _, names in os.walk(folder, onerror=_raise):
        for path in (above, *(os.path.join(above, name) for name in names)):
            if not os.path.islink(path):
                os.chmod(path, os.lstat(path).st_mode | stat.S_IWUSR)


def _make_read_only(folder: Path) -> None:
    for above, _, names in os.walk(folder, topdown=False, onerror=_raise):
        for name in names:
            path = os.path.join(above, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chmod(path, 0o555 if mode & stat.S_IXUSR else 0o444)
        os.chmod(above, 0o555)  # nosec B103: likewise, and nobody writes


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _raise(error: OSError) -> None:
    raise error
