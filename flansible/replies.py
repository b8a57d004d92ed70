"""What the service answers, as types for programs that use `flansible.client`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Kind = Literal["adhoc", "playbook", "git"]
Format = Literal["txt", "ansi", "html"]


class TaskStatus(TypedDict):
    """Status of one task. Times are RFC 3339 in UTC.

    Status: `PROGRESS` while queued or running, anything else is final; state: `queued`, `running`, `succeeded`,
    `failed`, `canceled`, `timed_out`, `lost` or `error`; returncode: exit code of Ansible or git, once there is one.
    """

    task_id: str
    Status: str
    state: str
    description: str
    returncode: int | None
    user: str
    kind: Kind
    summary: str
    submitted_at: str
    started_at: str | None
    finished_at: str | None


class PlayTaskResult(TypedDict):
    """What one play task gave on one host; verdict: `ok`, `changed`, `failed`, `ignored`, `unreachable`, `skipped`."""

    play: str
    task: str
    module: str
    verdict: str
    duration_seconds: float
    result: dict[str, Any]


class TaskResult(TypedDict):
    """Results by host: `contacted` in the order of the play tasks, hosts with failures first; `dark`: unreachable."""

    task_id: str
    state: str
    returncode: int | None
    contacted: dict[str, list[PlayTaskResult]]
    dark: dict[str, PlayTaskResult]
    stats: dict[str, dict[str, int]]
    custom_stats: dict[str, Any]


class TaskPage(TypedDict):
    """One page of tasks, newest first; `next_before` continues it as `before`, None on the last page."""

    tasks: list[TaskStatus]
    next_before: int | None


@dataclass(frozen=True)
class Output:
    """A range of output. next_offset: where to go on, in bytes of the plain text; final: there will be no more."""

    data: bytes
    next_offset: int
    final: bool
