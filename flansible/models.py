"""What crosses a border: requests as clients send them, the authorized run, the task record and the replies.

Pydantic models, strict and frozen; web validates with them, docs are generated from them, store keeps them as JSON.
The runner never sees them: it gets plain frames (flansible.wire).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator


class State(StrEnum):
    """The precise state of a task."""

    QUEUED = "queued"  # recorded and enqueued; no worker has claimed it
    RUNNING = "running"  # claimed by exactly one worker
    SUCCEEDED = "succeeded"  # Ansible (or git) ended with 0 and did execute what was asked
    FAILED = "failed"  # Ansible (or git) said no: its exit code is in returncode
    CANCELED = "canceled"  # ended on a user's request
    TIMED_OUT = "timed_out"  # ended because its deadline passed
    LOST = "lost"  # the worker or the machine died while it ran
    ERROR = "error"  # Flansible failed before or around Ansible


FINAL_STATES = frozenset(State) - {State.QUEUED, State.RUNNING}

# What old clients poll: PROGRESS means "ask again", anything else is final.
STATUS_WORDS = {
    State.QUEUED: "PROGRESS",
    State.RUNNING: "PROGRESS",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FLANSIBLE_TASK_FAILURE",
    State.CANCELED: "CANCELED",
    State.TIMED_OUT: "TIMEOUT",
    State.LOST: "LOST",
    State.ERROR: "CELERY_FAILURE",
}

DEFAULT_VAULT_ID = "default"  # Ansible's own name for a vault password without one

Kind = Literal["adhoc", "playbook", "git"]


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


Text = Annotated[str, AfterValidator(_not_blank), Field(min_length=1)]
Texts = Text | Annotated[list[Text], Field(min_length=1)]
Secret = Annotated[str, Field(min_length=1, json_schema_extra={"format": "password"})]
VariablesPart = dict[str, JsonValue] | str
ExtraVars = dict[str, JsonValue] | str | list[VariablesPart]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _texts(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


class Request(BaseModel):
    """A request body. Types are strict: "false" is not false, 1.0 is not 1; an unknown field is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class ModuleArgument(Request):
    """One argument of a module, as the original Flansible's clients send it."""

    arg_name: Text = Field(description="Name of the argument.")
    arg_value: JsonValue = Field(description="Its value.")


