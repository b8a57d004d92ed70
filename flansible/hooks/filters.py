"""Whether a call starts something, and the values that it sets: only what the definition names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import SchemaValidator, core_schema

from flansible.hooks import callers
from flansible.models.hook_specs import PayloadCondition, WebhookSpec


class _Missing:
    pass


MISSING = _Missing()


def why_ignored(spec: WebhookSpec, event: str, ref: str, payload: Mapping[str, Any]) -> str:
    """Returns which filter a call does not pass; empty when it passes all."""
    if spec.events and not _any_of(spec.events)(event):
        return "event does not match"
    if spec.refs and not _any_of(spec.refs)(ref):
        return "ref does not match"
    paths = callers.changed_paths(payload) if spec.paths else None
    if paths is not None and not any(map(_any_of(spec.paths), paths)):
        return "paths do not match"
    for condition in spec.conditions:
        if not _holds(condition, payload):
            return f"{condition.pointer or 'payload'} does not match"
    return ""


def values(spec: WebhookSpec, payload: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Returns the variables that the payload sets; one whose value is missing is not set."""
    found = {name: at_pointer(payload, pointer) for name, pointer in spec.variables.items()}
    return {name: value for name, value in found.items() if not isinstance(value, _Missing)}


def at_pointer(document: Any, pointer: str) -> Any:
    """Returns the value at a JSON pointer (RFC 6901), or MISSING."""
    here = document
    for word in pointer.split("/")[1:]:
        word = word.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict):
            here = here.get(word, MISSING)
        elif isinstance(here, list) and word.isascii() and word.isdigit() and (word == "0" or word[0] != "0"):
            here = here[int(word)] if len(word) < 10 and int(word) < len(here) else MISSING
        else:
            return MISSING
    return here


def _holds(condition: PayloadCondition, payload: Mapping[str, Any]) -> bool:
    found = at_pointer(payload, condition.pointer)
    if isinstance(found, _Missing):
        return False
    if condition.matches is not None:
        if not isinstance(found, str):
            return False
        try:
            _matcher(condition.matches).validate_python(found)
        except ValidationError:
            return False
        return True
    wanted = [condition.equals] if condition.one_of is None else condition.one_of
    # True is 1 to Python.
    return any(found == one and isinstance(found, bool) == isinstance(one, bool) for one in wanted)


@lru_cache(maxsize=16)  # may take 50 ms to compile, and 10 MB
def _matcher(pattern: str) -> SchemaValidator:
    # Rust's engine has no backtracking: its time is linear in the text.
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _any_of(globs: Sequence[str]) -> Callable[[str], object]:
    """Returns what says whether a text matches one of these, in one call: a push has up to thousands of paths."""
    return re.compile("|".join(map(translate, globs))).match
