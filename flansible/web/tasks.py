"""The resources of a task's record: status, results, cancel, and the list. A user sees their own tasks, admin all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from flansible.errors import Conflict, NotFound
from flansible.models import FINAL_STATES, PlayTaskResult, State, TaskList, TaskResult, TaskStatus
from flansible.web.auth import PrivateResource, current_user
from flansible.web.bodies import query
from flansible.web.services import services

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FAILURES = frozenset({"failed", "unreachable"})


class NoQuery(BaseModel):
    """A resource that takes no query string."""

    model_config = ConfigDict(extra="forbid")


class ListQuery(BaseModel):
    """`?limit=&before=&state=` of the task list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=1000, description="Tasks per page.")
    before: int | None = Field(None, ge=0, description="Cursor: `next_before` of the page before this one.")
    state: State | None = Field(None, description="Only tasks in this state.")


class AnsibleTaskStatus(PrivateResource):
    """How a task is doing."""

    def get(self, task_id: str) -> Response:
        """Ask for a task's status"""
        query(NoQuery)
        return jsonify(own_task(task_id).model_dump(mode="json"))


class AnsibleTaskResult(PrivateResource):
    """What each play task gave on each host."""

    def get(self, task_id: str) -> Response:
        """Read a task's results by host"""
        query(NoQuery)
        task = own_task(task_id)
        return jsonify(_result(task, services().store.events(task_id)).model_dump(mode="json"))


class AnsibleTasks(PrivateResource):
    """The caller's tasks; all of them for admin."""

    def get(self) -> Response:
        """List tasks, newest first"""
        asked = query(ListQuery)
        user = current_user()
        found = services().store.tasks(None if user.is_admin else user.name, asked.state, asked.before, asked.limit)
        page = TaskList(tasks=list(found.tasks), next_before=found.next_before)
        return jsonify(page.model_dump(mode="json"))


class AnsibleTaskCancel(PrivateResource):
    """End a task: at once when it is queued, else with every process it started."""

    def post(self, task_id: str) -> Response:
        """Cancel a task"""
        query(NoQuery)
        task = own_task(task_id)
        state = services().store.cancel(task.task_id, current_user().name)
        if state is None:
            raise NotFound("Task not found", code="task_not_found")
        if state in FINAL_STATES and state is not State.CANCELED:
            raise Conflict(f"The task is final already: {state.value}.", code="task_final")
        response = jsonify(own_task(task_id).model_dump(mode="json"))
        response.status_code = 200 if state is State.CANCELED else 202
        return response


def own_task(task_id: str) -> TaskStatus:
    """The task, when it exists and the caller may see it; to anyone else it does not exist."""
    # Only what can be an id becomes part of a key: `<id>:output` would name another kind of record.
    task = services().store.task(task_id) if _TASK_ID.fullmatch(task_id) else None
    user = current_user()
    if task is None or not (user.is_admin or task.user == user.name):
        raise NotFound("Task not found", code="task_not_found")
    return task


def _result(task: TaskStatus, events: Iterator[dict[str, Any]]) -> TaskResult:
    contacted: dict[str, list[PlayTaskResult]] = {}
    dark: dict[str, PlayTaskResult] = {}
    stats: dict[str, dict[str, int]] = {}
    custom_stats: dict[str, Any] = {}
    for event in events:
        if event["event"] == "host_result":
            result = PlayTaskResult(**{name: event[name] for name in PlayTaskResult.model_fields})
            if result.verdict == "unreachable":
                dark[event["host"]] = result
            else:
                contacted.setdefault(event["host"], []).append(result)
        elif event["event"] == "stats":
            stats, custom_stats = event["stats"], event["custom_stats"]
    failed = {host for host, results in contacted.items() if any(item.verdict in _FAILURES for item in results)}
    first = sorted(contacted, key=lambda host: (host not in failed, host))
    return TaskResult(
        task_id=task.task_id,
        state=task.state,
        returncode=task.returncode,
        contacted={host: contacted[host] for host in first},
        dark=dict(sorted(dark.items())),
        stats=stats,
        custom_stats=custom_stats,
    )
