"""Answers look-ups in projects (the commit of a ref, its tags, its files) while all slots of the worker are taken.

A request for a project needs its commit before it can be queued, so it must not wait for runs that take hours. The web
server announces each look-up beside its message (store/project_refs.py); whoever claims it first carries it out. They
run none of the project's code.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flansible.errors import RecordUnreadable, StoreUnavailable
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

_THREADS = 2  # of one project one at a time: a remote that does not answer leaves the other thread
_WAIT_SECONDS = 1
_BUSY_SECONDS = 0.05
_STORE_RETRY_SECONDS = 1.0


class LookupOrder:
    """What the threads share. may_take: whether this worker may claim; carry_out: claims and runs the look-up of this
    id."""

    def __init__(self, queues: tuple[str, ...], may_take: Callable[[], bool], carry_out: Callable[[str], None]) -> None:
        self.queues = queues
        self.may_take = may_take
        self.carry_out = carry_out
        self._lock = threading.Lock()
        self._busy: set[str] = set()  # projects that a thread looks into

    def take(self, project: str) -> bool:
        with self._lock:
            if project in self._busy:
                return False
            self._busy.add(project)
            return True

    def leave(self, project: str) -> None:
        with self._lock:
            self._busy.discard(project)


def threads(open_store: Callable[[], Store], order: LookupOrder) -> list[ProjectLookups]:
    """Returns the threads. open_store: makes a store for one of them."""
    return [ProjectLookups(open_store(), order) for _ in range(_THREADS)]


class ProjectLookups(Periodic):
    """One such thread."""

    def __init__(self, store: Store, order: LookupOrder) -> None:
        super().__init__("project-lookups", 0.0)
        self._store = store
        self._order = order

    def tick(self) -> None:
        if not self._order.may_take():  # it is left to other workers
            self._stopped.wait(_WAIT_SECONDS)
            return
        try:
            task_id = self._store.next_lookup(self._order.queues, _WAIT_SECONDS)
            if task_id is not None:
                self._look(task_id)
        except RecordUnreadable as error:
            log.info("a look-up is left to a worker's slot: %s", error)
        except StoreUnavailable as error:
            log.debug("look-ups are not taken: %s", error)
            self._stopped.wait(_STORE_RETRY_SECONDS)

    def _look(self, task_id: str) -> None:
        run = self._store.authorized_run(task_id)
        if run is None or run.project is None:
            return
        if not (self._order.may_take() and self._order.take(run.project.name)):
            self._store.announce_lookup(task_id, run.queue)  # behind those of other projects
            self._stopped.wait(_BUSY_SECONDS)
            return
        try:
            self._order.carry_out(task_id)
        finally:
            self._order.leave(run.project.name)
