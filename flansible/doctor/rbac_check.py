"""Validates rbac.json against its JSON Schema: the doctor's second check, after that of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from flansible.errors import Fault
from flansible.identity import rbac_schema

_LONGEST = 200


def violations(path: Path) -> list[Fault]:
    """Returns the violations, each with its path; none for invalid JSON, which the model reports. Raises OSError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        errors = list(Draft202012Validator(rbac_schema.schema()).iter_errors(document))
    except (ValueError, RecursionError):
        return []
    found = {fault for error in errors for fault in _faults(path, document, error)}
    return sorted(found, key=lambda fault: fault.key)


def _faults(path: Path, document: Any, error: ValidationError) -> Iterator[Fault]:
    """Yields faults with our own messages: the library's quote the invalid value, which may be a password."""
    loc = tuple(error.absolute_path)
    if error.validator == "required":
        missing = (name for name in error.validator_value if name not in error.instance)
        yield from (rbac_schema.fault(path, document, (*loc, name), "is missing") for name in missing)
    elif error.validator == "additionalProperties":
        known: dict[str, Any] = error.schema.get("properties", {})
        unknown = (name for name in error.instance if name not in known)
        yield from (rbac_schema.unknown_key(path, document, (*loc, name)) for name in unknown)
    elif error.validator in ("anyOf", "oneOf"):
        yield rbac_schema.fault(path, document, loc, "has none of its allowed forms")
    else:
        wanted = json.dumps(error.validator_value)[:_LONGEST]
        yield rbac_schema.fault(path, document, loc, f"must hold to the schema's {error.validator}: {wanted}")