class RunOptions(Request):
    """The options `ansible` and `ansible-playbook` share; each is named as the long option with underscores."""

    inventory: Texts | None = Field(
        None, description="Inventory path, or a list of them; admin may give a host list such as `web1,web2,`."
    )
    limit: Text | None = Field(None, description="Further limit the hosts to this pattern.")
    extra_vars: ExtraVars | None = Field(
        None,
        description="Variables: an object, a string as `-e` takes it (`key=value`, or `@file` for admin), "
        "or a list of these, the later ones winning.",
    )
    extra_args: ExtraVars | None = Field(None, description="Another name of `extra_vars`; give one of the two.")
    forks: int | None = Field(None, ge=1, le=10000, description="Hosts worked on side by side.")
    verbose_level: int = Field(0, ge=0, le=6, description="Verbosity, 0 to 6; 3 is `-vvv`.")
    become: bool = Field(False, description="Run operations with become.")
    become_method: Text | None = Field(None, description="Privilege escalation method, such as `sudo`.")
    become_user: Text | None = Field(None, description="User to become, by default root.")
    remote_user: Text | None = Field(None, description="User to connect as.")
    check: bool = Field(False, description="Predict changes, do not make them.")
    diff: bool = Field(False, description="Show differences in changed files and templates.")
    timeout: int | None = Field(None, ge=1, description="Connection timeout in seconds.")
    flush_cache: bool = Field(False, description="Clear the fact cache of every host in the inventory first.")
    list_hosts: bool = Field(False, description="List matching hosts, execute nothing.")
    connection: Text | None = Field(None, description="Connection type, such as `ssh` or `local` (admin).")
    private_key_file: Text | None = Field(None, description="Path of the key to connect with (admin).")
    private_key: Secret | None = Field(
        None, repr=False, description="The key itself; sealed, used once and removed with the run."
    )
    ssh_common_args: str | None = Field(None, description="Arguments for ssh, sftp and scp (admin).")
    ssh_extra_args: str | None = Field(None, description="Arguments for ssh only (admin).")
    sftp_extra_args: str | None = Field(None, description="Arguments for sftp only (admin).")
    scp_extra_args: str | None = Field(None, description="Arguments for scp only (admin).")
    connection_password: Secret | None = Field(
        None, repr=False, description="Password to connect with; sealed, used once."
    )
    connection_password_file: Text | None = Field(None, description="Path of a file with that password (admin).")
    become_password: Secret | None = Field(None, repr=False, description="Password for become; sealed, used once.")
    become_password_file: Text | None = Field(None, description="Path of a file with that password (admin).")
    vault_id: Texts | None = Field(
        None, description="Vault identities as `label@file`; `label@prompt` takes its password from `vault_password`."
    )
    vault_file: Text | None = Field(None, description="Another name of `vault_password_file`; give one of the two.")
    vault_password_file: Texts | None = Field(None, description="Path of a vault password file, or a list of them.")
    vault_password: Secret | dict[str, Secret] | None = Field(
        None, repr=False, description="The vault password, or an object of passwords by vault id; sealed, used once."
    )
    module_path: Texts | None = Field(None, description="Folders to look for modules in before all others (admin).")
    environment: dict[EnvironmentName, str] | None = Field(
        None, description="Environment variables of the run (admin; others: names of `environment_names`)."
    )

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        for name, other in self.spellings():
            if getattr(self, name) is not None and getattr(self, other) is not None:
                raise ValueError(f"{name} and {other} exclude each other: give one of them")
        return self

    @classmethod
    def spellings(cls) -> tuple[tuple[str, str], ...]:
        """Pairs of names of one thing, of which a request may use one."""
        return (
            ("extra_vars", "extra_args"),
            ("vault_file", "vault_password_file"),
            ("connection_password", "connection_password_file"),
            ("become_password", "become_password_file"),
            ("private_key", "private_key_file"),
        )

    @property
    def variables(self) -> list[VariablesPart]:
        """The extra variables under either name, in order; later ones win."""
        given = self.extra_vars if self.extra_vars is not None else self.extra_args
        return [part for part in (given if isinstance(given, list) else [given]) if part]

    @property
    def inventories(self) -> list[str]:
        return _texts(self.inventory)

    @property
    def vault_password_files(self) -> list[str]:
        return _texts(self.vault_password_file or self.vault_file)

    @property
    def vault_ids(self) -> list[str]:
        return _texts(self.vault_id)

    @property
    def secrets(self) -> Secrets | None:
        """What is sealed and handed to the run alone; None when there is nothing of the kind."""
        vault = self.vault_password
        given = Secrets(
            connection_password=self.connection_password,
            become_password=self.become_password,
            vault_passwords={DEFAULT_VAULT_ID: vault} if isinstance(vault, str) else vault or {},
            private_key=self.private_key,
        )
        return None if given == Secrets() else given


