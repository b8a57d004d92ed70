"""Reply of the search over archived tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flansible.models.records import Record
from flansible.models.responses import TaskStatus


class SearchPlace(Record):
    """Where a task has what was searched for."""

    field: Literal["playbook", "host", "message", "output"] = Field(
        description="`playbook`, `host`, `message` (of a failure) or `output`."
    )
    text: str = Field(description="The name, the part of the message around it, or the line of output.")
    host: str | None = Field(description="Of a message: the host that failed.")
    seq: int | None = Field(description="Of a message: the event it stands in.")
    line: int | None = Field(description="In the output: the number of the line, from 1.")
    offset: int | None = Field(description="In the output: where that line begins, in bytes.")


class SearchHit(Record):
    """A task that was found; in a search of the output it may be there for several parts of it."""

    task: TaskStatus = Field(description="The task's status.")
    places: list[SearchPlace] = Field(description="Where it was found, the first five of them.")


class SearchPage(Record):
    """Reply of `search`: newest first."""

    hits: list[SearchHit] = Field(description="One page of hits, those that were archived last first.")
    next_before: int | None = Field(None, description="Pass as `before` for the next page; null on the last.")
