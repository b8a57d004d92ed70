"""The bodies of webhooks that forges and other services call, and what the API returns of calls."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from flansible.models.definition_specs import DefinitionName, Sealed, Spec
from flansible.models.notification_specs import SECRET_PREFIX, secret_bytes
from flansible.models.records import Record
from flansible.models.request_fields import Request, VariableName

Source = Literal["github", "gitlab", "gitea", "forgejo", "bitbucket", "standard", "generic"]
CallOutcome = Literal["waiting", "starting", "merged", "started", "ignored", "refused"]
_MOST_DEBOUNCE_SECONDS = 3600
_LEAST_SECRET_CHARACTERS = 16


def _pointer(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError("must be a JSON pointer such as /head_commit/id")
    return value


def _pattern(value: str) -> str:
    try:
        SchemaValidator(core_schema.str_schema(pattern=value))
    except SchemaError:
        raise ValueError("is not a regular expression (Rust's syntax)") from None
    return value


Pointer = Annotated[str, Field(max_length=1000), AfterValidator(_pointer)]
Glob = Annotated[str, Field(min_length=1, max_length=500)]


class PayloadCondition(Request):
    """A condition on a value of the payload: one of `equals`, `in` and `matches`."""

    # `in` is a word of Python's.
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=False, validate_by_alias=True)

    pointer: Pointer = Field(description="JSON pointer of the value.")
    equals: JsonValue = Field(None, description="It has to be this.")
    one_of: Annotated[list[JsonValue], Field(min_length=1, max_length=100)] | None = Field(
        None, alias="in", description="It has to be one of these."
    )
    matches: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_pattern)] | None = Field(
        None, description="A text in which this regular expression (Rust's syntax) is found."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        given = {"equals", "one_of", "matches"} & self.model_fields_set
        if len(given) != 1:
            raise ValueError("needs exactly one of equals, in, matches")
        return self


class WebhookSpec(Spec):
    """What starts a template when a forge, or another service, calls `POST /api/hooks/<name>`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "source": "github",
                "secret": "a secret that the forge has as well",
                "events": ["push"],
                "refs": ["refs/heads/main"],
                "template": "deploy",
                "variables": {"version": "/after"},
            }
        }
    )

    source: Source = Field(description="Who calls, which says how it signs.")
    secret: Sealed | None = Field(
        None,
        description="The secret that the caller has as well: 16 characters or more; of `standard`, and of GitLab's "
        "signing tokens, `whsec_...`.",
    )
    template: DefinitionName = Field(description="The template that is launched, with the rights of the owner.")
    events: Annotated[list[Glob], Field(max_length=50)] = Field(
        [], description="Only these events, as the source names them: `push`; none: all."
    )
    refs: Annotated[list[Glob], Field(max_length=50)] = Field(
        [], description="Only these refs; `*` stands for anything: `refs/tags/v*`. None: all."
    )
    paths: Annotated[list[Glob], Field(max_length=50)] = Field(
        [], description="Only pushes that change one of these files; `*` stands for anything. None: all."
    )
    conditions: Annotated[list[PayloadCondition], Field(max_length=50)] = Field(
        [], description="Conditions on the payload, all of which have to hold."
    )
    variables: Annotated[dict[VariableName, Pointer], Field(max_length=100)] = Field(
        {}, description="Variables of the template, each with the JSON pointer of its value in the payload."
    )
    event_commit: bool = Field(
        False,
        description="Whether the run is of the commit that was pushed: the template needs a project, and `ref` in "
        "`open`.",
    )
    debounce: int | None = Field(
        None,
        ge=1,
        le=_MOST_DEBOUNCE_SECONDS,
        description="Seconds that the first call waits for others: those of the same ref start one task together, with "
        "the values of the last one.",
    )
    header: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9-]+$")] | None = Field(
        None, description="generic: the header with the token, or with the signature."
    )
    method: Literal["token", "hmac"] = Field(
        "hmac", description="generic: the header is the secret, or HMAC-SHA256 of the body, in hex."
    )

    @property
    def has_standard_secret(self) -> bool:
        """Whether calls are signed as Standard Webhooks has it: GitLab's are where it was given a signing token."""
        return self.source == "standard" or (self.source == "gitlab" and (self.secret or "").startswith(SECRET_PREFIX))

    @model_validator(mode="after")
    def _require_fields_of_source(self) -> Self:
        if self.secret is None:
            raise ValueError("secret: is required; nobody without it may call")
        if self.has_standard_secret:
            secret_bytes(self.secret)
        elif len(self.secret) < _LEAST_SECRET_CHARACTERS:
            raise ValueError(f"secret: must have {_LEAST_SECRET_CHARACTERS} characters or more")
        if self.source == "generic" and self.header is None:
            raise ValueError("header: a generic source needs it")
        if self.paths and self.source == "bitbucket":
            raise ValueError("paths: Bitbucket does not say which files a push changes")
        if self.event_commit and self.source in ("standard", "generic"):
            raise ValueError(f"event_commit: is for pushes to a forge, and a {self.source} source has none")
        return self


class HookReply(Record):
    """Reply to a call: the task that was started, or the call that waits (202); or why nothing starts (200)."""

    task_id: str | None = Field(default=None, description="Public id of the task.")
    status_url: str | None = Field(default=None, description="URL of its status.")
    ignored: str | None = Field(default=None, description="Which condition does not hold.")
    call_id: str | None = Field(default=None, description="The call, where it waits for others (`debounce`).")
    call_url: str | None = Field(default=None, description="URL of the call: its owner finds the task there.")
    starts_at: str | None = Field(default=None, description="When it starts; RFC 3339, UTC.")


class HookCall(Record):
    """One call of a webhook."""

    call_id: str = Field(description="Its id.")
    webhook: str = Field(description="Name of the webhook.")
    received_at: str = Field(description="RFC 3339, UTC.")
    address: str = Field(description="Of the caller.")
    sender_id: str = Field(description="The delivery's id as the caller sent it; empty without one.")
    event: str = Field(description="As the source names it.")
    ref: str = Field(description="The ref that was pushed; empty for other events.")
    commit: str = Field(description="The commit that is run (`event_commit`); empty without it.")
    outcome: CallOutcome = Field(
        description="`started` a task, `ignored` by a condition, or `refused` by the template; with `debounce` also "
        "`waiting` for others, `starting`, or `merged` into the call that waits."
    )
    reason: str = Field(description="Why no task was started.")
    starts_at: str | None = Field(
        description="When it starts, if it waits; of one that is starting, when it is tried again."
    )
    merged_into: str | None = Field(description="The call that starts with its values, if it was merged.")
    task_id: str | None = Field(description="The task that was started.")


class HookCallList(Record):
    """Reply of `hookcalls`: newest first."""

    items: list[HookCall] = Field(description="One page.")
    next_before: int | None = Field(description="Pass as `before` for the next page; null on the last.")
