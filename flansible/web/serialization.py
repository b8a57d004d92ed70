"""Replies as JSON: which fields are omitted where they would be null, and the link to the next page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flask import request
from pydantic import BaseModel

from flansible.models import Accepted, Event, ListedInventory, ListedPlaybook, PlaybookList, TaskStatus
from flansible.models.hook_specs import HookReply

JSON = "application/json"
PROMETHEUS_TEXT = "text/plain; version=0.0.4"

# All other fields of a reply are always present.
OMITTED_WHEN_NULL: dict[type[BaseModel], frozenset[str]] = {
    Accepted: frozenset({"commit", "warning"}),
    PlaybookList: frozenset({"project", "ref", "commit"}),
    TaskStatus: frozenset(
        {
            "queue_position",
            "queue",
            "reason",
            "waiting_host",
            "expected_start",
            "attempt",
            "warning",
            "ended",
            "play_task",
        }
        | {"expected_play_tasks", "output_expired_at", "project", "ref", "commit"}
        | {"template", "template_digest", "run_as", "retry_of"}
    ),
    ListedInventory: frozenset({"groups", "hosts", "messages", "detail"}),
    ListedPlaybook: frozenset({"variables", "encrypted"}),
    HookReply: frozenset(HookReply.model_fields),
    Event: frozenset(name for name, field in Event.model_fields.items() if not field.is_required()),
}

# Escapes all but ASCII, lone surrogates included, and puts everything in one line. Keys keep their order: hosts with
# failures come first.
dumps = json.JSONEncoder(separators=(",", ":")).encode


def reply_fields(model: BaseModel) -> dict[str, Any]:
    """Serializes a reply, or an item of one, without the fields that OMITTED_WHEN_NULL lists."""
    found, omitted = model.model_dump(mode="json"), OMITTED_WHEN_NULL[type(model)]
    return {name: value for name, value in found.items() if value is not None or name not in omitted}


def event_fields(stored: dict[str, Any]) -> dict[str, Any]:
    """Picks the fields of a stored event that belong in a reply."""
    return {name: stored[name] for name in Event.model_fields if stored.get(name) is not None}


def json_object(fields: dict[str, str]) -> str:
    """Joins values that are JSON already into an object: a long reply is measured and built without a second copy."""
    return "{" + ",".join(f"{dumps(name)}:{value}" for name, value in fields.items()) + "}"


@dataclass(frozen=True)
class RequestUrl:
    """Path and query parameters of a request."""

    path: str
    parameters: tuple[tuple[str, str], ...]

    def next_page(self, **changes: Any) -> tuple[str, str]:
        """Returns the Link header of the next page: this URL with these parameters changed."""
        parameters = dict(self.parameters) | {name: str(value) for name, value in changes.items()}
        return ("Link", f'<{self.path}?{urlencode(parameters)}>; rel="next"')


def request_url() -> RequestUrl:
    """Returns the URL of this request, below the path prefix of a proxy, if there is one."""
    return RequestUrl(quote(request.script_root + request.path), tuple(request.args.items()))
