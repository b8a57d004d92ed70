"""What schemathesis is told beside the document; loaded by its own process, not by pytest."""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis

_KEY = "Idempotency-Key"
_numbers = itertools.count()


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """An empty list or object in a query is sent as nothing, which is not what schemathesis then takes it for."""
    return not any(value in ([], {}) for value in (case.query or {}).values())


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A key that was used is answered 409, and nothing behind it would ever be reached."""
    key = (case.headers or {}).get(_KEY)
    if isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key and 0 < len(key) <= 255:
        case.headers[_KEY] = f"{next(_numbers)}-{key}"[: max(len(key), 20)]


@schemathesis.check
def tells_nothing_of_its_inside(context: Any, response: Any, case: Any) -> None:
    text = response.text
    assert "Traceback" not in text and 'File "' not in text, "a stack trace"
