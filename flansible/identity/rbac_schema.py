"""The form of rbac.json: the model that validates it, and the JSON Schema for editors and the doctor.

Called by flansible.identity.users, the doctor and flansible.web.openapi.views. `python -m
flansible.identity.rbac_schema > docs/rbac.schema.json` updates the published schema.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flansible import wording
from flansible.errors import ConfigurationError, Fault

ADMIN = "admin"
NAME = r"^[^:\x00-\x1f]+$"
Role = Literal["operator", "viewer", "auditor"]
# Kinds of definitions: the names of flansible.definitions.kinds, which stands above this module; a test compares them.
DefinitionKindName = Literal[
    "searches", "credentials", "projects", "templates", "schedules", "freezes", "notifications", "webhooks"
]
Sees = Literal["own", "inventories", "all"]
Cancels = Literal["own", "inventories"]

# The keys that admin may have: the others restrict rights, and admin has all.
_ADMIN_KEYS = frozenset({"user", "password", "inventories", "limits"})
_ADMIN_LIMITS = frozenset({"running", "queued"})
_NAME_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")
_MODULE_PATTERN = re.compile(r"[\w.*?\[\]!-]+", re.ASCII)
_ENTRY_DEPTH = 2  # ("rbac", 3) is the fourth user
_NAME_KEYS = {"rbac": "user", "groups": "name"}

# `shop:inventories/dev`: a path in a project, from its root.
PROJECT_PATH = re.compile(r"(?P<project>[A-Za-z0-9][A-Za-z0-9._-]{0,99}):(?P<path>[^/].*)", re.DOTALL)

Location = tuple[int | str, ...]


def _path(value: str) -> str:
    if not value.strip() or "," in value or "\0" in value:
        raise ValueError("must be a path without commas")
    return value


def _inventories(values: list[str]) -> list[str]:
    for value in _paths(values):
        if (found := PROJECT_PATH.fullmatch(value)) and ".." in found["path"].split("/"):
            raise ValueError(f"{value!r} must be a path in the project, without ..")
    return values


def _paths(values: list[str]) -> list[str]:
    return [_path(value) for value in values]


def _playbooks(values: list[str]) -> list[str]:
    for value in values:
        if not value or not value.isprintable() or value.startswith("/") or ".." in value.split("/"):
            message = "must be a glob relative to playbook_root or a project, such as team/** or shop:*.yml, without .."
            raise ValueError(f"{value!r} {message}")
    return values


def _modules(values: list[str]) -> list[str]:
    for value in values:
        if not _MODULE_PATTERN.fullmatch(value):
            raise ValueError(f"{value!r} must be a module's name or a glob of names, such as community.general.*")
    return values


def _names(values: list[str]) -> list[str]:
    for value in values:
        if not _NAME_GLOB.fullmatch(value):
            raise ValueError(f"{value!r} must be a name or a glob of names, such as web-*")
    return values


def _hosts(values: list[str]) -> list[str]:
    for value in values:
        if not value or value[0] in "!&@-" or not value.isprintable() or re.search(r"[\s,;{}]", value):
            raise ValueError(f"{value!r} must be one host, group, glob or ~regular expression, without ! & , or spaces")
        if value.startswith("~"):
            _check_expression(value[1:])
        elif ":" in value and not _is_address(value) and not re.search(r"\[[^\]]*:[^\]]*\]", value):
            raise ValueError(f"{value!r} must be one pattern; write those between the colons as items of the list")
    return values


def _check_expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"'~{text}' is not a regular expression: {error}") from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


Paths = Annotated[list[str], AfterValidator(_paths)]
InventoryPaths = Annotated[list[str], AfterValidator(_inventories)]
ProjectText = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
NameGlobs = Annotated[list[str], AfterValidator(_names)]
ModuleGlobs = Annotated[list[str], AfterValidator(_modules)]
# As flansible.models.request_fields has it, which stands beside this floor; a test compares them.
QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
EnvironmentNames = list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Limits(_Form):
    """Limits of a user."""

    running: int | None = Field(
        default=None, ge=0, description="Runs at the same time, instead of max_running_per_user. 0: no limit."
    )
    queued: int | None = Field(
        default=None, ge=0, description="Waiting tasks, instead of max_queued_per_user. 0: no limit."
    )
    forks: int | None = Field(
        default=None, ge=1, le=10000, description="Largest `forks` of a request; also its default."
    )
    time_limit: int | None = Field(
        default=None,
        ge=1,
        description="Largest `time_limit` of a request in seconds; also its default.",
    )


class Modules(_Form):
    """Modules for ad-hoc commands: a list of globs to allow, or an object with a list as `allow` or `deny`."""

    allow: ModuleGlobs | None = Field(None, description="Only modules that match one of these globs.")
    deny: ModuleGlobs | None = Field(None, description="All modules except those that match one of these globs.")

    @model_validator(mode="before")
    @classmethod
    def _list_allows(cls, value: Any) -> Any:
        return {"allow": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _require_allow_or_deny(self) -> Self:
        if (self.allow is None) == (self.deny is None):
            raise ValueError("must be a list, or an object with either allow or deny")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(core))
        names = {"type": "array", "items": {"type": "string"}}
        either = [
            {
                "type": "object",
                "properties": {key: names | {"description": whole["properties"][key]["description"]}},
                "required": [key],
                "additionalProperties": False,
            }
            for key in ("allow", "deny")
        ]
        return {"title": "Modules", "description": cls.__doc__, "anyOf": [names, *either]}


class ProjectEntry(_Form):
    """A project that the user may use, and the refs at which its inventories count, beside its own."""

    name: ProjectText = Field(description="Name of the project.")
    refs: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        [], description="Globs of branches, tags and commits. Who can push one of them can add hosts to inventories."
    )


class _Rights(_Form):
    """What an entry grants: to its user, or to each member of its group."""

    inventories: InventoryPaths = Field(
        [],
        description="Inventories the user may use; a folder includes all in it. Relative to this file's folder; those "
        "of a project as `shop:inventories/dev`.",
    )
    role: Role = Field(
        "operator",
        description="`operator` starts and cancels tasks; `viewer` only reads the user's own tasks; `auditor` only "
        "reads all users' tasks.",
    )
    sees: Sees = Field(
        "own",
        description="Whose tasks are shown: `own`; `inventories`: also those of others all of whose inventories and "
        "hosts this entry has; `all`, which is what an `auditor` sees.",
    )
    cancels: Cancels = Field(
        "own",
        description="Whose tasks may be canceled: `own`; `inventories`: also those of others that `inventories` of "
        "`sees` shows.",
    )
    playbooks: Annotated[list[str], AfterValidator(_playbooks)] | None = Field(
        None,
        description="Playbooks the user may start: globs relative to playbook_root, `**` for any folders, those of a "
        "project as `shop:**`, or names of a collection's playbooks. Default: all.",
    )
    modules: Modules | None = Field(None, description="Modules the user may run ad hoc. Default: all.")
    hosts: Annotated[list[str], AfterValidator(_hosts)] | None = Field(
        None,
        description="Hosts the user may use: names, globs or ~regular expressions of hosts, and groups that requests "
        "may name. Default: all of the inventories.",
    )
    become: bool = Field(True, description="Whether requests may use become.")
    control_node: bool = Field(
        False,
        description="Whether runs may use the control machine: as localhost when the inventory has no such host, and "
        "without a sandbox where sandboxes do not work.",
    )
    lasting_processes: bool = Field(
        False,
        description="Whether processes that the user's confined runs leave in the background may outlive their run.",
    )
    git: bool | None = Field(
        None,
        description="Whether the user may update checkouts. Default: true, unless `playbooks` is given, or `groups` "
        "without `inventories`.",
    )
    paths: Paths = Field(
        [],
        description="Files and folders beside playbook_root that the user's runs may read, and that requests may name "
        "as keys, vault files and module folders. Relative to this file's folder.",
    )
    writable: Paths = Field(
        [],
        description="Folders that the user's confined runs may write, such as a project's artifacts: none from which "
        "other runs load code or variables. Relative to this file's folder.",
    )
    environment: EnvironmentNames = Field(
        [], description="Environment variables the user may set for a run, beside environment_names in config.ini."
    )
    projects: list[ProjectText | ProjectEntry] = Field(
        [], description="Projects the user may use: names, or objects with a name and refs."
    )
    may_define: list[DefinitionKindName] = Field(
        [], description="Kinds of definitions the user may write, beside reading those shared with them."
    )
    queues: dict[QueueName, InventoryPaths] = Field(
        {},
        description="Queues that requests may name, each with the inventories that may be used there. `default` may be "
        "used with all of the entry's inventories, unless it is listed.",
    )
    credentials: NameGlobs = Field(
        [],
        description="Stored secrets that the user's requests may name in `credentials`: names, or globs of names, "
        "beside those the user has written.",
    )
    limits: Limits = Field(Limits(), description="Limits of the user.")


class _Login(_Form):
    user: str = Field(min_length=1, pattern=NAME, description="Login name; `admin` has all rights.")
    password: str = Field(min_length=1, description="Plain, or the hash that `flansible passwd` writes.")


class UserEntry(_Rights, _Login):
    """A user. With no other keys than the first three, everything in the inventories and playbook_root is allowed."""

    groups: list[str] = Field(
        [],
        description="Groups the user is a member of. One entry, the user's own or a group's, has to allow the whole of "
        "a request.",
    )


class _GroupName(_Form):
    name: str = Field(min_length=1, pattern=NAME, description="Name of the group; a user of this name is not meant.")


class GroupEntry(_Rights, _GroupName):
    """A group: what each of its members may do, beside what their own entry allows. The keys are those of a user."""


class Document(_Form):
    """The users of Flansible and their rights."""

    model_config = ConfigDict(title="rbac.json of Flansible")

    schema_address: str | None = Field(None, alias="$schema", description="Address of this schema, for editors.")
    rbac: list[UserEntry] = Field(min_length=1, description="The users.")
    groups: list[GroupEntry] = Field([], description="The groups that users may be members of.")


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of rbac.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Document.model_json_schema()}


def read(text: str, source: Path) -> Document:
    """Parses rbac.json. Raises ConfigurationError with every fault, each with its user and key."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([Fault(str(source), "", f"is not JSON: {error}")]) from error
    faults: list[Fault] = []
    document = None
    try:
        document = Document.model_validate(given)
    except ValidationError as error:
        for item in error.errors(include_input=False):
            if item["type"] == "extra_forbidden":
                faults.append(unknown_key(source, given, item["loc"]))
            else:
                faults.append(fault(source, given, item["loc"], wording.plain(item["msg"])))
    faults += [fault(source, given, loc, message) for loc, message in _faults_between_keys(given)]
    if document is None or faults:
        raise ConfigurationError(faults)
    return document


