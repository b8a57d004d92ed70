"""Records that the store keeps as JSON: the authorized run and its secrets. Frozen."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

_ADMIN = "admin"  # the one user whose runs are not confined
_OWN_ENTRY = "own"  # these two as flansible.identity.users writes them
_OF_GROUP = ":group:"
DEFAULT_QUEUE = "default"  # whose workers run what names no queue
Kind = Literal["adhoc", "playbook", "git"]
Trigger = Literal["api", "schedule", "hook", "retry"]
Verdict = Literal["ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored"]
VariablesPart = dict[str, JsonValue] | str

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def principal(user: str, entry: str) -> str:
    """Names a user's rights by one entry of rbac.json: `lee`, or `lee:group:ops`. No name has a colon."""
    return user if entry == _OWN_ENTRY else f"{user}:{entry}"


def split_principal(text: str) -> tuple[str, str]:
    """Returns the user and the group of a principal; no group for the user's own entry."""
    user, _, group = text.partition(_OF_GROUP)
    return user, group


def inventory_place(inventory: str) -> str:
    """Returns an inventory, resolved or as `project:path`, so that a folder is a prefix of what is in it."""
    return inventory.removesuffix(".") if inventory.endswith(":.") else f"{inventory.rstrip('/')}/"


def is_task_id(text: str) -> bool:
    """Checks the form of a task's id, which is also its message's. Only a valid one may become part of a Redis key."""
    return _TASK_ID.fullmatch(text) is not None


class Record(BaseModel):
    """Base of the frozen records that the store keeps as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Secrets(Record):
    """Secrets that only the run may read: sealed while it waits, handed out once. Never in a record, message or log."""

    connection_password: str | None = Field(default=None, repr=False)
    become_password: str | None = Field(default=None, repr=False)
    vault_passwords: dict[str, str] = Field(default_factory=dict, repr=False)
    private_key: str | None = Field(default=None, repr=False)
    private_key_passphrase: str | None = Field(default=None, repr=False)
    variables: dict[str, str] = Field(default_factory=dict, repr=False)
    git_credential: dict[str, str] = Field(
        default_factory=dict, repr=False, description="Of the project: for git, never for Ansible."
    )
    # Of credentials only: an agent signs with the key, and the run does not get it.
    agent_key: str | None = Field(default=None, repr=False)
    agent_key_passphrase: str | None = Field(default=None, repr=False)
    environment: dict[str, str] = Field(default_factory=dict, repr=False)

    @property
    def values(self) -> list[str]:
        """All that a request may have."""
        single = (
            *(self.connection_password, self.become_password, self.private_key, self.private_key_passphrase),
            *(self.agent_key, self.agent_key_passphrase),
        )
        named = (self.vault_passwords, self.variables, self.environment)
        return [value for value in (*single, *(value for one in named for value in one.values())) if value]

    @property
    def for_run(self) -> dict[str, Any] | None:
        """What Ansible gets, None if there is nothing: neither the project's credential nor the agent's key."""
        kept = self.model_copy(update={"git_credential": {}, "agent_key": None, "agent_key_passphrase": None})
        hidden = {"git_credential", "agent_key", "agent_key_passphrase"}
        return None if kept == Secrets() else kept.model_dump(exclude=hidden)

    @property
    def has_encrypted_key(self) -> bool:
        return self.private_key is not None and self.private_key_passphrase is not None


class Step(Record):
    """One program of a run, with the arguments that Ansible's own parser gets inside the run, never a shell.

    `extra_vars` and `data_only` serve users other than admin: their strings are data, and Ansible never templates them.
    `launch_vars` are from whoever launched a template with the rights of another: data as well, even with admin's.
    """

    program: Literal["ansible", "ansible-playbook", "git", "project"]
    argv: tuple[str, ...]
    cwd: str
    extra_vars: tuple[VariablesPart, ...] = ()
    launch_vars: dict[str, JsonValue] = Field(default={}, description="They win over `extra_vars`.")
    data_only: bool = False
    environment: dict[str, str] = {}
    strategy: str | None = None
    listing: Literal["plan", "inventory", "files", "tags"] | None = Field(
        default=None,
        description="Execute nothing: list the hosts and play tasks, or the hosts and groups; or of a project the "
        "playbooks, or the one that argv names; or the tags that match its ref.",
    )

    @field_validator("extra_vars", mode="before")
    @classmethod
    def _as_parts(cls, value: Any) -> Any:
        """Reads records of the first version, which had one object here, or none."""
        if value is None:
            return ()
        return (value,) if isinstance(value, dict) else value


class ProjectRun(Record):
    """The project of a run, as it was defined when the run was submitted, and the commit that it runs."""

    name: str = Field(description="Its name.")
    url: str = Field(description="Where its repository is.")
    ref: str = Field(default="", description="As asked for, or the project's own; empty: the default branch.")
    is_own_ref: bool = Field(default=True, description="Whether the ref is the project's own.")
    commit: str = Field(default="", description="40 digits; empty while it is being looked for.")
    allow_refs: tuple[str, ...] = Field(default=("*",), description="Globs of the refs that requests may name.")
    must_answer: bool = Field(default=True, description="Whether the remote has to answer when a ref is looked for.")
    public_only: bool = Field(default=False, description="Whether the remote's addresses have to be public ones.")
    is_admins: bool | None = Field(
        default=None, description="Whether admin owns it: for others Galaxy gets no tokens. Null: of an older version."
    )
    known_hosts: str | None = Field(default=None, description="Keys of the ssh host; null: those the worker knows.")
    allowed_signers: str | None = Field(default=None, description="Who must have signed the commit; null: anybody.")
    submodules: bool = Field(default=False, description="Whether submodules are part of the tree.")
    depth: int | None = Field(default=None, description="Commits to fetch of each ref; null: all.")
    requirements: str = Field(default="auto", description="What is installed: `auto`, `none` or a path.")
    private_copy: bool = Field(default=False, description="Whether the run gets a copy of the tree that it may write.")
    queue: str | None = Field(default=None, description="The queue of requests that name none; null: the default one.")
    remark: str | None = Field(default=None, description="A sentence for the output, such as why it is an old commit.")

    @property
    def gets_tokens(self) -> bool:
        """Whether Galaxy gets the operator's tokens."""
        return not self.public_only if self.is_admins is None else self.is_admins


