"""Who is who among the processes below this test: the roles of a service, its runs, and what nobody answers for.

The test process is a child subreaper (tests/conftest.py), so whatever a service ever started is found below it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_FORK_SERVER = "flansible.runner.forkserver"


@dataclass(frozen=True)
class Seen:
    """One process at one moment."""

    process: psutil.Process
    parent: int
    words: tuple[str, ...]
    leads_session: bool

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_runner(self) -> bool:
        """A zygote or fork server, or what was forked from one: keeper, run, worker of Ansible's."""
        return _FORK_SERVER in self.words

    @property
    def line(self) -> str:
        return f"{self.pid} (parent {self.parent}): {' '.join(self.words)[:200]}"


class Tree:
    """Everything below this test that is alive, as it was when this was made."""

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    leads = leads_session(process.pid)
                    self.seen[process.pid] = Seen(process, process.ppid(), tuple(process.cmdline()), leads)

    def children(self, pid: int) -> list[Seen]:
        return [item for item in self.seen.values() if item.parent == pid]

    def below(self, pid: int) -> list[Seen]:
        found, ahead = [], [pid]
        while ahead:
            children = self.children(ahead.pop())
            found += children
            ahead += [child.pid for child in children]
        return found

    def role(self, up: int, name: str) -> Seen | None:
        """A child of `up`: redis, worker or web."""
        for child in self.children(up):
            if name in child.words or (name == "redis" and "redis-server" in child.words[0]):
                return child
        return None

    def zygotes(self) -> list[Seen]:
        return [item for item in self._started() if "zygote" in item.words]

    def fork_servers(self) -> list[Seen]:
        """Those that a zygote has forked lead a session each; its child that packs a module does not."""
        forked = [child for zygote in self.zygotes() for child in self.children(zygote.pid) if child.is_runner]
        started = [item for item in self._started() if "zygote" not in item.words]
        return started + [child for child in forked if child.leads_session]

    def keepers(self) -> list[Seen]:
        """Above a run each; a child that packs a module has none below it."""
        found = [child for server in self.fork_servers() for child in self.children(server.pid) if child.is_runner]
        return [child for child in found if any(below.is_runner for below in self.children(child.pid))]

    def runs(self) -> list[Seen]:
        return [child for keeper in self.keepers() for child in self.children(keeper.pid) if child.is_runner]

    def ansible_workers(self) -> list[Seen]:
        return [child for run in self.runs() for child in self.children(run.pid) if child.is_runner]

    def unanswered_for(self, ups: Iterable[int], servers: Iterable[int]) -> list[str]:
        """When no task runs: what is not a role of a service, and not one of the tests' own servers."""
        own = {pid for server in servers for pid in (server, *(item.pid for item in self.below(server)))}
        known = {item.pid: item for up in ups for item in self.below(up)} | {up: self.seen.get(up) for up in ups}
        return [
            item.line
            for item in self.seen.values()
            if item.pid not in own and (item.pid not in known or self._is_of_a_run(item))
        ]

    def _started(self) -> list[Seen]:
        return [item for item in self.seen.values() if item.is_runner and not self._forked(item)]

    def _forked(self, item: Seen) -> bool:
        parent = self.seen.get(item.parent)
        return parent is not None and parent.is_runner

    def _is_of_a_run(self, item: Seen) -> bool:
        """Below a fork server; or a runner that has lost its fork server, or a fork server without its zygote."""
        if any(item.pid == server.pid for server in self.fork_servers()) and self._forked(item):
            return False
        if item.is_runner:
            parent = self.seen.get(item.parent)
            return self._forked(item) or parent is None or "worker" not in parent.words
        return self._forked(item) or any(self._forked(above) for above in self._above(item))

    def _above(self, item: Seen) -> list[Seen]:
        found = []
        while (parent := self.seen.get(item.parent)) is not None:
            found.append(parent)
            item = parent
        return found


def processes_naming(words: Iterable[str]) -> dict[str, list[str]]:
    """Of these words, those on the command line of some process below this test, with the processes."""
    wanted, found = set(words), dict[str, list[str]]()
    if wanted:
        for item in Tree().seen.values():
            line = " ".join(item.words)
            for word in wanted:
                if word in line:
                    found.setdefault(word, []).append(item.line)
    return found


def kill(victims: Iterable[Seen | psutil.Process]) -> None:
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            (victim.process if isinstance(victim, Seen) else victim).kill()


def reap_orphans(popened: Iterable[int]) -> None:
    """Take note of the end of what came to us as subreaper; what a Popen of ours started is left to it."""
    keep = set(popened)
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.pid not in keep and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


@dataclass(frozen=True)
class Descriptors:
    """How many a process has open: connections, which pools may keep, and everything else, which must be level."""

    connections: int
    others: tuple[str, ...]

    def without(self, kind: str) -> Descriptors:
        """Leaves one of a kind out."""
        others = list(self.others)
        others.remove(kind)
        return Descriptors(self.connections, tuple(others))


def descriptors(pid: int) -> Descriptors:
    """Raises OSError when the process is gone."""
    connections, others = 0, []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(Path(f"/proc/{pid}/fd/{name}"))
            # The broker's come in pairs; a connection to SQLite has a file or three.
            if (
                target.startswith("socket:")
                or target == "anon_inode:[eventpoll]"
                or target.endswith("/history.sqlite3")
            ):
                connections += 1
            elif not target.endswith(("/history.sqlite3-wal", "/history.sqlite3-shm")):
                others.append(_kind(target))
    return Descriptors(connections, tuple(sorted(others)))


def _kind(target: str) -> str:
    if target.endswith(" (deleted)"):
        return "a file without a name"
    return "pipe" if target.startswith("pipe:") else target


def keeper_of(process: psutil.Process) -> tuple[psutil.Process, psutil.Process]:
    """The keeper above a process of a run, and its fork server."""
    above = [one for one in process.parents() if _FORK_SERVER in one.cmdline()]
    # Runs, fork servers and the zygote lead a session each.
    [*_, keeper] = [one for one in above if not leads_session(one.pid)]
    return keeper, above[above.index(keeper) + 1]


def leads_session(pid: int) -> bool:
    """Raises psutil.NoSuchProcess."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError as error:
        raise psutil.NoSuchProcess(pid) from error


def sleepers(mark: str) -> list[int]:
    """Asked again and again while something is waited for: psutil would look at much more of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # over by now
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def detached(mark: str) -> dict[str, Any]:
    """A command that starts sleepers in every way a process can try to get away."""
    script = f"setsid sleep {mark} & nohup sleep {mark} & (trap '' TERM; sh -c 'sleep {mark}; true') & sleep {mark}"
    return {"module": "shell", "module_args": script}


def marked(mark: str) -> list[psutil.Process]:
    """The processes whose command line holds the mark. (psutil takes three times as long to look at all.)"""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError, psutil.Error):
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():  # which a zombie has not
                found.append(psutil.Process(int(pid)))
    return found


def sleeping(mark: str) -> list[psutil.Process]:
    """Those that do the sleeping, not the shells and Python programs that name it."""
    found = []
    for process in marked(mark):
        try:
            if process.name() == "sleep":
                found.append(process)
        except psutil.Error:
            continue
    return found


def new_mark() -> str:
    """A number of seconds that no other process sleeps."""
    return f"300.{uuid.uuid4().int % 10**9:09d}"
