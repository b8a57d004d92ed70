"""Server-Sent Events: their format, and the header by which a client resumes a stream.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

from flask import request

from flansible.errors import FieldError, InvalidRequest

LAST_EVENT_ID = "Last-Event-ID"
STREAM = "text/event-stream"
OPENING = b"retry: 1000\n\n"  # milliseconds
KEEP_ALIVE = b": keep-alive\n\n"
_NUMBER = re.compile(r"[0-9]{1,12}")


def message(number: int, name: str, data: str) -> bytes:
    """Formats one event. data: JSON, in one line."""
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


def last_event_id() -> int | None:
    """Parses Last-Event-ID, which a browser sends when it reconnects; None: absent. Raises InvalidRequest."""
    value = request.headers.get(LAST_EVENT_ID)
    if value and not _NUMBER.fullmatch(value):
        text = "must be the number of an event"
        errors = [FieldError(LAST_EVENT_ID, text)]
        raise InvalidRequest(f"{LAST_EVENT_ID} {text}", code="invalid_header", errors=errors)
    return int(value) if value else None
