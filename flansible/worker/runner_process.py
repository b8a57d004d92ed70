"""A process of the runner as its worker has it: started by exec, in a sandbox for a confined user, or forked by one.

`RunnerProcess` is what both have: a control socket, on whose end the process ends, and a file for standard error.
`StartedProcess` is one that was started; flansible.worker.zygote_handle has the forked ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import IO

from flansible import wire
from flansible.errors import RunnerError, StartFailure, WireError
from flansible.models import Confinement
from flansible.system import process_identity
from flansible.system.session_keyring import call_in_new_session_keyring
from flansible.worker import snapshots
from flansible.worker.sandbox import Sandbox

START_TIMEOUT_SECONDS = 60.0
EXIT_SECONDS = 5.0
MODULE = "flansible.runner.forkserver"
_STDERR_BYTES = 16 * 1024
_SERVICE_VARIABLES = ("FLANSIBLE_", "CELERY_", "_MP_FORK_", "FORKED_BY_MULTIPROCESSING")


def environment_for(sandbox: Sandbox | None) -> dict[str, str]:
    """Returns the environment of a shell: without our settings, which may hold passwords, and without Celery's."""
    if sandbox is not None:
        return dict(sandbox.environment)
    return {name: value for name, value in os.environ.items() if not name.startswith(_SERVICE_VARIABLES)}


class RunnerProcess:
    """The worker's ends. `theirs` are the process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A file without a name: errors while Ansible loads go there, afterwards only tracebacks.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        self._control, self._theirs = socket.socketpair()

    pid: int

    @property
    def alive(self) -> bool:
        return not self.wait(0)

    @property
    def is_sandboxed(self) -> bool:
        raise NotImplementedError

    def wait(self, seconds: float) -> bool:
        """Waits for the end of the process; whether it has ended."""
        raise NotImplementedError

    def kill_process(self) -> None:
        raise NotImplementedError

    def kill_sandbox(self) -> None:
        """Kills everything in its sandbox, runs included; does nothing without a sandbox."""
        raise NotImplementedError

    def is_gone(self) -> bool:
        """Whether it has ended, and with it everything in its sandbox."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kills its process; in a sandbox everything."""
        self.kill_sandbox()
        self.kill_process()

    def send_descriptors(self, letter: bytes, descriptors: list[int]) -> None:
        """Sends one request. Raises OSError when the process is gone."""
        with self._lock:
            socket.send_fds(self._control, [letter], descriptors)

    def hang_up(self) -> None:
        """Closes its socket, on which it ends; runs continue."""
        self._control.close()
        self._stderr.close()

    def close(self) -> None:
        """Closes its socket and waits for its end; runs continue."""
        self.hang_up()
        if not self.wait(EXIT_SECONDS):
            self.kill_process()
            self.wait(EXIT_SECONDS)

    def await_frame(self) -> wire.Frame | None:
        """Waits for its first frame; None when it has ended, or does not answer: then it is killed."""
        self._control.settimeout(START_TIMEOUT_SECONDS)
        try:
            # A process that closes its socket is about to exit; one that is late or sends no frame is killed at once.
            frame, exit_seconds = wire.receive(self._control), EXIT_SECONDS
        except (OSError, WireError):
            frame, exit_seconds = None, 0.0
        if frame is None:
            if not self.wait(exit_seconds):
                self.kill_process()
                self.wait(EXIT_SECONDS)
            return None
        self._control.settimeout(None)
        return frame

    def printed(self) -> str:
        """Returns what it has written to standard error."""
        self._stderr.seek(0)
        return self._stderr.read(_STDERR_BYTES).decode(errors="replace")


