"""The bodies of notifications: who is told of which tasks, and how; and what the API returns of deliveries."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from flansible.models.definition_specs import FilterText, Sealed, Spec
from flansible.models.event_names import EventName, Events, HttpUrl
from flansible.models.records import Kind, Record
from flansible.models.request_fields import Request

NotificationKind = Literal["webhook", "mail", "apprise"]
DeliveryState = Literal["pending", "delivered", "dead"]
SECRET_PREFIX = "whsec_"
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64  # as Standard Webhooks has it
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
# Services that have one host: none of these can be made to dial another one. `schema` of apprise's URLs.
APPRISE_SCHEMES = (
    *("discord", "gchat", "opsgenie", "pagerduty", "pbul", "pover", "slack", "tgram", "twilio", "wxteams"),
)


def secret_bytes(secret: str) -> bytes:
    """Decodes a secret of Standard Webhooks: `whsec_` and base64. Raises ValueError."""
    try:
        found = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"must be {SECRET_PREFIX} and base64") from None
    if not secret.startswith(SECRET_PREFIX) or not _LEAST_SECRET_BYTES <= len(found) <= _MOST_SECRET_BYTES:
        raise ValueError(
            f"must be {SECRET_PREFIX} and base64 of {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} random bytes"
        )
    return found


def _signing_secret(value: str) -> str:
    secret_bytes(value)
    return value


def _mail_address(value: str) -> str:
    # What is not printable no header can have.
    if not value.isprintable() or not _ADDRESS.fullmatch(value):
        raise ValueError("must be a mail address such as ops@example.org")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone such as Europe/Berlin") from None
    return value


SigningSecret = Annotated[Sealed, AfterValidator(_signing_secret)]
MailAddress = Annotated[str, Field(min_length=3, max_length=254), AfterValidator(_mail_address)]
HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$")]


class Match(Request):
    """Conditions on a task; all that are given have to hold."""

    template: FilterText | None = Field(None, description="Launched from this template.")
    user: FilterText | None = Field(None, description="Of this user.")
    inventory: FilterText | None = Field(None, description="With this inventory, as the request names it.")
    playbook: FilterText | None = Field(None, description="Runs of this playbook.")
    kind: Kind | None = Field(None, description="`adhoc`, `playbook` or `git`.")
    trigger: Literal["api", "schedule", "hook", "retry"] | None = Field(None, description="Started by this.")


class QuietHours(Request):
    """Times of each day in which nothing is sent: it is sent when they are over."""

    begin: Annotated[str, Field(pattern=_CLOCK)] = Field(description="Such as `22:00`.")
    end: Annotated[str, Field(pattern=_CLOCK)] = Field(description="Such as `06:30`; before `begin`: of the next day.")
    timezone: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_time_zone)] = Field(
        description="IANA name, such as `Europe/Berlin`."
    )

    @model_validator(mode="after")
    def _require_a_part_of_the_day(self) -> Self:
        if self.begin == self.end:
            raise ValueError("begin and end must differ")
        return self


class NotificationSpec(Spec):
    """Who is told of which tasks, and how."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kind": "webhook",
                "url": "https://chat.example.org/hooks/flansible",
                "on": ["failed", "recovered"],
                "match": {"template": "deploy"},
            }
        }
    )

    kind: NotificationKind = Field(description="How: a signed webhook, a mail, or a service by Apprise (admin only).")
    on: Events = Field(description="What of.")
    match: Match | None = Field(None, description="Which tasks; without conditions all that the owner may see.")
    url: HttpUrl | None = Field(None, description="webhook: where it is posted to.")
    secret: SigningSecret | None = Field(
        None, description="webhook: key of the signatures, `whsec_` and base64 of 24 to 64 random bytes."
    )
    previous_secret: SigningSecret | None = Field(
        None, description="webhook: the key of before, while receivers change to `secret`: both sign."
    )
    to: Annotated[list[MailAddress], Field(min_length=1, max_length=50)] | None = Field(
        None, description="mail: the recipients."
    )
    sender: MailAddress | None = Field(None, description="mail: the sender's address.")
    smtp_host: HostName | None = Field(None, description="mail: the server.")
    smtp_port: int = Field(587, ge=1, le=65535, description="mail: its port.")
    smtp_security: Literal["starttls", "tls"] = Field("starttls", description="mail: `tls` from the first byte on.")
    smtp_user: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="mail: login of the server; needs `smtp_password`."
    )
    smtp_password: Sealed | None = Field(None, description="mail: its password.")
    apprise_url: Sealed | None = Field(None, description=f"apprise: a URL of {', '.join(APPRISE_SCHEMES)}.")
    include: Annotated[list[Literal["output", "variables"]], Field(max_length=2)] = Field(
        [], description="What is sent besides: the end of the output, the request's `extra_vars`; secrets are masked."
    )
    quiet_hours: QuietHours | None = Field(None, description="When nothing is sent.")
    allow_private: bool = Field(
        False, description="Whether addresses of this machine and of private networks are dialled; admin only."
    )

    @model_validator(mode="after")
    def _require_fields_of_kind(self) -> Self:
        needed = {"webhook": ("url",), "mail": ("to", "sender", "smtp_host"), "apprise": ("apprise_url",)}
        missing = [name for name in needed[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a {self.kind} needs {', '.join(missing)}")
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("smtp_user and smtp_password belong together")
        if self.previous_secret is not None and self.secret is None:
            raise ValueError("previous_secret needs secret")
        if self.apprise_url is not None and self.apprise_url.partition("://")[0].lower() not in APPRISE_SCHEMES:
            raise ValueError(f"apprise_url: must be a URL of {', '.join(APPRISE_SCHEMES)}")
        return self


class Attempt(Record):
    """One attempt of a delivery."""

    at: str = Field(description="RFC 3339, UTC.")
    seconds: float = Field(description="How long it took.")
    ok: bool = Field(description="Whether it was accepted.")
    detail: str = Field(description="The reply's status, or what went wrong.")


class DeliveryFields(Record):
    """One delivery of a notification: one event of one task, to one receiver."""

    delivery_id: str = Field(description="Its id, and the header `webhook-id` of each attempt.")
    notification: str | None = Field(description="Name of the notification; null for a `callback` of the request.")
    kind: Literal["webhook", "mail", "apprise", "callback"] = Field(description="How it is sent.")
    task_id: str = Field(description="The task it is about; empty for a late schedule.")
    event: EventName = Field(description="What happened.")
    state: DeliveryState = Field(description="`pending`: it is tried again; `dead`: it is not.")
    created_at: str = Field(description="RFC 3339, UTC.")
    next_at: str | None = Field(description="When it is tried next; null unless pending.")
    attempts: list[Attempt] = Field(description="The latest 20 attempts.")


class DeliveryList(Record):
    """Reply of `deliveries`: newest first."""

    items: list[DeliveryFields] = Field(description="One page.")
    next_before: int | None = Field(description="Pass as `before` for the next page; null on the last.")
