"""Settles what nobody looks after: runs whose worker is gone, tasks whose turn came and nobody told them, old records.

One thread in each worker and each web process, so that any of them left alive does it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from flansible.broker import app as broker_app
from flansible.errors import BrokerUnavailable, IllegalMove, StoreUnavailable
from flansible.models import State, TaskStatus
from flansible.store import ReadyTask, Run, Store, Transition
from flansible.system import process_identity

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# A lease that has lapsed must be seen to stay so: when Redis was away or frozen, the machine slept or its clock set,
# all of them lapse at once, and each worker needs a moment to renew its own.
CONFIRM_SECONDS = 5.0
_SILENCE_SECONDS = 3.0
_UNSENT_SECONDS = 600.0  # a busy queue may hold a message as long, and the note that it was sent be lost


class Recovery:
    """Looks every TICK_SECONDS, from `start` on, until `stop`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._stopped = threading.Event()
        self._suspects: dict[Run, float] = {}  # runs whose lease has lapsed, and since when that is seen
        self._answered = clock()
        self._thread = threading.Thread(target=self._for_ever, name="recovery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _for_ever(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                self.run_round()
            except StoreUnavailable as error:
                self._suspects.clear()
                log.debug("nothing can be settled: %s", error)
            except Exception:
                # The thread must live: without it lost tasks would seem to run for ever.
                log.exception("a round of recovery failed")

    def run_round(self) -> None:
        """One round. Raises StoreUnavailable."""
        for run in self._store.runs():
            cause = process_identity.explain_death(run.process)
            if cause:
                self._lose(run, cause, run.claim)
        self._lose_silent()
        send_messages(self._store.ready_tasks())
        self._end_unsent()
        while self._store.prune() and not self._stopped.is_set():
            pass

    def _lose_silent(self) -> None:
        lapsed = self._store.lapsed_leases()
        now = self._clock()
        if now - self._answered > _SILENCE_SECONDS:
            self._suspects.clear()
        self._answered = now
        self._suspects = {run: self._suspects.get(run, now) for run in lapsed}
        for run, since in self._suspects.items():
            if now - since >= CONFIRM_SECONDS:
                self._lose(run, process_identity.explain_silence(run.process, run.worker))

    def _end_unsent(self) -> None:
        """What was recorded and never put on the queue: whoever asked for it was not told that it is."""
        for task in self._store.oldest_queued(100, was_sent=False):
            if waited_seconds(task) > _UNSENT_SECONDS:
                description = "never put on the queue: the broker went away, or the web server died, in that moment"
                try:
                    self._store.settle(task.task_id, State.ERROR, description)
                except IllegalMove as error:
                    log.debug("%s", error)

    def _lose(self, run: Run, cause: str, claim: str = "") -> None:
        try:
            moved = self._store.mark_lost(run.task_id, cause, claim)
        except IllegalMove as error:
            log.debug("%s", error)
            return
        log.warning("task %s is %s: %s", run.task_id, moved.state, cause)
        send_ready(self._store, run.task_id, moved)


def waited_seconds(task: TaskStatus) -> float:
    """Since it was submitted."""
    return (datetime.now(UTC) - datetime.fromisoformat(task.submitted_at)).total_seconds()


def send_ready(store: Store, task_id: str, moved: Transition) -> None:
    """After a task has ended, or has to begin again: messages for all that can start now."""
    again = store.task(task_id) if moved.state is State.QUEUED else None
    send_messages(([ReadyTask(task_id, again.summary)] if again else []) + list(moved.ready))


def send_messages(tasks: Iterable[ReadyTask]) -> None:
    """Put these tasks on the queue, before those that wait in it. What cannot be sent now is sent by the workers' look
    at tasks that wait too long."""
    for task in tasks:
        try:
            broker_app.enqueue(task.task_id, task.summary, priority=True)
        except BrokerUnavailable as error:
            log.warning("task %s is not sent: %s", task.task_id, error)
            return
