"""The zygote (flansible.runner.zygote) as its worker has it, and the fork servers that it forks.

Used by flansible.worker.forkserver_pool. A forked process is no child of the worker: the zygote sends a pidfd of it,
on which its end is seen and by which it is killed. When the zygote dies, what it has forked goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import time
from pathlib import Path

import flansible
from flansible import wire
from flansible.errors import NotForkable, RunnerError
from flansible.worker.ansible_config import Configuration
from flansible.worker.runner_process import MODULE, RunnerProcess, StartedProcess, environment_for
from flansible.worker.sandbox import Sandbox

# Read by Python and its libraries as they start: a process that has started keeps what they were.
_READ_ON_START = re.compile(r"OPENSSL_|PYTHON|LC_|LANG|HOME$|TZ$")
_OF_CONFIGURATION = re.compile(r"_?ANSIBLE_|NO_COLOR$|PAGER$")
_NEUTRAL = Path(flansible.__file__).parent / "runner" / "neutral.cfg"
_ANSWER_SECONDS = 15.0  # the worker continues what is stopped every few seconds


class Zygote(StartedProcess):
    """A process with Ansible preloaded, under no configuration."""

    def __init__(
        self,
        limits: tuple[int, int] | None = None,
        pack_usual: bool = False,
        sandbox: Sandbox | None = None,
    ) -> None:
        """limits: soft and hard limit on open files; pack_usual: as in `fork`. Raises RunnerError."""
        own = {name: value for name, value in environment_for(sandbox).items() if not _OF_CONFIGURATION.match(name)}
        self._environment = own
        self._is_late = False
        self.used_at = time.monotonic()
        words = ["zygote", *(["usual"] if pack_usual else [])]
        words += [f"files={limits[0]}:{limits[1]}"] if limits else []
        super().__init__("/", {**own, "ANSIBLE_CONFIG": str(_NEUTRAL)}, words, sandbox, MODULE)

    @property
    def can_fork(self) -> bool:
        return self.alive and not self._is_late

    def fork(self, configuration: Configuration, pack_usual: bool = False) -> ForkedProcess:
        """Forks a fork server. Raises NotForkable where one has to be started, and says why.

        pack_usual: while idle after its start, it packs modules that most services need.
        """
        environment = {**environment_for(configuration.sandbox), **dict(configuration.environment)}
        names = {name for name in {*environment, *self._environment} if _READ_ON_START.match(name)}
        if differing := sorted(name for name in names if environment.get(name) != self._environment.get(name)):
            raise NotForkable(f"environment: {', '.join(differing)}")
        self.used_at = time.monotonic()
        process = ForkedProcess(self)
        process.configure(configuration.directory, environment, pack_usual)
        return process

    def request_fork(self, control: int, stderr: int) -> int:
        """Has a process forked with these descriptors; returns its pidfd. Raises NotForkable."""
        with self._lock:
            try:
                self._control.settimeout(_ANSWER_SECONDS)
                socket.send_fds(self._control, [b"F"], [control, stderr])
                _, received, _, _ = socket.recv_fds(self._control, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError as error:
                # An answer that comes too late would be taken for the next one. It may be stopped, or just slow, and
                # what it has forked goes on.
                self._is_late = True
                raise NotForkable("the zygote does not answer") from error
        if not received:
            raise NotForkable("the zygote cannot fork")
        if _pid_of(received[0]) is None:
            # In a sandbox its user's code may have had it send something else.
            os.close(received[0])
            self._is_late = True
            raise NotForkable("the zygote does not answer")
        return received[0]


class ForkedProcess(RunnerProcess):
    """A fork server that a zygote has forked, in the zygote's sandbox if it has one."""

    def __init__(self, zygote: Zygote) -> None:
        super().__init__()
        self.zygote = zygote
        self._pidfd: int | None = None
        try:
            self._pidfd = zygote.request_fork(self._theirs.fileno(), self._stderr.fileno())
        except RunnerError:
            self.hang_up()
            raise
        finally:
            self._theirs.close()
        self.pid = _pid_of(self._pidfd) or -1

    def __del__(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    @property
    def is_sandboxed(self) -> bool:
        return self.zygote.is_sandboxed

    def configure(self, directory: str, environment: dict[str, str], pack_usual: bool) -> None:
        """Has it take on a configuration. Raises NotForkable, when it cannot; then it has ended."""
        frame = {"type": "configure", "directory": directory, "environment": environment, "pack_usual": pack_usual}
        with contextlib.suppress(OSError):
            self._control.sendall(wire.encode(frame))
        answer = self.await_frame()
        if answer is None or answer.get("type") == "refused":
            self.close()
            raise NotForkable(str(answer["reason"]) if answer else "it ended before it was ready")
        self.first_frame = answer

    def wait(self, seconds: float) -> bool:
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        with contextlib.suppress(ChildProcessError):  # our child only as process 1, when its zygote has died
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        return True

    def kill_process(self) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def kill_sandbox(self) -> None:
        self.zygote.kill_sandbox()

    def is_gone(self) -> bool:
        return not self.alive and (not self.is_sandboxed or self.zygote.is_gone())


def _pid_of(pidfd: int) -> int | None:
    """Returns the process id in our own namespace; -1 when it has ended; None when this is no pidfd."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.removeprefix("Pid:"))
    return None