def _faults_between_keys(given: Any) -> list[tuple[Location, str]]:
    """Returns faults between keys that are each valid. Checks the raw document, so also when the model refused it."""
    groups = {name for _, name, _ in _named_entries(given, "groups")}
    found = [*_repeated(given, "rbac"), *_repeated(given, "groups")]
    for kind in _NAME_KEYS:
        for index, name, entry in _named_entries(given, kind):
            if (kind, name) != ("rbac", ADMIN) and entry.get("cancels") == "inventories" and not _sees_others(entry):
                found.append(((kind, index, "cancels"), _CANCELS_UNSEEN))
    for index, name, entry in _named_entries(given, "rbac"):
        if name == ADMIN:
            found += [(("rbac", index, *key), _ADMIN_FAULT) for key in _restrictions(entry)]
            continue
        given_groups = entry.get("groups")
        member_of = given_groups if isinstance(given_groups, list) else []
        for number, group in enumerate(member_of):
            if isinstance(group, str) and group not in groups:
                found.append((("rbac", index, "groups", number), wording.unknown_name("group", group, groups)))
            elif group in member_of[:number]:
                found.append((("rbac", index, "groups", number), f'"{group}" is listed twice'))
    return found


_CANCELS_UNSEEN = "is without effect: what is not seen cannot be canceled. Add sees: inventories."


