"""Request bodies as clients send them: strict, an unknown field is an error. Source of the API documents."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from flansible.models import private_keys
from flansible.models.event_names import ENDS, Events, HttpUrl
from flansible.models.file_names import unescape
from flansible.models.records import DEFAULT_QUEUE, Secrets, VariablesPart
from flansible.models.request_fields import (
    MAX_CONNECT_SECONDS,
    MAX_CREDENTIALS,
    MAX_LIST_ITEMS,
    MAX_SECONDS,
    CredentialName,
    EnvironmentName,
    ExtraVars,
    FreeText,
    Inventories,
    LockNames,
    OptionText,
    OptionTexts,
    Password,
    PathText,
    PathTexts,
    PlaybookTexts,
    ProjectName,
    ProjectRef,
    QueueName,
    Request,
    Secret,
    Text,
    VariableName,
    VaultLabel,
    secrets_problem,
)

DEFAULT_VAULT_ID = "default"  # Ansible's own name for a vault password without one


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("must not have a name twice")
    return values


def _texts(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


class LoginBody(Request):
    """`POST /api/session`."""

    model_config = ConfigDict(json_schema_extra={"example": {"user": "admin", "password": "the password of admin"}})

    user: str = Field(min_length=1, max_length=255, description="Name of the user.")
    password: Secret = Field(repr=False, description="Their password.")


class ModuleArgument(Request):
    """One argument of a module, as clients of the original Flansible send it."""

    arg_name: Text = Field(description="Name of the argument.")
    arg_value: JsonValue = Field(description="Its value.")


ModuleArguments = Annotated[list[ModuleArgument], Field(max_length=MAX_LIST_ITEMS)]


class Callback(Request):
    """Whom to tell of one task: an URL, to which what happened is posted."""

    url: HttpUrl = Field(description="Where it is posted to; its host has to be in the setting `callback_hosts`.")
    on: Events = Field(list(ENDS), description="What of; by default the end, whichever it is.")
    credential: CredentialName | None = Field(
        None,
        description="Name of a stored credential of the kind `http` whose token signs it: `whsec_` and base64 of 24 to "
        "64 random bytes.",
    )


class TaskOptions(Request):
    """Options of every task, whatever it runs."""

    time_limit: int | None = Field(
        None,
        ge=1,
        le=MAX_SECONDS,
        description="Seconds the run may take, at most CELERY_TASK_TIMEOUT; then it is ended as `timed_out`.",
    )
    on_lost: Literal["fail", "requeue"] = Field(
        "fail",
        description="If the worker or the machine dies during the run: `fail` makes the task `lost`; `requeue` runs it "
        "again from the beginning, at most three times in all.",
    )
    lock: LockNames | None = Field(
        None, description="A name, or a list of names: two tasks that share one never run at the same time."
    )

    callback: Callback | None = Field(None, description="Whom to tell of this task when something happens to it.")
    queue: QueueName | None = Field(
        None,
        description=f"Name of the queue whose workers may run it, as `flansible worker --queues` has it; by default "
        f"`{DEFAULT_QUEUE}`.",
    )

    @property
    def locks(self) -> tuple[str, ...]:
        """The distinct lock names, sorted."""
        return tuple(sorted(set(_texts(self.lock))))


class RunOptions(TaskOptions):
    """The options `ansible` and `ansible-playbook` share; each is named as the long option with underscores."""

    inventory: Inventories | None = Field(
        None, description="Inventory path, or a list of them; admin may give a host list such as `web1,web2,`."
    )
    project: ProjectName | None = Field(
        None,
        description="Run at a commit of this project; relative paths of folders and inventories count from its root.",
    )
    ref: ProjectRef | None = Field(
        None, description="Branch, tag or commit (40 digits) of `project`. Default: the project's own `ref`."
    )
    limit: Text | None = Field(None, description="Further limit the hosts to this pattern.")
    exclusive: Literal["hosts"] | None = Field(
        None,
        description="`hosts`: while it runs, no other task runs on a host of its own in the same inventory; it waits "
        "for those that do.",
    )
    extra_vars: ExtraVars | None = Field(
        None,
        description="Variables: an object, a string as `-e` takes it (`key=value`, or `@file` for admin), "
        "or a list of these, the later ones winning.",
    )
    extra_args: ExtraVars | None = Field(None, description="Another name of `extra_vars`; give one of the two.")
    secret_vars: dict[VariableName, Secret] | None = Field(
        None,
        max_length=MAX_LIST_ITEMS,
        repr=False,
        description="Secret variables, by name; sealed, masked in the output, never templated. They win over "
        "`extra_vars`.",
    )
    forks: int | None = Field(None, ge=1, le=10000, description="Number of hosts worked on in parallel.")
    verbose_level: int = Field(0, ge=0, le=6, description="Verbosity, 0 to 6; 3 is `-vvv`.")
    become: bool = Field(False, description="Run operations with become.")
    become_method: OptionText | None = Field(None, description="Privilege escalation method, such as `sudo`.")
    become_user: OptionText | None = Field(None, description="User to become, by default root.")
    remote_user: OptionText | None = Field(None, description="User to connect as.")
    check: bool = Field(False, description="Predict changes instead of making them.")
    diff: bool = Field(False, description="Show differences in changed files and templates.")
    timeout: int | None = Field(None, ge=0, le=MAX_CONNECT_SECONDS, description="Connection timeout in seconds.")
    flush_cache: bool = Field(False, description="Clear the fact cache of every host in the inventory first.")
    allow_missing: bool = Field(
        False,
        description="Go on, as the command line does, without an inventory that does not exist, and without a value "
        "for a private prompt (`vars_prompt`) that has no default; have Ansible say that a playbook does not exist.",
    )
    list_hosts: bool = Field(False, description="List matching hosts without executing anything.")
    connection: OptionText | None = Field(None, description="Connection type, such as `ssh` or `local` (admin).")
    private_key_file: PathText | None = Field(
        None,
        description="Path of the key to connect with (users other than admin: below `playbook_root` or in their "
        "`paths`).",
    )
    private_key: Secret | None = Field(
        None, repr=False, description="The key itself; sealed, used once, removed after the run."
    )
    private_key_passphrase: Secret | None = Field(
        None, repr=False, description="Passphrase of an encrypted `private_key`; sealed, used once."
    )
    ssh_common_args: FreeText | None = Field(None, description="Arguments for ssh, sftp and scp (admin).")
    ssh_extra_args: FreeText | None = Field(None, description="Arguments for ssh only (admin).")
    sftp_extra_args: FreeText | None = Field(None, description="Arguments for sftp only (admin).")
    scp_extra_args: FreeText | None = Field(None, description="Arguments for scp only (admin).")
    connection_password: Password | None = Field(
        None, repr=False, description="Password to connect with; sealed, used once."
    )
    connection_password_file: PathText | None = Field(None, description="Path of a file with that password (admin).")
    become_password: Password | None = Field(None, repr=False, description="Password for become; sealed, used once.")
    become_password_file: PathText | None = Field(None, description="Path of a file with that password (admin).")
    vault_id: PathTexts | None = Field(
        None, description="Vault identities as `label@file`; `label@prompt` takes its password from `vault_password`."
    )
    vault_file: PathText | None = Field(None, description="Another name of `vault_password_file`; give one of the two.")
    vault_password_file: PathTexts | None = Field(None, description="Path of a vault password file, or a list of them.")
    vault_password: Secret | Annotated[dict[VaultLabel, Secret], Field(max_length=MAX_LIST_ITEMS)] | None = Field(
        None, repr=False, description="The vault password, or an object of passwords by vault id; sealed, used once."
    )
    module_path: PathTexts | None = Field(
        None,
        description="Folders searched for modules before all others (users other than admin: as `private_key_file`).",
    )
    credentials: Annotated[list[CredentialName], AfterValidator(_distinct)] | None = Field(
        None,
        max_length=MAX_CREDENTIALS,
        description="Names of stored secrets (`credentials`) to use: an ssh key or password, become and vault "
        "passwords, variables of the environment, tokens.",
    )
    strategy: Literal["mitogen_linear", "mitogen_free", "mitogen_host_pinned"] | None = Field(
        None, description="Run plays that name no strategy with this one of Mitogen, if it is installed (admin)."
    )
    environment: dict[EnvironmentName, FreeText] | None = Field(
        None,
        max_length=MAX_LIST_ITEMS,
        description="Environment variables of the run (admin; other users: those named in `environment_names`).",
    )

    @model_validator(mode="after")
    def _refuse_two_aliases(self) -> Self:
        for name, other in self.aliases():
            if getattr(self, name) is not None and getattr(self, other) is not None:
                raise ValueError(f"{name} and {other} exclude each other: give one of them")
        return self

    @model_validator(mode="after")
    def _require_project_of_ref(self) -> Self:
        if self.ref is not None and self.project is None:
            raise ValueError("ref is of a project: name one")
        if self.project is not None and getattr(self, "update_git_repo", False):
            raise ValueError("update_git_repo and project exclude each other: a project's run is at one commit")
        return self

    @model_validator(mode="after")
    def _refuse_very_many_secrets(self) -> Self:
        found = self.secrets
        if found is not None and (problem := secrets_problem(found.values)):
            raise ValueError(problem)
        return self

    @classmethod
    def aliases(cls) -> tuple[tuple[str, str], ...]:
        """Returns pairs of fields that exclude each other: a request may use one of the two."""
        return (
            ("extra_vars", "extra_args"),
            ("vault_file", "vault_password_file"),
            ("connection_password", "connection_password_file"),
            ("become_password", "become_password_file"),
            ("private_key", "private_key_file"),
        )

    @property
    def variables(self) -> list[VariablesPart]:
        """The extra variables from either field, in order; later ones win."""
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
    def lacks_passphrase(self) -> bool:
        """Whether the private key is encrypted and its passphrase is not given."""
        key = self.private_key if self.private_key_passphrase is None else None
        return key is not None and private_keys.is_encrypted(private_keys.mended(key))

    @property
    def secrets(self) -> Secrets | None:
        """The secrets to seal and hand to the run; None if the request has none."""
        vault = self.vault_password
        given = Secrets(
            connection_password=self.connection_password,
            become_password=self.become_password,
            vault_passwords={DEFAULT_VAULT_ID: vault} if isinstance(vault, str) else vault or {},
            private_key=self.private_key and private_keys.mended(self.private_key),
            private_key_passphrase=self.private_key_passphrase,
            variables=self.secret_vars or {},
        )
        return None if given == Secrets() else given


class AdhocRequest(RunOptions):
    """`POST /api/ansiblecommand`: one module on the hosts of a pattern, as `ansible PATTERN -m MODULE -a ARGS`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"host_pattern": "localhost", "module": "ping", "inventory": "../inventories/dev"}
        }
    )

    host_pattern: OptionText | None = Field(None, description="Pattern of the hosts to run on; default `localhost`.")
    host_filter: OptionText | None = Field(None, description="Another name of `host_pattern`; give one of the two.")
    module: OptionText = Field(description="Module to run, such as `ping` or `ansible.builtin.command`.")
    module_args: dict[str, JsonValue] | str | ModuleArguments | None = Field(
        None,
        description="Arguments of the module: an object, a free-form string, or a list of `{arg_name, arg_value}`.",
    )
    background: int | None = Field(
        None, ge=0, le=MAX_SECONDS, description="Run asynchronously and fail after this many seconds."
    )
    poll: int | None = Field(None, ge=0, le=MAX_SECONDS, description="Seconds between polls of a background run.")
    task_timeout: int | None = Field(
        None, ge=0, le=MAX_SECONDS, description="Limit of each play task in seconds; 0: no limit."
    )
    one_line: bool = Field(False, description="One line of output per host.")
    tree: PathText | None = Field(None, description="Folder to write each host's result to, on the worker (admin).")
    playbook_dir: PathText | None = Field(
        None, description="Folder to use as the playbook's: its roles, plugins and group_vars count."
    )
    chdir: PathText | None = Field(
        None,
        description="Directory to run in, as after `cd`: its `ansible.cfg` and relative paths count. "
        "Default, and base of a relative path: `playbook_root`.",
    )

    @classmethod
    def aliases(cls) -> tuple[tuple[str, str], ...]:
        return (*super().aliases(), ("host_pattern", "host_filter"))

    @property
    def pattern(self) -> str:
        given = self.host_filter if self.host_pattern is None else self.host_pattern
        return "localhost" if given is None else given

    @property
    def arguments(self) -> dict[str, JsonValue] | str | None:
        """module_args with the list form converted to an object; None if there are none."""
        if isinstance(self.module_args, list):
            return {item.arg_name: item.arg_value for item in self.module_args} or None
        return self.module_args or None


