"""Reads task records: one task, lists and searches, and queued tasks whose messages may be lost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flansible.errors import RecordUnreadable
from flansible.models import AuthorizedRun, State, TaskStatus
from flansible.store import keys, record_parsing, status
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import entry_index_key, index_key, task_key

log = logging.getLogger(__name__)

_SEARCH_BUDGET = 2000  # index entries read in one step: some milliseconds, in which Redis serves no other client
_SEARCH_SECONDS = 0.1


@dataclass(frozen=True)
class ListFilter:
    """Which tasks are listed; what is None or empty is no condition.

    user: whose own, None for all users'; entries: with them those that these entries of rbac.json see; of_user: of both
    only this user's. words: in the summary, whatever the case of ASCII letters; since, until: of the submission, as
    `timestamp` writes it, until not included; changed: of final tasks.
    """

    user: str | None = None
    state: State | None = None
    entries: tuple[str, ...] = ()
    of_user: str = ""
    kind: str = ""
    words: str = ""
    playbook: str = ""
    template: str = ""
    host: str = ""
    since: str | None = None
    until: str | None = None
    changed: bool | None = None
    returncode: int | None = None


@dataclass(frozen=True)
class NumberedTask:
    """A task of a list, with the number that orders it."""

    number: int
    status: TaskStatus


@dataclass(frozen=True)
class NumberedPage:
    """One page of the list; next_before continues it, None when this is the last."""

    tasks: tuple[NumberedTask, ...]
    next_before: int | None


@dataclass(frozen=True)
class RecordPage:
    """One page of the list; next_before continues it, None when this is the last."""

    tasks: tuple[TaskStatus, ...]
    next_before: int | None


class TaskQueries(Connection):
    """The part of Store that reads task records."""

    def task(self, task_id: str) -> TaskStatus | None:
        """Reads one task and, while it is queued, what it waits for; in one round trip. Raises RecordUnreadable."""
        answer: Any = self._run("status", [task_key(task_id)])
        return status.status(task_id, answer[0], answer[1] if len(answer) > 1 else None)

    def exists(self, task_id: str) -> bool:
        """Whether Redis has a record of this task."""
        with translated():
            return bool(self._redis.exists(task_key(task_id)))

    def authorized_run(self, task_id: str) -> AuthorizedRun | None:
        """Reads what was submitted. Raises RecordUnreadable."""
        with translated():
            found: Any = self._redis.get(task_key(task_id, "run"))
        return None if found is None else record_parsing.authorized_run(task_id, found)

    def tasks(self, user: str | None, state: State | None, before: int | None, limit: int) -> RecordPage:
        """Lists tasks, newest first. user None: those of all users; before: `next_before` of the page above."""
        return self._records(ListFilter(user, state), before, limit, math.inf)

    def search(self, wanted: ListFilter, before: int | None, limit: int) -> RecordPage:
        """Like `tasks`, but only those that match the filter.

        A search among very many tasks may return before the page is full; `next_before` continues it.
        """
        return self._records(wanted, before, limit, time.monotonic() + _SEARCH_SECONDS)

    def count(self, state: State) -> int:
        """Counts the tasks in a state."""
        with translated():
            return int(self._redis.zcard(index_key(None, state)))

    def list_changes(self, after: int, limit: int) -> tuple[list[tuple[int, TaskStatus]], int | None]:
        """Returns the tasks whose list entry changed after change number `after`, as they are now, each with the number
        of its change; and the last number read, or None when changes after `after` were trimmed, or there are none."""
        with translated():
            found: Any = self._redis.xrange(keys.LISTED, f"{after + 1}-0", count=limit)
        rows = [(int(text(entry).partition("-")[0]), text(fields[b"id"])) for entry, fields in found]
        if not rows or rows[0][0] != after + 1:
            return [], None
        numbers = {task_id: number for number, task_id in rows}
        tasks = self._load(sorted(numbers, key=lambda task_id: numbers[task_id]))
        return [(numbers[task.task_id], task) for task in tasks], rows[-1][0]

    def overtaken(self, limit: int, seconds: float) -> list[TaskStatus]:
        """Returns tasks that wait only for a worker, although a task submitted later has been running for `seconds`.

        Each of them once, until one that is started from now on has been running for as long.
        """
        indexes = [index_key(None, State.QUEUED), index_key(None, State.RUNNING), keys.UNSENT]
        return self._load([text(task_id) for task_id in self._run("overtaken", indexes, limit, seconds)])

    def oldest_queued(self, limit: int, was_sent: bool = True, queues: Iterable[str] = ()) -> list[TaskStatus]:
        """Returns the tasks that have waited longest for a worker (not those that wait for a lock), oldest first.

        was_sent: those whose message is on the queue (`mark_enqueued`), or those for which that is not recorded;
        queues: those of these queues; none: of all.
        """
        if not was_sent:
            with translated():
                unsent: Any = self._redis.zrange(keys.UNSENT, 0, limit - 1)
            return self._load([text(task_id) for task_id in unsent])
        found: list[str] = []
        after = 0
        while True:
            indexes = [index_key(None, State.QUEUED), keys.UNSENT]
            answer: Any = self._run("oldest_queued", indexes, limit - len(found), after, ",".join(queues))
            found += [text(task_id) for task_id in answer[1:]]
            if len(found) == limit or not text(answer[0]):
                return self._load(found)
            after = int(answer[0])

    def _records(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float) -> RecordPage:
        page = self._page(wanted, before, limit, give_up_at)
        return RecordPage(tuple(task.status for task in page.tasks), page.next_before)

    def _page(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float) -> NumberedPage:
        numbers: dict[str, int] = {}
        changed = "" if wanted.changed is None else int(wanted.changed)
        returncode = "" if wanted.returncode is None else wanted.returncode
        times = (wanted.since or "", wanted.until or "")
        words = wanted.words.encode(errors="backslashreplace").lower()  # ASCII letters alone, as Redis does it
        conditions = (
            *(wanted.kind, words, wanted.playbook, wanted.host, *times, changed, returncode, wanted.of_user),
            wanted.template,
        )
        indexes = [index_key(wanted.user, wanted.state)]
        indexes += [entry_index_key(entry, wanted.state) for entry in wanted.entries]
        while True:
            highest = "+inf" if before is None else f"({before}"
            missing = limit - len(numbers)
            answer: Any = self._run("search", indexes, highest, missing, _SEARCH_BUDGET, *conditions)
            numbers |= {text(task_id): int(number) for task_id, number in zip(answer[1::2], answer[2::2], strict=True)}
            before = int(answer[0]) if text(answer[0]) else None
            if before is None or len(numbers) == limit or time.monotonic() > give_up_at:
                tasks = (NumberedTask(numbers[task.task_id], task) for task in self._load(list(numbers)))
                return NumberedPage(tuple(tasks), before)

    def _load(self, task_ids: list[str]) -> list[TaskStatus]:
        """Reads those of the tasks that still exist, in the given order, in one round trip; not unreadable ones."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.hmget(task_key(task_id), list(status.STATUS_FIELDS))
        with translated():
            rows = pipeline.execute()
        found = []
        for task_id, values in zip(task_ids, rows, strict=True):
            try:
                task = status.status(task_id, values)
            except RecordUnreadable as error:
                log.warning("%s", error)
                continue
            if task is not None:
                found.append(task)
        return found
