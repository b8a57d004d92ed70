"""What the service answers, as types for programs that use `flansible.client`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

Kind = Literal["adhoc", "playbook", "git"]
Format = Literal["txt", "ansi", "html"]


class TaskStatusReply(TypedDict):
    """Status of one task. Times are RFC 3339 in UTC.

    Status: `PROGRESS` while queued or running, anything else is final; state: see flansible.states.STATES;
    returncode: exit code of Ansible or git, once there is one.
    """

    task_id: str
    Status: str
    state: str
    description: str
    returncode: int | None
    user: str
    kind: Kind
    summary: str
    playbook: str | None  # below playbook_root; several with a space between
    module: str | None
    hosts: str | None  # pattern of an ad-hoc command, limit of a playbook
    inventory: str | None
    counts: dict[str, int]  # results so far, by verdict
    host_count: int
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    queue_position: NotRequired[int]  # these three while it is queued: 1 is next
    reason: NotRequired[str]
    expected_start: NotRequired[str]
    attempt: NotRequired[int]  # after it was lost and queued again
    ended: NotRequired[list[str]]  # processes that were ended before their time, as `name (pid)`


class EventReply(TypedDict):
    """One thing that happened; event: `play_start`, `task_start`, `host_result`, `stats`, `restart` or `final`.

    output_start, output_end: the bytes of the plain output that belong to it. What it does not have is left out.
    """

    seq: int
    event: str
    time: NotRequired[str]
    play: NotRequired[str]
    task: NotRequired[str]
    module: NotRequired[str]
    handler: NotRequired[bool]
    host: NotRequired[str]
    verdict: NotRequired[str]
    duration_seconds: NotRequired[float]
    result: NotRequired[dict[str, Any]]
    stats: NotRequired[dict[str, dict[str, int]]]
    custom_stats: NotRequired[dict[str, Any]]
    state: NotRequired[str]
    returncode: NotRequired[int]
    description: NotRequired[str]
    output_start: int
    output_end: int


class PlayTaskResultReply(TypedDict):
    """What one play task gave on one host.

    verdict: `ok`, `changed`, `failed`, `rescued`, `ignored`, `unreachable` or `skipped`.
    """

    play: str
    task: str
    module: str
    verdict: str
    duration_seconds: float
    result: dict[str, Any]


class TaskResultReply(TypedDict):
    """Results by host: `contacted` in the order of the play tasks, hosts with failures first; `dark`: unreachable."""

    task_id: str
    state: str
    returncode: int | None
    contacted: dict[str, list[PlayTaskResultReply]]
    dark: dict[str, PlayTaskResultReply]
    stats: dict[str, dict[str, int]]
    custom_stats: dict[str, Any]
    next_after: str | None


class TaskPageReply(TypedDict):
    """One page of tasks, newest first; `next_before` continues it as `before`, None on the last page; `changes`: from
    where on a stream of changes goes on."""

    tasks: list[TaskStatusReply]
    next_before: int | None
    changes: int


@dataclass(frozen=True)
class Output:
    """A range of output. next_offset: where to go on, in bytes of the plain text; final: there will be no more."""

    data: bytes
    next_offset: int
    final: bool
