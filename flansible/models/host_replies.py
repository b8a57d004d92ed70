"""Replies about hosts: what tasks have done to them, and their facts."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from flansible.models.records import Kind, Record, Verdict
from flansible.states import State


class HostLastTask(Record):
    """A task in what is known of a host."""

    task_id: str = Field(description="Public id of the task.")
    finished_at: str = Field(description="When it ended; RFC 3339, UTC.")
    kind: Kind = Field(description="`adhoc` or `playbook`.")
    user: str = Field(description="Who submitted it.")
    summary: str = Field(description="The request in one line.")
    state: State = Field(description="How the task as a whole ended.")


class KnownHost(Record):
    """A host of an inventory, and what the tasks that the caller sees did to it last."""

    name: str = Field(description="Its name in the inventory.")
    inventory: str = Field(description="The inventory, as requests name it; empty for Ansible's own.")
    groups: list[str] | None = Field(
        description="Its groups when the last task ran, without `all`; null: not known, as of tasks of before."
    )
    verdict: Verdict = Field(
        description="How it fared in the last task: the first of `unreachable`, `failed`, `changed`, `ok`, `rescued`, "
        "`ignored`, `skipped` that one of its results has."
    )
    last_task: HostLastTask = Field(description="The task that ended last of those with results of it.")
    last_changed: HostLastTask | None = Field(description="The last task that changed it; null: none that is kept.")
    last_failed: HostLastTask | None = Field(
        description="The last task in which it failed or was unreachable; null: none that is kept."
    )


class HostList(Record):
    """Reply of `hosts`: one page of hosts, by name."""

    hosts: list[KnownHost] = Field(description="Hosts by name, then by inventory.")
    next_after: str | None = Field(description="Pass as `after` for the next page; null on the last.")


class HostRun(Record):
    """How a host fared in one task."""

    task_id: str = Field(description="Public id of the task.")
    inventory: str = Field(description="The inventory of the host in this task.")
    kind: Kind = Field(description="`adhoc` or `playbook`.")
    user: str = Field(description="Who submitted it.")
    summary: str = Field(description="The request in one line.")
    state: State = Field(description="The state of the task as a whole.")
    submitted_at: str = Field(description="RFC 3339, UTC.")
    finished_at: str | None = Field(description="RFC 3339, UTC; null until final.")
    verdict: Verdict = Field(description="The host's own, as in `hosts`.")
    changed: bool = Field(description="Whether this host reported a change.")
    counts: dict[Verdict, int] = Field(description="Number of this host's results, by verdict.")


class HostDetails(Record):
    """Reply of `hosts/<name>`: the hosts of this name, and each task with results of them."""

    name: str = Field(description="The name.")
    hosts: list[KnownHost] = Field(description="One for each inventory that has a host of this name.")
    tasks: list[HostRun] = Field(description="Tasks with results of it, newest first.")
    next_before: int | None = Field(description="Pass as `before` for the next page; null on the last.")
    facts_gathered_at: str | None = Field(
        description="When the facts that are kept of it were gathered; null: none are."
    )


class HostFactsReply(Record):
    """Reply of `hosts/<name>/facts`: what a run has gathered last."""

    name: str = Field(description="The name.")
    inventory: str = Field(description="The inventory in that run.")
    gathered_at: str = Field(description="When; RFC 3339, UTC.")
    task_id: str = Field(description="Public id of the task that gathered them.")
    facts: dict[str, Any] = Field(description="The facts, as the module `setup` names them.")
