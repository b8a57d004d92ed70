"""Copies what is shown of folders with very many pieces, so that one mount shows them all.

Called by flansible.worker.mounts in the worker. A snapshot is a folder in data_dir, named by the versions of all files
in it: an edited file makes another one, for the next run. While a sandbox shows it, its fork server holds a lock on it;
those that are not in use for an hour are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flansible.authorization.path_parts import is_below
from flansible.errors import RunnerError
from flansible.system.atomic_files import new_folder, remove_folder

_FOLDER = "homes/.shown"
_LOCK = ".lock"
_LARGE_FILE = 1024 * 1024
_MOST_ENTRIES = 1000  # of one folder that is copied
_MOST_FOLDER_BYTES = 8 * 1024 * 1024
_MOST_PIECES = 2500  # bubblewrap takes no more arguments, and half a minute for these
_UNUSED_SECONDS = 3600.0


@dataclass
class OpenedFolder:
    """A folder that is shown piece by piece. links: text and path of each; folders: those in it that are opened too."""

    target: str
    links: list[tuple[str, str]] = field(default_factory=list)
    folders: list[OpenedFolder] = field(default_factory=list)


@dataclass
class SnapshotPlan:
    """opened: the folders; copied: source and target of files, folders and links; mounted: what is mounted in them."""

    opened: list[OpenedFolder]
    copied: list[Copied] = field(default_factory=list)
    mounted: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Copied:
    source: str
    target: str
    stamp: tuple[int, ...]
    is_folder: bool = False
    link: str | None = None


def plan(
    opened: list[OpenedFolder], pieces: Iterable[tuple[str, str]], most_mounts: int, never: frozenset[str]
) -> SnapshotPlan:
    """Decides which pieces of the opened folders are copied: small files, and the smallest folders until few are left.

    never: what is not copied. Raises RunnerError when too many are left.
    """
    found = SnapshotPlan(opened)
    folders: list[tuple[int, str, str, list[Copied]]] = []
    for source, target in pieces:
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            is_kept = any(is_below(path, source) for path in never)
            entries = None if is_kept else _small_folder(source, target)
            if entries is None:
                found.mounted.append((source, target))
            else:
                folders.append((len(entries), source, target, entries))
        elif status.st_size <= _LARGE_FILE:
            found.copied.append(_copied(source, target, status))
        else:
            found.mounted.append((source, target))
    folders.sort()
    copied = max(0, len(folders) + len(found.mounted) - max(0, most_mounts))
    for index, (_, source, target, entries) in enumerate(folders):
        if index < copied:
            found.copied += entries
        else:
            found.mounted.append((source, target))
    if len(found.mounted) > _MOST_PIECES:
        message = (
            f"what this run may see has {len(found.mounted)} large pieces; no more than {_MOST_PIECES} can be shown"
        )
        raise RunnerError(message)
    return found


def make(found: SnapshotPlan, data_dir: Path) -> str:
    """Makes the snapshot, unless it exists; returns its path. Raises OSError."""
    top = data_dir / _FOLDER
    path = top / _digest(found)
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(path.name + _LOCK)
    lock.touch(mode=0o600)
    if path.is_dir():
        return str(path)
    with new_folder(top, ".new-") as new:
        try:
            _fill(str(new), found)
            os.rename(new, path)
        except OSError:
            if not path.is_dir():
                raise
    _remove_unused(top, keep=path.name)
    return str(path)


def path_in(snapshot: str, target: str) -> str:
    """Returns where a path of the sandbox lies in a snapshot."""
    return snapshot + target


def hold(snapshot: str | None) -> int | None:
    """Locks a snapshot against its removal, until the returned descriptor is closed. None where there is none."""
    if snapshot is None:
        return None
    descriptor = os.open(snapshot + _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _small_folder(source: str, target: str) -> list[Copied] | None:
    """Returns all that is in a folder; None if it is too much to be copied, or something in it cannot be read."""
    found = [_copied(source, target, os.lstat(source))]
    size = 0
    try:
        for entry in _walk(source):
            status = entry.stat(follow_symlinks=False)
            size += status.st_size
            if len(found) >= _MOST_ENTRIES or size > _MOST_FOLDER_BYTES:
                return None
            found.append(_copied(entry.path, target + entry.path[len(source) :], status))
    except OSError:
        return None
    return found


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.is_symlink() or entry.is_file(follow_symlinks=False):
                yield entry
            if is_folder:
                yield from _walk(entry.path)


def _copied(source: str, target: str, status: os.stat_result) -> Copied:
    stamp = (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    is_folder = stat.S_ISDIR(status.st_mode)
    link = os.readlink(source) if stat.S_ISLNK(status.st_mode) else None
    return Copied(source, target, (status.st_mode,) if is_folder else stamp, is_folder, link)


def _digest(found: SnapshotPlan) -> str:
    digest = hashlib.sha256()
    for one in found.copied:
        digest.update(repr((one.source, one.target, one.stamp, one.link)).encode())
    digest.update(repr([(source, target, os.path.isdir(source)) for source, target in found.mounted]).encode())
    waiting = list(found.opened)
    while waiting:
        folder = waiting.pop()
        digest.update(repr((folder.target, folder.links)).encode())
        waiting += folder.folders
    return digest.hexdigest()[:32]


def _fill(top: str, found: SnapshotPlan) -> None:
    for folder in found.opened:
        os.makedirs(path_in(top, folder.target), exist_ok=True)
        _make_opened(top, folder)
    for one in found.copied:
        _copy(one, path_in(top, one.target))
    for source, target in found.mounted:
        place = path_in(top, target)
        os.makedirs(place if os.path.isdir(source) else os.path.dirname(place), exist_ok=True)
        if not os.path.isdir(source):
            Path(place).touch()
    for one in reversed(found.copied):
        if one.is_folder:
            os.chmod(path_in(top, one.target), stat.S_IMODE(one.stamp[0]) & 0o777 | 0o700)


def _make_opened(top: str, folder: OpenedFolder) -> None:
    for text, target in folder.links:
        os.symlink(text, path_in(top, target))
    for inner in folder.folders:
        os.makedirs(path_in(top, inner.target), exist_ok=True)
        _make_opened(top, inner)


def _copy(one: Copied, place: str) -> None:
    # A tree of its own may lie in a folder that is not shown.
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if one.is_folder:
        os.makedirs(place, exist_ok=True)
    elif one.link is not None:
        os.symlink(one.link, place)
    else:
        # A link in its place by now leads elsewhere.
        with contextlib.suppress(PermissionError):
            descriptor = os.open(one.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as source, open(place, "xb") as copy:
                copy.write(source.read(_LARGE_FILE))
                os.fchmod(copy.fileno(), stat.S_IMODE(one.stamp[2]) & 0o777)
            os.utime(place, ns=(one.stamp[4], one.stamp[4]))


def _remove_unused(top: Path, keep: str) -> None:
    """Removes snapshots that no sandbox shows and no build has asked for within the hour."""
    for lock in top.glob(f"*{_LOCK}"):
        name = lock.name.removesuffix(_LOCK)
        with contextlib.suppress(OSError):
            if name == keep or time.time() - lock.stat().st_mtime < _UNUSED_SECONDS:
                continue
            with open(lock) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_folder(top / name)
                lock.unlink()
