"""Temporary files and processes that a run leaves on this machine, and their removal. Without Ansible.

A module removes its temp directories when it ends normally; ended by a signal it leaves them, in directories that every
`ansible` of the machine uses. So each run has a number, which flansible.runner.tempdir_tags makes part of the name of
each such directory, and a record of the directories that may hold them. They are removed by the keeper; by the fork
server when the keeper was killed; by the next fork server when all of them were.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from flansible.runner import process_tree
from flansible.runner.ansible_internals import replace
from flansible.system import atomic_files

_PREFIX = "ansible-local-"  # as Ansible has it: the name shows in the output of -vvv
_NEW_PREFIX = "flansible-new-"  # until it has its record
_OLD_SECONDS = 60.0  # so long after its start a run has its record, in older versions
_SUFFIX_LENGTH = 8  # what tempfile.mkdtemp appends
_RECORD = "flansible-run"
_USUAL_DIRECTORIES = ("/tmp", "/var/tmp", "/usr/tmp")  # where Python makes temp directories by default

# Of the numbers below 2**48, which Ansible draws for each directory, those with most digits.
_LOWEST, _NUMBERS = 10**14, 2**48 - 10**14


class RunFiles:
    """One run's local temp directory, number and record (a file: the number, then one directory a line, as JSON)."""

    def __init__(self, folder: str, number: int | None) -> None:
        """number: None when unknown; then only the folder can be removed."""
        self.folder = folder
        self.number = number

    @classmethod
    def make(cls, base: str) -> RunFiles:
        """Makes the folder and its record, locked until this process and all forked from it have ended.

        Raises OSError, with the folder's path, and leaves nothing then.
        """
        number = _LOWEST + secrets.randbelow(_NUMBERS)
        descriptor = None
        try:
            # The folder gets its name once it has a record, and that is locked: a process that finds the folder
            # without takes the run for dead.
            with atomic_files.new_folder(Path(base), _NEW_PREFIX) as new:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(new / _RECORD, flags, 0o600)
                with contextlib.suppress(OSError):  # a file system without locks: no sweep can lock it either
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.write(descriptor, f"{number}\n".encode())
                folder = os.path.join(base, f"{_PREFIX}{os.getpid()}{secrets.token_hex(_SUFFIX_LENGTH // 2)}")
                os.rename(new, folder)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            raise OSError(error.errno, error.strerror, base) from error
        return cls(folder, number)

    @classmethod
    def at(cls, folder: str) -> RunFiles:
        """Reads the record of a run's folder. For a run that has ended, or whose keeper has."""
        try:
            with open(os.path.join(folder, _RECORD)) as record:
                return cls(folder, int(record.readline()))
        except (OSError, ValueError):
            return cls(folder, None)

    @property
    def directories(self) -> list[str]:
        """The recorded directories."""
        try:
            with open(os.path.join(self.folder, _RECORD)) as record:
                return [json.loads(line) for line in list(record)[1:]]
        except (OSError, ValueError):
            return []

    def add_directories(self, directories: Iterable[str]) -> None:
        """Records directories before a tagged path is made in them. Called in any process of the run."""
        new = {directory for directory in directories if os.path.isabs(directory)}.difference(self.directories)
        # A directory that cannot be recorded must not make the play task fail.
        with contextlib.suppress(OSError):
            if new:
                descriptor = os.open(os.path.join(self.folder, _RECORD), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                with open(descriptor, "w") as record:
                    record.write("".join(f"{json.dumps(directory)}\n" for directory in sorted(new)))

    def remove(self) -> None:
        """Removes every temporary path tagged with this run's number. No process of the run may be alive."""
        if self.number is not None and (directories := self.directories):
            ours = re.compile(rf"ansible[-_].*[-_]{self.number}(?:[-_][a-z0-9_]{{{_SUFFIX_LENGTH}}})?")
            for directory in {*directories, *_USUAL_DIRECTORIES}:
                for name in _list_or_empty(directory):
                    if ours.fullmatch(name):
                        _remove_if_possible(os.path.join(directory, name))
        self.remove_folder()

    def remove_folder(self) -> None:
        _remove_if_possible(self.folder)

    def end_processes(self) -> None:
        """Kills what still runs a module of this run, and its process tree, after our own processes were killed.

        Only such a process has a tagged directory on its command line.
        """
        ours = re.compile(rf"/ansible-tmp-[0-9.]+-[0-9]+-{self.number}/")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                if process.pid != os.getpid() and any(ours.search(word) for word in process.cmdline()):
                    _kill_with_session(process)


@contextlib.contextmanager
def without_own_temp_dir() -> Iterator[None]:
    """Ansible makes a local temp directory when it is imported; within this block it does not.

    Each run makes its own. That of a fork server which is killed while it starts would stay: it has no record, so no
    sweep can tell it from that of somebody's `ansible`. constants.DEFAULT_LOCAL_TMP is a path where nothing is.
    """

    def name_or_make(suffix: Any = None, prefix: Any = None, dir: Any = None) -> Any:
        if prefix == f"{_PREFIX}{os.getpid()}":
            return os.path.join(dir, f"{prefix}-not-made")
        return make(suffix, prefix, dir)

    make = replace(tempfile, "mkdtemp", name_or_make)
    try:
        yield
    finally:
        replace(tempfile, "mkdtemp", make)


def files_of_killed_keeper(base: str, pid: int) -> list[RunFiles]:
    """Finds the files of the killed keeper with this process id; removes those of one that was killed as it made them.

    Two sandboxes of one user can have two keepers with one process id: locked files belong to the other, which lives.
    """
    prefix = f"{_PREFIX}{pid}"
    # The length too: one process id may be a prefix of another.
    names = [
        name for name in _list_or_empty(base) if name.startswith(prefix) and len(name) == len(prefix) + _SUFFIX_LENGTH
    ]
    atomic_files.remove_abandoned(Path(base), _NEW_PREFIX)
    folders = [os.path.join(base, name) for name in names]
    return [RunFiles.at(folder) for folder in folders if not _is_locked(folder)]


def _is_locked(folder: str, name: str = _RECORD) -> bool:
    try:
        with open(os.path.join(folder, name), "rb+") as record:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no record, or a file system without locks
    return False


def sweep(base: str) -> None:
    """Removes the files of runs whose processes, keeper included, are all dead. Other directories stay untouched."""
    atomic_files.remove_abandoned(Path(base), _NEW_PREFIX)
    for name in _list_or_empty(base):
        folder = os.path.join(base, name)
        if _is_unfinished(folder, name):
            _remove_if_possible(folder)
        elif name.startswith(_PREFIX):
            # Without a record it is not ours; while the record is locked, the run lives.
            with contextlib.suppress(OSError), open(os.path.join(folder, _RECORD), "rb+") as record:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files = RunFiles.at(folder)
                files.end_processes()
                files.remove()


def _is_unfinished(folder: str, name: str) -> bool:
    """Whether this is the folder of a run of an older version that never began: its disk was full, or its keeper was
    killed. It has a name that is longer than ours, or its last one, and then its record has another.
    """
    record = _RECORD if name.startswith(_NEW_PREFIX) else f"{_RECORD}.new"
    if not name.startswith((_NEW_PREFIX, _PREFIX)):
        return False
    try:
        names = os.listdir(folder)
        is_old = time.time() - os.stat(folder).st_mtime > _OLD_SECONDS
    except OSError:
        return False
    has_only_it = names == [record] or (not names and name.startswith(_NEW_PREFIX))
    return is_old and has_only_it and not _is_locked(folder, record)


def _kill_with_session(process: psutil.Process) -> None:
    """Kills a process, its descendants, and its session, which the Ansible worker that started it had made."""
    processes = [process, *process.children(recursive=True)]
    session = os.getsid(process.pid)
    for other in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(other.pid) == session != os.getsid(0):
                processes.append(other)
    for one in processes:
        process_tree.send(one, signal.SIGKILL)


def _remove_if_possible(folder: str) -> None:
    with contextlib.suppress(OSError):
        atomic_files.remove_folder(Path(folder))


def _list_or_empty(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
