"""A run's keeper as its worker sees it: to kill it from outside, with all below it, when it does not react.

A keeper may be stopped (SIGSTOP) by what its run does, if that is not in a sandbox. A sandbox is killed by the kernel
instead (`ForkServer.kill_sandbox`). Used by the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Self

import psutil

from flansible.worker.fork_server import ForkServer

_POLL_SECONDS = 0.02
_KILL_SECONDS = 5.0


class KeeperHandle:
    """Holds a pidfd, so that the number of a keeper that has ended is never taken for it."""

    def __init__(self, pid: int, fork_server: int) -> None:
        """Raises OSError or psutil.Error when there is no such child of this fork server."""
        self._pidfd = os.pidfd_open(pid)
        self._fork_server = fork_server
        self._process = psutil.Process(pid)
        if self._process.ppid() != fork_server:
            self.close()
            raise ProcessLookupError(f"process {pid} is no keeper of fork server {fork_server}")

    @classmethod
    def of(cls, pid: object, server: ForkServer) -> Self | None:
        """The keeper of this number; None in a sandbox, where its number is another, and when it has ended."""
        try:
            return cls(pid, server.pid) if type(pid) is int and pid > 0 and not server.is_sandboxed else None
        except (OSError, psutil.Error):
            return None

    def kill(self) -> tuple[str, ...]:
        """Kills everything below the keeper, then the keeper; returns what it killed, each as "name (pid)".

        In this order: as long as it is there, even stopped, the orphans of what was killed become its children.
        """
        killed: dict[int, str] = {}
        give_up_at = time.monotonic() + _KILL_SECONDS
        while not self._has_ended() and (left := self._below()) and time.monotonic() < give_up_at:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    killed.setdefault(process.pid, f"{process.name()} ({process.pid})")
                    process.kill()
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        # It reaps the keeper and removes the run's files, if it was not stopped as well.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._fork_server, signal.SIGCONT)
        return tuple(killed.values())

    def close(self) -> None:
        os.close(self._pidfd)

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _below(self) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.Error):
            for process in self._process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found
