"""Recovers orphaned runs, sends the messages of waiting tasks that may start, and prunes old records.

One thread in each worker and each web process, so that any process that is left does it.
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
# A lapsed lease must stay lapsed for so long. When Redis was away or frozen, the machine slept or its clock was set,
# all leases lapse at once, and each worker needs a moment to renew its own.
CONFIRM_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 3.0
_UNSENT_SECONDS = 600.0  # a busy queue may hold a message as long, and the record that it was sent may be lost


class Recovery:
    """Runs a round every TICK_SECONDS, between `start` and `stop`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._stopped = threading.Event()
        self._suspects: dict[Run, float] = {}  # runs with a lapsed lease, and when that was first seen
        self._last_reply = clock()
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                self.run_round()
            except StoreUnavailable as error:
                self._suspects.clear()
                log.debug("recovery waits: %s", error)
            except Exception:
                # The thread must continue: without it, lost tasks would seem to run for ever.
                log.exception("a round of recovery failed")

    def run_round(self) -> None:
        """Runs one round. Raises StoreUnavailable."""
        for run in self._store.runs():
            cause = process_identity.explain_death(run.process)
            if cause:
                self._mark_lost(run, cause, run.claim)
        self._mark_lapsed_lost()
        send_messages(self._store.ready_tasks())
        self._end_unsent()
        while self._store.prune() and not self._stopped.is_set():
            pass

    def _mark_lapsed_lost(self) -> None:
        lapsed = self._store.lapsed_leases()
        now = self._clock()
        if now - self._last_reply > _MAX_PAUSE_SECONDS:
            self._suspects.clear()
        self._last_reply = now
        self._suspects = {run: self._suspects.get(run, now) for run in lapsed}
        for run, since in self._suspects.items():
            if now - since >= CONFIRM_SECONDS:
                self._mark_lost(run, process_identity.explain_silence(run.process, run.worker))

    def _end_unsent(self) -> None:
        """Ends tasks that were recorded but never enqueued; their submission got an error reply, or none."""
        for task in self._store.oldest_queued(100, was_sent=False):
            if waited_seconds(task) > _UNSENT_SECONDS:
                description = "never put on the queue: the broker went away, or the web server died, in that moment"
                try:
                    self._store.settle(task.task_id, State.ERROR, description)
                except IllegalMove as error:
                    log.debug("%s", error)

    def _mark_lost(self, run: Run, cause: str, claim: str = "") -> None:
        try:
            transition = self._store.mark_lost(run.task_id, cause, claim)
        except IllegalMove as error:
            log.debug("%s", error)
            return
        log.warning("task %s is %s: %s", run.task_id, transition.state, cause)
        send_ready(self._store, run.task_id, transition)


def waited_seconds(task: TaskStatus) -> float:
    """Returns how long ago the task was submitted."""
    return (datetime.now(UTC) - datetime.fromisoformat(task.submitted_at)).total_seconds()


def send_ready(store: Store, task_id: str, transition: Transition) -> None:
    """Sends messages for all tasks that may start after this transition, the task itself if it was queued again."""
    again = store.task(task_id) if transition.state is State.QUEUED else None
    send_messages(([ReadyTask(task_id, again.summary)] if again else []) + list(transition.ready))


def send_messages(tasks: Iterable[ReadyTask]) -> None:
    """Puts these tasks on the priority queue. When the broker is down, workers send them later (worker/lease_renewal.py
    sends the messages of tasks that wait too long)."""
    for task in tasks:
        try:
            broker_app.enqueue(task.task_id, task.summary, priority=True)
        except BrokerUnavailable as error:
            log.warning("message of task %s is not sent: %s", task.task_id, error)
            return
