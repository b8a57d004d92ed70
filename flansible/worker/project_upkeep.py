"""Looks after the trees of projects on this machine, one thread per worker: makes room, and reports which are there.

It looks while a run of a project goes on and once after it; else once a minute. So no run waits while room is made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flansible.config import Settings
from flansible.errors import StoreUnavailable
from flansible.projects import order, prepare
from flansible.projects.order import Bounds
from flansible.store import KeptTree, Store
from flansible.system.periodic import Periodic

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_REPEAT_SECONDS = 60.0
_MOST_REPORTED = 100  # of one project
_COMMIT_DIGITS = 40


def bounds_of(settings: Settings) -> Bounds:
    return Bounds(settings.projects_bytes, settings.projects_days * 86400.0, settings.mirrors_bytes)


class ProjectUpkeep(Periodic):
    """name: the worker's; projects: the folder of all projects on this machine."""

    def __init__(self, store: Store, name: str, projects: Path, bounds: Bounds) -> None:
        super().__init__("project-upkeep", TICK_SECONDS)
        self._store = store
        self._name = name
        self._projects = projects
        self._bounds = bounds
        self._lock = threading.Lock()
        self._runs = 0
        self._is_due = True
        self._repeat_at = 0.0
        self._reported: dict[str, list[KeptTree]] = {}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Looks after what changes while the block, a run of a project, goes on."""
        with self._lock:
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                self._is_due = True

    def tick(self) -> None:
        is_repeat = time.monotonic() >= self._repeat_at
        if not (self._runs or self._is_due or is_repeat):
            return
        self._is_due = False
        found = self._found()
        if is_repeat or any(_commits(kept) - _commits(self._reported.get(name, [])) for name, kept in found.items()):
            prepare.make_room(self._projects, self._bounds)
            found = self._found()
        try:
            self._report(found, is_repeat)
        except StoreUnavailable as error:
            self._is_due = True
            log.debug("the trees of projects are not reported: %s", error)

    def _found(self) -> dict[str, list[KeptTree]]:
        return {folder.parent.name: _kept(folder.parent) for folder in self._projects.glob("*/kept")}

    def _report(self, found: dict[str, list[KeptTree]], is_repeat: bool) -> None:
        for project in self._reported.keys() | found.keys():
            kept = found.get(project, [])
            if is_repeat or kept != self._reported.get(project):
                self._store.report_trees(self._name, project, kept)
                self._reported[project] = kept
        if is_repeat:
            self._repeat_at = time.monotonic() + _REPEAT_SECONDS


def _commits(kept: list[KeptTree]) -> set[str]:
    return {one.commit for one in kept}


def _kept(folder: Path) -> list[KeptTree]:
    """Returns the trees of a project, the latest used first."""
    shelf = order.trees(folder)
    latest = sorted(shelf.items(), key=lambda item: item.used, reverse=True)[:_MOST_REPORTED]
    return [
        KeptTree(item.key[:_COMMIT_DIGITS], shelf.is_used(item.key), item.since, item.used, item.bytes)
        for item in latest
    ]