class AdhocRequest(RunOptions):
    """`POST /api/ansiblecommand`: one module on the hosts of a pattern, as `ansible PATTERN -m MODULE -a ARGS`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"host_pattern": "localhost", "module": "ping", "inventory": "../inventories/dev"}
        }
    )

    host_pattern: Text | None = Field(None, description="Hosts to work on; default `localhost`.")
    host_filter: Text | None = Field(None, description="Another name of `host_pattern`; give one of the two.")
    module: Text = Field(description="Module to run, such as `ping` or `ansible.builtin.command`.")
    module_args: dict[str, JsonValue] | str | list[ModuleArgument] | None = Field(
        None,
        description="Arguments of the module: an object, a free-form string, or a list of `{arg_name, arg_value}`.",
    )
    background: int | None = Field(None, ge=0, description="Run asynchronously, failing after so many seconds.")
    poll: int | None = Field(None, ge=0, description="Seconds between polls of a background run.")
    task_timeout: int | None = Field(None, ge=0, description="Limit of each play task in seconds; 0 is none.")
    one_line: bool = Field(False, description="One line of output per host.")
    tree: Text | None = Field(None, description="Folder to write each host's result to, on the worker (admin).")
    playbook_dir: Text | None = Field(
        None, description="Take this folder for the playbook's: its roles, plugins and group_vars count."
    )
    chdir: Text | None = Field(
        None,
        description="Directory to run in, as after `cd`: its `ansible.cfg` and relative paths count. "
        "Default, and what a relative one counts from: `playbook_root`.",
    )

    @classmethod
    def spellings(cls) -> tuple[tuple[str, str], ...]:
        return (*super().spellings(), ("host_pattern", "host_filter"))

    @property
    def pattern(self) -> str:
        return self.host_pattern or self.host_filter or "localhost"

    @property
    def arguments(self) -> dict[str, JsonValue] | str | None:
        """module_args with the list form made an object; None when there are none."""
        if isinstance(self.module_args, list):
            return {item.arg_name: item.arg_value for item in self.module_args} or None
        return self.module_args or None


class PlaybookRequest(RunOptions):
    """`POST /api/ansibleplaybook`: playbooks of a directory, as `cd playbook_dir && ansible-playbook playbook`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "playbook_dir": "demo",
                "playbook": "site.yml",
                "inventory": "inventory",
                "extra_vars": {"x": 1},
            }
        }
    )

    playbook_dir: Text = Field(description="Directory to run in; a relative one counts from `playbook_root`.")
    playbook: Texts = Field(description="Playbook, or a list of them, relative to `playbook_dir`.")
    tags: Texts | None = Field(None, description="Only play tasks with these tags.")
    skip_tags: Texts | None = Field(None, description="Only play tasks without these tags.")
    start_at_task: Text | None = Field(None, description="Start at the play task of this name.")
    force_handlers: bool = Field(False, description="Run handlers even when a play task fails.")
    syntax_check: bool = Field(False, description="Check the syntax, execute nothing.")
    list_tasks: bool = Field(False, description="List play tasks, execute nothing.")
    list_tags: bool = Field(False, description="List tags, execute nothing.")
    update_git_repo: bool = Field(
        False, description="Pull `playbook_dir`'s checkout first; a failed pull ends the task."
    )

    @property
    def playbooks(self) -> list[str]:
        return _texts(self.playbook)


class GitRequest(Request):
    """`POST /api/git`: update a checkout to what its remote has."""

    model_config = ConfigDict(json_schema_extra={"example": {"playbook_dir": "demo", "branch_name": "main"}})

    playbook_dir: Text = Field(description="The checkout; a relative path counts from `playbook_root`.")
    remote_name: Text = Field("origin", description="Name of the remote (not a URL).")
    branch_name: Text | None = Field(None, description="Branch to fetch; default: the branch that is checked out.")
    reset: bool = Field(False, description="Discard local changes and commits and take the remote's state.")


