"""Compares two requests, as they are kept: field by field, with secrets masked in both."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flansible.errors import field_path

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
    found = itertools.islice(_differences(body, other, ()), _MAX_DIFFERENCES)
    return [DifferentField(field_path(names), _bounded(value), _bounded(other)) for names, value, other in found]


def _differences(value: Any, other: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yields where the two differ, None standing for what is not given; paths are made of the first ones only."""
    if value == other:
        return
    fields, others = (one if isinstance(one, Mapping) and len(names) < _MAX_DEPTH else {} for one in (value, other))
    for name in dict.fromkeys((*fields, *others)):
        yield from _differences(fields.get(name), others.get(name), (*names, name))
    value, other = None if fields else value, None if others else other
    if value != other:
        yield names, value, other


def _bounded(value: Any) -> Any:
    """Returns a value that is not too long; of others the beginning, as text."""
    text = json.dumps(value)
    return value if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
