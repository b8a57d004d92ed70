"""Moves final tasks from Redis to the history database, and deletes there what is older than it is kept.

A process of its own (`python -m flansible.worker.archiver`), which archiver_process.py starts when something is to be
done, and which ends when nothing is: of a worker's processes it alone loads SQLAlchemy. Of several workers' archivers
one is elected, by a lease in Redis with a token, as claims have one. For each task, in the order of their ends:

1. It is copied, in one transaction that names the token: an archiver that was paused, and after which another one has
   written, is refused.
2. The copy is read back and compared.
3. Redis deletes it, in one step that checks the token, and that the task is as it was copied.

A crash between two steps leaves it in both places; the next archiver finds the copy, checks it and goes on with 3. So
it may be killed at any moment, and is, when its worker ends. While the database is away nothing is deleted; it tries
again, and health shows what it reports.

A task that cannot be archived, by its own fault, is left where it is, and tried again after an hour. At its end the
process prints which ones are left: the next process begins with them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from flansible.errors import (
    ArchiverReplaced,
    ConfigurationError,
    HistoryUnavailable,
    IllegalMove,
    RecordUnreadable,
    StoreUnavailable,
)
from flansible.history import upgrade
from flansible.history.archive_writer import ArchiveWriter
from flansible.history.archived_tasks import ArchivedTasks
from flansible.history.database import REFUSED, Database
from flansible.history.host_summaries import HostSummaries
from flansible.history.limits import HistoryLimits
from flansible.history.retention import HistoryRetention
from flansible.history.search_backfill import SearchBackfill
from flansible.models import State, TaskStatus
from flansible.store import FinishedTask, Store
from flansible.system import process_identity
from flansible.worker.archiver_process import ArchiverOrder

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
IDLE_SECONDS = 10.0  # without anything to do, after which it ends; what comes later may well come soon
ELECTED_SECONDS = 30.0
EXIT_IDLE = 4  # it has archived nothing
_RENEW_SECONDS = 5.0
_REPORT_SECONDS = 5.0
_PAGE = 500
_AT_ONCE = 50  # tasks of one round
_PRUNE_SECONDS, _PAUSE_SECONDS = 60.0, 0.05
_PRUNE_ROUND_SECONDS = 2.0  # of one round: what is archived waits meanwhile
_LONGEST_REST_SECONDS = 1.0
_RETRY_SECONDS = 3600.0  # of what was left
_MOST_LEFT = 500  # that are handed on: what a pipe takes at once
_BACKFILL_SECONDS = 2.0  # of one round, for what was archived without an index for search
_FILL_SECONDS = 0.5  # of each round
_STANDARD_INPUT = 0
_NICE = 5  # runs come first


class Archiver:
    """Archives. url: the database's; after_seconds: since a task's end; limits: of what is kept; keep_facts: whether
    the facts of hosts are; left: tasks that could not be archived a short time ago."""

    def __init__(
        self,
        store: Store,
        url: str,
        after_seconds: float,
        limits: HistoryLimits,
        keep_facts: bool = True,
        left: Iterable[str] = (),
    ) -> None:
        self._stopped = threading.Event()
        self._store = store
        self._url = url
        self._database = Database(url)
        self._retention = HistoryRetention(self._database, limits)
        self._prune_at = 0.0
        self._pruning: Iterator[int] | None = None  # what is left of a pass
        self._pruned = 0  # in this pass
        self._after_seconds = after_seconds
        self._keep_facts = keep_facts
        self._token: int | None = None
        self._prepared_for: int | None = None
        self._renew_at = self._report_at = 0.0
        self.left = set(left)
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        self._problem = _cannot_archive(len(self.left))

    def close(self) -> None:
        """Lets another one be elected at once, and closes the connections."""
        with contextlib.suppress(StoreUnavailable):
            if self._token is not None:
                self._store.elect_archiver(process_identity.own_identity(), 0)
        self._database.close()
        self._store.close()

    def serve(self, idle_seconds: float) -> int:
        """Archives until there was nothing to do for so long, or another one is elected; returns how many tasks."""
        count, busy_at = 0, time.monotonic()
        while True:
            archived = self.tick()
            if archived != 0:
                busy_at = time.monotonic()
                count += max(0, archived)
            is_idle = time.monotonic() - busy_at > (idle_seconds if count else 0.0)
            if self._token is None or (archived == 0 and is_idle):
                return count
            self._stopped.wait(TICK_SECONDS)

    def tick(self) -> int:
        """Runs a round; returns how many tasks it archived, -1 when it could not."""
        try:
            return self.run_round()
        except ArchiverReplaced:
            log.debug("another worker archives")
        except HistoryUnavailable as error:
            self._report(str(error))
        except ConfigurationError as error:
            self._report("; ".join(fault.message for fault in error.faults))
        except StoreUnavailable as error:
            log.debug("the archiver waits: %s", error)
        return -1

    def run_round(self) -> int:
        """Archives the tasks that are due, some of them; returns how many, and with them those made searchable, and
        those deleted while there are more to delete.

        Raises StoreUnavailable, HistoryUnavailable, ConfigurationError and ArchiverReplaced.
        """
        self._renew_at = 0.0
        if not self._still_elected():
            self._prepared_for = None
            return 0
        self._prepare()
        if time.monotonic() >= self._retry_at:
            self.left.clear()
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        count = 0
        finished = self._store.finished(0, _AT_ONCE + len(self.left))
        for task in finished:
            if task.task_id in self.left:
                continue
            if self._stopped.is_set() or not self._archive(task):
                break
            count += task.task_id not in self.left
        count += self._fill_summaries()
        count += self._prune()
        count += self._make_searchable()
        self._report(_cannot_archive(sum(task.task_id in self.left for task in finished)))
        return count

    def _prepare(self) -> None:
        """Once for each election: another program may have changed the tables, and Redis may have been put back."""
        if self._prepared_for == self._token:
            return
        self._pruning = None  # others may have deleted since it counted
        upgrade.upgrade(self._database, self._url)
        archived = ArchivedTasks(self._database)
        self._store.raise_sequence(archived.highest_number())
        self._backfill().look_for_missing()
        for state in (State.QUEUED, State.RUNNING):
            before = None
            while True:
                page = self._store.tasks(None, state, before, _PAGE)
                self._end_archived(archived, page.tasks)
                if (before := page.next_before) is None:
                    break
        if not self._keep_facts:
            self._summaries().delete_facts()
        self._prepared_for = self._token

    def _fill_summaries(self) -> int:
        """Enters what is known of hosts by tasks that a version before this one has archived, some at a time."""
        began, count, summaries = time.monotonic(), 0, self._summaries()
        while not self._stopped.is_set() and self._still_elected() and (filled := summaries.fill()):
            count += filled
            if time.monotonic() - began > _FILL_SECONDS:
                break
        return count

    def _summaries(self) -> HostSummaries:
        return HostSummaries(self._database, self._writer().fence)

    def _writer(self) -> ArchiveWriter:
        assert self._token is not None
        return ArchiveWriter(self._store, self._database, self._token, self._still_elected, self._keep_facts)

    def _end_archived(self, archived: ArchivedTasks, tasks: tuple[TaskStatus, ...]) -> None:
        """Ends what a Redis that was put back takes for live, and what has ended: the history database is right."""
        for task_id, known in archived.tasks([task.task_id for task in tasks]).items():
            log.warning("Redis has lost the end of task %s, which is in the history database", task_id)
            with contextlib.suppress(IllegalMove):
                self._store.settle(task_id, State.LOST, f"has ended already: {known.status.state}")

    def _prune(self) -> int:
        """Deletes some of what is older than it is kept, now and then; returns how many tasks, 0 when that is all."""
        if self._pruning is None:
            if time.monotonic() < self._prune_at:
                return 0
            self._prune_at, self._pruned = time.monotonic() + _PRUNE_SECONDS, 0
            self._pruning = self._retention.prune(self._store.being_read, self._writer().fence)
        began, before = time.monotonic(), self._pruned
        for count in self._pruning:
            self._pruned += count
            self._stopped.wait(_PAUSE_SECONDS)
            if time.monotonic() - began > _PRUNE_ROUND_SECONDS or self._stopped.is_set() or not self._still_elected():
                return self._pruned - before
        self._pruning = None
        if self._pruned:
            self._summaries().prune()
        return 0

    def _make_searchable(self) -> int:
        """Makes some tasks searchable that were archived before there was a search; returns how many."""
        backfill, until, count = self._backfill(), time.monotonic() + _BACKFILL_SECONDS, 0
        while time.monotonic() < until and not self._stopped.is_set():
            began = time.monotonic()
            if not (more := backfill.run()):
                break
            count += more
            self._stopped.wait(time.monotonic() - began)
        return count

    def _backfill(self) -> SearchBackfill:
        assert self._token is not None
        writer = ArchiveWriter(self._store, self._database, self._token, self._still_elected)
        return SearchBackfill(self._database, writer.fence)

    def _archive(self, task: FinishedTask) -> bool:
        """Archives one task; returns whether the next one may be due."""
        began = time.monotonic()
        assert self._token is not None
        try:
            record = self._store.final_record(task.task_id)
            if record is None:
                return True  # it has expired, and the pruning removes its index
            if 0 <= _age_seconds(record.status.finished_at) < self._after_seconds:
                return False
            if not self._store.forget(task, self._token, self._writer().archive(record)):
                raise ArchiverReplaced(f"task {task.task_id} was not deleted in Redis")
        except (RecordUnreadable, HistoryUnavailable) as error:
            # What the database refuses of one task it may take of the next: that one must not stop all others.
            if isinstance(error, HistoryUnavailable) and error.reason != REFUSED:
                raise
            self.left.add(task.task_id)
            log.error("task %s stays in Redis: %s", task.task_id, error)
        # Half of a processor's time at most, and no more of what writes to the disk.
        self._stopped.wait(min(time.monotonic() - began, _LONGEST_REST_SECONDS))
        return True

    def _still_elected(self) -> bool:
        """Renews the election when it is time; whether this worker is the archiver."""
        now = time.monotonic()
        if now >= self._renew_at:
            token = self._store.elect_archiver(process_identity.own_identity(), ELECTED_SECONDS)
            if self._renew_at and token != self._token:
                return False  # in the middle of something: a new token is for the next round
            self._token = token
            self._renew_at = now + _RENEW_SECONDS
        return self._token is not None

    def _report(self, problem: str) -> None:
        """Reports for health; logs what has changed."""
        if problem and problem != self._problem:
            log.error("finished tasks stay in Redis: %s", problem)
        elif self._problem and not problem:
            log.warning("finished tasks are archived again")
        if self._token is not None and (problem != self._problem or time.monotonic() >= self._report_at):
            self._store.report_archiver(self._token, problem)
            self._report_at = time.monotonic() + _REPORT_SECONDS
        self._problem = problem


def _cannot_archive(count: int) -> str:
    return f"{count} tasks cannot be archived, the worker's log says why" if count else ""


def _age_seconds(finished_at: str | None) -> float:
    """Returns how long ago a task has ended; below 0 where the clock of its worker is fast. Such a task is due at once:
    all others would have to wait for it."""
    if finished_at is None:
        return float("inf")  # of a damaged record
    return (datetime.now(UTC) - datetime.fromisoformat(finished_at)).total_seconds()


def _read_order() -> ArchiverOrder:
    # Not by sys.stdin, whose lock the other thread would hold when this process ends.
    line = b""
    while not line.endswith(b"\n") and (more := os.read(_STANDARD_INPUT, 65536)):
        line += more
    return ArchiverOrder(*json.loads(line))


def _end_with_worker() -> None:
    """Ends this process when its worker has closed its end of standard input, or is dead."""
    while os.read(_STANDARD_INPUT, 1):
        pass
    os._exit(0)


def main() -> int:
    order = _read_order()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the worker decides when this ends
    log_format = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=order.log_level.upper(), format=log_format, stream=sys.stderr)
    threading.Thread(target=_end_with_worker, name="end-with-worker", daemon=True).start()
    os.nice(_NICE)
    limits = HistoryLimits(*order.limits)
    try:
        archiver = Archiver(
            Store(order.store_url), order.history_url, order.after_seconds, limits, order.keep_facts, order.left
        )
    except ConfigurationError as error:
        log.error("finished tasks stay in Redis: %s", error)
        return EXIT_IDLE
    try:
        count = archiver.serve(IDLE_SECONDS)
        print(json.dumps(sorted(archiver.left)[:_MOST_LEFT]))
        return 0 if count else EXIT_IDLE
    finally:
        archiver.close()


if __name__ == "__main__":
    sys.exit(main())
