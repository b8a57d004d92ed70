"""Recovers orphaned runs, sends the messages of waiting tasks that may start, and prunes old records.

One thread in each worker and each web process, so that any process that is left does it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from flansible.broker import app as broker_app
from flansible.errors import BrokerUnavailable, IllegalMove, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, State, TaskStatus
from flansible.store import ReadyTask, Run, Store, Transition
from flansible.system import process_identity, runner_processes
from flansible.system.periodic import Periodic
from flansible.system.timestamps import timestamp

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# A lease must be seen to come to its end for so long. When Redis was frozen, or this machine slept, each worker needs a
# moment to renew its own.
CONFIRM_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 3.0
_ORPHANS_SECONDS = 60.0
SILENT_SECONDS = 11.0  # since the last renewal; one is sent each second
LOOK_SECONDS = 5.0  # between looks for what dead workers have left on this machine
LEFT_SECONDS = 12.0  # a keeper whose worker is dead has so long to end its run
_UNSENT_SECONDS = 600.0  # a busy queue may hold a message as long, and the record that it was sent may be lost


class Recovery(Periodic):
    """Runs a round every TICK_SECONDS, between `start` and `stop`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("recovery", TICK_SECONDS)
        self._store = store
        self._clock = clock
        # Task and token of runs whose lease is nearly over, and when that was first seen.
        self._suspects: dict[tuple[str, int], float] = {}
        self._last_reply = self._steady_since = clock()
        self._look_at = clock()
        self._left_since: dict[str, float] = {}  # tags of dead workers that have left processes
        self._orphans_at = 0.0

    def tick(self) -> None:
        try:
            self.end_left_runs()
            self.run_round()
        except StoreUnavailable as error:
            self._suspects.clear()
            log.debug("recovery waits: %s", error)

    def end_left_runs(self) -> None:
        """Ends what dead workers have left on this machine. Without the store: other machines take the tasks over.

        A keeper ends its run when its worker is dead, or its lease over; unless it was stopped.
        """
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        found = runner_processes.tags()
        dead = {tag for tag in found if process_identity.is_tag_of_dead(tag)}
        self._left_since = {tag: self._left_since.get(tag, now) for tag in dead}
        for tag, pids in found.items():
            if tag not in dead and not process_identity.is_tag_of_stopped(tag):
                continue  # it looks after them itself
            if stopped := runner_processes.resume(pids):
                log.warning("processes of %s were stopped by a signal, and are continued: %s", tag, sorted(stopped))
            if tag in dead and now - self._left_since[tag] >= LEFT_SECONDS:
                log.warning("%s is dead, and what it has left does not end: it is killed", tag)
                runner_processes.kill(pids)

    def run_round(self) -> None:
        """Runs one round. Raises StoreUnavailable."""
        now = self._clock()
        if now >= self._orphans_at:
            self._orphans_at = now + _ORPHANS_SECONDS
            if count := self._store.lease_orphans():
                log.warning("%d running tasks of an older version, without a lease, get one", count)
        runs = self._store.runs()
        now = self._clock()
        if now - self._last_reply > _MAX_PAUSE_SECONDS:
            self._steady_since = now
            self._suspects.clear()
        self._last_reply = now
        for run in runs:
            cause = process_identity.explain_death(run.process)
            if cause and not runner_processes.of_worker(run.process):
                self._mark_lost(run, cause, run.token)
            elif run.seconds_silent > SILENT_SECONDS and not run.is_silent:
                self._mark_silent(run, now)
        self._mark_lapsed_lost(runs, now)
        self._remove_dead_workers()
        send_messages(self._store.ready_tasks())
        self._end_unsent()
        while self._store.prune() and not self._stopped.is_set():
            pass

    def _mark_silent(self, run: Run, now: float) -> None:
        if now - self._steady_since >= _MAX_PAUSE_SECONDS:
            since = timestamp(datetime.now(UTC) - timedelta(seconds=run.seconds_silent), "seconds")
            description = f"running on {run.worker}; its worker has not been heard of since {since}"
            self._store.mark_silent(run, description)

    def _mark_lapsed_lost(self, runs: list[Run], now: float) -> None:
        ending = [run for run in runs if run.seconds_left < CONFIRM_SECONDS]
        self._suspects = {key: self._suspects.get(key, now) for key in ((run.task_id, run.token) for run in ending)}
        for run in ending:
            # A worker that is seen to run is late: it gets the time of another lease to say how its runs ended.
            more = run.seconds_left + run.seconds_silent if process_identity.is_running(run.process) else 0.0
            if run.seconds_left + more <= 0 and now - self._suspects[run.task_id, run.token] >= CONFIRM_SECONDS:
                # Its keeper should have ended it.
                if not process_identity.is_running(run.process):
                    runner_processes.kill(runner_processes.of_worker(run.process))
                self._mark_lost(run, process_identity.explain_silence(run.worker))

    def _remove_dead_workers(self) -> None:
        """Removes those that the store awaits although they are dead; until then no task is claimed."""
        for name in self._store.awaited_workers():
            if process_identity.explain_death(name) and not runner_processes.of_worker(name):
                self._store.remove_worker(name)

    def _end_unsent(self) -> None:
        """Ends tasks that were recorded but never enqueued; their submission got an error reply, or none."""
        for task in self._store.oldest_queued(100, was_sent=False):
            if waited_seconds(task) > _UNSENT_SECONDS:
                description = "never put on the queue: the broker went away, or the web server died, in that moment"
                try:
                    self._store.settle(task.task_id, State.ERROR, description)
                except IllegalMove as error:
                    log.debug("%s", error)

    def _mark_lost(self, run: Run, cause: str, token: int | None = None) -> None:
        try:
            transition = self._store.mark_lost(run.task_id, cause, token)
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
    send_messages(
        ([ReadyTask(task_id, again.summary, again.queue or DEFAULT_QUEUE)] if again else []) + list(transition.ready)
    )


def send_messages(tasks: Iterable[ReadyTask]) -> None:
    """Puts these tasks on the priority queue of their queue.

    When the broker is down, workers send them later (worker/message_resend.py).
    """
    for task in tasks:
        try:
            broker_app.enqueue(task.task_id, task.summary, priority=True, queue=task.queue)
        except BrokerUnavailable as error:
            log.warning("message of task %s is not sent: %s", task.task_id, error)
            return
