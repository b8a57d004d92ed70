"""The service's replies, as types for programs that use `flansible.client`. Standard library only."""

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
    changed: bool | None  # whether any host reported a change; None until it ends
    user: str
    kind: Kind
    summary: str
    playbook: str | None  # below playbook_root; several are separated by spaces
    module: str | None
    hosts: str | None  # pattern of an ad-hoc command, limit of a playbook
    inventory: str | None
    project: NotRequired[str]  # these three only of a run of a project
    ref: NotRequired[str]
    commit: NotRequired[str]
    trigger: str  # `api`, `schedule`, `hook` or `retry`
    template: NotRequired[str]  # these three only if it was launched from a template
    template_digest: NotRequired[str]
    run_as: NotRequired[str]  # whose rights it has
    retry_of: NotRequired[str]  # only if it tries hosts of that task again
    counts: dict[str, int]  # results so far, by verdict
    host_count: int
    play_task_count: int  # started so far
    play_task: NotRequired[str]  # only while it runs: the one that started last
    expected_play_tasks: NotRequired[int]  # only until it ends: those of its user's last good run of the playbook
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    queue_position: NotRequired[int]  # these three only while it is queued: 1 is next
    output_expired_at: NotRequired[str]  # only where output and events are gone already
    queue: NotRequired[str]  # only until it is final, and unless it is `default`
    reason: NotRequired[str]
    waiting_host: NotRequired[str]
    expected_start: NotRequired[str]
    attempt: NotRequired[int]  # only after it was lost and queued again
    warning: NotRequired[str]  # only after a success that did nothing: `no hosts matched`, `no play task ran on a host`
    ended: NotRequired[list[str]]  # terminated processes, as `name (pid)`


class EventReply(TypedDict):
    """One event; event: `play_start`, `task_start`, `host_result`, `stats`, `restart`, `missing` or `final`.

    output_start, output_end: its bytes in the plain output. Fields that its kind does not have are left out.
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
    groups: NotRequired[list[str]]
    stats: NotRequired[dict[str, dict[str, int]]]
    custom_stats: NotRequired[dict[str, Any]]
    state: NotRequired[str]
    returncode: NotRequired[int]
    description: NotRequired[str]
    output_start: int
    output_end: int


class PlayTaskResultReply(TypedDict):
    """The result of one play task on one host.

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
    """One page of tasks, newest first; `next_before`: pass as `before` for the next page, None on the last;
    `changes`: where a stream of later changes starts."""

    tasks: list[TaskStatusReply]
    next_before: int | None
    changes: int


@dataclass(frozen=True)
class Output:
    """A range of output. next_offset: where to continue, in bytes of the plain text; final: no more will follow."""

    data: bytes
    next_offset: int
    final: bool
