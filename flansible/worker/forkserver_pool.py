"""The worker's fork servers: processes with Ansible preloaded, kept warm, one per Ansible configuration.

Used by every supervisor thread of the worker process. In order:

1. `ForkServerPool.launch`  gets the run's configuration from ansible_config.py, and finds its warm server
2. `fork_server.fork`       else has the zygote fork one, which takes on that configuration; where that is not sound,
   `fork_server.start`      starts one: execs flansible.runner.forkserver, inside bubblewrap for a confined user. The
                            server that it replaces is retired
3. `ForkServer.launch`      passes the run's channel and pipes; the fork server forks the keeper, the keeper the run
4. `ForkServer.kill_sandbox`  ends everything in a confined user's sandbox, when a keeper does not report

How they end. A run goes on without its fork server: its keeper talks to its own supervisor. It ends with its sandbox.

| verb             | ends                                                  | runs             | waits |
|------------------|-------------------------------------------------------|------------------|-------|
| `hang_up`        | one process, by the end of its socket                 | go on            | no    |
| `close`          | the same; the pool's own: all, sandboxes by `kill`    | go on, but there | yes   |
| `kill`           | one process, and all in its sandbox                   | go on, but there | yes   |
| `_retire`        | fork servers and what has their sandbox, by `close`   | go on            | yes   |
| `_drop`          | one fork server that is kept, by `_retire`            | go on            | yes   |
| `discard`        | the same, by `kill`: one that does not answer         | go on, but there | yes   |
| `_retire_host`   | a zygote with what it has forked, by `_retire`        | go on            | yes   |
| `withdraw`       | what could start runs in a sandbox, by `hang_up`      | go on            | no    |
| `end`            | all in a sandbox, by `kill`                           | are killed       | yes   |
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakValueDictionary

from flansible.errors import NotForkable, RunnerError
from flansible.models import ForkServerCounts
from flansible.system import memory
from flansible.worker import fork_server
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.fork_server import ForkServer
from flansible.worker.runner_process import MODULE, StartedProcess
from flansible.worker.sandbox import Sandbox
from flansible.worker.zygote_handle import Zygote
from flansible.worker.zygotes import Zygotes

log = logging.getLogger(__name__)

RUN_START_SECONDS = 120.0  # for a fork server to start a run, on a machine with very many
_MOST_STARTED = 8  # started ones share nothing: some 50 MB each
_LATELY_SECONDS = 600.0  # what was used within that time is made ready again when its process or configuration is gone
_MOST_RECENT = 20
_Unversioned = tuple[str, str | None, str | None]


class ForkServerPool:
    """Keeps at most `limit` fork servers warm and drops the least recently used."""

    def __init__(
        self,
        limit: int,
        module: str = MODULE,
        limits: tuple[int, int] | None = None,
        pack_usual: bool = False,
    ) -> None:
        """module: another one than the real fork server's is started each time; limits, pack_usual: see
        fork_server.start. In sandboxes nothing is packed before a run needs it."""
        self._limit = limit
        self._module = module
        self._limits = limits
        self._pack_usual = pack_usual
        self._lock = threading.Lock()
        self._servers: OrderedDict[Configuration, ForkServer] = OrderedDict()
        # Two supervisors must not start the same fork server twice, and one that hangs must keep no other waiting.
        self._starting: WeakValueDictionary[_Unversioned, threading.Lock] = WeakValueDictionary()
        self._closed = False
        self._retired: list[StartedProcess] = []  # those whose sandbox or fork servers are still there
        self._found_warm = self._forked = self._evicted = 0
        self._started: Counter[str] = Counter()  # by the reason why it could not be forked
        self._zygotes = Zygotes(module, limits)

    def launch(
        self,
        directory: str,
        environment: Mapping[str, str],
        channel: socket.socket,
        output: int,
        events: int,
        sandbox: Sandbox | None = None,
        is_ansible: bool = True,
    ) -> ForkServer:
        """Starts a run under the configuration of `directory`. Raises RunnerError, StartFailure among them.

        environment: the run's own variables, beside the worker's; those that Ansible reads belong to the configuration;
        is_ansible: others are not counted.
        """
        for _ in range(2):
            server, was_warm = self._server(configuration_of(directory, environment, sandbox=sandbox))
            if sandbox is not None and sandbox.confinement is not None:
                server.host.confinements.add(sandbox.confinement)
            try:
                server.launch(channel, output, events)
                server.asked, server.used_at = (directory, environment), time.monotonic()
                with self._lock:
                    self._found_warm += was_warm and is_ansible
                return server
            except OSError as error:
                log.warning("fork server %d has died (%s); starting another", server.pid, error)
                self._drop(server)
        raise RunnerError("the fork server died twice while starting this run")

    @property
    def unconfined_pids(self) -> set[int]:
        """The process ids of the fork servers that no user's code shares a sandbox with, and of their zygote."""
        with self._lock:
            servers = {server.pid for server in self._servers.values() if not server.is_sandboxed}
            retired = list(self._retired)
        return servers | {host.pid for host in (*retired, *self._zygotes.all()) if not host.is_sandboxed}

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

    def sandboxed(self) -> dict[StartedProcess, str]:
        """Returns the sandboxes that may have processes: what was started in each, with its principal."""
        with self._lock:
            hosts = {*(server.host for server in self._servers.values()), *self._retired, *self._zygotes.all()}
        found = {host: host.principal for host in hosts if host.is_sandboxed and not host.is_gone()}
        return {host: principal for host, principal in found.items() if principal is not None}

    def withdraw(self, host: StartedProcess) -> None:
        """Keeps a sandbox from further runs, without waiting for it: it may be stopped. `end` ends it."""
        servers = self._take_servers_of(host)
        for server in servers:
            if server.was_forked:
                server.hang_up()
        with self._lock:
            if host not in self._retired:
                self._retired.append(host)

    def end(self, host: StartedProcess) -> None:
        """Kills a process that was started, and in its sandbox everything."""
        host.kill()
        self._retire(self._take_servers_of(host), [host])

    def warm_up(self, directory: str) -> None:
        """Starts the fork server for `directory` before the first run needs it."""
        self.prepare(configuration_of(directory))

    @contextmanager
    def briefly_warm(self, directory: str, runs: int) -> Iterator[None]:
        """Starts the fork server for `directory`; ends it again if it has had no other runs than the caller's.

        runs: how many the caller makes. Kept, it would take 13 MB; forked when a run needs it, it takes that run
        some 20 ms. One that had to be started would take half a second, and is kept.
        """
        self.warm_up(directory)
        try:
            yield
        finally:
            self._end_unused(configuration_of(directory), runs)

    def prepare(self, configuration: Configuration) -> None:
        """Makes a configuration's fork server, if there is none and no other has to end for it. Raises RunnerError."""
        with self._lock:
            has_room = self._has_room_for(configuration)
        if has_room:
            self._server(configuration, is_for_run=False)

    def end_unused_zygotes(self) -> None:
        """Ends those that have had no fork server for a while."""
        with self._lock:
            used = {server.host for server in self._servers.values()}
            late = [host for host in self._retired if not host.is_sandboxed and host not in used]
        self._retire([], [*late, *self._zygotes.take_unused(used)])

    def used_lately(self) -> list[tuple[str, Mapping[str, str], Sandbox | None]]:
        """Returns directory, variables and sandbox of recent runs, the latest first, one of each fork server."""
        since = time.monotonic() - _LATELY_SECONDS
        with self._lock:
            recent = [server for server in reversed(self._servers.values()) if server.used_at > since]
        return [(*server.asked, server.configuration.sandbox) for server in recent[:_MOST_RECENT]]

    def close(self) -> None:
        """Closes all fork servers for good. Runs continue, except in sandboxes: those are killed."""
        with self._lock:
            self._closed = True
            servers, self._servers = list(self._servers.values()), OrderedDict()
            retired, self._retired = self._retired, []
        zygotes = self._zygotes.take_all()
        # Sandboxes first: a process in one can stop its fork server, and we would wait for each of them.
        for host in (*(server.host for server in servers), *zygotes, *retired):
            host.kill_sandbox()
        for server in servers:
            server.hang_up()
        for server in servers:
            server.close()
        for host in (*zygotes, *retired):
            host.close()

    def _server(self, configuration: Configuration, is_for_run: bool = True) -> tuple[ForkServer, bool]:
        """Returns the fork server of a configuration, and whether it was ready. Raises RunnerError."""
        with self._lock:
            if (server := self._warm_server(configuration, is_for_run)) is not None:
                return server, True
            starting = self._starting.setdefault(_without_version(configuration), threading.Lock())
        with starting:
            with self._lock:
                if (server := self._warm_server(configuration, is_for_run)) is not None:
                    return server, False  # it had to wait
            server = self._make(configuration)
            with self._lock:
                is_withdrawn = server.host in self._retired
            if is_withdrawn:  # meanwhile: its user has lost a right
                self._retire([server])
                server = self._make(configuration)
            with self._lock:
                if is_open := not self._closed:
                    dropped = self._take_replaced(configuration)
                    self._servers[configuration] = server
                    server.runs += is_for_run
        if is_open:
            self._retire(dropped)
            self.end_unused_zygotes()
            return server, False
        server.close()
        server.kill_sandbox()
        raise RunnerError("the worker is being stopped")

    def _make(self, configuration: Configuration) -> ForkServer:
        """Forks the fork server, or starts it. Raises RunnerError."""
        pack_usual = self._pack_usual and configuration.sandbox is None
        try:
            zygote = self._zygotes.living(configuration.sandbox, pack_usual, self._retire_host)
            server = fork_server.fork(configuration, zygote, pack_usual)
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

    def _warm_server(self, configuration: Configuration, is_for_run: bool) -> ForkServer | None:
        server = self._servers.get(configuration)
        if server is None or not server.is_usable:
            return None
        if is_for_run:
            server.runs += 1
            self._servers.move_to_end(configuration)
            self._zygotes.touch(server.host)
        return server

    def _has_room_for(self, configuration: Configuration) -> bool:
        wanted = _without_version(configuration)
        others = [key for key, server in self._servers.items() if server.is_usable and _without_version(key) != wanted]
        replaces_one = len(others) < len(self._servers)
        return len(others) < self._limit and (replaces_one or not memory.is_short())

    def _take_replaced(self, configuration: Configuration) -> list[ForkServer]:
        """Removes and returns what a new server replaces: dead servers, older versions, the least recently used."""
        wanted = _without_version(configuration)
        gone = [key for key, server in self._servers.items() if not server.is_usable or _without_version(key) == wanted]
        dropped = [self._servers.pop(key) for key in gone]
        limit = self._limit
        if memory.is_short():
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

    def _end_unused(self, configuration: Configuration, runs: int) -> None:
        with self._lock:
            server = self._servers.get(configuration)
            if server is None or server.runs > runs or not server.was_forked:
                return
            del self._servers[configuration]
        self._retire([server])

    def _retire(self, servers: list[ForkServer], hosts: Iterable[StartedProcess] = ()) -> None:
        """Closes these; keeps in mind those whose sandbox still has processes."""
        hosts = [*hosts, *(server.host for server in servers if not server.was_forked)]
        for server in servers:
            server.close()
        for host in hosts:
            host.close()
        with self._lock:
            found = dict.fromkeys((*self._retired, *hosts))
            self._retired = [host for host in found if not host.is_gone()]

    def _retire_host(self, host: StartedProcess) -> None:
        if host.alive and not host.is_sandboxed:
            # It was late with an answer. What it has forked is as good as before, and lives no longer than it.
            with self._lock:
                self._retired.append(host)
            return
        servers = self._take_servers_of(host)
        with self._lock:
            self._evicted += sum(server.is_usable for server in servers)
        self._retire(servers, [host])

    def _take_servers_of(self, host: StartedProcess) -> list[ForkServer]:
        if isinstance(host, Zygote):
            self._zygotes.remove(host)
        with self._lock:
            keys = [key for key, server in self._servers.items() if server.host is host]
            return [self._servers.pop(key) for key in keys]


def _without_version(configuration: Configuration) -> _Unversioned:
    """Returns the parts of a configuration that its newer versions share."""
    return configuration.directory, configuration.config_file, _principal(configuration)


def _principal(configuration: Configuration) -> str | None:
    return configuration.sandbox.principal if configuration.sandbox else None
