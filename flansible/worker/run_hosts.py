"""Finds on which hosts a task will run, before it is claimed: for one that wants its hosts for itself, and for others
while there is such a one on the same inventory.

celery_task.py carries out the preview run made here in the thread that has received the task, so it waits for no other
worker, and with the task's own rights and secrets. What cannot be found counts as all hosts of the task's inventories.
"""

from __future__ import annotations

import logging
import os
import posixpath
import uuid
from collections.abc import Callable
from typing import Any

from flansible.authorization import preview_request
from flansible.errors import RecordUnreadable, SealError, StoreUnavailable
from flansible.models import AuthorizedRun, State, inventory_place
from flansible.sealing import Sealer
from flansible.store import Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

# Longer than a preview that a request waits for: a project's commit may have to be fetched, which the run needs anyway.
_SECONDS = 120
_INLINE = ","  # hosts that are given as a list, whichever: they are compared by their names
_LOOK_SECONDS = 1.0


def find_hosts(store: Store, sealer: Sealer, task_id: str, carry_out: Callable[[str], None]) -> None:
    """Has the store know on which hosts a queued task will run. Raises StoreUnavailable.

    carry_out: claims and runs the preview run of this id.
    """
    preview_id = str(uuid.uuid4())
    run = _submit_preview(store, sealer, task_id, preview_id)
    if run is not None:
        watch = _Watch(store, task_id, preview_id)
        watch.start()
        try:
            carry_out(preview_id)
        finally:
            watch.stop()
    _record_hosts(store, task_id, run, preview_id)


class _Watch(Periodic):
    """Ends the preview run once its task no longer waits: a hung inventory program would hold the slot."""

    def __init__(self, store: Store, task_id: str, preview_id: str) -> None:
        super().__init__("preview-watch", _LOOK_SECONDS)
        self._store = store
        self._task_id, self._preview_id = task_id, preview_id

    def tick(self) -> None:
        try:
            task = self._store.task(self._task_id)
            if task is None or task.state is not State.QUEUED:
                self._store.cancel(self._preview_id, "the end of its task")
                self.stop()
        except (StoreUnavailable, RecordUnreadable) as error:
            log.debug("whether task %s still waits is not known: %s", self._task_id, error)


def _submit_preview(store: Store, sealer: Sealer, task_id: str, preview_id: str) -> AuthorizedRun | None:
    """Records the preview run of a queued task; returns the task's run. None: there can be none.

    Raises StoreUnavailable.
    """
    try:
        run = store.authorized_run(task_id)
        # A pull may change everything.
        if run is None or len(run.steps) > 1 or not run.has_rights:
            return None
        sealed = store.secrets(task_id)
        known = run.model_copy(update={"secrets": sealer.open(sealed) if sealed else None})
        # In place of the run, so it does not count beside it.
        preview = preview_request.preview_of(known, "plan").model_copy(update={"time_limit": _SECONDS, "locks": ()})
        store.submit(preview_id, preview, sealer.seal(preview.secrets) if preview.secrets else b"")
    except (RecordUnreadable, SealError) as error:
        log.info("the hosts of task %s are not known: %s", task_id, error)
        return None
    return run


def _record_hosts(store: Store, task_id: str, run: AuthorizedRun | None, preview_id: str) -> None:
    """Records the hosts that the preview run has found, or that they are not known. Raises StoreUnavailable."""
    hosts: set[str] | None = None
    places: tuple[str, ...] | None = None
    if run is not None:
        events = store.event_page(preview_id)
        plan: dict[str, Any] = next((event["plan"] for event in events if event["event"] == "plan"), {})
        try:
            hosts = {str(host) for play in plan["plays"] for host in play["hosts"]}
            places = _places(run, plan)
        except (KeyError, TypeError, AttributeError) as error:
            log.info("the hosts of task %s are not known: %s", task_id, error)
    store.set_hosts(task_id, hosts, places)


def _places(run: AuthorizedRun, plan: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the inventories that Ansible has found; None where the run names its own.

    Only a run of admin names none, so a confined user's code cannot name another's here.
    """
    if run.visibility is not None or run.confinement is not None:
        return None
    found = []
    for text in map(str, plan["inventories"]):
        if "," in text:
            found.append(_INLINE)
        elif run.project is not None:
            found.append(inventory_place(_in_project(run, text, str(plan["cwd"]))))
        else:
            found.append(inventory_place(text))
    return tuple(found)


def _in_project(run: AuthorizedRun, path: str, cwd: str) -> str:
    """Returns an inventory as requests for the project name it: its tree has another path at each commit."""
    assert run.project is not None
    root = os.path.realpath(os.path.join(cwd, posixpath.relpath(".", run.steps[-1].cwd)))
    below = os.path.relpath(path, root)
    return path if below.startswith("../") else f"{run.project.name}:{below}"
