"""The form of rbac.json: the model it is checked with, and the JSON Schema that editors and the doctor read.

Called by flansible.identity.users, the doctor and flansible.web.openapi.views. `python -m
flansible.identity.rbac_schema > docs/rbac.schema.json` renews the published one.
"""

from __future__ import annotations

import ipaddress
import json
import re
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

from flansible.errors import ConfigurationError, Fault

ADMIN = "admin"
Role = Literal["operator", "viewer", "auditor"]

# What may stand beside admin's name and password: the other keys take rights away, and admin has them all.
_ADMIN_KEYS = frozenset({"user", "password", "inventories", "limits"})
_ADMIN_LIMITS = frozenset({"running", "queued"})
_MODULE_PATTERN = re.compile(r"[\w.*?\[\]!-]+", re.ASCII)


def _path(value: str) -> str:
    if not value.strip() or "," in value or "\0" in value:
        raise ValueError("must be paths, without commas")
    return value


def _paths(values: list[str]) -> list[str]:
    return [_path(value) for value in values]


def _playbooks(values: list[str]) -> list[str]:
    for value in values:
        if not value or not value.isprintable() or value.startswith("/") or ".." in value.split("/"):
            raise ValueError(f"{value!r} must be a glob relative to playbook_root, such as team/**, without ..")
    return values


def _modules(values: list[str]) -> list[str]:
    for value in values:
        if not _MODULE_PATTERN.fullmatch(value):
            raise ValueError(f"{value!r} must be a module's name or a glob of names, such as community.general.*")
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
ModuleGlobs = Annotated[list[str], AfterValidator(_modules)]
EnvironmentNames = list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Limits(_Form):
    """How much a user may ask for."""

    running: int | None = Field(
        default=None, ge=0, description="Runs side by side; instead of max_running_per_user. 0: any."
    )
    queued: int | None = Field(default=None, ge=0, description="Tasks waiting; instead of max_queued_per_user. 0: any.")
    forks: int | None = Field(
        default=None, ge=1, le=10000, description="Largest `forks` of a request, and what one that names none gets."
    )
    time_limit: int | None = Field(
        default=None,
        ge=1,
        description="Largest `time_limit` of a request in seconds, and what one that names none gets.",
    )


class Modules(_Form):
    """Modules for ad-hoc commands: a list of globs that may be run, or `allow` or `deny` with such a list."""

    allow: ModuleGlobs | None = Field(None, description="Only modules that match one of these globs.")
    deny: ModuleGlobs | None = Field(None, description="All modules but those that match one of these globs.")

    @model_validator(mode="before")
    @classmethod
    def _list_allows(cls, value: Any) -> Any:
        return {"allow": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
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


class UserEntry(_Form):
    """One user. Without the keys below `inventories`, everything within the inventories and playbook_root."""

    user: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f]+$", description="Login name; `admin` has all rights.")
    password: str = Field(min_length=1, description="Plain, or the hash that `flansible passwd` writes.")
    inventories: Paths = Field(
        [], description="Inventories the user may use; a folder covers what is in it. Relative to this file's folder."
    )
    role: Role = Field(
        "operator",
        description="`operator` starts and cancels; `viewer` only looks at what is theirs; `auditor` reads everybody's "
        "tasks. The last two start and cancel nothing.",
    )
    playbooks: Annotated[list[str], AfterValidator(_playbooks)] | None = Field(
        None,
        description="Globs relative to playbook_root of the playbooks the user may start, `**` for any folders; a "
        "collection's by its name. Default: all.",
    )
    modules: Modules | None = Field(None, description="Modules the user may run ad hoc. Default: all.")
    hosts: Annotated[list[str], AfterValidator(_hosts)] | None = Field(
        None,
        description="Hosts the user may reach: names, globs or ~regular expressions of hosts, and the groups the user "
        "may name. Default: all of the inventories.",
    )
    become: bool = Field(True, description="Whether requests may ask for become.")
    control_node: bool = Field(
        False,
        description="Whether runs may work on the control machine itself: the localhost that no inventory names, and "
        "without a sandbox where none can be had.",
    )
    git: bool | None = Field(
        None, description="Whether the user may update checkouts. Default: true, unless `playbooks` is given."
    )
    paths: Paths = Field(
        [],
        description="Files and folders beside playbook_root that the user's runs may read, and from which keys, vault "
        "files and modules may be named. Relative to this file's folder.",
    )
    environment: EnvironmentNames = Field(
        [], description="Environment variables the user may set for a run, beside config.ini's environment_names."
    )
    limits: Limits = Field(Limits(), description="How much the user may ask for.")


class Document(_Form):
    """The users of Flansible and their rights."""

    model_config = ConfigDict(title="rbac.json of Flansible")

    schema_address: str | None = Field(None, alias="$schema", description="Where editors find this schema.")
    rbac: list[UserEntry] = Field(min_length=1, description="The users.")


def schema() -> dict[str, Any]:
    """The JSON Schema of rbac.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Document.model_json_schema()}


def read(text: str, source: Path) -> Document:
    """The document in `text`. Raises ConfigurationError with every fault of it, each with its key."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([Fault(str(source), "", f"is not JSON: {error}")]) from error
    faults: list[Fault] = []
    document = None
    try:
        document = Document.model_validate(given)
    except ValidationError as error:
        faults = [fault(source, item["loc"], item["msg"]) for item in error.errors(include_input=False)]
    faults += [fault(source, loc, message) for loc, message in _faults_between_keys(given)]
    if document is None or faults:
        raise ConfigurationError(faults)
    return document


def _faults_between_keys(given: Any) -> list[tuple[tuple[int | str, ...], str]]:
    """What is wrong with keys that are right each by itself. Looks at the raw document, so that it always can."""
    entries = given.get("rbac") if isinstance(given, dict) else None
    found: list[tuple[tuple[int | str, ...], str]] = []
    seen: set[str] = set()
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        name = entry.get("user") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            found.append((("rbac", index, "user"), f"{name!r} stands here twice"))
        seen.add(name)
        if name == ADMIN:
            found += [(("rbac", index, *key), _ADMIN_FAULT) for key in _restrictions(entry)]
    return found


_ADMIN_FAULT = "admin has all rights, and this key would not limit them: take it out, or give it to another user"


def _restrictions(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    limits = entry.get("limits")
    known = UserEntry.model_fields.keys() - _ADMIN_KEYS
    inner = set(limits) & (Limits.model_fields.keys() - _ADMIN_LIMITS) if isinstance(limits, dict) else set()
    return [(key,) for key in entry if key in known] + [("limits", key) for key in sorted(inner)]


def fault(source: Path, loc: tuple[int | str, ...], message: str) -> Fault:
    """A fault of rbac.json at `loc`, the keys and indexes that lead to it."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    return Fault(str(source), key, message.removeprefix("Value error, "))


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
