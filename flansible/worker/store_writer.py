"""The worker's one thread that writes to the store what runs leave, for all recorders in turn.

Supervisors never wait for Redis, and however many runs there are, Redis sees one writer of this worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flansible.errors import StoreUnavailable
from flansible.models import State
from flansible.store import Appended, Claim, Store
from flansible.worker.recorder import Recorder

log = logging.getLogger(__name__)

# After a batch of a run the next one waits so long for more, so that a run which prints line by line costs few writes.
LINGER_SECONDS = 0.004
_RETRY_SECONDS = (0.1, 0.3, 1.0)


class StoreWriter:
    """`serve` a recorder; `wake` when something was added to one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._recorders: dict[Recorder, float] = {}  # to when its next batch may go
        self._awake = False
        self._failures = 0
        self._thread: threading.Thread | None = None

    @contextmanager
    def serve(self, recorder: Recorder) -> Iterator[None]:
        """Store what this recorder is given, while the block runs."""
        with self._changed:
            self._recorders[recorder] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._for_ever, name="store-writer", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                del self._recorders[recorder]

    def wake(self) -> None:
        """There is something to store."""
        if not self._awake:
            with self._changed:
                self._awake = True
                self._changed.notify()

    def _for_ever(self) -> None:
        while True:
            try:
                self._round()
            except StoreUnavailable as error:
                if self._failures == 0:
                    log.warning("%s; what runs print is kept until it does", error)
                self._failures += 1
                time.sleep(_RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1])
            except Exception:
                # The thread must live: without it nothing more would be stored.
                log.exception("a round of storing failed")
                time.sleep(_RETRY_SECONDS[-1])

    def _round(self) -> None:
        with self._changed:
            self._awake = False
            recorders = list(self._recorders.items())
        soonest: float | None = None
        for recorder, due in recorders:
            # Batches are worth waiting for while there is more to come; at the end somebody waits for us.
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
            # Whatever it is, the other runs must not wait for it.
            log.exception("what task %s left cannot be stored", recorder.task_id)
            answer = Appended("unstorable", batch.before)
        if self._failures:
            log.warning("the store is back")
            self._failures = 0
        if answer.standing == State.QUEUED.value and self._claim_again(recorder):
            return True
        recorder.stored(answer)
        return True

    def _claim_again(self, recorder: Recorder) -> bool:
        """A Redis that was killed may have forgotten that the task was claimed: it must not be run a second time."""
        claim = recorder.claim
        again = self._store.claim(recorder.task_id, claim.worker, claim.token, claim.process, claim.attempt)
        return isinstance(again, Claim)