class PlaybookRequest(RunOptions):
    """`POST /api/ansibleplaybook`: playbooks of a directory, as `cd playbook_dir && ansible-playbook playbook`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "playbook": "site.yml",
                "inventory": "../inventories/dev",
                "extra_vars": {"greeting_name": "Flansible"},
            }
        }
    )

    playbook_dir: PathText = Field(
        ".", description="Directory to run in. Default, and base of a relative path: `playbook_root`."
    )
    playbook: PlaybookTexts = Field(
        description="Playbook, or a list of them, relative to `playbook_dir`; as `listplaybooks` writes them."
    )
    tags: OptionTexts | None = Field(None, description="Only play tasks with these tags.")
    skip_tags: OptionTexts | None = Field(None, description="Only play tasks without these tags.")
    start_at_task: OptionText | None = Field(None, description="Start at the play task of this name.")
    force_handlers: bool = Field(False, description="Run handlers even when a play task fails.")
    syntax_check: bool = Field(False, description="Check the syntax without executing anything.")
    list_tasks: bool = Field(False, description="List play tasks without executing them.")
    list_tags: bool = Field(False, description="List tags without executing anything.")
    update_git_repo: bool = Field(
        False, description="Pull the checkout in `playbook_dir` first; if that fails, so does the task."
    )

    @property
    def playbooks(self) -> list[str]:
        """The names of the files, which are what every rule is about."""
        return [unescape(text) for text in _texts(self.playbook)]


class GitRequest(TaskOptions):
    """`POST /api/git`: update a checkout from its remote."""

    model_config = ConfigDict(json_schema_extra={"example": {"playbook_dir": ".", "branch_name": "main"}})

    playbook_dir: PathText = Field(description="The checkout; a relative path counts from `playbook_root`.")
    remote_name: Text = Field("origin", description="Name of the remote (not a URL).")
    branch_name: Text | None = Field(None, description="Branch to fetch; default: the branch that is checked out.")
    reset: bool = Field(False, description="Discard local changes and commits in favour of the remote's.")


def _request_schema_by_kind(schema: dict[str, JsonValue]) -> None:
    """Documents which body belongs to which kind; the web process validates the body in a second step."""
    models = {"adhoc": "AdhocRequest", "playbook": "PlaybookRequest"}
    references: dict[str, dict[str, JsonValue]] = {
        kind: {"$ref": f"#/components/schemas/{name}"} for kind, name in models.items()
    }
    schema["anyOf"] = [
        {"properties": {"kind": {"const": kind}, "request": found}} for kind, found in references.items()
    ]
    schema["example"] = {"kind": "playbook", "request": {"playbook": "site.yml"}}


class PreviewRequest(Request):
    """`POST /api/preview`: a request and its kind."""

    model_config = ConfigDict(json_schema_extra=_request_schema_by_kind)

    kind: Literal["adhoc", "playbook"] = Field(
        description="`adhoc`: as for `ansiblecommand`; `playbook`: as for `ansibleplaybook`."
    )
    request: dict[str, JsonValue] = Field(description="The body that would be posted there.")
