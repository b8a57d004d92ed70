"""Speaks for the runs of this worker, and sends again what a worker that died had received.

One thread per worker. A worker that dies stops renewing its leases, and a reaper (flansible.broker.recovery) makes its
tasks `lost`. A message that was lost with a worker is put on the queue again: the claim makes that harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flansible.broker import app as broker_app
from flansible.broker.recovery import waited_seconds
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.models import TaskStatus
from flansible.store import Store
from flansible.system import process_identity

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
# Free all this time, and yet a task that has waited as long did not come: its message is gone.
_UNHEARD_SECONDS = 8.0
_REQUEUE_AT_ONCE = 50
# No worker may ever be free for that long; then a task that younger ones have overtaken for so long is one of these.
_OVERTAKEN_SECONDS = 30.0


class LeaseRenewal:
    """`running` gives the ids of this worker's runs, `slots` how many it carries side by side."""

    def __init__(self, store: Store, running: Callable[[], list[str]], slots: int) -> None:
        self._store = store
        self._running = running
        self._slots = slots
        self._stopped = threading.Event()
        self._free_since: float | None = None
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._for_ever, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """This worker takes no more; what it still runs is spoken for no longer."""
        self._stopped.set()
        self._thread.join(TICK_SECONDS)
        try:
            self._store.sign_off(process_identity.own_identity())
        except StoreUnavailable as error:
            log.debug("the worker is not signed off: %s", error)

    def _for_ever(self) -> None:
        while True:
            try:
                self._tick(time.monotonic())
            except StoreUnavailable as error:
                self._free_since = None
                log.debug("leases are not renewed: %s", error)
            except Exception:
                # The thread must live: without it every run of this worker would be taken for lost.
                log.exception("a round of leases failed")
            if self._stopped.wait(TICK_SECONDS):
                return

    def _tick(self, moment: float) -> None:
        running = self._running()
        self._store.renew_leases(process_identity.own_identity(), self._slots, running)
        if len(running) < self._slots:
            self._free_since = self._free_since or moment
        else:
            self._free_since = None
        if self._free_since is not None and moment - self._free_since >= _UNHEARD_SECONDS:
            self._free_since = moment
            waiting = self._store.oldest_queued(_REQUEUE_AT_ONCE)
            self._send_again([task for task in waiting if waited_seconds(task) > _UNHEARD_SECONDS])
        if moment - self._looked_at >= _OVERTAKEN_SECONDS:
            self._looked_at = moment
            self._send_again(self._store.overtaken(_REQUEUE_AT_ONCE, _OVERTAKEN_SECONDS))

    def _send_again(self, tasks: list[TaskStatus]) -> None:
        for task in tasks:
            log.warning("task %s waits though it could run: its message is sent again", task.task_id)
            try:
                broker_app.enqueue(task.task_id, task.summary, soon=True)
            except BrokerUnavailable as error:
                log.warning("%s", error)
                return
