"""Reads what Redis has of a record: one of this version, of an older one, or a damaged one. Used by the store alone."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from flansible.errors import RecordUnreadable
from flansible.models import AuthorizedRun
from flansible.store.connection import text


def authorized_run(task_id: str, stored: Any) -> AuthorizedRun:
    """Reads what was submitted. Raises RecordUnreadable, whose reason quotes no value: it may hold anything."""
    if stored is None:
        raise RecordUnreadable(task_id, "its request is missing")
    try:
        return AuthorizedRun.model_validate(json.loads(text(stored)))
    except ValidationError as error:
        raise RecordUnreadable(task_id, validation_reason(error)) from error
    except (ValueError, RecursionError) as error:
        raise RecordUnreadable(task_id, "its request is no JSON") from error


def validation_reason(error: ValidationError) -> str:
    """Returns the first fault of a record, without the value that is wrong."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