class Record(BaseModel):
    """A frozen record that store keeps as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secrets(Record):
    """What only the run may read: sealed while it waits, given out once. Never in a record, a message or a log."""

    connection_password: str | None = Field(default=None, repr=False)
    become_password: str | None = Field(default=None, repr=False)
    vault_passwords: dict[str, str] = Field(default_factory=dict, repr=False)
    private_key: str | None = Field(default=None, repr=False)


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


class AuthorizedRun(Record):
    """What flansible.authorization let through. Only this can be submitted: the check cannot be skipped."""

    kind: Kind
    user: str
    summary: str = Field(description="One line for people, without secrets: user, kind, what, on which hosts.")
    steps: tuple[Step, ...] = Field(min_length=1)
    secrets: Secrets | None = Field(default=None, exclude=True, repr=False)


class Accepted(Record):
    """Reply to a submission (202)."""

    task_id: str = Field(description="Public id of the task.")
    status_url: str = Field(description="Where to ask for its status.")
    output_url: str = Field(description="Where to read its output.")


class TaskStatus(Record):
    """Reply of `ansibletaskstatus`: one task, now."""

    task_id: str = Field(description="Public id of the task.")
    Status: str = Field(
        description="`PROGRESS` while queued or running; anything else is final: `SUCCESS`, `FLANSIBLE_TASK_FAILURE`, "
        "`CANCELED`, `TIMEOUT`, `LOST`, `CELERY_FAILURE: why`."
    )
    state: State = Field(
        description="`queued`, `running`, `succeeded`, `failed`, `canceled`, `timed_out`, `lost` or `error`."
    )
    description: str = Field(description="The state in words, with the cause when it did not succeed.")
    returncode: int | None = Field(None, description="Exit code of Ansible or git, once there is one.")
    user: str = Field(description="Who submitted it.")
    kind: Kind = Field(description="`adhoc`, `playbook` or `git`.")
    summary: str = Field(description="What was asked for, in one line.")
    submitted_at: str = Field(description="RFC 3339, UTC.")
    started_at: str | None = Field(None, description="RFC 3339, UTC; null while queued.")
    finished_at: str | None = Field(None, description="RFC 3339, UTC; null until final.")


class TaskList(Record):
    """Reply of `ansibletasks`: newest first."""

    tasks: list[TaskStatus] = Field(description="One page of tasks, newest first.")
    next_before: int | None = Field(None, description="Pass as `before` for the next page; null on the last.")


class PlayTaskResult(Record):
    """What one play task gave on one host."""

    play: str = Field(description="Name of the play.")
    task: str = Field(description="Name of the play task.")
    module: str = Field(description="Action that ran.")
    verdict: str = Field(description="`ok`, `changed`, `failed`, `ignored`, `unreachable` or `skipped`.")
    duration_seconds: float = Field(description="From start on this host to result.")
    result: dict[str, Any] = Field(description="The module's result; hidden where no_log is set.")


class TaskResult(Record):
    """Reply of `ansibletaskresult`: results by host; hosts with failures come first."""

    task_id: str = Field(description="Public id of the task.")
    state: State = Field(description="State of the task; results grow until it is final.")
    returncode: int | None = Field(None, description="Exit code, once there is one.")
    contacted: dict[str, list[PlayTaskResult]] = Field(description="Host to the results of its play tasks, in order.")
    dark: dict[str, PlayTaskResult] = Field(description="Unreachable host to the result that says why.")
    stats: dict[str, dict[str, int]] = Field(
        description="Host to counts: ok, changed, unreachable, failures, skipped, rescued, ignored."
    )
    custom_stats: dict[str, Any] = Field(description="What `set_stats` collected.")


class ListedPlaybook(Record):
    """One playbook under `playbook_root`."""

    playbook: str = Field(description="File name, as `ansibleplaybook` takes it.")
    playbook_dir: str = Field(description="Absolute directory, as `ansibleplaybook` takes it.")


class PlaybookList(Record):
    """Reply of `listplaybooks`."""

    playbooks: list[ListedPlaybook] = Field(description="Sorted by directory and name.")


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
    parts: dict[str, PartHealth] = Field(description="store, broker, workers, rbac.")


class ErrorItem(Record):
    """One faulty field."""

    field: str = Field(description="Path of the field.")
    message: str = Field(description="What is wrong with it.")


class ErrorBody(Record):
    """The one shape of every error reply."""

    message: str = Field(description="What is wrong and what to do.")
    code: str = Field(description="Stable word for programs.")
    errors: list[ErrorItem] = Field(description="Faulty fields, when there are any.")
