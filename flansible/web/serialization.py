"""Replies as JSON: which of their fields are left out when there is nothing to say, and where the next page is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flask import request
from pydantic import BaseModel

from flansible.models import Event, ListedInventory, ListedPlaybook, TaskStatus

JSON = "application/json"

# Fields that are absent where they would be null. All others of a reply are always there.
LEFT_OUT: dict[type[BaseModel], frozenset[str]] = {
    TaskStatus: frozenset({"queue_position", "reason", "expected_start", "attempt", "ended"}),
    ListedInventory: frozenset({"groups", "hosts", "messages", "detail"}),
    ListedPlaybook: frozenset({"variables"}),
    Event: frozenset(name for name, field in Event.model_fields.items() if not field.is_required()),
}

# Other text than ASCII, and what is no text, travels as escapes: one line, whatever is in it. Keys keep their order:
# hosts with failures come first.
dumps = json.JSONEncoder(separators=(",", ":")).encode


def status(task: TaskStatus) -> dict[str, Any]:
    return fields(task)


def fields(model: BaseModel) -> dict[str, Any]:
    """Of a reply, or an item of one, what is there."""
    found, absent = model.model_dump(mode="json"), LEFT_OUT[type(model)]
    return {name: value for name, value in found.items() if value is not None or name not in absent}


def event(stored: dict[str, Any]) -> dict[str, Any]:
    """Of a stored event, what the reply has."""
    return {name: stored[name] for name in Event.model_fields if stored.get(name) is not None}


def json_object(fields: dict[str, str]) -> str:
    """An object of values that are JSON already: a long reply is counted and put together without a second copy."""
    return "{" + ",".join(f"{dumps(name)}:{value}" for name, value in fields.items()) + "}"


@dataclass(frozen=True)
class Address:
    """What was asked for: where, and with which parameters."""

    path: str
    asked: tuple[tuple[str, str], ...]

    def next_page(self, **changes: Any) -> tuple[str, str]:
        """The header that names the next page: the same with these parameters."""
        asked = dict(self.asked) | {name: str(value) for name, value in changes.items()}
        return ("Link", f'<{self.path}?{urlencode(asked)}>; rel="next"')


def address() -> Address:
    """This request's, below whatever prefix a proxy has put before it."""
    return Address(quote(request.script_root + request.path), tuple(request.args.items()))
