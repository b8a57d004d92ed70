"""Answers look-ups in projects (the commit of a ref, its tags, its files) while all slots of the worker are taken.

A request for a project needs its commit before it can be queued, so it must not wait for runs that take hours. The web
server announces each look-up beside its message (store/project_refs.py); whoever claims it first carries it out. They
run none of the project's code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flansible.errors import StoreUnavailable
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

THREADS = 2  # one remote that does not answer leaves another
_WAIT_SECONDS = 1
_STORE_RETRY_SECONDS = 1.0


class ProjectLookups(Periodic):
    """One such thread. store: for it alone; carry_out: claims and runs the look-up of this id."""

    def __init__(self, store: Store, queues: tuple[str, ...], carry_out: Callable[[str], None]) -> None:
        super().__init__("project-lookups", 0.0)
        self._store = store
        self._queues = queues
        self._carry_out = carry_out

    def tick(self) -> None:
        try:
            task_id = self._store.next_lookup(self._queues, _WAIT_SECONDS)
            if task_id is not None:
                self._carry_out(task_id)
        except StoreUnavailable as error:
            log.debug("look-ups are not taken: %s", error)
            self._stopped.wait(_STORE_RETRY_SECONDS)
