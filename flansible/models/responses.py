"""Replies of the API, one model each; the docs are generated from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from flansible.models.records import Kind, Record, Verdict
from flansible.states import STATES, State


def _alternatives(words: Iterable[str]) -> str:
    *most, last = [f"`{word}`" for word in words]
    return f"{', '.join(most)} or {last}"


class SessionReply(Record):
    """Reply of `session`: who is logged in."""

    user: str = Field(description="Name of the user.")
    role: str = Field(description="`operator`, `viewer` or `auditor`.")
    is_admin: bool = Field(description="Whether this is admin.")
    sees_all: bool = Field(description="Whether everybody's tasks are shown.")
    may_act: bool = Field(description="Whether tasks may be started and canceled at all.")
    csrf_token: str = Field(description="For the header `X-CSRF-Token`; empty without a session's cookie.")
    flower_url: str | None = Field(description="Where Flower is, when it runs here; for admin.")


class Accepted(Record):
    """Reply to a submission (202)."""

    task_id: str = Field(description="Public id of the task.")
    status_url: str = Field(description="Where to ask for its status.")
    output_url: str = Field(description="Where to read its output.")


class TaskStatus(Record):
    """Reply of `ansibletaskstatus`: one task, now."""

    task_id: str = Field(description="Public id of the task.")
    Status: str = Field(
        description="`PROGRESS` while queued or running; anything else is final: "
        f"{_alternatives(facts.status for facts in STATES.values() if not facts.next_states)}; "
        f"after `{STATES[State.ERROR].status}` follow a colon and the cause."
    )
    state: State = Field(description=f"{_alternatives(State)}.")
    description: str = Field(description="The state in words, with the cause when it did not succeed.")
    returncode: int | None = Field(None, description="Exit code of Ansible or git, once there is one.")
    user: str = Field(description="Who submitted it.")
    kind: Kind = Field(description="`adhoc`, `playbook` or `git`.")
    summary: str = Field(description="What was asked for, in one line.")
    playbook: str | None = Field(
        None, description="Playbook, as a path below `playbook_root`; several with a space between."
    )
    module: str | None = Field(None, description="Module of an ad-hoc command.")
    hosts: str | None = Field(None, description="Host pattern of an ad-hoc command, `limit` of a playbook.")
    inventory: str | None = Field(None, description="Inventory; several with a comma between.")
    counts: dict[Verdict, int] = Field(
        {}, description="How many results of play tasks on hosts there are so far, by verdict."
    )
    host_count: int = Field(0, description="Hosts of which there are results so far.")
    submitted_at: str = Field(description="RFC 3339, UTC.")
    started_at: str | None = Field(None, description="RFC 3339, UTC; null while queued.")
    finished_at: str | None = Field(None, description="RFC 3339, UTC; null until final.")
    queue_position: int | None = Field(None, description="Only while queued: 1 is next.")
    reason: str | None = Field(
        None,
        description="Only while queued, why it waits: `no_worker`, `workers_busy`, `user_limit`, "
        "`locked_by: <task_id>`, or `starting`.",
    )
    expected_start: str | None = Field(
        None, description="Only while queued, RFC 3339, UTC: an estimate from how long the latest runs took."
    )
    attempt: int | None = Field(None, description="Only after it was lost and queued again: which start this is.")
    ended: list[str] | None = Field(
        None, description="Only when processes were ended before their time: each as `name (pid)`."
    )


class TaskList(Record):
    """Reply of `ansibletasks`: newest first."""

    tasks: list[TaskStatus] = Field(description="One page of tasks, newest first.")
    next_before: int | None = Field(None, description="Pass as `before` for the next page; null on the last.")
    changes: int = Field(description="Pass as `after` to follow what changes from here on, as a stream.")


class TaskRequest(Record):
    """Reply of `ansibletaskrequest`: what a task was asked to do, without secrets."""

    task_id: str = Field(description="Public id of the task.")
    kind: Kind = Field(description="`adhoc`, `playbook` or `git`.")
    path: str = Field(description="Where it was sent to.")
    body: dict[str, Any] = Field(description="The body as it was sent; in the place of secrets stands `********`.")
    masked: list[str] = Field(description="Paths of the fields in whose place that stands.")
    command: str = Field(description="What runs, as it would be typed on the service's machine.")
    curl: str = Field(description="The same request as a curl command; it asks for the password.")
    flansible: str | None = Field(description="The same as a command of `flansible`; null where none can say it.")


class Event(Record):
    """One thing that happened. What an event of its kind does not have is left out."""

    seq: int = Field(description="1, 2, 3 … without a gap, over all attempts.")
    event: Literal["play_start", "task_start", "host_result", "stats", "restart", "missing", "final"] = Field(
        description="`final`: the last one of every task; `restart`: lost and begun again; `missing`: Redis lost it."
    )
    time: str | None = Field(None, description="When it happened; RFC 3339, UTC.")
    play: str | None = Field(None, description="Name of the play.")
    task: str | None = Field(None, description="Name of the play task.")
    module: str | None = Field(None, description="Action of the play task.")
    handler: bool | None = Field(None, description="True where the play task is a handler.")
    host: str | None = Field(None, description="Host (`host_result`).")
    verdict: Verdict | None = Field(None, description="How it went on this host (`host_result`).")
    duration_seconds: float | None = Field(None, description="From start on this host to result.")
    result: dict[str, Any] | None = Field(None, description="The module's result; hidden where no_log is set.")
    stats: dict[str, dict[str, int]] | None = Field(None, description="Host to counts (`stats`).")
    custom_stats: dict[str, Any] | None = Field(None, description="What `set_stats` collected (`stats`).")
    state: State | None = Field(None, description="Final state of the task (`final`).")
    returncode: int | None = Field(None, description="Exit code (`final`).")
    description: str | None = Field(None, description="The state in words (`final`, `restart`).")
    output_start: int = Field(description="First byte of the output that belongs to it.")
    output_end: int = Field(description="The byte after the last; equal to the start when nothing was printed.")


class EventPage(Record):
    """Reply of `ansibletaskevents`."""

    task_id: str = Field(description="Public id of the task.")
    state: State = Field(description="State of the task.")
    events: list[Event] = Field(description="Events in order of `seq`.")
    next_after: int = Field(description="Pass as `after` to go on from here.")
    final: bool = Field(description="Whether there is nothing after these: the task is final and this is the end.")


class PlayTaskResult(Record):
    """What one play task gave on one host."""

    play: str = Field(description="Name of the play.")
    task: str = Field(description="Name of the play task.")
    module: str = Field(description="Action that ran.")
    verdict: Verdict = Field(description="How it went.")
    duration_seconds: float = Field(description="From start on this host to result.")
    result: dict[str, Any] = Field(description="The module's result; hidden where no_log is set.")


class TaskResult(Record):
    """Reply of `ansibletaskresult`: one page of hosts; those with failures come first."""

    task_id: str = Field(description="Public id of the task.")
    state: State = Field(description="State of the task; results grow until it is final.")
    returncode: int | None = Field(None, description="Exit code, once there is one.")
    contacted: dict[str, list[PlayTaskResult]] = Field(description="Host to the results of its play tasks, in order.")
    dark: dict[str, PlayTaskResult] = Field(description="Unreachable host to the result that says why.")
    stats: dict[str, dict[str, int]] = Field(
        description="Host to counts: ok, changed, unreachable, failures, skipped, rescued, ignored."
    )
    custom_stats: dict[str, Any] = Field(description="What `set_stats` collected.")
    next_after: str | None = Field(None, description="Pass as `after` for the next page; null on the last.")


class ListedPlay(Record):
    """One play of a playbook, as its file has it."""

    play: str = Field(description="Its name; of one without, its hosts; of an import, the playbook that is imported.")
    hosts: str = Field(description="The pattern of its hosts; empty for an import.")


class ListedVariable(Record):
    """A variable that a playbook asks for, or that its plays or roles set."""

    name: str = Field(description="Its name.")
    source: Literal["vars_prompt", "argument_specs", "vars"] = Field(
        description="`vars_prompt` of a play, `argument_specs` of a role, or simple `vars` of a play."
    )
    play: str | None = Field(default=None, description="The play that has it.")
    role: str | None = Field(default=None, description="The role that has it (`argument_specs`).")
    type: Literal["str", "int", "bool", "list", "dict", "path", "raw", "float"] = Field(
        description="Type of its value."
    )
    required: bool = Field(description="Whether the run wants a value for it.")
    default: Any = Field(
        default=None, description="What it is without one; null when there is none, or it is not plain."
    )
    choices: list[Any] | None = Field(default=None, description="The values it may have.")
    description: str = Field(default="", description="What it is for: the prompt, or the role's own words.")
    private: bool = Field(default=False, description="Whether it is a secret: send it in `secret_vars`.")


class ListedPlaybook(Record):
    """One playbook under `playbook_root`."""

    playbook: str = Field(description="File name, as `ansibleplaybook` takes it.")
    playbook_dir: str = Field(description="Absolute directory, as `ansibleplaybook` takes it.")
    description: str = Field(default="", description="The comment that its file begins with.")
    plays: list[ListedPlay] = Field(default=[], description="Its plays, in order.")
    variables: list[ListedVariable] | None = Field(
        default=None, description="Only when it was asked for by name: what it can be given."
    )


class PlaybookList(Record):
    """Reply of `listplaybooks`."""

    playbooks: list[ListedPlaybook] = Field(description="Sorted by directory and name.")


class WorkerStats(Record):
    """One worker."""

    name: str = Field(description="Its host and process.")
    slots: int = Field(description="Runs it carries side by side.")
    running: int = Field(description="Runs it carries now, everybody's.")


def _count_of(state: State) -> str:
    return f"Tasks that became `{state}`: {STATES[state].meaning}."


class DayStats(Record):
    """How the tasks of one day ended."""

    day: str = Field(description="Date, in UTC.")
    succeeded: int = Field(description=_count_of(State.SUCCEEDED))
    failed: int = Field(description=_count_of(State.FAILED))
    canceled: int = Field(description=_count_of(State.CANCELED))
    timed_out: int = Field(description=_count_of(State.TIMED_OUT))
    lost: int = Field(description=_count_of(State.LOST))
    error: int = Field(description=_count_of(State.ERROR))


class PlaybookStats(Record):
    """Runs of one playbook that Ansible has ended."""

    playbook: str = Field(description="Path below `playbook_root`.")
    runs: int = Field(description="How many.")
    failed: int = Field(description="How many of them failed.")
    mean_seconds: float = Field(description="Mean time from start to end.")
    longest_seconds: float = Field(description="The longest of them.")


class HostStats(Record):
    """A host that did not do well."""

    host: str = Field(description="Its name in the inventory.")
    failed: int = Field(description="Runs in which it failed or was unreachable.")


class ServiceStats(Record):
    """Reply of `stats`."""

    queued: int = Field(description="Tasks that wait now.")
    running: int = Field(description="Tasks that run now.")
    workers: list[WorkerStats] = Field(description="Workers that are there, by name.")
    days: list[DayStats] = Field(description="Each day, the oldest first.")
    playbooks: list[PlaybookStats] = Field(description="The slowest, 20 at most, by mean time.")
    hosts: list[HostStats] = Field(description="Those that failed most, 20 at most.")
    everybody: bool = Field(description="Whether this is about everybody's tasks, or the caller's own.")


class PartHealth(Record):
    """One part of the service."""

    ok: bool = Field(description="Whether it answers.")
    detail: str = Field(description="What was found.")


class Health(Record):
    """Reply of `health`: 200 when every needed part answers, else 503."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="`degraded`: works, but something wants attention."
    )
    version: str = Field(description="Version of Flansible.")
    parts: dict[str, PartHealth] = Field(description="store, broker, workers, rbac, isolation.")


