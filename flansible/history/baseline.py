"""Finds the run that a task is compared with: the last one before it that did the same and succeeded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from flansible.models import AuthorizedRun, State, TaskStatus
from flansible.store import ListFilter, Store

_SECONDS = 1.0  # for which tasks are read
_PAGE = 50
_MAX_FAILURES = 20
# Of a request, besides the fields of its status; an ad-hoc command with other arguments is another one.
_SAME = ("playbook_dir", "check", "module_args", "remote_name", "branch_name")


@dataclass(frozen=True)
class Baseline:
    """The last success. failures: runs of the same between them that failed, 20 at most."""

    task: TaskStatus
    failures: int


def last_success(
    store: Store, task: TaskStatus, seen: ListFilter, sees: Callable[[TaskStatus], bool]
) -> Baseline | None:
    """Returns the last successful run of the same playbook (or module), inventory and limit before this task.

    seen: the list of what the caller sees; sees: whether the caller sees a task of it. None: there is none, or none was
    found in a second.
    """
    run = store.authorized_run(task.task_id)
    if run is None:
        return None
    like = replace(seen, kind=task.kind, playbook=task.playbook or "", until=task.submitted_at)
    candidates = _same(store, run, task, replace(like, state=State.SUCCEEDED), sees)
    found = next(candidates, None)
    if found is None:
        return None
    failed = replace(like, state=State.FAILED, since=found.submitted_at)
    count = sum(1 for _, _ in zip(range(_MAX_FAILURES), _same(store, run, task, failed, sees), strict=False))
    return Baseline(found, count)


def _same(
    store: Store, run: AuthorizedRun, task: TaskStatus, wanted: ListFilter, sees: Callable[[TaskStatus], bool]
) -> Iterator[TaskStatus]:
    """Yields the tasks of a list that did the same, the newest first."""
    give_up_at = time.monotonic() + _SECONDS
    before: int | None = None
    while time.monotonic() < give_up_at:
        page = store.search(wanted, before, _PAGE)
        for found in page.tasks:
            if _is_alike(found, task) and sees(found):
                other = store.authorized_run(found.task_id)
                if other is not None and all(run.request.get(name) == other.request.get(name) for name in _SAME):
                    yield found
        before = page.next_before
        if before is None:
            return


def _is_alike(found: TaskStatus, task: TaskStatus) -> bool:
    names = {"kind", "project", "playbook", "module", "hosts", "inventory"}
    return found.task_id != task.task_id and found.model_dump(include=names) == task.model_dump(include=names)
