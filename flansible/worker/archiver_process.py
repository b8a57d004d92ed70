"""Starts the archiver (archiver.py), a process of this worker, when there is something for it to do.

A thread in each worker. It looks into Redis alone: whether a task is due, whether no other worker's archiver is
elected, whether Redis was restarted, and once an hour for what is older than it is kept. At the worker's start it runs
once in any case, and migrates the tables.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from flansible.errors import RecordUnreadable, StoreUnavailable
from flansible.history.limits import HistoryLimits
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_HOURLY_SECONDS = 3600.0
_PAUSE_SECONDS = 20.0  # after one that was started for a task and has archived none
_STOP_SECONDS = 1.0


class ArchiverOrder(NamedTuple):
    """What the process reads, as one line of JSON: URLs may hold passwords."""

    store_url: str
    history_url: str
    after_seconds: float
    limits: HistoryLimits
    log_level: str
    keep_facts: bool = True
    left: tuple[str, ...] = ()  # tasks that the process before it could not archive


class ArchiverProcess(Periodic):
    """The thread. store: for it alone."""

    def __init__(self, store: Store, order: ArchiverOrder) -> None:
        super().__init__("archiver-process", TICK_SECONDS)
        self._store = store
        self._order = order
        self._after = timedelta(seconds=order.after_seconds)
        self._process: subprocess.Popen[bytes] | None = None
        self._hourly_at = self._not_before = 0.0
        self._run_id = ""
        self._left: tuple[str, ...] = ()  # until the next hour, no reason to start one
        self._had_task = False  # whether the process was started for a task

    def stop(self) -> None:
        """Ends the thread and the process, which may be ended at any moment."""
        super().stop()
        if self._thread.is_alive():
            self._thread.join(TICK_SECONDS)
        if self._process is not None:
            self._end(self._process)
        self._store.close()

    def tick(self) -> None:
        try:
            if not self._is_running() and self._is_due() and not self._stopped.is_set():
                self._start_process()
        except StoreUnavailable as error:
            log.debug("whether a task is to be archived is not known: %s", error)
        except OSError as error:
            log.error("the archiver could not be started: %s", error)
            self._not_before = time.monotonic() + _PAUSE_SECONDS

    def _is_running(self) -> bool:
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        said, _ = self._process.communicate()  # one that was killed says nothing
        self._left = tuple(json.loads(said or b"[]"))
        self._process = None
        if code != 0 and self._had_task:  # it, or another one, cannot archive that task now
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        return False

    def _is_due(self) -> bool:
        run_id = self._store.run_id()
        if time.monotonic() >= self._hourly_at or run_id != self._run_id:
            if self._store.has_archiver():
                return False  # that one, or a killed one, of which its lease is left: later, or nobody would migrate
            self._hourly_at, self._run_id = time.monotonic() + _HOURLY_SECONDS, run_id
            self._had_task, self._left = False, ()
            return True
        if time.monotonic() < self._not_before or self._store.has_archiver():
            return False
        self._had_task = True
        finished = self._store.finished(0, len(self._left) + 1)
        oldest = next((task.task_id for task in finished if task.task_id not in self._left), None)
        if oldest is None:
            return False
        try:
            task = self._store.task(oldest)
        except RecordUnreadable:
            return True
        if task is None or task.finished_at is None:
            return task is not None
        # Below 0 where the clock of its worker is fast: due at once, or all others would have to wait for it.
        age = datetime.now(UTC) - datetime.fromisoformat(task.finished_at)
        return not timedelta(0) <= age < self._after

    def _start_process(self) -> None:
        # -P: files in the working directory must not be imported in place of our modules.
        command = [sys.executable, "-P", "-m", "flansible.worker.archiver"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        order = self._order._replace(left=self._left)
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Closes its standard input, on which it ends; kills it when it does not."""
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