class ErrorItem(Record):
    """One faulty field."""

    field: str = Field(description="Path of the field.")
    message: str = Field(description="What is wrong with it.")


class ErrorBody(Record):
    """The one shape of every error reply."""

    message: str = Field(description="What is wrong and what to do.")
    code: str = Field(description="Stable word for programs.")
    errors: list[ErrorItem] = Field(description="Faulty fields, when there are any.")


class PlannedTask(Record):
    """One play task that a run would begin with."""

    name: str = Field(description="Its name, or its action when it has none.")
    tags: list[str] = Field(description="Its tags and its play's.")


class PlannedPlay(Record):
    """One play of a plan."""

    play: str = Field(description="Name of the play.")
    pattern: str = Field(description="The pattern of its hosts.")
    hosts: list[str] = Field(description="The hosts that this selects, within `limit` and the user's rights.")
    play_tasks: list[PlannedTask] = Field(description="Its play tasks, within `tags` and `skip_tags`, in order.")


class PreviewReply(Record):
    """Reply of `preview`."""

    allowed: bool = Field(description="Whether the request would be taken.")
    refusal: ErrorBody | None = Field(default=None, description="What it would be refused with.")
    command: str | None = Field(default=None, description="What one would type into a shell; secrets are never in it.")
    rights: list[str] = Field(description="What rbac.json gives the user, in sentences.")
    plays: list[PlannedPlay] | None = Field(
        default=None, description="What it would touch; null when there is no plan."
    )
    hosts: list[str] | None = Field(default=None, description="All hosts of all plays, by name.")
    messages: list[str] = Field(default=[], description="What Ansible said besides, and where the run will differ.")
    detail: str | None = Field(default=None, description="Why there is no plan.")


class InventoryHosts(Record):
    """Who is in an inventory."""

    groups: dict[str, list[str]] = Field(description="Group to its hosts, those of its children among them.")
    hosts: list[str] = Field(description="All hosts.")


class ListedInventory(Record):
    """One inventory. With its hosts only when it was asked for by name."""

    inventory: str = Field(description="Absolute path, as requests take it; or a list of hosts.")
    name: str = Field(description="A short name to show.")
    is_default: bool = Field(description="Whether it is what a request without `inventory` gets.")
    exists: bool = Field(description="Whether there is such a file or folder.")
    groups: dict[str, list[str]] | None = Field(
        default=None, description="Group to its hosts, those of its children among them."
    )
    hosts: list[str] | None = Field(default=None, description="All hosts.")
    messages: list[str] | None = Field(default=None, description="What Ansible said while it read it.")
    detail: str | None = Field(default=None, description="Why there are no hosts.")


class InventoryList(Record):
    """Reply of `listinventories`."""

    inventories: list[ListedInventory] = Field(description="Sorted by path.")
