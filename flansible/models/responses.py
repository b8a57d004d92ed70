"""Replies of the API, one model each; the API documents are generated from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr

from flansible.models.records import Kind, Record, Trigger, Verdict, Visibility
from flansible.states import STATES, State


def _alternatives(words: Iterable[str]) -> str:
    *most, last = [f"`{word}`" for word in words]
    return f"{', '.join(most)} or {last}"


class SessionReply(Record):
    """Reply of `session`: who is logged in."""

    user: str = Field(description="Name of the user.")
    role: str = Field(description="Of the user's own entry: `operator`, `viewer` or `auditor`.")
    groups: list[str] = Field(description="The user's groups in rbac.json, in its order.")
    is_admin: bool = Field(description="Whether this is admin.")
    sees_all: bool = Field(description="Whether the tasks of all users are shown.")
    sees: Literal["own", "inventories", "all"] = Field(
        description="Whose tasks are shown: the user's own, also those on the inventories of an entry, or all."
    )
    has_team: bool = Field(
        description="Whether an entry of the user sees tasks of others by their inventories: those of `whose=team`."
    )
    cancels: Literal["own", "inventories", "all"] = Field(description="Whose tasks may be canceled, likewise.")
    may_act: bool = Field(description="Whether this user may start and cancel tasks.")
    may_become: bool = Field(description="Whether this user's runs may become another user.")
    may_use_git: bool = Field(description="Whether this user may update checkouts.")
    launches_only: bool = Field(
        description="Whether no entry of the user has inventories: the console then shows templates and tasks alone."
    )
    rights: list[str] = Field(description="The user's rights in rbac.json, in sentences, entry by entry.")
    csrf_token: str = Field(description="Value for the header `X-CSRF-Token`; empty without a session cookie.")
    flower_url: str | None = Field(description="URL of Flower if it runs here; only for admin.")


class Accepted(Record):
    """Reply to a submission (202)."""

    task_id: str = Field(description="Public id of the task.")
    status_url: str = Field(description="URL of its status.")
    output_url: str = Field(description="URL of its output.")
    commit: str | None = Field(default=None, description="Only with `project`: the commit that is run, 40 digits.")
    warning: str | None = Field(
        default=None, description="Only if the remote did not answer: of which day the commit is."
    )


class TaskStatus(Record):
    """Reply of `ansibletaskstatus`: the present status of one task."""

    task_id: str = Field(description="Public id of the task.")
    Status: str = Field(
        description="`PROGRESS` while queued or running; anything else is final: "
        f"{_alternatives(facts.status for facts in STATES.values() if not facts.next_states)}; "
        f"after `{STATES[State.ERROR].status}` follow a colon and the cause."
    )
    state: State = Field(description=f"{_alternatives(State)}.")
    description: str = Field(description="The state in words, with the cause when it did not succeed.")
    returncode: int | None = Field(None, description="Exit code of Ansible or git, once there is one.")
    changed: bool | None = Field(None, description="Whether any host reported a change; null until final.")
    user: str = Field(description="Who submitted it.")
    kind: Kind = Field(description="`adhoc`, `playbook` or `git`.")
    summary: str = Field(description="The request in one line.")
    playbook: str | None = Field(
        None, description="Playbook, as a path below `playbook_root`; several are separated by spaces."
    )
    module: str | None = Field(None, description="Module of an ad-hoc command.")
    hosts: str | None = Field(None, description="Host pattern of an ad-hoc command, `limit` of a playbook.")
    inventory: str | None = Field(None, description="Inventory; several are separated by commas.")
    project: str | None = Field(None, description="Only with a project: its name.")
    ref: str | None = Field(None, description="Only with a project: the branch, tag or commit that was asked for.")
    commit: str | None = Field(None, description="Only with a project: the commit that is run, 40 digits.")
    trigger: Trigger = Field(
        "api", description="What started it: `api` (a request), `schedule`, `hook`, or `retry` of a template."
    )
    template: str | None = Field(None, description="Only if it was launched from a template: its name.")
    template_digest: str | None = Field(None, description="Only then: a digest of the template as it was.")
    run_as: str | None = Field(None, description="Only then: the user whose rights it has.")
    retry_of: str | None = Field(None, description="Only if it tries hosts of another task again: that task's id.")
    counts: dict[Verdict, int] = Field({}, description="Number of results of play tasks on hosts so far, by verdict.")
    host_count: int = Field(0, description="Number of hosts with results so far.")
    play_task_count: int = Field(0, description="Number of play tasks started so far, handlers included.")
    play_task: str | None = Field(None, description="Only while running: name of the play task that started last.")
    expected_play_tasks: int | None = Field(
        None,
        description="Only until final: number of play tasks of its user's last successful run of the whole playbook.",
    )
    submitted_at: str = Field(description="RFC 3339, UTC.")
    started_at: str | None = Field(None, description="RFC 3339, UTC; null while queued.")
    finished_at: str | None = Field(None, description="RFC 3339, UTC; null until final.")
    queue_position: int | None = Field(None, description="Only while queued: 1 is next.")
    reason: str | None = Field(
        None,
        description="Only while queued: why it waits: `no_worker`, `workers_busy`, `user_limit`, "
        "`locked_by: <task_id>`, `host_held_by: <task_id>` (`another user` in place of the id where you may not see "
        "that task), or `starting`.",
    )
    waiting_host: str | None = Field(
        None, description="Only while it waits with `host_held_by`, if that is known: a host that both tasks have."
    )
    queue: str | None = Field(
        None, description="Only until final, and unless it is `default`: the queue whose workers may run it."
    )
    expected_start: str | None = Field(
        None, description="Only while queued: estimated start, from recent run times; RFC 3339, UTC."
    )
    attempt: int | None = Field(
        None, description="Only after the task was lost and queued again: number of this attempt."
    )
    warning: str | None = Field(
        None,
        description="Only if it succeeded without a result on any host, and not as a list or a syntax check: "
        "`no hosts matched`, or `no play task ran on a host`.",
    )
    output_expired_at: str | None = Field(
        None, description="Only if its output and events were deleted before its record: when. RFC 3339, UTC."
    )
    ended: list[str] | None = Field(None, description="Only if processes were terminated: each as `name (pid)`.")
    # No part of the reply: whether it is given at all depends on it.
    _visibility: Visibility | None = PrivateAttr(None)

    @property
    def visibility(self) -> Visibility | None:
        """By what others than its user may see the task."""
        return self._visibility

    def with_visibility(self, found: Visibility | None) -> Self:
        """Returns the status with what decides who may see it."""
        copy = self.model_copy()
        copy._visibility = found
        return copy


class TaskList(Record):
    """Reply of `ansibletasks`: newest first."""

    tasks: list[TaskStatus] = Field(description="One page of tasks, newest first.")
    next_before: int | None = Field(None, description="Pass as `before` for the next page; null on the last.")
    changes: int = Field(description="Pass as `after` to follow later changes as a stream.")


class TaskRequest(Record):
    """Reply of `ansibletaskrequest`: the request of a task, without secrets."""

    task_id: str = Field(description="Public id of the task.")
    kind: Kind = Field(description="`adhoc`, `playbook` or `git`.")
    entry: str = Field(
        description="The entry of rbac.json that allowed it: `own`, that of its user, or `group:` and a group's name."
    )
    path: str = Field(description="The path it was sent to.")
    body: dict[str, Any] = Field(description="The body as it was sent; each secret is replaced with `********`.")
    masked: list[str] = Field(description="Paths of the fields that were replaced, 500 at most.")
    command: str = Field(description="The equivalent command line on the service's machine.")
    curl: str = Field(description="The same request as a curl command, which prompts for the password.")
    flansible: str | None = Field(
        description="The same as a command of `flansible`; null if no command can express it."
    )


class Event(Record):
    """One event of a task. Fields that its kind does not have are left out."""

    seq: int = Field(description="Sequence number: 1, 2, 3 … without a gap, over all attempts.")
    event: Literal["play_start", "task_start", "host_result", "stats", "restart", "missing", "final"] = Field(
        description="`final`: the last event of every task; `restart`: the run was lost and starts again; `missing`: "
        "Redis lost it."
    )
    time: str | None = Field(None, description="When it happened; RFC 3339, UTC.")
    play: str | None = Field(None, description="Name of the play.")
    task: str | None = Field(None, description="Name of the play task.")
    module: str | None = Field(None, description="Action of the play task.")
    handler: bool | None = Field(None, description="True where the play task is a handler.")
    host: str | None = Field(None, description="Host (`host_result`).")
    verdict: Verdict | None = Field(None, description="Outcome on this host (`host_result`).")
    duration_seconds: float | None = Field(None, description="Time from the start on this host to the result.")
    result: dict[str, Any] | None = Field(None, description="The module's result; hidden if no_log is set.")
    groups: list[str] | None = Field(
        None, description="The host's groups, without `all`; with its first result in the run (`host_result`)."
    )
    stats: dict[str, dict[str, int]] | None = Field(None, description="Host to counts (`stats`).")
    custom_stats: dict[str, Any] | None = Field(None, description="Data collected by `set_stats` (`stats`).")
    state: State | None = Field(None, description="Final state of the task (`final`).")
    returncode: int | None = Field(None, description="Exit code (`final`).")
    description: str | None = Field(None, description="The state in words (`final`, `restart`).")
    output_start: int = Field(description="Offset of the first byte of its output.")
    output_end: int = Field(description="Offset after its last byte; equal to `output_start` if it printed nothing.")


class EventPage(Record):
    """Reply of `ansibletaskevents`."""

    task_id: str = Field(description="Public id of the task.")
    state: State = Field(description="State of the task.")
    events: list[Event] = Field(description="Events in order of `seq`.")
    next_after: int = Field(description="Pass as `after` to continue from here.")
    final: bool = Field(description="Whether these are the last: the task is final and no event follows.")


class PlayTaskResult(Record):
    """The result of one play task on one host."""

    play: str = Field(description="Name of the play.")
    task: str = Field(description="Name of the play task.")
    module: str = Field(description="Action that ran.")
    verdict: Verdict = Field(description="Outcome.")
    duration_seconds: float = Field(description="Time from the start on this host to the result.")
    result: dict[str, Any] = Field(description="The module's result; hidden if no_log is set.")


class TaskResult(Record):
    """Reply of `ansibletaskresult`: one page of hosts, those with failures first."""

    task_id: str = Field(description="Public id of the task.")
    state: State = Field(description="State of the task; results grow until it is final.")
    returncode: int | None = Field(None, description="Exit code, once there is one.")
    contacted: dict[str, list[PlayTaskResult]] = Field(description="Host to the results of its play tasks, in order.")
    dark: dict[str, PlayTaskResult] = Field(description="Unreachable host to the result with the cause.")
    stats: dict[str, dict[str, int]] = Field(
        description="Host to counts: ok, changed, unreachable, failures, skipped, rescued, ignored."
    )
    custom_stats: dict[str, Any] = Field(description="Data collected by `set_stats`.")
    next_after: str | None = Field(None, description="Pass as `after` for the next page; null on the last.")


class ListedPlay(Record):
    """One play of a playbook, as written in its file."""

    play: str = Field(description="Its name; without a name, its hosts; for an import, the imported playbook.")
    hosts: str = Field(description="Its host pattern; empty for an import.")


class ListedVariable(Record):
    """A variable that a playbook prompts for, or that its plays or roles define."""

    name: str = Field(description="Its name.")
    source: Literal["vars_prompt", "argument_specs", "vars"] = Field(
        description="`vars_prompt` of a play, `argument_specs` of a role, or simple `vars` of a play."
    )
    play: str | None = Field(default=None, description="The play that defines it.")
    role: str | None = Field(default=None, description="The role that defines it (`argument_specs`).")
    type: Literal["str", "int", "bool", "list", "dict", "path", "raw", "float"] = Field(
        description="Type of its value."
    )
    required: bool = Field(description="Whether the run needs a value for it.")
    default: Any = Field(
        default=None, description="Its default; null if it has none, or one that is not a plain value."
    )
    choices: list[Any] | None = Field(default=None, description="Its allowed values.")
    description: str = Field(default="", description="Its purpose: the prompt, or the description in the role.")
    private: bool = Field(default=False, description="Whether it is a secret: send it in `secret_vars`.")


class ListedPlaybook(Record):
    """One playbook under `playbook_root`."""

    playbook: str = Field(
        description=r"File name, as `ansibleplaybook` takes it: a byte that is not UTF-8 is written `\xE9`."
    )
    playbook_dir: str = Field(description="Absolute directory, as `ansibleplaybook` takes it.")
    description: str = Field(default="", description="The comment at the top of its file.")
    plays: list[ListedPlay] = Field(default=[], description="Its plays, in order, the first 200.")
    encrypted: bool | None = Field(
        default=None, description="Only if the whole file is encrypted with ansible-vault: what is in it is unknown."
    )
    variables: list[ListedVariable] | None = Field(
        default=None, description="Its variables; only if the playbook was requested by name."
    )


class PlaybookList(Record):
    """Reply of `listplaybooks`."""

    playbook_root: str = Field(description="The folder that they are searched in; of a project `.`, its root.")
    playbooks: list[ListedPlaybook] = Field(description="Sorted by directory and name.")
    project: str | None = Field(default=None, description="Only with `project`: its name.")
    ref: str | None = Field(default=None, description="Only with `project`: its branch, tag or commit.")
    commit: str | None = Field(default=None, description="Only with `project`: the commit that was read.")


class WorkerStats(Record):
    """One worker."""

    name: str = Field(description="Its host and process.")
    slots: int = Field(description="Number of runs it executes at the same time.")
    running: int = Field(description="Number of runs it executes now, of all users.")


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
    """Runs of one playbook that completed: succeeded or failed."""

    playbook: str = Field(description="Path below `playbook_root`.")
    runs: int = Field(description="Number of runs.")
    failed: int = Field(description="Number of them that failed.")
    mean_seconds: float = Field(description="Mean time from start to end.")
    longest_seconds: float = Field(description="The longest of them.")


class HostStats(Record):
    """A host with failures, or unreachable."""

    host: str = Field(description="Its name in the inventory.")
    failed: int = Field(description="Number of runs in which it failed or was unreachable.")


class ServiceStats(Record):
    """Reply of `stats`."""

    queued: int = Field(description="Tasks that are queued now.")
    running: int = Field(description="Tasks that are running now.")
    workers: list[WorkerStats] = Field(description="Live workers, sorted by name.")
    days: list[DayStats] = Field(description="One entry for each day, oldest first.")
    playbooks: list[PlaybookStats] = Field(description="The 20 slowest at most, by mean time.")
    hosts: list[HostStats] = Field(description="The 20 with most failures at most.")
    everybody: bool = Field(description="Whether this covers the tasks of all users, or only the caller's own.")


class PartHealth(Record):
    """One part of the service."""

    ok: bool = Field(description="Whether it works.")
    detail: str = Field(description="What was found.")


class ForkServerCounts(Record):
    """How often runs of one worker have found Ansible loaded with their configuration, since it was started."""

    worker: str = Field(description="Its name.")
    kept: int = Field(description="Fork servers that it keeps warm now.")
    warm: int = Field(description="Runs that found the fork server of their configuration.")
    forked: int = Field(description="Fork servers made by forking the zygote, in some 30 ms.")
    started: dict[str, int] = Field(description="Fork servers that had to be started, which loads Ansible: by reason.")
    evicted: int = Field(description="Fork servers that were ended to make room for others.")


class QueueWorkers(Record):
    """A queue and the workers that take tasks from it."""

    queue: str = Field(description="Its name.")
    workers: list[str] = Field(description="Names of the live workers that serve it; none: its tasks wait.")


class Health(Record):
    """Reply of `health`: 200 when every needed part answers, else 503."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="`degraded`: the service works, but a part needs attention."
    )
    version: str = Field(description="Version of Flansible.")
    parts: dict[str, PartHealth] = Field(description="store, broker, workers, rbac, isolation, history.")
    fork_servers: list[ForkServerCounts] = Field(description="Of each live worker. For admin; empty for others.")
    queues: list[QueueWorkers] = Field(
        description="`default`, queues of live workers, and those that rbac.json names. For admin; empty for others."
    )


