"""Counts the requests that this web process has answered, and adds them to the store's counters each second.

A request costs the store nothing by it. Only where `metrics` is on. What was counted last is lost with the process.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

from flansible.errors import StoreUnavailable
from flansible.store import AnsweredRequest, Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0


class RequestCounts(Periodic):
    """The counts that the store does not have yet, and the thread that adds them."""

    def __init__(self, store: Store) -> None:
        super().__init__("request-counts", FLUSH_SECONDS)
        self._store = store
        self._lock = threading.Lock()
        self._counts: Counter[AnsweredRequest] = Counter()

    def add(self, answered: AnsweredRequest) -> None:
        with self._lock:
            self._counts[answered] += 1

    def tick(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            self._store.count_requests(counts)
        except StoreUnavailable as error:
            log.debug("requests are counted later: %s", error)
            with self._lock:
                self._counts.update(counts)
