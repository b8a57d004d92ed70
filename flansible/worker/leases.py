"""Keeps the promise that no task is stuck: speaks for the runs of this worker, and settles what nobody speaks for.

One thread per worker. A worker that dies stops renewing its leases, and another one, or the same one started again,
makes its tasks `lost`. A message that was lost with a worker is put on the queue again: the claim makes that harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from flansible import celery_app
from flansible.errors import BrokerUnavailable, IllegalMove, StoreUnavailable
from flansible.store import LEASE_SECONDS, Store

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
# Free all this time, and yet a task that has waited as long did not come: its message is gone.
_UNHEARD_SECONDS = 8.0
_REQUEUE_AT_ONCE = 50


class Leases:
    """`running` gives the ids of this worker's runs, `slots` how many it carries side by side."""

    def __init__(self, store: Store, running: Callable[[], list[str]], slots: int) -> None:
        self._store = store
        self._running = running
        self._slots = slots
        self._stopped = threading.Event()
        self._reachable_since: float | None = None
        self._free_since: float | None = None
        self._thread = threading.Thread(target=self._for_ever, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _for_ever(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                self._tick(time.monotonic())
            except StoreUnavailable as error:
                self._reachable_since = None
                log.debug("leases are not renewed: %s", error)
            except Exception:
                # The thread must live: without it every run of this worker would be taken for lost.
                log.exception("a round of leases failed")

    def _tick(self, moment: float) -> None:
        running = self._running()
        if running:
            self._store.renew_leases(running)
        else:
            self._store.ping()
        # While the store was away nobody could renew: all others get the time of a lease to do so first.
        if self._reachable_since is None:
            self._reachable_since = moment
        if moment - self._reachable_since >= LEASE_SECONDS:
            self._settle_lapsed()
        self._requeue_unheard(moment, len(running) < self._slots)

    def _settle_lapsed(self) -> None:
        for task_id in self._store.lapsed_leases():
            try:
                self._store.lose(task_id)
                log.warning("task %s is lost: its worker is gone", task_id)
            except IllegalMove as error:
                log.debug("%s", error)

    def _requeue_unheard(self, moment: float, free: bool) -> None:
        if not free:
            self._free_since = None
            return
        if self._free_since is None:
            self._free_since = moment
        if moment - self._free_since < _UNHEARD_SECONDS:
            return
        self._free_since = moment
        for task in self._store.oldest_queued(_REQUEUE_AT_ONCE):
            waited = datetime.now(UTC) - datetime.fromisoformat(task.submitted_at)
            if waited.total_seconds() > _UNHEARD_SECONDS:
                log.warning("task %s waits though this worker is free: its message is sent again", task.task_id)
                try:
                    celery_app.enqueue(task.task_id, task.summary)
                except BrokerUnavailable as error:
                    log.warning("%s", error)
                    return
