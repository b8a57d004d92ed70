"""Templates: saved requests that others may launch, with what they may set."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from flansible.models.definition_specs import MAX_GROUPS, GroupName, Spec
from flansible.models.event_names import HttpUrl
from flansible.models.request_fields import MAX_LIST_ITEMS, MAX_SECONDS, LockNames, Request, VariableName
from flansible.models.responses import ErrorItem

MAX_VARIABLES = 100
MAX_CHOICES = 1000
MAX_RETRIES = 20
MAX_RETRY_DELAY_SECONDS = 7 * 24 * 3600
UserName = Annotated[str, Field(min_length=1, max_length=255)]
OpenField = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[a-z_]+(\.[A-Za-z_][A-Za-z0-9_]*)?$")]
VariableType = Literal["string", "integer", "number", "boolean", "list", "object"]


# As part of a body and of a reply: one model in the API's documents, not two.
_ONE_SCHEMA = ConfigDict(json_schema_mode_override="validation")


class ChoicesFrom(Request):
    """Where the choices of a variable come from: one of these."""

    model_config = ConfigDict(
        json_schema_mode_override="validation", json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    group: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="A group of the request's inventory: its hosts are the choices.",
    )
    tags: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="A glob such as `v*`: the git tags of the request's project that match it, the highest version "
        "first.",
    )
    url: HttpUrl | None = Field(
        None, description="A URL that replies with a JSON list of strings; its host has to be in `choices_hosts`."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if sum(one is not None for one in (self.group, self.tags, self.url)) != 1:
            raise ValueError("needs one of group, tags and url")
        return self


class TemplateVariable(Request):
    """One variable that whoever launches the template may set."""

    model_config = _ONE_SCHEMA

    type: VariableType = Field("string", description="Type of its value.")
    required: bool = Field(False, description="Whether a launch has to set it.")
    default: JsonValue = Field(None, description="Its value where a launch sets none.")
    choices: list[JsonValue] | None = Field(
        None, min_length=1, max_length=MAX_CHOICES, description="The values that it may have."
    )
    choices_from: ChoicesFrom | None = Field(None, description="Where its choices come from; read at each launch.")
    pattern: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="A regular expression that the whole of a string has to match (Rust's syntax)."
    )
    min: float | None = Field(
        None,
        strict=False,
        allow_inf_nan=False,
        description="The least number, or the least length of a string or list.",
    )
    max: float | None = Field(
        None,
        strict=False,
        allow_inf_nan=False,
        description="The greatest number, or the greatest length of a string or list.",
    )
    secret: bool = Field(False, description="Whether it is sealed and masked: a launch sends it in `secret_vars`.")
    description: Annotated[str, Field(max_length=1000)] = Field("", description="What it is, for people.")


class Allow(Request):
    """Who may launch a template, beside its owner and admin."""

    model_config = _ONE_SCHEMA

    users: list[UserName] = Field([], max_length=MAX_LIST_ITEMS, description="Users of rbac.json.")
    groups: list[GroupName] = Field([], max_length=MAX_GROUPS, description="Groups of rbac.json.")


class TemplateRetry(Request):
    """Runs the template again on the hosts that failed."""

    model_config = _ONE_SCHEMA

    hosts: Literal["failed", "unreachable"] = Field(
        description="`unreachable`: only those that could not be reached; `failed`: those that failed as well."
    )
    times: int = Field(1, ge=1, le=MAX_RETRIES, description="How often at most.")
    delay_seconds: int = Field(0, ge=0, le=MAX_RETRY_DELAY_SECONDS, description="Seconds before each.")


class TemplateSpec(Spec):
    """A saved request that others may launch, within what it leaves open."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kind": "playbook",
                "request": {"playbook": "site.yml", "inventory": "../inventories/dev"},
                "variables": {"version": {"type": "string", "pattern": "[0-9.]+", "required": True}},
                "allow": {"users": ["portal"], "groups": []},
            }
        }
    )

    kind: Literal["adhoc", "playbook", "git"] = Field(
        description="`adhoc`: as `ansiblecommand`; `playbook`: as `ansibleplaybook`; `git`: as `git`."
    )
    request: dict[str, JsonValue] = Field(description="The body that is posted there, without secrets.")
    description: Annotated[str, Field(max_length=1000)] = Field("", description="What it does, for people.")
    open: list[OpenField] = Field(
        [],
        max_length=MAX_LIST_ITEMS,
        description="What a launch may set besides: fields of the request such as `limit`, and single variables as "
        "`extra_vars.name` or `secret_vars.name`.",
    )
    variables: dict[VariableName, TemplateVariable] = Field(
        {}, max_length=MAX_VARIABLES, description="Variables that a launch may set, by name."
    )
    allow: Allow = Field(
        default_factory=lambda: Allow(users=[], groups=[]),
        description="Who may launch it, whatever other rights they have; its owner and admin always may.",
    )
    run_as: UserName | None = Field(
        None, description="The user with whose rights it runs, instead of its owner's. Only admin sets it."
    )
    require_limit: bool = Field(
        False, description="Whether a launch needs a limit that selects less than every host of the request."
    )
    max_hosts: int | None = Field(None, ge=1, le=1_000_000, description="A launch on more hosts is refused.")
    at_most: int | None = Field(
        None, ge=1, le=100, description="How many of its tasks run at the same time; others wait."
    )
    lock: LockNames | None = Field(None, description="Locks that each of its tasks takes, beside those of the request.")
    exclusive: Literal["hosts"] | None = Field(
        None, description="`hosts`: each of its tasks has its hosts for itself, as `exclusive` of a request says."
    )
    time_limit: int | None = Field(
        None, ge=1, le=MAX_SECONDS, description="Seconds that each of its tasks may take; a launch may only set less."
    )
    retry: TemplateRetry | None = Field(None, description="Whether and how hosts that failed are tried again.")


class TemplateComputed(BaseModel):
    """What the service adds when it shows a template."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "may_launch": True,
                "launch_schema": {
                    "type": "object",
                    "properties": {
                        "extra_vars": {
                            "type": "object",
                            "properties": {"version": {"type": "string", "pattern": "^(?:[0-9.]+)$"}},
                            "additionalProperties": False,
                            "required": ["version"],
                        }
                    },
                    "additionalProperties": False,
                    "required": ["extra_vars"],
                },
            }
        }
    )

    may_launch: bool = Field(description="Whether the caller may launch it.")
    launch_schema: dict[str, Any] = Field(description="JSON Schema of what a launch may set.")
    choices_problems: list[ErrorItem] = Field(
        [], description="Variables whose `choices_from` cannot be read now, and why: a launch would be refused so."
    )


class LaunchBody(BaseModel):
    """`POST /api/templates/<name>/launch`: what the template leaves open; see its `launch_schema`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"extra_vars": {"version": "1.2"}}})

    extra_vars: dict[str, JsonValue] = Field({}, description="Values of its variables.")
    secret_vars: dict[str, str] = Field({}, description="Values of its secret variables.")
