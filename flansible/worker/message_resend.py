"""Sends messages again that were lost with a dead worker or broker: one thread per worker.

A queued task whose message is lost gets a new one from a worker that has a free slot: the claim makes a second message
harmless.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flansible.broker import app as broker_app
from flansible.broker.recovery import waited_seconds
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, TaskStatus
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
# A thread slot was free this long, and a task queued for as long was not received: its message is lost.
_MESSAGE_LOST_SECONDS = 8.0
_RESEND_AT_ONCE = 50
# Where no worker is ever free for that long: a task overtaken by younger ones for this long has lost its message.
_OVERTAKEN_SECONDS = 30.0


class MessageResend(Periodic):
    """The sending thread. has_free_slot: whether this worker could begin a run now; queues: those that it serves.

    That a slot is free says nothing of tasks of other queues: their workers look after those.
    """

    def __init__(
        self, store: Store, has_free_slot: Callable[[], bool], queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    ) -> None:
        super().__init__("message-resend", TICK_SECONDS)
        self._queues = queues
        self._store = store
        self._has_free_slot = has_free_slot
        self._free_since: float | None = None
        self._overtaken_checked_at = 0.0

    def tick(self) -> None:
        try:
            self._look(time.monotonic())
        except StoreUnavailable as error:
            self._free_since = None
            log.debug("lost messages are not looked for: %s", error)

    def _look(self, moment: float) -> None:
        self._free_since = (self._free_since or moment) if self._has_free_slot() else None
        if self._free_since is not None and moment - self._free_since >= _MESSAGE_LOST_SECONDS:
            self._free_since = moment
            waiting = self._store.oldest_queued(_RESEND_AT_ONCE, queues=self._queues)
            self._resend([task for task in waiting if waited_seconds(task) > _MESSAGE_LOST_SECONDS])
        if moment - self._overtaken_checked_at >= _OVERTAKEN_SECONDS:
            self._overtaken_checked_at = moment
            self._resend(self._store.overtaken(_RESEND_AT_ONCE, _OVERTAKEN_SECONDS))

    def _resend(self, tasks: list[TaskStatus]) -> None:
        for task in tasks:
            log.warning("task %s is queued though it could run: sending its message again", task.task_id)
            try:
                broker_app.enqueue(task.task_id, task.summary, priority=True, queue=task.queue or DEFAULT_QUEUE)
            except BrokerUnavailable as error:
                log.warning("%s", error)
                return