class ErrorItem(Record):
    """One invalid field."""

    field: str = Field(description="Path of the field.")
    message: str = Field(description="What is wrong with it.")


class ErrorBody(Record):
    """The body of every error reply."""

    message: str = Field(description="What is wrong and what to do.")
    code: str = Field(description="Stable identifier for programs.")
    errors: list[ErrorItem] = Field(description="The invalid fields, if any.")


class PlannedTask(Record):
    """One play task of a preview."""

    name: str = Field(description="Its name, or its action if it has none.")
    tags: list[str] = Field(description="Its tags and its play's.")


class PlannedPlay(Record):
    """One play of a preview."""

    play: str = Field(description="Name of the play.")
    pattern: str = Field(description="Its host pattern.")
    hosts: list[str] = Field(description="The hosts that the pattern selects, within `limit` and the user's rights.")
    play_tasks: list[PlannedTask] = Field(description="Its play tasks, within `tags` and `skip_tags`, in order.")


class PreviewReply(Record):
    """Reply of `preview`."""

    allowed: bool = Field(description="Whether the user's rights allow the request, and what it names exists.")
    refusal: ErrorBody | None = Field(default=None, description="The error it would be refused with.")
    command: str | None = Field(default=None, description="The equivalent command line, without secrets.")
    rights: list[str] = Field(
        description="The user's rights in rbac.json, in sentences; of several entries, the last one names that which "
        "allows the request."
    )
    plays: list[PlannedPlay] | None = Field(
        default=None, description="The plays, hosts and play tasks; null if they could not be listed."
    )
    hosts: list[str] | None = Field(default=None, description="All hosts of all plays, sorted by name.")
    messages: list[str] = Field(default=[], description="Ansible's warnings, and where the run will differ.")
    detail: str | None = Field(default=None, description="Why the plays could not be listed.")


class InventoryHosts(Record):
    """The groups and hosts of an inventory."""

    groups: dict[str, list[str]] = Field(description="Group to its hosts, including those of its child groups.")
    hosts: list[str] = Field(description="All hosts.")


class ListedInventory(Record):
    """One inventory, with its hosts only if it was requested by name."""

    inventory: str = Field(description="Path as requests take it: absolute, or in the project; or hosts.")
    name: str = Field(description="A short name for display.")
    is_default: bool = Field(description="Whether requests without `inventory` use it.")
    exists: bool = Field(description="Whether the file or folder exists.")
    groups: dict[str, list[str]] | None = Field(
        default=None, description="Group to its hosts, including those of its child groups."
    )
    hosts: list[str] | None = Field(default=None, description="All hosts.")
    messages: list[str] | None = Field(default=None, description="Ansible's messages from reading it.")
    detail: str | None = Field(default=None, description="Why its hosts could not be listed.")


class InventoryList(Record):
    """Reply of `listinventories`."""

    inventories: list[ListedInventory] = Field(description="Sorted by path.")
