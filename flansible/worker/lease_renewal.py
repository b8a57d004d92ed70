"""Renews this worker's leases, and sends messages again that were lost with a dead worker.

One thread per worker. A worker that dies stops renewing its leases, and flansible.broker.recovery makes its tasks
`lost`. A queued task whose message is lost gets a new one: the claim makes a second message harmless.
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
# A thread slot was free this long, and a task queued for as long was not received: its message is lost.
_MESSAGE_LOST_SECONDS = 8.0
_RESEND_AT_ONCE = 50
# Where no worker is ever free for that long: a task overtaken by younger ones for this long has lost its message.
_OVERTAKEN_SECONDS = 30.0


class LeaseRenewal:
    """The renewing thread. running: returns the ids of this worker's runs; slots: how many it can run at once."""

    def __init__(self, store: Store, running: Callable[[], list[str]], slots: int) -> None:
        self._store = store
        self._running = running
        self._slots = slots
        self._stopped = threading.Event()
        self._free_since: float | None = None
        self._overtaken_checked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops renewing leases and removes the worker from the store's list. Called when it takes no more tasks."""
        self._stopped.set()
        self._thread.join(TICK_SECONDS)
        try:
            self._store.remove_worker(process_identity.own_identity())
        except StoreUnavailable as error:
            log.debug("the worker is not removed from the list of workers: %s", error)

    def _run(self) -> None:
        while True:
            try:
                self._tick(time.monotonic())
            except StoreUnavailable as error:
                self._free_since = None
                log.debug("leases are not renewed: %s", error)
            except Exception:
                # The thread must survive: without it every run of this worker would become `lost`.
                log.exception("renewing the leases failed")
            if self._stopped.wait(TICK_SECONDS):
                return

    def _tick(self, moment: float) -> None:
        running = self._running()
        self._store.renew_leases(process_identity.own_identity(), self._slots, running)
        if len(running) < self._slots:
            self._free_since = self._free_since or moment
        else:
            self._free_since = None
        if self._free_since is not None and moment - self._free_since >= _MESSAGE_LOST_SECONDS:
            self._free_since = moment
            waiting = self._store.oldest_queued(_RESEND_AT_ONCE)
            self._resend([task for task in waiting if waited_seconds(task) > _MESSAGE_LOST_SECONDS])
        if moment - self._overtaken_checked_at >= _OVERTAKEN_SECONDS:
            self._overtaken_checked_at = moment
            self._resend(self._store.overtaken(_RESEND_AT_ONCE, _OVERTAKEN_SECONDS))

    def _resend(self, tasks: list[TaskStatus]) -> None:
        for task in tasks:
            log.warning("task %s is queued though it could run: sending its message again", task.task_id)
            try:
                broker_app.enqueue(task.task_id, task.summary, priority=True)
            except BrokerUnavailable as error:
                log.warning("%s", error)
                return
