"""What a run leaves on this machine when it does not come to its own end, and its removal. Knows no Ansible.

A module removes its temp directories when it ends in order; ended by a signal it leaves them, in places which every
`ansible` of the machine uses. So each run has a number, which flansible.runner.tempdir_tags makes part of the name of
each
such directory, and a record of the places where they may be. The keeper removes what bears its run's number, or the
fork server when the keeper was killed, or the next fork server when everything was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterable

import psutil

from flansible.runner import process_tree

_PREFIX = "ansible-local-"  # as Ansible has it: the name shows in the output of -vvv
_SUFFIX_LENGTH = 8  # what tempfile.mkdtemp appends
_RECORD = "flansible-run"
_USUAL_PLACES = ("/tmp", "/var/tmp", "/usr/tmp")  # where Python looks for a place for temp directories

# Of the numbers below 2**48, which Ansible draws for each directory, those with most digits.
_LOWEST, _NUMBERS = 10**14, 2**48 - 10**14


class RunFiles:
    """The local temp directory of one run, its number and its record: the number, then places, a line of JSON each."""

    def __init__(self, folder: str, number: int | None) -> None:
        """number: None when it is not known, and all that can be removed is the folder."""
        self.folder = folder
        self.number = number

    @classmethod
    def make(cls, base: str) -> RunFiles:
        """New ones. Their record stays locked until this process and all that were forked from it are gone."""
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}", dir=base)
        number = _LOWEST + secrets.randbelow(_NUMBERS)
        record = os.path.join(folder, _RECORD)
        # It gets its name when it is locked: who finds one unlocked may take the run for dead.
        descriptor = os.open(f"{record}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: no sweep can lock it either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, f"{number}\n".encode())
        os.rename(f"{record}.new", record)
        return cls(folder, number)

    @classmethod
    def at(cls, folder: str) -> RunFiles:
        """Those of a run that is over, or whose keeper is."""
        try:
            with open(os.path.join(folder, _RECORD)) as record:
                return cls(folder, int(record.readline()))
        except (OSError, ValueError):
            return cls(folder, None)

    @property
    def places(self) -> list[str]:
        """The directories that were noted."""
        try:
            with open(os.path.join(self.folder, _RECORD)) as record:
                return [json.loads(line) for line in list(record)[1:]]
        except (OSError, ValueError):
            return []

    def note(self, places: Iterable[str]) -> None:
        """Note directories before something with the run's number is made in them. Called in any process of the run."""
        new = {place for place in places if os.path.isabs(place)}.difference(self.places)
        # A place that cannot be noted is no reason for the play task to fail.
        with contextlib.suppress(OSError):
            if new:
                descriptor = os.open(os.path.join(self.folder, _RECORD), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                with open(descriptor, "w") as record:
                    record.write("".join(f"{json.dumps(place)}\n" for place in sorted(new)))

    def remove(self) -> None:
        """Remove all that bears the number. No process of the run may be alive."""
        if self.number is not None and (places := self.places):
            ours = re.compile(rf"ansible[-_].*[-_]{self.number}(?:[-_][a-z0-9_]{{{_SUFFIX_LENGTH}}})?")
            for place in {*places, *_USUAL_PLACES}:
                for name in _names(place):
                    if ours.fullmatch(name):
                        shutil.rmtree(os.path.join(place, name), ignore_errors=True)
        self.remove_folder()

    def remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def end_processes(self) -> None:
        """KILL what still runs a module of this run, with all that came from it, after everything of ours was killed.

        Such a process names a directory with the number on its command line; no other does.
        """
        ours = re.compile(rf"/ansible-tmp-[0-9.]+-[0-9]+-{self.number}/")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                if process.pid != os.getpid() and any(ours.search(word) for word in process.cmdline()):
                    _end_with_company(process)


def of_keeper(base: str, pid: int) -> list[RunFiles]:
    """Those of the keeper with this process id, when it was killed.

    In two sandboxes of one user, two keepers can have the same: what somebody has locked is the other's.
    """
    prefix = f"{_PREFIX}{pid}"
    # By its length as well: the number may be the beginning of another's.
    names = [name for name in _names(base) if name.startswith(prefix) and len(name) == len(prefix) + _SUFFIX_LENGTH]
    folders = [os.path.join(base, name) for name in names]
    return [RunFiles.at(folder) for folder in folders if not _is_locked(folder)]


def _is_locked(folder: str) -> bool:
    try:
        with open(os.path.join(folder, _RECORD), "rb+") as record:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no record, or a file system without locks
    return False


def sweep(base: str) -> None:
    """Remove what runs have left of whose processes, keeper included, none is alive. Others' directories: untouched."""
    for name in _names(base):
        if name.startswith(_PREFIX):
            folder = os.path.join(base, name)
            # Without a record it is not ours; while somebody has it locked, the run lives.
            with contextlib.suppress(OSError), open(os.path.join(folder, _RECORD), "rb+") as record:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files = RunFiles.at(folder)
                files.end_processes()
                files.remove()


def _end_with_company(process: psutil.Process) -> None:
    """It, its descendants, and its session: that was made by the worker of Ansible which had started it."""
    company = [process, *process.children(recursive=True)]
    session = os.getsid(process.pid)
    for other in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(other.pid) == session != os.getsid(0):
                company.append(other)
    for one in company:
        process_tree.send(one, signal.SIGKILL)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
