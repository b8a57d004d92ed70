"""Records of both places: what is live or was final just now is in Redis, what lasts in the history database.

`Records` is a Store whose reads look into the database for what Redis does not have. A task is copied there, and only
then deleted in Redis, as a whole and in one step. So Redis is read first; what it does not have any more is there. A
reader that has begun in Redis goes on in the database: offsets, seqs and numbers are the same.

An empty answer of Redis may mean that there is nothing, or that the task is gone: so Redis is asked once more whether
the task is there. While the database is away, whatever is in Redis can be read as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from flansible.errors import HistoryUnavailable
from flansible.history.archive import Archive
from flansible.models import AuthorizedRun, State, TaskStatus, is_task_id
from flansible.states import FINAL_STATES
from flansible.store import ColourMark, ListFilter, NumberedPage, NumberedTask, Position, Retention, Store
from flansible.store.connection import REPLY_TIMEOUT_SECONDS

_DEFAULT = Retention()
Found = TypeVar("Found")


class Records(Store):
    """A store of both places. archive None: there is no history database, and Redis has all there is."""

    def __init__(
        self,
        url: str,
        archive: Archive | None,
        retention: Retention = _DEFAULT,
        reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
    ) -> None:
        super().__init__(url, retention, reply_timeout_seconds)
        self.archive = archive

    def close(self) -> None:
        super().close()
        if self.archive is not None:
            self.archive.close()

    def task(self, task_id: str) -> TaskStatus | None:
        found = super().task(task_id)
        if found is not None or self.archive is None:
            return found
        return self.archive.task(task_id)

    def authorized_run(self, task_id: str) -> AuthorizedRun | None:
        found = super().authorized_run(task_id)
        if found is not None or self.archive is None:
            return found
        return self.archive.authorized_run(task_id)

    def cancel(self, task_id: str, user: str) -> State | None:
        state = super().cancel(task_id, user)
        if state is not None or self.archive is None:
            return state
        task = self.archive.task(task_id)
        return task.state if task else None

    def positions(self, task_ids: list[str]) -> dict[str, Position]:
        """Like Store's. While the database is away, tasks are missing that may be there; it raises HistoryUnavailable
        when that are all."""
        found = super().positions(task_ids)
        unknown = [task_id for task_id, position in found.items() if position.state is None and is_task_id(task_id)]
        if not unknown or self.archive is None:
            return found
        try:
            return found | self.archive.positions(unknown)
        except HistoryUnavailable:
            known = {task_id: position for task_id, position in found.items() if task_id not in unknown}
            if not known:
                raise
            return known

    def output(self, task_id: str, offset: int, max_bytes: int) -> bytes:
        found = super().output(task_id, offset, max_bytes)
        return self._or_archived(task_id, found, lambda archive: archive.output(task_id, offset, max_bytes))

    def colours(self, task_id: str, first: int, last: int, *, with_previous: bool = False) -> list[ColourMark]:
        found = super().colours(task_id, first, last, with_previous=with_previous)
        return self._or_archived(
            task_id, found, lambda archive: archive.colours(task_id, first, last, with_previous=with_previous)
        )

    def event_page(
        self, task_id: str, after: int = 0, limit: int = 500, max_bytes: int = 4 * 1024 * 1024, host: str = ""
    ) -> list[dict[str, Any]]:
        found = super().event_page(task_id, after, limit, max_bytes, host)
        return self._or_archived(
            task_id, found, lambda archive: archive.event_page(task_id, after, limit, max_bytes, host)
        )

    def stats_event(self, task_id: str) -> dict[str, Any] | None:
        found = super().stats_event(task_id)
        return self._or_archived(task_id, found, lambda archive: archive.stats_event(task_id))

    def hosts(self, task_id: str, first: int, limit: int) -> list[str]:
        found = super().hosts(task_id, first, limit)
        return self._or_archived(task_id, found, lambda archive: archive.hosts(task_id, first, limit))

    def host_events(self, task_id: str, hosts: list[str], limit: int, max_bytes: int) -> list[list[dict[str, Any]]]:
        found = super().host_events(task_id, hosts, limit, max_bytes)
        # Not read in one step: the task may have gone in between, and then the last ones are empty.
        if all(found) or self.archive is None or self.exists(task_id):
            return found
        return self.archive.host_events(task_id, hosts, limit, max_bytes)

    def live_page(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float) -> NumberedPage:
        """Lists what is in Redis alone, like `search`."""
        return super()._page(wanted, before, limit, give_up_at)

    def live_events(self, task_id: str, after: int, limit: int, max_bytes: int, host: str) -> list[dict[str, Any]]:
        """Reads events in Redis alone, like `event_page`; none of a task that has left it."""
        return super().event_page(task_id, after, limit, max_bytes, host)

    def keep_while_read(self, task_ids: list[str]) -> None:
        super().keep_while_read(task_ids)
        archived = [task_id for task_id in task_ids if is_task_id(task_id) and not self.exists(task_id)]
        if archived and self.archive is not None:
            self.mark_read(archived)

    def _or_archived(self, task_id: str, found: Found, read: Callable[[Archive], Found]) -> Found:
        """Returns what was found in Redis, or what the database has, when the task was gone from Redis by then."""
        if found or self.archive is None or self.exists(task_id):
            return found
        return read(self.archive)

    def _highest_archived(self) -> int:
        return self.archive.highest_number() if self.archive else 0

    def _load(self, task_ids: list[str]) -> list[TaskStatus]:
        found = super()._load(task_ids)
        if len(found) == len(task_ids) or self.archive is None:
            return found
        known = {task.task_id: task for task in found}
        archived = self.archive.tasks([task_id for task_id in task_ids if task_id not in known])
        known |= {task_id: task.status for task_id, task in archived.items()}
        return [known[task_id] for task_id in task_ids if task_id in known]

    def _page(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float) -> NumberedPage:
        live = super()._page(wanted, before, limit, give_up_at)
        # In this order: what has left Redis by now is in the database.
        if self.archive is None or (wanted.state is not None and wanted.state not in FINAL_STATES):
            return live
        return _merge(live, self.archive.page(wanted, before, limit, give_up_at), limit)


def _merge(live: NumberedPage, archived: NumberedPage, limit: int) -> NumberedPage:
    """Merges a page of each place. What one of them has not read yet may belong between: so the page ends there."""
    pages = (live, archived)
    floor = max((page.next_before for page in pages if page.next_before is not None), default=-math.inf)
    # A task in both is the database's: it is taken later.
    tasks: dict[str, NumberedTask] = {task.status.task_id: task for page in pages for task in page.tasks}
    found = sorted((task for task in tasks.values() if task.number >= floor), key=_number, reverse=True)
    if len(found) > limit:
        return NumberedPage(tuple(found[:limit]), found[limit - 1].number)
    return NumberedPage(tuple(found), None if floor == -math.inf else int(floor))


def _number(task: NumberedTask) -> int:
    return task.number
