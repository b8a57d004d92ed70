"""How times are written and read: RFC 3339 in UTC, and spans such as `12h`. Records, audit log and commands use it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def timestamp(moment: datetime | None = None, timespec: str = "milliseconds") -> str:
    """Formats a moment, by default the present one, as RFC 3339 in UTC; timespec: as `datetime.isoformat` takes it."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def from_milliseconds(since_1970: int) -> str:
    """Formats a moment given as milliseconds since 1970."""
    return timestamp(datetime.fromtimestamp(since_1970 / 1000, UTC))


def parse_span(text: str, units: str = "mhdw") -> timedelta | None:
    """Reads `90m`, `12h`, `7d` or `2w`, of the units that are accepted; None if the text is not such a span."""
    span = _SPAN.fullmatch(text)
    return int(span[1]) * _UNITS[span[2]] if span and span[2] in units else None
