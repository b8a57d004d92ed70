"""The worker's fork servers: starts them by exec, keeps a few warm, one for each distinct Ansible configuration.

Used by every supervisor thread of the worker process. A fork server that is dropped goes on serving the runs it has:
each run's keeper talks to its own supervisor, not to the fork server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import IO

from flansible import wire
from flansible.errors import RunnerError, StartFailure, WireError
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.sandbox import Sandbox

log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 60.0
_EXIT_SECONDS = 5.0
_MODULE = "flansible.runner.forkserver"
_COMPLAINT_BYTES = 16 * 1024
_OWN_VARIABLES = ("FLANSIBLE_", "CELERY_", "_MP_FORK_", "FORKED_BY_MULTIPROCESSING")


class ForkServer:
    """One process with Ansible preloaded. Raises StartFailure when Ansible will not load."""

    def __init__(
        self,
        configuration: Configuration,
        module: str = _MODULE,
        limits: tuple[int, int] | None = None,
        pack_usual: bool = False,
    ) -> None:
        """limits: those on open files that its runs are to have, where ours are not those of a shell.

        pack_usual: when it has nothing to do at first, it packs modules that most services need.
        """
        self.configuration = configuration
        self._words = [f"files={limits[0]}:{limits[1]}"] if limits else []
        self._words += ["usual"] if pack_usual else []
        self._init: int | None = None  # of a sandbox, the first process: with it all others in there end
        self._ending = threading.Lock()  # about _init: two runs of one sandbox may want it ended in one moment
        self._lock = threading.Lock()
        # What it says while it loads goes to a file nobody else sees; afterwards nothing writes there but tracebacks.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair()
        try:
            self._process = self._start(module, theirs.fileno())
        except OSError as error:
            self._control.close()
            self._complaints.close()
            message = f"no fork server can be started in {configuration.directory}: {error.strerror}"
            raise RunnerError(message) from error
        finally:
            theirs.close()
        self._await_ready()

    def launch(self, channel: socket.socket, output: int, events: int) -> None:
        """Start a run with these descriptors. Raises OSError when the fork server is gone."""
        with self._lock:
            socket.send_fds(self._control, [b"R"], [channel.fileno(), output, events])

    def kill_sandbox(self) -> None:
        """End whatever is in its sandbox, runs as well. Nothing without one."""
        with self._ending:
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
                self._is_over(_EXIT_SECONDS)

    def is_gone(self) -> bool:
        """Whether nothing is left of it, runs in its sandbox included."""
        with self._ending:
            return not self.alive and self._is_over(0)

    def _is_over(self, seconds: float) -> bool:
        if self._init is None:
            return True
        poll = select.poll()
        poll.register(self._init, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.close(self._init)
            self._init = None
        return self._init is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Let it go: it ends when it sees its socket end."""
        self._control.close()
        self._complaints.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, module: str, control: int) -> subprocess.Popen[bytes]:
        # -P: a module that lies in the playbook directory must not be imported in place of one of ours.
        command = ["-P", "-m", module, str(control), *self._words]
        sandbox = self.configuration.sandbox
        # -s: nor one that lies in the home of the sandbox.
        command = [sys.executable, "-s", *command] if sandbox else [sys.executable, *command]
        told, telling = os.pipe2(os.O_CLOEXEC)
        if sandbox is not None:
            place = ["--chdir", self.configuration.directory]
            command = [*sandbox.arguments, *place, "--info-fd", str(telling), "--", *command]
        try:
            process = subprocess.Popen(
                command,
                cwd="/" if sandbox else self.configuration.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                env={**self._inherited(), **dict(self.configuration.environment)},
                pass_fds=(control, telling) if sandbox else (control,),
                start_new_session=True,
            )
        finally:
            os.close(telling)
            with os.fdopen(told, "rb") as info:
                self._init = _pidfd(info.read()) if sandbox else None
        return process

    def _inherited(self) -> dict[str, str]:
        return dict(self.configuration.sandbox.environment) if self.configuration.sandbox else _environment()

    def _await_ready(self) -> None:
        self._control.settimeout(START_TIMEOUT_SECONDS)
        try:
            # At the end of its socket it is about to exit; one that is late or talks nonsense is ended.
            frame, patience_seconds = wire.receive(self._control), _EXIT_SECONDS
        except (OSError, WireError):
            frame, patience_seconds = None, 0.0
        if frame is None:
            raise self._failure(patience_seconds)
        self._control.settimeout(None)
        log.info("fork server %d: ansible-core %s, %s", self.pid, frame.get("ansible_version"), self.configuration)

    def _failure(self, patience_seconds: float) -> RunnerError:
        """Why it did not get ready; afterwards it is gone."""
        try:
            returncode = self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            returncode = self._process.wait()
        self._complaints.seek(0)
        text = self._complaints.read(_COMPLAINT_BYTES).decode(errors="replace")
        self._control.close()
        self._complaints.close()
        self.kill_sandbox()
        if returncode > 0 and not text.startswith("bwrap: "):
            return StartFailure(text, returncode)
        how = f"was ended by signal {-returncode}" if returncode else "ended"
        return RunnerError(f"the fork server {how} before it was ready. {text}".strip())


