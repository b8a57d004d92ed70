"""The events that somebody may be notified of, and the URLs that may be called. Used by requests and definitions."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from flansible.states import FINAL_STATES, State

EventName = Literal[
    "started",
    "succeeded",
    "failed",
    "changed",
    "unreachable",
    "recovered",
    "first_failure",
    "timed_out",
    "lost",
    "canceled",
    "schedule_late",
]
MAX_URL_CHARACTERS = 2000


def end_name(state: State) -> EventName:
    """Returns the event that a task's end in this final state is: called as the state, and `failed` for an error."""
    name: EventName = "failed" if state is State.ERROR else state.value  # type: ignore[assignment]
    return name


# What a callback is for that names no events: each end of a task is one of these.
ENDS: tuple[EventName, ...] = tuple(sorted({end_name(state) for state in FINAL_STATES}))


def http_url(value: str) -> str:
    """Validates an http(s) URL with a host, without a user, and without what could end a header."""
    if not value.isascii() or re.search(r"[\s\x00-\x20\x7f\\]", value):
        raise ValueError("must be a URL of printable ASCII characters without blanks")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or password")
    return value


HttpUrl = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS), AfterValidator(http_url)]
Events = Annotated[list[EventName], Field(min_length=1, max_length=20)]
