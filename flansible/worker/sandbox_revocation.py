"""Ends the sandboxes of users who have lost rights, with all that is in them: one thread per worker.

Web processes publish what each user may do now by each entry (flansible.web.rights_watcher), and cancel the runs that
go beyond it. What is compared here is a state, not an event: a worker that was stopped or away does it when it is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flansible.authorization import confinement
from flansible.errors import StoreUnavailable
from flansible.store import Store
from flansible.system.periodic import Periodic
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.runner_process import StartedProcess

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_MARGIN_SECONDS = 1.0  # beyond the grace of canceled runs


class SandboxRevocation(Periodic):
    """principals_with_runs: of this worker; grace_seconds: that canceled runs have to end by themselves."""

    def __init__(
        self,
        store: Store,
        fork_servers: ForkServerPool,
        principals_with_runs: Callable[[], set[str]],
        grace_seconds: float,
    ) -> None:
        super().__init__("sandbox-revocation", TICK_SECONDS)
        self._store = store
        self._fork_servers = fork_servers
        self._principals_with_runs = principals_with_runs
        self._grace_seconds = grace_seconds
        self._revoked_at: dict[StartedProcess, float] = {}

    def tick(self) -> None:
        """Withdraws sandboxes with more than the present rights, and kills them when their runs have ended.

        The runs are being canceled. One that does not end in time is killed with its sandbox.
        """
        sandboxes = self._fork_servers.sandboxed()
        self._revoked_at = {host: moment for host, moment in self._revoked_at.items() if host in sandboxes}
        try:
            self._revoke(sandboxes)
        except StoreUnavailable as error:
            log.debug("whether rights were lost is not known: %s", error)
        now, busy = time.monotonic(), self._principals_with_runs() if self._revoked_at else set()
        for host, moment in self._revoked_at.items():
            if sandboxes[host] not in busy or now - moment >= self._grace_seconds + _MARGIN_SECONDS:
                self._fork_servers.end(host)

    def _revoke(self, sandboxes: dict[StartedProcess, str]) -> None:
        unknown = {host: principal for host, principal in sandboxes.items() if host not in self._revoked_at}
        rights = self._store.rights_of(sorted(set(unknown.values()))) if unknown else None
        if rights is None:
            return
        for host, principal in unknown.items():
            found = rights[principal]
            now = found.confinement if found else None
            gone = next(filter(None, (confinement.lost(before, now) for before in tuple(host.confinements))), "")
            if gone:
                log.warning("the sandbox of %s is ended: rbac.json does not grant %s any more", principal, gone)
                self._revoked_at[host] = time.monotonic()
                self._fork_servers.withdraw(host)
