"""The worker's fork servers: processes with Ansible preloaded, kept warm, one per Ansible configuration.

Used by every supervisor thread of the worker process. In order:

1. `ForkServerPool.launch`  gets the run's configuration from ansible_config.py, and finds its warm server
2. `fork_server.fork`       else has the zygote fork one, which takes on that configuration; where that is not sound,
   `fork_server.start`      starts one: execs flansible.runner.forkserver, inside bubblewrap for a confined user. The
                            server that it replaces is retired
3. `ForkServer.launch`      passes the run's channel and pipes; the fork server forks the keeper, the keeper the run
4. `ForkServer.kill_sandbox`  ends everything in a confined user's sandbox, when a keeper does not report

A fork server that is dropped continues to serve the runs it has: each run's keeper talks to its own supervisor, not to
the fork server.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping

from flansible.errors import NotForkable, RunnerError
from flansible.models import ForkServerCounts
from flansible.system import memory
from flansible.worker import fork_server
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.fork_server import ForkServer
from flansible.worker.runner_process import MODULE
from flansible.worker.sandbox import Sandbox
from flansible.worker.zygote_handle import Zygote

log = logging.getLogger(__name__)

RUN_START_SECONDS = 120.0  # for a fork server to start a run, on a machine with very many
_MOST_STARTED = 8  # started ones share nothing: some 50 MB each
_LEAST_MEMORY = 0.1  # with a smaller share available, a new one takes the place of another
_ZYGOTE_RETRY_SECONDS = 60.0


class ForkServerPool:
    """Keeps at most `limit` fork servers warm and drops the least recently used."""

    def __init__(self, limit: int, module: str = MODULE, limits: tuple[int, int] | None = None) -> None:
        """module: another one than the real fork server's is started each time; limits: see fork_server.start."""
        self._limit = limit
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        self._servers: OrderedDict[Configuration, ForkServer] = OrderedDict()
        self._starting: defaultdict[str | None, threading.Lock] = defaultdict(threading.Lock)
        self._closed = False
        self._retired: list[ForkServer] = []  # dropped ones whose sandbox still has processes
        self._found_warm = self._forked = self._evicted = 0
        self._started: Counter[str] = Counter()  # by the reason why it could not be forked
        self._zygote: Zygote | None = None
        self._zygote_lock = threading.Lock()
        self._zygote_fails_until = 0.0

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
        """The process ids of the fork servers that no user's code shares a sandbox with, and of the zygote."""
        with self._lock:
            found = {server.pid for server in self._servers.values() if not server.is_sandboxed}
            return found | ({self._zygote.pid} if self._zygote else set())

    def counts(self, worker: str) -> ForkServerCounts:
        with self._lock:
            return ForkServerCounts(
                worker=worker,
                kept=len(self._servers),
                warm=self._found_warm,
                forked=self._forked,
                started=dict(self._started),
                evicted=self._evicted,
            )

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
            server.hang_up()
        for server in servers:
            server.close()
        with self._zygote_lock:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def _server(self, configuration: Configuration, pack_usual: bool = False) -> ForkServer:
        with self._lock:
            if (server := self._warm_server(configuration)) is not None:
                self._found_warm += 1
                return server
            starting = self._starting[_principal(configuration)]
        # One lock per principal: two supervisors must not start the same server twice, and a user whose home keeps a
        # fork server from getting ready must not make others wait.
        with starting:
            with self._lock:
                if (server := self._warm_server(configuration)) is not None:
                    self._found_warm += 1
                    return server
                dropped = self._take_replaced(configuration)
            try:
                server = self._make(configuration, pack_usual)
            finally:
                self._retire(dropped)
            with self._lock:
                if not self._closed:
                    self._servers[configuration] = server
                    return server
        server.close()
        server.kill_sandbox()
        raise RunnerError("the worker is being stopped")

    def _make(self, configuration: Configuration, pack_usual: bool) -> ForkServer:
        """Forks the fork server, or starts it. Raises RunnerError."""
        try:
            server = fork_server.fork(configuration, self._living_zygote(configuration.sandbox, pack_usual), pack_usual)
        except NotForkable as error:
            log.info("a fork server is started, not forked (%s): %s", error, configuration)
            reason = str(error).partition(":")[0]
        else:
            with self._lock:
                self._forked += 1
            return server
        self._make_room_for_started()
        server = fork_server.start(configuration, self._module, self._limits, pack_usual)
        with self._lock:
            self._started[reason] += 1
        return server

    def _living_zygote(self, sandbox: Sandbox | None, pack_usual: bool) -> Zygote:
        """Returns the zygote, and starts it if necessary. Raises NotForkable."""
        if self._module != MODULE:
            raise NotForkable("another module")
        if sandbox is not None:
            raise NotForkable("sandbox")
        with self._zygote_lock:
            if self._zygote is not None and self._zygote.alive:
                return self._zygote
            if self._closed or time.monotonic() < self._zygote_fails_until:
                raise NotForkable("no zygote")
            if self._zygote is not None:
                self._zygote.close()
            try:
                self._zygote = Zygote(self._limits, pack_usual)
            except RunnerError as error:
                log.warning("the zygote cannot be started, and fork servers start more slowly: %s", error)
                self._zygote, self._zygote_fails_until = None, time.monotonic() + _ZYGOTE_RETRY_SECONDS
                raise NotForkable("no zygote") from error
            return self._zygote

    def _warm_server(self, configuration: Configuration) -> ForkServer | None:
        server = self._servers.get(configuration)
        if server is None or not server.alive or server.is_orphaned:
            return None
        self._servers.move_to_end(configuration)
        return server

    def _take_replaced(self, configuration: Configuration) -> list[ForkServer]:
        """Removes and returns what a new server replaces: dead servers, older versions, the least recently used."""
        wanted = _without_version(configuration)
        gone = [
            key
            for key, server in self._servers.items()
            if not server.alive or server.is_orphaned or _without_version(key) == wanted
        ]
        dropped = [self._servers.pop(key) for key in gone]
        limit = self._limit
        if memory.available_share() < _LEAST_MEMORY:
            limit = max(1, min(limit, len(self._servers)))  # no more than there are
        while len(self._servers) >= limit:
            dropped.append(self._servers.popitem(last=False)[1])
            self._evicted += 1
        return dropped

    def _make_room_for_started(self) -> None:
        with self._lock:
            started = [key for key, server in self._servers.items() if not server.was_forked]
            dropped = [self._servers.pop(key) for key in started[: max(0, len(started) + 1 - _MOST_STARTED)]]
            self._evicted += len(dropped)
        self._retire(dropped)

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