class StartedProcess(RunnerProcess):
    """One that was started by exec, with all that is in its sandbox. Raises RunnerError, StartFailure among them."""

    _snapshot: int | None = None  # a lock on what its sandbox shows

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        words: list[str],
        sandbox: Sandbox | None,
        module: str = MODULE,
    ) -> None:
        """words: its arguments; it is ready with `first_frame`."""
        super().__init__()
        # The tag is for recovery, which waits for the last of them: whatever is forked has the same command line.
        self._words = [*words, process_identity.tag(process_identity.own_identity())]
        self._sandbox = sandbox
        # Of all runs that were started in it: equal sandboxes are shared by runs of different limits.
        self.confinements: set[Confinement] = set()
        # A pidfd of the sandbox's first process: when that ends, the kernel ends all others in the sandbox.
        self._init: int | None = None
        self._init_lock = threading.Lock()  # two runs of one sandbox may have it killed at the same time
        self._snapshot = snapshots.hold(sandbox.snapshot if sandbox else None)
        try:
            self._process = self._start(module, directory, environment)
        except OSError as error:
            self.hang_up()
            self._release_snapshot()
            raise RunnerError(f"cannot start a fork server in {directory}: {error.strerror}") from error
        finally:
            self._theirs.close()
        self.pid = self._process.pid
        frame = self.await_frame()
        if frame is None:
            raise self._start_failure()
        self.first_frame = frame

    @property
    def is_sandboxed(self) -> bool:
        return self._sandbox is not None

    @property
    def principal(self) -> str | None:
        """The user and entry whose sandbox it is in."""
        return self._sandbox.principal if self._sandbox else None

    def wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill_process(self) -> None:
        self._process.kill()

    def kill_sandbox(self) -> None:
        with self._init_lock:
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
                self._wait_for_init(EXIT_SECONDS)

    def is_gone(self) -> bool:
        with self._init_lock:
            return not self.alive and self._wait_for_init(0)

    def _wait_for_init(self, seconds: float) -> bool:
        """Waits for the end of the sandbox's first process; whether it has ended."""
        if self._init is None:
            self._release_snapshot()
            return True
        poll = select.poll()
        poll.register(self._init, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.close(self._init)
            self._init = None
            self._release_snapshot()
        return self._init is None

    def _release_snapshot(self) -> None:
        if self._snapshot is not None:
            os.close(self._snapshot)
            self._snapshot = None

    def _start(self, module: str, directory: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        control = self._theirs.fileno()
        # -P: a module in the playbook directory must not be imported in place of one of ours.
        command = ["-P", "-m", module, str(control), *self._words]
        sandbox = self._sandbox
        # -s: nor one in the sandbox's home.
        command = [sys.executable, "-s", *command] if sandbox else [sys.executable, *command]
        info_read, info_write = os.pipe2(os.O_CLOEXEC)
        if sandbox is not None:
            command = [*sandbox.arguments, "--chdir", directory, "--info-fd", str(info_write), "--", *command]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                cwd="/" if sandbox else directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=environment,
                pass_fds=(control, info_write) if sandbox else (control,),
                start_new_session=True,
            )

        try:
            process = call_in_new_session_keyring(start) if sandbox else start()
        finally:
            os.close(info_write)
            with os.fdopen(info_read, "rb") as info:
                self._init = _pidfd(info.read()) if sandbox else None
        return process

    def _start_failure(self) -> RunnerError:
        """Closes what is left of it and returns the error that says why it did not get ready."""
        returncode, text = self._process.returncode, self.printed()
        self.hang_up()
        self.kill_sandbox()
        if returncode > 0 and not text.startswith("bwrap: "):
            return StartFailure(text, returncode)
        how = f"was killed by signal {-returncode}" if returncode else "ended"
        return RunnerError(f"the fork server {how} before it was ready. {text}".strip())


def _pidfd(info: bytes) -> int | None:
    """Opens the sandbox's first process, named in bubblewrap's --info-fd; None when bubblewrap failed before it."""
    try:
        return os.pidfd_open(json.loads(info)["child-pid"])
    except (ValueError, KeyError, OSError):
        return None
