"""Does later what the store could not do when a task was submitted.

It deletes the record of a task whose submission was answered with 503: its id was given to nobody. And it notes that a
task is on the queue: without that note the task would end as never queued.

A Redis that was frozen, or cut off, executes what it was sent before, long after the request was answered with 503. One
thread in each web process; should that end first, the task ends as an error ten minutes later (broker/recovery.py).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flansible.errors import StoreUnavailable
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_MOST_TASKS = 10_000
# What is on its way may come later than our own request: after a cut, TCP sends it again up to two minutes later.
_LATE_SECONDS = 130.0
_LONGEST_PAUSE_SECONDS = 10.0  # below the 30 s after which an idempotency key is answered with such a task (submit.lua)


@dataclass
class _Attempts:
    """next_at, pause: when the store is asked next, and the pause after that; until: set by its first answer."""

    next_at: float = 0.0
    pause: float = TICK_SECONDS
    until: float = math.inf

    def count(self, now: float) -> None:
        self.until = min(self.until, now + _LATE_SECONDS)
        self.next_at = now + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE_SECONDS)


class FailedSubmissions(Periodic):
    """The tasks about which the store did not answer, and the thread that asks it again."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("failed-submissions", TICK_SECONDS)
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._due: OrderedDict[str, _Attempts] = OrderedDict()  # by task id
        self._sent: OrderedDict[str, None] = OrderedDict()

    def note_sent(self, task_id: str) -> None:
        """Notes that a recorded task is on the queue: now, or when the store answers."""
        try:
            self._store.mark_enqueued(task_id)
        except StoreUnavailable as error:
            log.debug("that task %s is on the queue is noted later: %s", task_id, error)
            with self._lock:
                self._sent[task_id] = None
                while len(self._sent) > _MOST_TASKS:
                    self._sent.popitem(last=False)

    def discard(self, task_id: str) -> None:
        """Deletes a task that is recorded: now, or when the store answers."""
        try:
            self._store.discard(task_id)
        except StoreUnavailable as error:
            log.debug("task %s is discarded later: %s", task_id, error)
            self.add(task_id)

    def add(self, task_id: str) -> None:
        """Deletes a task that may be recorded, or may yet be."""
        with self._lock:
            self._due[task_id] = _Attempts()
            while len(self._due) > _MOST_TASKS:
                self._due.popitem(last=False)

    def tick(self) -> None:
        now = self._clock()
        with self._lock:
            due = [(task_id, attempts) for task_id, attempts in self._due.items() if attempts.next_at <= now]
            sent = list(self._sent)
        try:
            for task_id in sent:
                self._store.mark_enqueued(task_id)
                with self._lock:
                    self._sent.pop(task_id, None)
            for task_id, attempts in due:
                was_there = self._store.discard(task_id)
                attempts.count(now)
                if was_there or now >= attempts.until:
                    with self._lock:
                        self._due.pop(task_id, None)
        except StoreUnavailable as error:
            log.debug("failed submissions are discarded later: %s", error)
