"""Reply of `compare`: what differs between two tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from flansible.models.records import Record, Verdict
from flansible.models.responses import TaskStatus


class ComparedResult(Record):
    """The result of a play task on a host, in one of the two tasks."""

    verdict: Verdict = Field(description="Outcome.")
    changed: bool = Field(description="Whether it reported a change.")
    message: str = Field(
        description="Its `msg`, or what it printed if it failed and `msg` says nothing; 2,000 characters at most."
    )
    duration_seconds: float = Field(description="Time from the start on this host to the result.")


class PlayTaskDifference(Record):
    """A play task that ended otherwise on a host."""

    play: str = Field(description="Name of the play.")
    task: str = Field(description="Name of the play task.")
    module: str = Field(description="Action that ran.")
    differs: list[Literal["result", "verdict", "changed", "message", "duration"]] = Field(
        description="In what; `result`: only one of the tasks has a result; `duration`: a second longer or more, and "
        "twice as long or more."
    )
    result: ComparedResult | None = Field(description="Its result in the task; null: none.")
    other_result: ComparedResult | None = Field(description="Its result in the other task; null: none.")


class HostDifference(Record):
    """A host that fared otherwise."""

    host: str = Field(description="Its name.")
    verdict: Verdict | None = Field(description="How it fared in the task; null: it has no results there.")
    other_verdict: Verdict | None = Field(description="How it fared in the other task; null: it has no results there.")
    play_tasks: list[PlayTaskDifference] = Field(
        description="Play tasks that ended otherwise; empty for a host that only one of the tasks has."
    )
    is_partial: bool = Field(description="Whether it has more results than are compared: 2,000 of each task.")


class RequestDifference(Record):
    """A field of the requests that differs."""

    field: str = Field(description="Its path, such as `extra_vars.version`.")
    value: JsonValue = Field(description="In the task; null: not given.")
    other_value: JsonValue = Field(description="In the other task; null: not given.")


class Comparison(Record):
    """Reply of `compare`: one page of the hosts that fared otherwise in two tasks."""

    task: TaskStatus = Field(description="The task.")
    other: TaskStatus = Field(description="The one that it is compared with.")
    failures_between: int | None = Field(
        description="Runs of the same between the two that failed, 20 at most; null where `with` was given."
    )
    request: list[RequestDifference] = Field(
        description="Fields of the requests that differ, and `commit` of a project, 500 at most."
    )
    masked: list[str] = Field(
        description="Fields that are masked in either request, 500 at most of each: whether they differ is not shown."
    )
    hosts: list[HostDifference] = Field(description="Hosts that fared otherwise, by name.")
    compared_hosts: int = Field(description="Number of hosts that were compared for this page.")
    next_after: str | None = Field(description="Pass as `after` for the next page; null: all hosts were compared.")
