"""What is read of hosts, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flansible.history import encoding
from flansible.models import Visibility

# Stands for the user in the scope of all tasks, which is read for those who see all. No user's name has a colon.
ALL_TASKS = ":all"


@dataclass(frozen=True)
class TaskViewer:
    """Who looks. user: whose own tasks are seen, None: all tasks are; entries: of rbac.json, which see those of others;
    sees: whether a task of another user with this visibility is seen now."""

    user: str | None
    entries: tuple[str, ...] = ()
    sees: Callable[[Visibility], bool] = lambda visibility: False

    @property
    def scope_user(self) -> str:
        """The user whose scopes are seen whatever their visibility."""
        return ALL_TASKS if self.user is None else encoding.to_text(self.user)

    def sees_scope(self, username: str, visibility: str) -> bool:
        """Whether the tasks of a scope are seen; of those who see all tasks: whether it is the scope of all."""
        if username == self.scope_user:
            return True
        return bool(visibility) and self.sees(Visibility.model_validate_json(visibility))


@dataclass(frozen=True)
class HostFilter:
    """Which hosts are listed; what is empty or None is no condition. name: a part of it; stale_since: milliseconds; no
    task has touched it since then."""

    name: str = ""
    inventory: str | None = None
    verdict: str = ""
    group: str = ""
    stale_since: int | None = None


@dataclass(frozen=True)
class HostTask:
    """A task in what is known of a host. finished: milliseconds."""

    task_id: str
    number: int
    finished: int
    kind: str
    user: str
    summary: str
    state: str


@dataclass(frozen=True)
class HostSummary:
    """A host. verdict: its own in `last`; changed, failed: the last task that changed it, and in which it failed or was
    unreachable; groups: as `last` had them, None: not known."""

    name: str
    inventory: str
    verdict: str
    groups: tuple[str, ...] | None
    last: HostTask
    changed: HostTask | None
    failed: HostTask | None


@dataclass(frozen=True)
class HostPage:
    """A page of hosts by name; next_after continues it, None when this is the last."""

    hosts: tuple[HostSummary, ...]
    next_after: tuple[str, str] | None


@dataclass(frozen=True)
class TaskOnHost:
    """How a host fared in one task. counts: its results by verdict."""

    task_id: str
    number: int
    inventory: str
    verdict: str
    changed: bool
    counts: dict[str, int]


@dataclass(frozen=True)
class StoredFacts:
    """The facts of a host. gathered: milliseconds."""

    inventory: str
    task_id: str
    gathered: int
    facts: dict[str, Any]
