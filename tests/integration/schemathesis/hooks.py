"""What schemathesis is told beside the document; loaded by its own process, not by pytest."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any

import schemathesis

_KEY = "Idempotency-Key"
_EVERY = int(os.environ.get("EVERY", "1"))  # of each operation's cases the first, and then one of so many
_numbers = itertools.count()
_seen: Counter[str] = Counter()


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """An empty list or object in a query is sent as nothing, which is not what schemathesis then takes it for."""
    if any(value in ([], {}) for value in (case.query or {}).values()):
        return False
    _seen[case.operation.label] += 1
    return _seen[case.operation.label] % _EVERY == 1 % _EVERY


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
