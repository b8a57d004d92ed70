"""Compares two requests, as they are kept: field by field, with secrets masked in both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_DIFFERENCES = 500
_MAX_CHARACTERS = 4000  # of a value as JSON
_MAX_DEPTH = 20


@dataclass(frozen=True)
class DifferentField:
    """A field that differs. field: its path, such as `extra_vars.version`; value, other_value: None where it is not
    given."""

    field: str
    value: Any
    other_value: Any


def request_differences(body: Mapping[str, Any], other: Mapping[str, Any]) -> list[DifferentField]:
    """Lists the fields that differ, objects field by field, and lists as a whole; 500 at most."""
    values, others = dict(_fields(body, "", 0)), dict(_fields(other, "", 0))
    found = []
    for name in dict.fromkeys((*values, *others)):
        if values.get(name) != others.get(name):
            found.append(DifferentField(name, _bounded(values.get(name)), _bounded(others.get(name))))
            if len(found) == _MAX_DIFFERENCES:
                break
    return found


def _fields(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value or depth == _MAX_DEPTH:
        yield path, value
        return
    for name, item in value.items():
        yield from _fields(item, f"{path}.{name}" if path else name, depth + 1)


def _bounded(value: Any) -> Any:
    """Returns a value that is not too long; of others the beginning, as text."""
    text = json.dumps(value)
    return value if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