def _sees_others(entry: dict[str, Any]) -> bool:
    return entry.get("role") == "auditor" or entry.get("sees", "own") != "own"


def _named_entries(given: Any, kind: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields the number, name and content of each user (kind rbac) or group that has a name."""
    entries = given.get(kind) if isinstance(given, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        name = entry.get(_NAME_KEYS[kind]) if isinstance(entry, dict) else None
        if isinstance(name, str):
            yield index, name, entry


def _repeated(given: Any, kind: str) -> Iterator[tuple[Location, str]]:
    seen: set[str] = set()
    for index, name, _ in _named_entries(given, kind):
        if name in seen:
            yield (kind, index), "is listed twice"
        seen.add(name)


_ADMIN_FAULT = "admin has all rights, so this key would have no effect. Remove it, or give it to another user."


def _restrictions(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    limits = entry.get("limits")
    known = UserEntry.model_fields.keys() - _ADMIN_KEYS
    inner = set(limits) & (Limits.model_fields.keys() - _ADMIN_LIMITS) if isinstance(limits, dict) else set()
    return [(key,) for key in entry if key in known] + [("limits", key) for key in sorted(inner)]


def fault(source: Path, given: Any, loc: Location, message: str) -> Fault:
    """Returns a fault of rbac.json at `loc`: the keys and indexes that lead to it. given: the whole document."""
    entry, rest = _entry(given, loc)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest).lstrip(".")
    return Fault(str(source), ": ".join(filter(None, (entry, key))), message)


def unknown_key(source: Path, given: Any, loc: Location) -> Fault:
    """Returns the fault of a key that rbac.json does not have at `loc`, with the nearest one that it has."""
    *above, name = loc
    model: type[BaseModel] = Document if len(loc) == 1 else GroupEntry if loc[0] == "groups" else UserEntry
    if len(loc) > _ENTRY_DEPTH + 1:
        model = Limits if "limits" in above else Modules
    known = ("$schema", *_NAME_KEYS) if model is Document else model.model_fields
    return fault(source, given, tuple(above), wording.unknown_key(str(name), known))


def _entry(given: Any, loc: Location) -> tuple[str, Location]:
    """Splits a location: the user or group whose entry it is in, or its number if it has no name; and the rest."""
    if len(loc) < _ENTRY_DEPTH:
        return "", loc
    kind = str(loc[0])
    entry = given[kind][loc[1]]
    name = entry.get(_NAME_KEYS[kind]) if isinstance(entry, dict) else None
    is_name = isinstance(name, str) and name and name.isprintable()
    word = "user" if kind == "rbac" else "group"
    return f'{word} "{name}"' if is_name else f"{kind}[{loc[1]}]", loc[_ENTRY_DEPTH:]


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