def _pidfd(info: bytes) -> int | None:
    """The first process in a sandbox, from what bubblewrap tells; None when it did not come so far."""
    try:
        return os.pidfd_open(json.loads(info)["child-pid"])
    except (ValueError, KeyError, OSError):
        return None


def _environment() -> dict[str, str]:
    """What a shell would give Ansible: without our settings, which may hold passwords, and without Celery's marks."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}


class ForkServerPool:
    """At most `limit` warm fork servers; the least recently used goes when one more is needed."""

    def __init__(self, limit: int, module: str = _MODULE, limits: tuple[int, int] | None = None) -> None:
        """limits: as ForkServer has it."""
        self._limit = limit
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        self._servers: OrderedDict[Configuration, ForkServer] = OrderedDict()
        self._starting: defaultdict[str | None, threading.Lock] = defaultdict(threading.Lock)
        self._closed = False
        self._let_go: list[ForkServer] = []  # with a sandbox in which runs, or what they have left, may go on

    def launch(
        self,
        directory: str,
        environment: Mapping[str, str],
        channel: socket.socket,
        output: int,
        events: int,
        sandbox: Sandbox | None = None,
    ) -> ForkServer:
        """Start a run under the configuration of `directory`. Raises RunnerError, StartFailure among them.

        environment: what the run sets beside the worker's own; Ansible's variables among it make a configuration.
        """
        for _ in range(2):
            server = self._server(configuration_of(directory, environment, sandbox=sandbox))
            try:
                server.launch(channel, output, events)
                return server
            except OSError as error:
                log.warning("fork server %d is gone (%s); starting another", server.pid, error)
                self._drop(server)
        raise RunnerError("the fork server died twice while a run was being started")

    def warm_up(self, directory: str, pack_usual: bool = False) -> None:
        """Have the fork server for `directory` ready before the first run needs it."""
        self._server(configuration_of(directory), pack_usual)

    def close(self) -> None:
        """Drop them all, for good; runs under way are not touched, but for those in a sandbox, which end."""
        with self._lock:
            self._closed = True
            servers, self._servers = list(self._servers.values()), OrderedDict()
            let_go, self._let_go = self._let_go, []
        # Ended first: whoever is in a sandbox can stop its fork server, which would keep us waiting for each of them.
        for server in (*servers, *let_go):
            server.kill_sandbox()
        for server in servers:
            server.close()

    def _server(self, configuration: Configuration, pack_usual: bool = False) -> ForkServer:
        with self._lock:
            if (server := self._warm(configuration)) is not None:
                return server
            starting = self._starting[_user(configuration)]
        # One lock for each user: two supervisors must not start the same one twice; and what lies in the home of one,
        # which may keep a fork server from getting ready, keeps nobody else waiting.
        with starting:
            with self._lock:
                if (server := self._warm(configuration)) is not None:
                    return server
                dropped = self._outdated(configuration)
            try:
                server = ForkServer(configuration, self._module, self._limits, pack_usual)
            finally:
                self._let_go_of(dropped)
            with self._lock:
                if not self._closed:
                    self._servers[configuration] = server
                    return server
        server.close()
        server.kill_sandbox()
        raise RunnerError("the worker is being stopped")

    def _warm(self, configuration: Configuration) -> ForkServer | None:
        server = self._servers.get(configuration)
        if server is None or not server.alive:
            return None
        self._servers.move_to_end(configuration)
        return server

    def _outdated(self, configuration: Configuration) -> list[ForkServer]:
        """Take out what the new one replaces: dead ones, older versions of the same file, the least recently used."""
        place = _place(configuration)
        gone = [key for key, server in self._servers.items() if not server.alive or _place(key) == place]
        dropped = [self._servers.pop(key) for key in gone]
        while len(self._servers) >= self._limit:
            dropped.append(self._servers.popitem(last=False)[1])
        return dropped

    def _drop(self, server: ForkServer) -> None:
        with self._lock:
            if self._servers.get(server.configuration) is server:
                del self._servers[server.configuration]
        self._let_go_of([server])

    def _let_go_of(self, servers: list[ForkServer]) -> None:
        for server in servers:
            server.close()
        with self._lock:
            self._let_go = [one for one in (*self._let_go, *servers) if not one.is_gone()]


def _place(configuration: Configuration) -> tuple[str, str | None, str | None]:
    """What stays the same where a configuration is a newer version of another."""
    return configuration.directory, configuration.config_file, _user(configuration)


def _user(configuration: Configuration) -> str | None:
    return configuration.sandbox.user if configuration.sandbox else None
