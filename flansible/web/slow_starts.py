"""Runs those starts of schedules that may take long in threads of their own, so that they delay no other schedule.

Called by the scheduler of a web process.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, current_app

from flansible.history.schedule_rows import StoredOccurrence
from flansible.identity.users import ADMIN

_MOST_AT_ONCE, _MOST_OF_ADMIN = 8, 3


def is_slow(template: Mapping[str, Any]) -> bool:
    """Whether a launch of this template waits for a remote, a URL or a preview."""
    if template["request"].get("project") or template.get("max_hosts") or template.get("require_limit"):
        return True
    return any(variable.get("choices_from") for variable in template.get("variables", {}).values())


class SlowStarts:
    """Starts that may take long, in threads: at most one of each schedule at a time, and few of each owner, whose
    look-ups and previews exclude each other or have to share the places of those that wait.

    The threads are daemons: a process that ends does not wait for them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[tuple[StoredOccurrence, Callable[[], StoredOccurrence]]]] = {}
        self._running: Counter[str] = Counter()  # by owner
        self._threads = 0
        self._begun: set[str] = set()
        self._ended: list[StoredOccurrence] = []

    def is_starting(self, schedule: str) -> bool:
        with self._changed:
            return schedule in self._begun

    def start(self, occurrence: StoredOccurrence, owner: str, begin: Callable[[], StoredOccurrence]) -> None:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        with self._changed:
            self._begun.add(occurrence.schedule)
            self._waiting.setdefault(owner, deque()).append((occurrence, begin))
            if self._threads < _MOST_AT_ONCE:
                self._threads += 1
                threading.Thread(target=self._work, args=(app,), name="schedule-start", daemon=True).start()

    def ended(self, seconds: float) -> list[StoredOccurrence]:
        """Waits so long at most; returns those that have ended, each as its `begin` returned it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ended) == len(self._begun), seconds)
            ended, self._ended = self._ended, []
            self._begun -= {one.schedule for one in ended}
            return ended

    def _work(self, app: Flask) -> None:
        while (taken := self._take()) is not None:
            owner, occurrence, begin = taken
            try:
                with app.app_context():
                    occurrence = begin()
            finally:
                with self._changed:
                    self._running[owner] -= 1
                    self._ended.append(occurrence)
                    self._changed.notify_all()

    def _take(self) -> tuple[str, StoredOccurrence, Callable[[], StoredOccurrence]] | None:
        with self._changed:
            for owner, waiting in self._waiting.items():
                if waiting and self._running[owner] < (_MOST_OF_ADMIN if owner == ADMIN else 1):
                    self._running[owner] += 1
                    return owner, *waiting.popleft()
            self._threads -= 1
            return None
