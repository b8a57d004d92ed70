"""What the supervisors of a worker process share, and the threads beside them; made by celery_task.py on first use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flansible.broker.recovery import Recovery
from flansible.config import Settings
from flansible.history.limits import history_limits, redis_retention
from flansible.projects import order
from flansible.store import Store
from flansible.system.periodic import Periodic
from flansible.system.ssh_control import ControlMasters
from flansible.worker import project_lookups
from flansible.worker.archiver_process import ArchiverOrder, ArchiverProcess
from flansible.worker.cancel_watcher import CancelWatcher
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.lease_renewal import LeaseRenewal
from flansible.worker.message_resend import MessageResend
from flansible.worker.preparation import Preparation
from flansible.worker.project_lookups import LookupOrder
from flansible.worker.project_upkeep import ProjectUpkeep, bounds_of
from flansible.worker.sandbox import Sandboxes
from flansible.worker.sandbox_revocation import SandboxRevocation
from flansible.worker.shutdown import Shutdown
from flansible.worker.store_writer import StoreWriter

log = logging.getLogger(__name__)

LEASE_REPLY_SECONDS = 2.0  # what renews or checks leases must not wait long for a reply


@dataclass(frozen=True)
class Services:
    """periodic: threads that look about from time to time; leases is one more."""

    store: Store
    fork_servers: ForkServerPool
    cancel_watcher: CancelWatcher
    writer: StoreWriter
    leases: LeaseRenewal
    periodic: tuple[Periodic, ...]
    shutdown: Shutdown
    ssh_masters: ControlMasters | None
    upkeep: ProjectUpkeep

    def start(self) -> None:
        for thread in (self.leases, *self.periodic):
            thread.start()

    def close(self) -> None:
        for thread in (*self.periodic, self.leases):
            thread.stop()
        # Before the ssh masters: this ends the sandboxes, whose processes can still write to the masters' sockets.
        self.fork_servers.close()
        if self.ssh_masters is not None:
            self.ssh_masters.close()
        self.store.close()

    def masters_directory(self, principal: str) -> str | None:
        return _masters_directory(self.ssh_masters, principal)


def make(
    settings: Settings, name: str, limits: tuple[int, int] | None, carry_out_hidden: Callable[[str], None]
) -> Services:
    """Makes them, after any fork of the process. name: the worker's; limits: of open files, for runs; carry_out_hidden:
    claims and runs the hidden task of this id."""
    retention = redis_retention(settings)
    store = Store(settings.store_url, retention)
    # Renewals wait for no other thread either.
    lease_store, checking_store = (Store(settings.store_url, retention, LEASE_REPLY_SECONDS) for _ in range(2))
    leases = LeaseRenewal(lease_store, settings.worker_concurrency, settings.lease_seconds, settings.queues)
    fork_servers = ForkServerPool(settings.fork_servers, limits=limits, pack_usual=True)
    masters = _ssh_masters(settings)
    shutdown = Shutdown()
    lookups = LookupOrder(
        settings.queues, lambda: leases.may_claim and shutdown.seconds_left() is None, carry_out_hidden
    )
    upkeep = ProjectUpkeep(store, name, order.folder_of_all(settings.data_dir), bounds_of(settings))
    return Services(
        store=store,
        fork_servers=fork_servers,
        cancel_watcher=CancelWatcher(store),
        writer=StoreWriter(store),
        leases=leases,
        periodic=(
            MessageResend(store, lambda: leases.count < settings.worker_concurrency, settings.queues),
            Recovery(checking_store),
            *_archivers(settings),
            SandboxRevocation(checking_store, fork_servers, lambda: leases.principals, settings.grace_seconds),
            Preparation(
                checking_store,
                fork_servers,
                Sandboxes(settings),
                lambda user: _masters_directory(masters, user),
                queues=settings.queues,
            ),
            upkeep,
            *project_lookups.threads(lambda: Store(settings.store_url), lookups),
        ),
        shutdown=shutdown,
        ssh_masters=masters,
        upkeep=upkeep,
    )


def _archivers(settings: Settings) -> list[ArchiverProcess]:
    """Returns what starts the archiver, where there is a history database."""
    if (url := settings.database_url) is None:
        return []
    order = ArchiverOrder(
        settings.store_url,
        url,
        settings.archive_after_seconds,
        history_limits(settings),
        settings.log_level,
        settings.keep_facts,
    )
    return [ArchiverProcess(Store(settings.store_url, redis_retention(settings)), order)]


def _ssh_masters(settings: Settings) -> ControlMasters | None:
    if settings.ssh_profile == "default":
        return None
    try:
        return ControlMasters(settings.ssh_masters_dir)
    except OSError as error:
        # Runs are only slower without it.
        log.warning("the fast ssh profile is not in use: its directory cannot be made: %s", error)
        return None


def _masters_directory(masters: ControlMasters | None, principal: str) -> str | None:
    try:
        return masters.directory_of(principal) if masters else None
    except OSError as error:
        log.warning("this run of %s does not use the fast ssh profile: %s", principal, error)
        return None