class Confinement(Record):
    """Limits for a run of a user other than admin. All paths are resolved.

    The worker builds the sandbox from the paths; the run enforces the rules that need Ansible.
    """

    readable: tuple[str, ...] = Field(description="Inventories and other paths that rbac.json allows the user.")
    hidden: tuple[str, ...] = Field(default=(), description="Inventories of other users, wherever they are.")
    inventories: tuple[str, ...] | None = Field(
        default=None, description="Those of `readable` that are inventories; null: all of them."
    )
    writable: tuple[str, ...] = Field(default=(), description="Folders that the user's runs may write.")
    projects: tuple[str, ...] = Field(default=(), description="Projects that the user's runs may read.")
    hosts: tuple[str, ...] | None = Field(
        default=None, description="Host patterns the user may reach; null: all hosts."
    )
    control_node: bool = Field(default=False, description="Whether tasks may run on the control machine itself.")
    lasting_processes: bool = Field(
        default=False, description="Whether what a run leaves in the background of its sandbox may outlive it."
    )


class Rights(Record):
    """What a user may do by one entry of the present rbac.json."""

    entry: str = Field(
        description="A digest of the entry without its password; empty while the user's tasks are authorized again."
    )
    confinement: Confinement | None = Field(
        description="Limits of the user's runs; null for admin, and for one who may start none."
    )


class Visibility(Record):
    """What a run can reach, by which others may see its task, and the entries of rbac.json that did when it came."""

    inventories: tuple[str, ...] = Field(description="The run's inventories, resolved.")
    hosts: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Lists of host patterns, each of which has all hosts of the run; none: all hosts."
    )
    entries: tuple[str, ...] = Field(
        default=(), description="`user:` or `group:` and a name: the entries that see the task."
    )


class About(Record):
    """Playbook, module, hosts and inventory of a task, for lists. None: not part of its kind, or not given."""

    playbook: str | None = Field(default=None, description="Playbooks, as paths below `playbook_root`.")
    module: str | None = Field(default=None, description="Module of an ad-hoc command.")
    hosts: str | None = Field(default=None, description="Pattern of an ad-hoc command, limit of a playbook.")
    inventory: str | None = Field(default=None, description="Inventories, separated by commas.")
    project: str | None = Field(default=None, description="The project.")
    ref: str | None = Field(default=None, description="The branch, tag or commit of it that was asked for.")
    commit: str | None = Field(default=None, description="The commit of it that is run.")


