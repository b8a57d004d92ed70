"""The worker's fork servers: processes with Ansible preloaded, a few kept warm, one per Ansible configuration.

Used by every supervisor thread of the worker process. In order:

1. `ForkServerPool.launch`  gets the run's configuration from ansible_config.py, and finds its warm server
2. `ForkServer`             else starts one: execs flansible.runner.forkserver, inside bubblewrap for a confined user,
                            and waits for its `ready` frame; the server that it replaces is retired
3. `ForkServer.launch`      passes the run's channel and pipes; the fork server forks the keeper, the keeper the run
4. `ForkServer.kill_sandbox`  ends everything in a confined user's sandbox, when a keeper does not report

A fork server that is dropped continues to serve the runs it has: each run's keeper talks to its own supervisor, not to
the fork server.
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
from flansible.models import Confinement
from flansible.system import process_identity
from flansible.system.session_keyring import call_in_new_session_keyring
from flansible.worker import snapshots
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.sandbox import Sandbox

log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 60.0
RUN_START_SECONDS = 120.0  # for a fork server to start a run, on a machine with very many
_EXIT_SECONDS = 5.0
_MODULE = "flansible.runner.forkserver"
_STDERR_BYTES = 16 * 1024
_SERVICE_VARIABLES = ("FLANSIBLE_", "CELERY_", "_MP_FORK_", "FORKED_BY_MULTIPROCESSING")


class ForkServer:
    """One process with Ansible preloaded. Raises StartFailure when Ansible will not load."""

    _snapshot: int | None = None  # a lock on what its sandbox shows

    def __init__(
        self,
        configuration: Configuration,
        module: str = _MODULE,
        limits: tuple[int, int] | None = None,
        pack_usual: bool = False,
    ) -> None:
        """limits: soft and hard limit on open files for its runs, where the worker's differ from a shell's.

        pack_usual: while idle after its start, it packs modules that most services need.
        """
        self.configuration = configuration
        # Of all runs that it has started: equal sandboxes are shared by runs of different limits.
        self.confinements: set[Confinement] = set()
        self._arguments = [f"files={limits[0]}:{limits[1]}"] if limits else []
        self._arguments += ["usual"] if pack_usual else []
        # For recovery, which waits for the last of them: keepers and runs are forks and have the same command line.
        self._arguments.append(process_identity.tag(process_identity.own_identity()))
        # A pidfd of the sandbox's first process: when that ends, the kernel ends all others in the sandbox.
        self._init: int | None = None
        self._init_lock = threading.Lock()  # two runs of one sandbox may have it killed at the same time
        self._lock = threading.Lock()
        sandbox = configuration.sandbox
        self._snapshot = snapshots.hold(sandbox.snapshot if sandbox else None)
        # A file without a name: errors while Ansible loads go there, afterwards only tracebacks.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair()
        try:
            self._process = self._start(module, theirs.fileno())
        except OSError as error:
            self._control.close()
            self._stderr.close()
            self._release_snapshot()
            message = f"cannot start a fork server in {configuration.directory}: {error.strerror}"
            raise RunnerError(message) from error
        finally:
            theirs.close()
        self._await_ready()

    def launch(self, channel: socket.socket, output: int, events: int) -> None:
        """Starts a run with these descriptors. Raises OSError when the fork server is gone."""
        with self._lock:
            socket.send_fds(self._control, [b"R"], [channel.fileno(), output, events])

    def kill_sandbox(self) -> None:
        """Kills everything in its sandbox, runs included; does nothing without a sandbox."""
        with self._init_lock:
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
                self._wait_for_init(_EXIT_SECONDS)

    def is_gone(self) -> bool:
        """Whether it has ended, and with it everything in its sandbox."""
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

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_sandboxed(self) -> bool:
        return self.configuration.sandbox is not None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills its process; in a sandbox everything."""
        self.kill_sandbox()
        self._process.kill()

    def close(self) -> None:
        """Closes its socket, on which it ends; its runs continue."""
        self._control.close()
        self._stderr.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, module: str, control: int) -> subprocess.Popen[bytes]:
        # -P: a module in the playbook directory must not be imported in place of one of ours.
        command = ["-P", "-m", module, str(control), *self._arguments]
        sandbox = self.configuration.sandbox
        # -s: nor one in the sandbox's home.
        command = [sys.executable, "-s", *command] if sandbox else [sys.executable, *command]
        info_read, info_write = os.pipe2(os.O_CLOEXEC)
        if sandbox is not None:
            directory = ["--chdir", self.configuration.directory]
            command = [*sandbox.arguments, *directory, "--info-fd", str(info_write), "--", *command]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                cwd="/" if sandbox else self.configuration.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**self._environ(), **dict(self.configuration.environment)},
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

    def _environ(self) -> dict[str, str]:
        return dict(self.configuration.sandbox.environment) if self.configuration.sandbox else _environment()

    def _await_ready(self) -> None:
        self._control.settimeout(START_TIMEOUT_SECONDS)
        try:
            # A server that closes its socket is about to exit; one that is late or sends no frame is killed at once.
            frame, exit_seconds = wire.receive(self._control), _EXIT_SECONDS
        except (OSError, WireError):
            frame, exit_seconds = None, 0.0
        if frame is None:
            raise self._start_failure(exit_seconds)
        self._control.settimeout(None)
        log.info("fork server %d: ansible-core %s, %s", self.pid, frame.get("ansible_version"), self.configuration)

    def _start_failure(self, exit_seconds: float) -> RunnerError:
        """Ends the process and returns the error that says why it did not get ready."""
        try:
            returncode = self._process.wait(exit_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            returncode = self._process.wait()
        self._stderr.seek(0)
        text = self._stderr.read(_STDERR_BYTES).decode(errors="replace")
        self._control.close()
        self._stderr.close()
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


def _environment() -> dict[str, str]:
    """Returns the environment of a shell: without our settings, which may hold passwords, and without Celery's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SERVICE_VARIABLES)}


class ForkServerPool:
    """Keeps at most `limit` fork servers warm and drops the least recently used."""

    def __init__(self, limit: int, module: str = _MODULE, limits: tuple[int, int] | None = None) -> None:
        """limits: see ForkServer."""
        self._limit = limit
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        self._servers: OrderedDict[Configuration, ForkServer] = OrderedDict()
        self._starting: defaultdict[str | None, threading.Lock] = defaultdict(threading.Lock)
        self._closed = False
        self._retired: list[ForkServer] = []  # dropped ones whose sandbox still has processes

    def launch(
        self,
        directory: str,
        environment: Mapping[str, str],
        channel: socket.socket,
        output: int,
        events: int,
        sandbox: Sandbox | None = None,
    ) -> ForkServer:
        """Starts a run under the configuration of `directory`. Raises RunnerError, StartFailure among them.

        environment: the run's own variables, beside the worker's; those that Ansible reads belong to the configuration.
        """
        for _ in range(2):
            server = self._server(configuration_of(directory, environment, sandbox=sandbox))
            if sandbox is not None and sandbox.confinement is not None:
                server.confinements.add(sandbox.confinement)
            try:
                server.launch(channel, output, events)
                return server
            except OSError as error:
                log.warning("fork server %d has died (%s); starting another", server.pid, error)
                self._drop(server)
        raise RunnerError("the fork server died twice while starting this run")

    @property
    def unconfined_pids(self) -> set[int]:
        """The process ids of the fork servers that no user's code shares a sandbox with."""
        with self._lock:
            return {server.pid for server in self._servers.values() if not server.is_sandboxed}

    def discard(self, server: ForkServer) -> None:
        """Kills a fork server for good. Runs that it has started go on, unless in its sandbox."""
        server.kill()
        self._drop(server)

    def sandboxed(self) -> dict[ForkServer, str]:
        """Returns those whose sandbox may have processes, with the principal: user and entry."""
        with self._lock:
            servers = (*self._servers.values(), *self._retired)
        found = {server: _principal(server.configuration) for server in servers if not server.is_gone()}
        return {server: principal for server, principal in found.items() if principal is not None}

    def withdraw(self, server: ForkServer) -> None:
        """Keeps a fork server from further runs, without waiting for it: it may be stopped. `discard` ends it."""
        with self._lock:
            if self._servers.get(server.configuration) is server:
                self._retired.append(self._servers.pop(server.configuration))

    def warm_up(self, directory: str, pack_usual: bool = False) -> None:
        """Starts the fork server for `directory` before the first run needs it."""
        self._server(configuration_of(directory), pack_usual)

    def close(self) -> None:
        """Closes all fork servers for good. Runs continue, except in sandboxes: those are killed."""
        with self._lock:
            self._closed = True
            servers, self._servers = list(self._servers.values()), OrderedDict()
            retired, self._retired = self._retired, []
        # Sandboxes first: a process in one can stop its fork server, and we would wait for each of them.
        for server in (*servers, *retired):
            server.kill_sandbox()
        for server in servers:
            server.close()

    def _server(self, configuration: Configuration, pack_usual: bool = False) -> ForkServer:
        with self._lock:
            if (server := self._warm_server(configuration)) is not None:
                return server
            starting = self._starting[_principal(configuration)]
        # One lock per principal: two supervisors must not start the same server twice, and a user whose home keeps a
        # fork server from getting ready must not make others wait.
        with starting:
            with self._lock:
                if (server := self._warm_server(configuration)) is not None:
                    return server
                dropped = self._take_replaced(configuration)
            try:
                server = ForkServer(configuration, self._module, self._limits, pack_usual)
            finally:
                self._retire(dropped)
            with self._lock:
                if not self._closed:
                    self._servers[configuration] = server
                    return server
        server.close()
        server.kill_sandbox()
        raise RunnerError("the worker is being stopped")

    def _warm_server(self, configuration: Configuration) -> ForkServer | None:
        server = self._servers.get(configuration)
        if server is None or not server.alive:
            return None
        self._servers.move_to_end(configuration)
        return server

    def _take_replaced(self, configuration: Configuration) -> list[ForkServer]:
        """Removes and returns what a new server replaces: dead servers, older versions, the least recently used."""
        wanted = _without_version(configuration)
        gone = [key for key, server in self._servers.items() if not server.alive or _without_version(key) == wanted]
        dropped = [self._servers.pop(key) for key in gone]
        while len(self._servers) >= self._limit:
            dropped.append(self._servers.popitem(last=False)[1])
        return dropped

    def _drop(self, server: ForkServer) -> None:
        with self._lock:
            if self._servers.get(server.configuration) is server:
                del self._servers[server.configuration]
        self._retire([server])

    def _retire(self, servers: list[ForkServer]) -> None:
        for server in servers:
            server.close()
        with self._lock:
            self._retired = [one for one in (*self._retired, *servers) if not one.is_gone()]


def _without_version(configuration: Configuration) -> tuple[str, str | None, str | None]:
    """Returns the parts of a configuration that its newer versions share."""
    return configuration.directory, configuration.config_file, _principal(configuration)


def _principal(configuration: Configuration) -> str | None:
    return configuration.sandbox.principal if configuration.sandbox else None
