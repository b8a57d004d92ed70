"""The worker's fork servers: starts them by exec, keeps a few warm, one for each distinct Ansible configuration.

Used by every supervisor thread of the worker process. A fork server that is dropped goes on serving the runs it has:
each run's keeper talks to its own supervisor, not to the fork server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO

from flansible import descriptors, wire
from flansible.errors import RunnerError, StartFailure, WireError
from flansible.worker.configuration import Configuration, configuration_of

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
        self._words = ["usual"] if pack_usual else []
        self._limits = limits
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
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(control), *self._words],
            cwd=self.configuration.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            env={**_environment(), **dict(self.configuration.environment)},
            pass_fds=(control,),
            start_new_session=True,
        )
        if self._limits is not None:
            with contextlib.suppress(OSError):  # gone already: that is noticed next
                descriptors.limit(process.pid, self._limits)
        return process

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
        if returncode > 0:
            return StartFailure(text, returncode)
        how = f"was ended by signal {-returncode}" if returncode else "ended"
        return RunnerError(f"the fork server {how} before it was ready. {text}".strip())


def _environment() -> dict[str, str]:
    """What a shell would give Ansible: without our settings, which may hold passwords, and without Celery's marks."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}


class ForkServers:
    """At most `limit` warm fork servers; the least recently used goes when one more is needed."""

    def __init__(self, limit: int, module: str = _MODULE, limits: tuple[int, int] | None = None) -> None:
        """limits: as ForkServer has it."""
        self._limit = limit
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        self._servers: OrderedDict[Configuration, ForkServer] = OrderedDict()

    def launch(
        self, directory: str, environment: Mapping[str, str], channel: socket.socket, output: int, events: int
    ) -> None:
        """Start a run under the configuration of `directory`. Raises RunnerError, StartFailure among them.

        environment: what the run sets beside the worker's own; Ansible's variables among it make a configuration.
        """
        for _ in range(2):
            server = self._server(configuration_of(directory, environment))
            try:
                return server.launch(channel, output, events)
            except OSError as error:
                log.warning("fork server %d is gone (%s); starting another", server.pid, error)
                self._drop(server)
        raise RunnerError("the fork server died twice while a run was being started")

    def warm_up(self, directory: str, pack_usual: bool = False) -> None:
        """Have the fork server for `directory` ready before the first run needs it."""
        self._server(configuration_of(directory), pack_usual)

    def close(self) -> None:
        """Drop them all; runs under way are not touched."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), OrderedDict()
        for server in servers:
            server.close()

    def _server(self, configuration: Configuration, pack_usual: bool = False) -> ForkServer:
        # One lock for looking up and starting: two supervisors must not start the same one twice.
        with self._lock:
            server = self._servers.get(configuration)
            if server is not None and server.alive:
                self._servers.move_to_end(configuration)
                return server
            dropped = self._outdated(configuration)
            try:
                server = ForkServer(configuration, self._module, self._limits, pack_usual)
            finally:
                for old in dropped:
                    old.close()
            self._servers[configuration] = server
            return server

    def _outdated(self, configuration: Configuration) -> list[ForkServer]:
        """Take out what the new one replaces: dead ones, older versions of the same file, the least recently used."""
        place = (configuration.directory, configuration.config_file)
        gone = [
            key
            for key, server in self._servers.items()
            if not server.alive or (key.directory, key.config_file) == place
        ]
        dropped = [self._servers.pop(key) for key in gone]
        while len(self._servers) >= self._limit:
            dropped.append(self._servers.popitem(last=False)[1])
        return dropped

    def _drop(self, server: ForkServer) -> None:
        with self._lock:
            if self._servers.get(server.configuration) is server:
                del self._servers[server.configuration]
        server.close()
