"""What is known of hosts in both places: tasks that are in Redis still, and those in the history database.

Of a list of hosts the database alone is asked: a task counts there once it is archived. One host's page has both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flansible.history.archived_hosts import ArchivedHosts
from flansible.history.encoding import milliseconds
from flansible.history.host_records import (
    HostFilter,
    HostPage,
    HostSummary,
    HostTask,
    StoredFacts,
    TaskOnHost,
    TaskViewer,
)
from flansible.history.host_results import HostResult
from flansible.history.merged_records import Records
from flansible.models import FINAL_STATES, TaskStatus
from flansible.store import ListFilter

_FAILED = ("failed", "unreachable")
_SECONDS = 0.1  # in which tasks in Redis are looked for
_EVENTS, _EVENT_BYTES = 500, 1024 * 1024
_PAGES = 20  # of events that are read of a host in one task in Redis


@dataclass(frozen=True)
class HostRunPage:
    """How hosts fared in tasks, newest first; next_before continues it. live: final tasks of it that are in Redis."""

    runs: tuple[tuple[TaskOnHost, TaskStatus], ...]
    next_before: int | None
    live: tuple[tuple[TaskOnHost, TaskStatus], ...]


class HostHistory:
    """Hosts as one user sees them. Raises HistoryUnavailable and StoreUnavailable."""

    def __init__(self, records: Records, viewer: TaskViewer) -> None:
        self._records = records
        self._viewer = viewer

    def page(self, wanted: HostFilter, after: tuple[str, str] | None, limit: int) -> HostPage:
        """Lists hosts by name and inventory."""
        archived = self._archived()
        return archived.page(wanted, after, limit) if archived else HostPage((), None)

    def named(
        self, name: str, inventory: str | None, live: Iterable[tuple[TaskOnHost, TaskStatus]]
    ) -> list[HostSummary]:
        """Returns the hosts of this name, one for each inventory that has it. live: tasks to be counted in."""
        archived = self._archived()
        known = {host.inventory: host for host in archived.named(name, inventory)} if archived else {}
        for run, status in sorted(live, key=lambda pair: pair[0].number):
            found = _with_run(name, known.get(run.inventory), run, status)
            known[run.inventory] = found
        return sorted(known.values(), key=lambda host: host.inventory)

    def runs(self, name: str, inventory: str | None, before: int | None, limit: int) -> HostRunPage:
        """Lists how the hosts of this name fared in each task with results of them."""
        # In this order: what has left Redis by now is in the database.
        live, live_before = self._live(name, inventory, before, limit)
        archived = self._archived()
        past = archived.runs(name, inventory, before, limit) if archived else []
        past_before = past[-1].number if len(past) == limit else None
        found = {run.task_id: (run, status) for run, status in live}
        assert self._records.archive is not None
        statuses = self._records.archive.tasks([run.task_id for run in past]) if past else {}
        found |= {run.task_id: (run, statuses[run.task_id].status) for run in past if run.task_id in statuses}
        floor = max((number for number in (live_before, past_before) if number is not None), default=None)
        runs = sorted(found.values(), key=lambda pair: pair[0].number, reverse=True)
        runs = [pair for pair in runs if floor is None or pair[0].number >= floor]
        if len(runs) > limit:
            runs, floor = runs[:limit], runs[limit - 1][0].number
        ended = tuple(pair for pair in live if pair[1].state in FINAL_STATES)
        return HostRunPage(tuple(runs), floor, ended)

    def facts_gathered(self, name: str, inventory: str | None) -> int | None:
        """Returns when the facts were gathered that `facts` returns, in milliseconds."""
        archived = self._archived()
        return archived.facts_gathered(name, inventory) if archived else None

    def facts(self, name: str, inventory: str | None) -> StoredFacts | None:
        """Returns the latest facts of the hosts of this name, None where none are kept, or seen."""
        archived = self._archived()
        return archived.facts(name, inventory) if archived else None

    def _archived(self) -> ArchivedHosts | None:
        assert self._records.archive is not None
        return self._records.archive.known_hosts(self._viewer)

    def _live(
        self, name: str, inventory: str | None, before: int | None, limit: int
    ) -> tuple[list[tuple[TaskOnHost, TaskStatus]], int | None]:
        wanted = ListFilter(user=self._viewer.user, entries=self._viewer.entries, host=name)
        page = self._records.live_page(wanted, before, limit, time.monotonic() + _SECONDS)
        found = []
        for task in page.tasks:
            status = task.status
            if inventory not in (None, status.inventory or "") or not self._sees(status):
                continue
            if (result := self._live_result(status.task_id, name)) is not None:
                changed = bool(result.counts["changed"])
                counts = dict(result.counts)
                number, inside = task.number, status.inventory or ""
                run = TaskOnHost(status.task_id, number, inside, result.verdict, changed, counts)
                found.append((run, status))
        return found, page.next_before

    def _live_result(self, task_id: str, host: str) -> HostResult | None:
        """Counts the host's results of a task in Redis; None: there are none, or it has left Redis just now."""
        found, after = HostResult(host, Counter()), 0
        for _ in range(_PAGES):
            page = self._records.live_events(task_id, after, _EVENTS, _EVENT_BYTES, host)
            if not page:
                break
            found.counts.update(event["verdict"] for event in page)
            after = page[-1]["seq"]
        return found if found.counts else None

    def _sees(self, status: TaskStatus) -> bool:
        if self._viewer.user is None or status.user == self._viewer.user:
            return True
        return status.visibility is not None and self._viewer.sees(status.visibility)


def _with_run(name: str, known: HostSummary | None, run: TaskOnHost, status: TaskStatus) -> HostSummary:
    """Returns what is known of a host after this task too."""
    finished = milliseconds(status.finished_at or status.submitted_at)
    if known is not None and known.last.finished > finished:
        return known
    names: Sequence[str] = (status.kind, status.user, status.summary, status.state)
    task = HostTask(status.task_id, run.number, finished, *names)
    if known is None:
        known = HostSummary(name, run.inventory, run.verdict, None, task, None, None)
    return replace(
        known,
        verdict=run.verdict,
        last=task,
        changed=task if run.changed else known.changed,
        failed=task if run.verdict in _FAILED else known.failed,
    )
