"""Makes fork servers ready before a run needs them, while the machine has time: one thread per worker.

Two things tell what will be needed: the tasks that wait for a worker, and what was used lately, whose configuration was
edited or whose process has ended since. A configuration that fails is left to its run, which has to say why.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping

from flansible.errors import RecordUnreadable, RunnerError, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, AuthorizedRun
from flansible.store import Store
from flansible.system.periodic import Periodic
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.sandbox import Sandbox, Sandboxes

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
_TASKS_AHEAD = 4
_FAILED_KEPT = 100


def has_time() -> bool:
    """Whether the machine's processors are not all taken."""
    return os.getloadavg()[0] < (os.cpu_count() or 1)


class Preparation(Periodic):
    """ssh_masters: returns the folder for sockets of ssh masters of a principal; it is part of a sandbox; queues:
    those that this worker serves."""

    def __init__(
        self,
        store: Store,
        fork_servers: ForkServerPool,
        sandboxes: Sandboxes,
        ssh_masters: Callable[[str], str | None],
        has_time: Callable[[], bool] = has_time,
        queues: tuple[str, ...] = (DEFAULT_QUEUE,),
    ) -> None:
        super().__init__("preparation", TICK_SECONDS)
        self._queues = queues
        self._store = store
        self._fork_servers = fork_servers
        self._sandboxes = sandboxes
        self._ssh_masters = ssh_masters
        self._has_time = has_time
        self._failed: deque[Configuration] = deque(maxlen=_FAILED_KEPT)

    def tick(self) -> None:
        self._fork_servers.end_unused_zygotes()
        if not self._has_time():
            return
        try:
            waiting = self._store.oldest_queued(_TASKS_AHEAD, queues=self._queues)
            runs = [self._store.authorized_run(task.task_id) for task in waiting]
        except (StoreUnavailable, RecordUnreadable) as error:
            log.debug("what will be needed is not known: %s", error)
            runs = []
        for run in runs:
            if run is not None:
                self._prepare_run(run)
        for directory, environment, sandbox in self._fork_servers.used_lately():
            self._prepare(directory, environment, sandbox)

    def _prepare_run(self, run: AuthorizedRun) -> None:
        if run.project is not None:
            return  # where its files are is known when it is ready
        try:
            sandbox = None
            if run.confinement is not None:
                sandbox = self._sandboxes.of(run.principal, run.confinement, self._ssh_masters(run.principal))
        except RunnerError as error:
            return log.debug("the sandbox of %s is not prepared: %s", run.principal, error)
        for step in run.steps:
            if step.program != "git":
                self._prepare(step.cwd, step.environment, sandbox)

    def _prepare(self, directory: str, environment: Mapping[str, str], sandbox: Sandbox | None) -> None:
        configuration = configuration_of(directory, environment, sandbox=sandbox)
        if configuration in self._failed:
            return
        try:
            self._fork_servers.prepare(configuration)
        except (RunnerError, OSError) as error:
            log.debug("a fork server is not prepared: %s", error)
            self._failed.append(configuration)
