"""Writes output and events to the store: one thread of the worker, for all recorders in turn.

Supervisors never wait for Redis, and Redis sees one writer per worker however many runs there are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flansible.errors import StoreUnavailable
from flansible.store import AppendResult, Store
from flansible.worker.recorder import Recorder

log = logging.getLogger(__name__)

# Pause after a batch of a run, to collect more: a run that prints line by line then costs few writes.
LINGER_SECONDS = 0.004
_RETRY_SECONDS = (0.1, 0.3, 1.0)


class StoreWriter:
    """Call `serve` for a recorder, and `wake` when something was added to one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._recorders: dict[Recorder, float] = {}  # each with the time from which its next batch may be sent
        self._awake = False
        self._failures = 0
        self._thread: threading.Thread | None = None

    @contextmanager
    def serve(self, recorder: Recorder) -> Iterator[None]:
        """Stores what is added to this recorder, while the block runs."""
        with self._changed:
            self._recorders[recorder] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                del self._recorders[recorder]

    def wake(self) -> None:
        """Wakes the thread: there is something to store."""
        if not self._awake:
            with self._changed:
                self._awake = True
                self._changed.notify()

    def _run(self) -> None:
        while True:
            try:
                self._round()
            except StoreUnavailable as error:
                if self._failures == 0:
                    log.warning("%s; output of runs is kept here until it answers", error)
                self._failures += 1
                time.sleep(_RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1])
            except Exception:
                # The thread must survive: without it nothing more would be stored.
                log.exception("a round of storing failed")
                time.sleep(_RETRY_SECONDS[-1])

    def _round(self) -> None:
        with self._changed:
            self._awake = False
            recorders = list(self._recorders.items())
        soonest: float | None = None
        for recorder, due in recorders:
            # Collecting more pays off only while the run continues; at its end the supervisor waits for us.
            if time.monotonic() < due and not recorder.finished:
                soonest = due if soonest is None else min(soonest, due)
                continue
            if self._store_next(recorder):
                due = time.monotonic() + (0.0 if recorder.finished else LINGER_SECONDS)
                soonest = due if soonest is None else min(soonest, due)
                with self._changed:
                    if recorder in self._recorders:
                        self._recorders[recorder] = due
        with self._changed:
            pause = None if soonest is None else max(0.0, soonest - time.monotonic())
            self._changed.wait_for(lambda: self._awake, pause)

    def _store_next(self, recorder: Recorder) -> bool:
        batch = recorder.next_batch()
        if batch is None:
            return False
        try:
            answer = self._store.append(recorder.task_id, recorder.claim.token, batch)
        except StoreUnavailable:
            raise
        except Exception:
            # The other runs must not wait for this one.
            log.exception("output of task %s cannot be stored", recorder.task_id)
            answer = AppendResult("unstorable", batch.before)
        if self._failures:
            log.warning("the store answers again")
            self._failures = 0
        if answer.outcome == "forgotten" and self._store.restore(recorder.task_id, recorder.claim):
            return True
        recorder.stored(answer)
        return True
