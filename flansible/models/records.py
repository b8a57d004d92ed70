"""What store keeps: the authorized run and its secrets, one event. Frozen; JSON in Redis."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Kind = Literal["adhoc", "playbook", "git"]
Verdict = Literal["ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored"]
VariablesPart = dict[str, JsonValue] | str

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_task_id(text: str) -> bool:
    """Whether this can be the id of a task, which is also its message's. Only that may become part of a Redis key."""
    return _TASK_ID.fullmatch(text) is not None


class Record(BaseModel):
    """A frozen record that store keeps as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secrets(Record):
    """What only the run may read: sealed while it waits, given out once. Never in a record, a message or a log."""

    connection_password: str | None = Field(default=None, repr=False)
    become_password: str | None = Field(default=None, repr=False)
    vault_passwords: dict[str, str] = Field(default_factory=dict, repr=False)
    private_key: str | None = Field(default=None, repr=False)
    variables: dict[str, str] = Field(default_factory=dict, repr=False)


class Step(Record):
    """One program of a run, as a command line that is never put on a command line.

    `extra_vars` and `data_only` serve users other than admin: their strings are data, Ansible templates none of them.
    """

    program: Literal["ansible", "ansible-playbook", "git"]
    argv: tuple[str, ...]
    cwd: str
    extra_vars: tuple[VariablesPart, ...] = ()
    data_only: bool = False
    environment: dict[str, str] = {}
    strategy: str | None = None
    listing: Literal["plan", "inventory"] | None = Field(
        default=None, description="Execute nothing: tell the hosts and play tasks, or the hosts and groups."
    )


class Confinement(Record):
    """What the run of a user other than admin may see and do. All paths are resolved.

    The worker makes the sandbox from the paths; the run keeps the rules that need Ansible.
    """

    readable: tuple[str, ...] = Field(description="Inventories and other paths that rbac.json gives to the user.")
    hidden: tuple[str, ...] = Field(default=(), description="Inventories that are others', wherever they lie.")
    hosts: tuple[str, ...] | None = Field(default=None, description="Host patterns the user may reach; null: any.")
    control_node: bool = Field(default=False, description="Whether it may run on the control machine itself.")


class About(Record):
    """What a task is about, for lists. None: not of its kind, or not said."""

    playbook: str | None = Field(default=None, description="Playbooks, as paths below `playbook_root`.")
    module: str | None = Field(default=None, description="Module of an ad-hoc command.")
    hosts: str | None = Field(default=None, description="Pattern of an ad-hoc command, limit of a playbook.")
    inventory: str | None = Field(default=None, description="Inventories, with a comma between.")


class AuthorizedRun(Record):
    """What flansible.authorization let through. Only this can be submitted: the check cannot be skipped."""

    kind: Kind
    user: str
    summary: str = Field(description="One line for people, without secrets: user, kind, what, on which hosts.")
    steps: tuple[Step, ...] = Field(min_length=1)
    about: About = Field(default=About(), description="What lists say of it.")
    request: dict[str, JsonValue] = Field(default={}, description="The body as it was sent, secrets masked.")
    time_limit: int | None = Field(default=None, description="Seconds; beside CELERY_TASK_TIMEOUT, the shorter counts.")
    on_lost: Literal["fail", "requeue"] = "fail"
    locks: tuple[str, ...] = Field(default=(), description="Two tasks that share one never run together.")
    max_running: int = Field(default=0, description="Runs this user may have side by side; 0: no limit.")
    max_queued: int = Field(default=0, description="Tasks this user may have waiting; 0: no limit.")
    confinement: Confinement | None = Field(default=None, description="Null for admin alone.")
    hidden: bool = Field(default=False, description="A look, no task of the user's: in no list, kept some minutes.")
    secrets: Secrets | None = Field(default=None, exclude=True, repr=False)
