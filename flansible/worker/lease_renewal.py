"""This worker's leases: renews them, each second, and says until when a run may go on when that fails.

docs/architecture/fencing.md has the protocol. One thread with a connection of its own, which waits for nothing else.
Times are of CLOCK_BOOTTIME, which goes on while the machine is suspended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flansible.errors import StoreUnavailable
from flansible.models import DEFAULT_QUEUE, AuthorizedRun
from flansible.store import Claim, Store
from flansible.system import process_identity
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# A Redis that comes back without its last second must know the workers that may have claimed in it.
_KNOWN_SECONDS = 2.0
_PRIORITY = -5  # of the thread, where that is allowed
_MARGIN_PART, _LEAST_MARGIN_SECONDS = 8, 4.0


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of one claim. The supervisor ends the run when `stop_at` has passed, or when it is refused."""

    def __init__(self, task_id: str, claim: Claim, asked_at: float, refuse: Callable[[str], None]) -> None:
        """asked_at: when the claim was sent; refuse: called with the reason when the task is no longer ours."""
        self.task_id = task_id
        self.claim = claim
        self._margin = min(claim.lease_seconds / 2, max(claim.lease_seconds / _MARGIN_PART, _LEAST_MARGIN_SECONDS))
        self._refuse = refuse
        self.is_refused = False
        self.is_released = False  # nothing is left of the run: its record is being made final
        self.stop_at = 0.0
        self.extend(asked_at)

    @property
    def kill_at(self) -> float:
        """Until then whatever is left of the run must have been killed: half the margin before the lease is over."""
        return self.stop_at + self._margin / 2

    @property
    def silence(self) -> str:
        """Says why a run whose lease is over was ended."""
        seconds = self.claim.lease_seconds
        return f"the store was out of reach for so long that the run was ended (lease_seconds: {seconds})"

    @property
    def is_over(self) -> bool:
        return now() >= self.stop_at

    def extend(self, asked_at: float) -> None:
        """Notes a renewal that was sent at this moment and granted."""
        self.stop_at = max(self.stop_at, asked_at + self.claim.lease_seconds - self._margin)

    def refuse(self, standing: str) -> None:
        """Notes that the store refuses this claim: the run must end at once."""
        if not self.is_refused:
            self.is_refused = True
            log.warning("task %s is not this worker's any more (%s): its run is ended", self.task_id, standing)
            self._refuse(standing)


class LeaseRenewal(Periodic):
    """The renewing thread. store: for it alone; slots: how many runs this worker can have at once; queues: those that
    it serves."""

    def __init__(
        self, store: Store, slots: int, lease_seconds: int, queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    ) -> None:
        super().__init__("leases", TICK_SECONDS)
        self._queues = queues
        self._store = store
        self._slots = slots
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._known_since: float | None = None  # the first renewal granted since one was not

    def stop(self) -> None:
        """Stops renewing leases and removes the worker from the store's list. Called when it takes no more tasks."""
        self._stopped.set()
        self._thread.join(TICK_SECONDS)
        try:
            if not self._leases:
                self._store.remove_worker(process_identity.own_identity())
        except StoreUnavailable as error:
            log.debug("the worker is not removed from the list of workers: %s", error)
        self._store.close()

    @property
    def count(self) -> int:
        """How many runs this worker has in its slots, those included that it is ending."""
        with self._lock:
            return sum(not _is_lookup(lease.claim.run) for lease in self._leases)

    @property
    def principals(self) -> set[str]:
        """Whose rights these runs have."""
        with self._lock:
            return {lease.claim.run.principal for lease in self._leases}

    @property
    def may_claim(self) -> bool:
        """Whether the store has known this worker for long enough."""
        return self._known_since is not None and now() - self._known_since >= _KNOWN_SECONDS

    @contextmanager
    def hold(self, task_id: str, claim: Claim, asked_at: float, refuse: Callable[[str], None]) -> Iterator[Lease]:
        """Renews the lease of a claim while the block runs."""
        lease = Lease(task_id, claim, asked_at, refuse)
        with self._lock:
            self._leases.add(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._leases.remove(lease)

    def _run(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PRIORITY)
        except OSError as error:
            log.debug("leases are renewed without priority: %s", error)
        self._round()  # without a wait: no task is claimed before
        super()._run()

    def tick(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Renews all leases once, and learns what the store says of them."""
        with self._lock:
            leases = {(lease.task_id, lease.claim.token): lease for lease in self._leases}
        asked_at, worker = now(), process_identity.own_identity()
        try:
            refused = self._store.renew_leases(worker, self._slots, leases, self._lease_seconds, self._queues)
            self._known_since = self._known_since or asked_at
            for claim, lease in leases.items():
                if claim not in refused:
                    lease.extend(asked_at)
                elif not lease.is_released:
                    self._answer(lease, refused[claim])
        except StoreUnavailable as error:
            log.debug("leases are not renewed: %s", error)
            self._known_since = None  # what comes back may not know this worker
            if error.is_away:
                moment = now()
                for lease in leases.values():
                    lease.extend(moment)

    def _answer(self, lease: Lease, standing: str) -> None:
        if standing != "forgotten":
            return lease.refuse(standing)
        asked_at = now()
        if self._store.restore(lease.task_id, lease.claim):
            log.warning("task %s is claimed again: the store had lost that", lease.task_id)
            lease.extend(asked_at)
        else:
            lease.refuse(standing)


def _is_lookup(run: AuthorizedRun) -> bool:
    """Whether it may have been taken without a slot (project_lookups.py)."""
    return run.hidden and run.steps[0].program == "project"
