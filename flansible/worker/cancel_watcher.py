"""Polls the store for cancel requests: one thread per worker, for all of its runs together.

A supervisor holds a `Cancellation`, whose descriptor becomes readable when its task is to be canceled.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flansible.errors import StoreUnavailable
from flansible.store import Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.25


class Cancellation:
    """The cancel request for one run, if there is one. by: the user who canceled it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.by: str | None = None

    def request(self, user: str) -> None:
        """Records the request and makes the descriptor readable. Called once, by the watcher's thread."""
        self.by = user
        os.eventfd_write(self.descriptor, 1)


class CancelWatcher:
    """Watches the runs of this worker. The thread sleeps while there are none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._followed: dict[str, Cancellation] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def follow(self, task_id: str) -> Iterator[Cancellation]:
        """Watches for a cancel request while the block runs."""
        cancellation = Cancellation()
        with self._changed:
            self._followed[task_id] = cancellation
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cancel-watcher", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield cancellation
        finally:
            with self._changed:
                del self._followed[task_id]
                os.close(cancellation.descriptor)

    def task_ids(self) -> list[str]:
        """Returns the ids of this worker's runs."""
        with self._changed:
            return list(self._followed)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._followed)
                task_ids = [task_id for task_id, item in self._followed.items() if item.by is None]
            self._poll(task_ids)
            pause.wait(INTERVAL_SECONDS)

    def _poll(self, task_ids: list[str]) -> None:
        try:
            requests = self._store.cancel_requests(task_ids) if task_ids else {}
        except StoreUnavailable as error:
            log.debug("cancel requests cannot be read: %s", error)
            return
        with self._changed:
            for task_id, user in requests.items():
                # The run may have ended meanwhile, and the number of its descriptor been reused.
                if task_id in self._followed:
                    self._followed[task_id].request(user)
