"""What a launch of a template may set: merges it into the template's request, or names every field that is refused.

Pure. Nothing that is not open is dropped: it is an error. Values are data: they are kept apart from the request's own
variables, and Ansible never templates them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import SchemaValidator, core_schema

from flansible.authorization.redaction import SECRET_FIELDS
from flansible.errors import MAX_ERRORS, FieldError, InvalidRequest
from flansible.models.template_specs import TemplateSpec, TemplateVariable

VARIABLES, SECRETS = "extra_vars", "secret_vars"
_TEMPLATE = re.compile(r"\{[{%#]")


@dataclass(frozen=True)
class Merged:
    """body: the whole request; values: the variables that the launch set, the last part of its `extra_vars`."""

    body: dict[str, JsonValue]
    values: dict[str, JsonValue] = field(default_factory=dict)


def merge(spec: TemplateSpec, launch: Mapping[str, JsonValue]) -> Merged:
    """Merges a launch into the template's request. Raises InvalidRequest that names every field that is refused,
    the first MAX_ERRORS of them."""
    errors: list[FieldError] = []
    open_words = _open_words(spec)
    fields = {name: value for name, value in launch.items() if name not in (VARIABLES, SECRETS)}
    for name, value in fields.items():
        if len(errors) >= MAX_ERRORS:
            break
        if name not in spec.open:
            errors.append(FieldError(name, f"is not open in this template; {open_words}"))
        elif name not in SECRET_FIELDS:
            errors += _check_text(name, value)
    if spec.time_limit is not None and _is_above(fields.get("time_limit"), spec.time_limit):
        errors.append(FieldError("time_limit", f"must be at most {spec.time_limit} in this template"))
    values = _given(spec, launch, VARIABLES, errors, open_words)
    secret = _given(spec, launch, SECRETS, errors, open_words)
    if errors:
        raise InvalidRequest(
            "; ".join(f"{one.field}: {one.message}" for one in errors[:5]), code="invalid_field", errors=errors
        )
    return Merged(_body(spec, fields, values, secret), values)


def _open_words(spec: TemplateSpec) -> str:
    names = [*spec.open, *(f"{SECRETS if one.secret else VARIABLES}.{name}" for name, one in spec.variables.items())]
    return f"a launch may set {', '.join(sorted(set(names)))}" if names else "a launch may set nothing"


def _given(
    spec: TemplateSpec, launch: Mapping[str, JsonValue], group: str, errors: list[FieldError], open_words: str
) -> dict[str, JsonValue]:
    """Returns the values of variables or of secret ones, with defaults; adds what is wrong to `errors`."""
    given = launch.get(group, {})
    if not isinstance(given, dict):
        errors.append(FieldError(group, "must be an object of variables by name"))
        return {}
    declared = {name: one for name, one in spec.variables.items() if one.secret == (group == SECRETS)}
    found: dict[str, JsonValue] = {}
    for name, value in given.items():
        if len(errors) >= MAX_ERRORS:
            break
        path = f"{group}.{name}"
        if name in declared:
            errors += value_faults(path, value, declared[name])
        elif name in spec.variables:
            errors.append(FieldError(path, f"send it in {SECRETS if group == VARIABLES else VARIABLES}"))
        elif path not in spec.open:
            errors.append(FieldError(path, f"is no variable of this template; {open_words}"))
        elif group == SECRETS and not isinstance(value, str):
            errors.append(FieldError(path, "must be a string"))
        found[name] = value
    for name, variable in declared.items():
        if name in given:
            continue
        if variable.default is not None:
            found[name] = variable.default
            if variable.choices_from is not None:  # others were compared when the template was written
                errors += value_faults(f"{group}.{name}", variable.default, variable)
        elif variable.required:
            errors.append(FieldError(f"{group}.{name}", "is required"))
    return found


def _body(
    spec: TemplateSpec, fields: dict[str, JsonValue], values: dict[str, JsonValue], secret: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    body = {**spec.request, **fields}
    if values:
        own = body.pop("extra_args", None) or body.get(VARIABLES)
        parts: list[JsonValue] = list(own) if isinstance(own, list) else [own] if own else []
        body[VARIABLES] = [*parts, values]
    if secret:
        body[SECRETS] = secret
    if spec.lock is not None:
        locks = [name for given in (body.get("lock"), spec.lock) if given for name in _names(given)]
        body["lock"] = list(dict.fromkeys(locks))
    if spec.exclusive is not None:
        body["exclusive"] = spec.exclusive
    given_limit = body.get("time_limit")
    # What is no number stays, and is refused as in any request.
    if spec.time_limit is not None and (given_limit is None or _is_above(given_limit, spec.time_limit)):
        body["time_limit"] = spec.time_limit
    return body


def _is_above(given: JsonValue, most: int) -> bool:
    return isinstance(given, int) and given > most


def _names(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _check_text(name: str, value: JsonValue) -> list[FieldError]:
    """A launch has no templates, and reads no files."""
    texts = list(_texts(value))
    if any(_TEMPLATE.search(text) for text in texts):
        return [FieldError(name, "must have no template ({{, {% or {#)")]
    # Of ad-hoc arguments Ansible decodes escapes before it looks for templates.
    if name == "module_args" and any("\\" in text for text in texts):
        return [FieldError(name, "must have no backslash")]
    if name in ("limit", "host_pattern") and any("@" in text for text in texts):
        return [FieldError(name, "must not read hosts from a file (@)")]
    return []


def _texts(value: JsonValue) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def value_faults(path: str, value: JsonValue, variable: TemplateVariable) -> list[FieldError]:
    def fault(message: str) -> list[FieldError]:
        return [FieldError(path, message)]

    if not _has_type(value, variable.type):
        return fault(f"must be of type {variable.type}")
    if variable.choices is not None and not any(_is_same(value, choice) for choice in variable.choices):
        return fault(f"must be one of {', '.join(map(str, variable.choices[:20]))}")
    if variable.pattern is not None and isinstance(value, str):
        try:
            matcher(variable.pattern).validate_python(value)
        except ValidationError:
            return fault(f"must match {variable.pattern} as a whole")
    size = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(value, str | list):
        size = len(value)
    if size is not None and variable.min is not None and size < variable.min:
        return fault(f"must {'have at least' if isinstance(value, str | list) else 'be at least'} {variable.min:g}")
    if size is not None and variable.max is not None and size > variable.max:
        return fault(f"must {'have at most' if isinstance(value, str | list) else 'be at most'} {variable.max:g}")
    return []


def _has_type(value: JsonValue, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    types: dict[str, Any] = {
        **{"string": str, "integer": int, "number": (int, float), "list": list, "object": dict},
        "boolean": bool,
    }
    return isinstance(value, types[wanted])


def _is_same(value: JsonValue, choice: JsonValue) -> bool:
    # True is 1 to Python, within lists and objects too.
    if isinstance(value, list) and isinstance(choice, list):
        return len(value) == len(choice) and all(map(_is_same, value, choice))
    if isinstance(value, dict) and isinstance(choice, dict):
        return value.keys() == choice.keys() and all(_is_same(value[name], choice[name]) for name in value)
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


# One may take 50 ms to compile, and 10 MB: a variable is checked for each of its choices, so the last ones are kept.
@lru_cache(maxsize=16)
def matcher(pattern: str) -> SchemaValidator:
    """Compiles a pattern that a whole string has to match, in time linear in its length: Rust's engine has no
    backtracking. Raises SchemaError."""
    # By itself first: one that closes our group would have another meaning within it.
    SchemaValidator(core_schema.str_schema(pattern=pattern))
    return SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})\z", strict=True))