class Origin(Record):
    """What started a task, and with whose rights."""

    trigger: Trigger = Field(default="api", description="`api`, `schedule`, `hook` or `retry`.")
    template: str | None = Field(default=None, description="Name of the template it was launched from.")
    template_digest: str | None = Field(default=None, description="A digest of the template as it was then.")
    run_as: str | None = Field(default=None, description="Whose rights it has; null: those of its user.")
    retry_of: str | None = Field(default=None, description="The task whose hosts it tries again.")


class RetryPlan(Record):
    """What is to be done when a task of a template fails on hosts."""

    hosts: Literal["failed", "unreachable"] = Field(description="Which hosts are tried again.")
    delay_seconds: int = Field(description="After the end of the task.")
    attempt: int = Field(default=0, description="Retries before this task.")
    values: dict[str, JsonValue] = Field(default={}, description="What the launch set, to be set again.")


class AuthorizedRun(Record):
    """A run allowed by flansible.authorization. Only this type can be submitted, so the check cannot be skipped."""

    kind: Kind
    user: str
    entry: str = Field(
        default=_OWN_ENTRY, description="The entry of rbac.json that allowed it: `own`, or `group:` and its name."
    )
    summary: str = Field(description="One line for people, without secrets: user, kind, module or playbook, hosts.")
    steps: tuple[Step, ...] = Field(min_length=1)
    about: About = Field(default=About(), description="What lists show of it.")
    project: ProjectRun | None = Field(
        default=None, description="Folders and relative paths of the steps are in this project's tree."
    )
    origin: Origin = Field(default=Origin(), description="What started it, and with whose rights.")
    retry: RetryPlan | None = Field(default=None, description="Of a template: hosts that fail are tried again.")
    visibility: Visibility | None = Field(
        default=None, description="By what others may see it; null: by nothing but `sees: all`."
    )
    request: dict[str, JsonValue] = Field(default={}, description="The body as it was sent, secrets redacted.")
    time_limit: int | None = Field(
        default=None, description="Seconds; the shorter of this and CELERY_TASK_TIMEOUT counts."
    )
    on_lost: Literal["fail", "requeue"] = "fail"
    locks: tuple[str, ...] = Field(default=(), description="Two tasks that share a lock never run at the same time.")
    exclusive: Literal["hosts"] | None = Field(
        default=None, description="`hosts`: no other run may be on one of its hosts at the same time."
    )
    queue: str = Field(default=DEFAULT_QUEUE, description="The queue whose workers may run it.")
    credentials: tuple[str, ...] = Field(default=(), description="Names of the stored secrets that it uses.")
    own_credentials: tuple[str, ...] = Field(
        default=(), description="Of these, those that its user has written: no right in rbac.json is needed for them."
    )
    max_running: int = Field(default=0, description="Runs this user may have at the same time; 0: no limit.")
    max_queued: int = Field(default=0, description="Queued tasks this user may have; 0: no limit.")
    confinement: Confinement | None = Field(default=None, description="Null only for admin.")
    hidden: bool = Field(
        default=False, description="A preview run: it appears in no list and is kept for some minutes."
    )
    secrets: Secrets | None = Field(default=None, exclude=True, repr=False)

    @property
    def principal(self) -> str:
        """Whose rights the run has: it shares a sandbox, a home and connections only with runs of the same."""
        return principal(self.rights_user, self.entry)

    @property
    def rights_user(self) -> str:
        """Name of the user with whose rights it runs: its own user, unless a template says otherwise."""
        return self.origin.run_as or self.user

    @property
    def places(self) -> tuple[str, ...]:
        """Its inventories, each so that what has another in it is a prefix of that. An empty one is not known."""
        if self.kind == "git" or self.hidden:
            return ()
        return ("",) if self.visibility is None else tuple(map(inventory_place, self.visibility.inventories))

    @property
    def has_rights(self) -> bool:
        """Whether the limits of its user are recorded with it; the first versions did not do that."""
        return self.confinement is not None or self.rights_user == _ADMIN
