"""Validates frames from untrusted runs and their keepers.

Both may share a sandbox with a user's code that writes into their pipes. What it writes there cannot be trusted, but it
must not break more than its own record. Every function raises WireError for a frame that the runner never sends.
flansible.wire bounds their size.
"""

from __future__ import annotations

import signal
from typing import Any, get_args

from flansible import wire
from flansible.errors import WireError
from flansible.models import Verdict

_MAX_ENDED = 200
_MAX_NAME_CHARS = 64
_MAX_TEXT_CHARS = 4096
_MAX_KEY_LINES = 1000  # of a key of 16384 bits: 190
_MAX_KEY_LINE_CHARS = 200
_MAX_FIELD_CHARS = 64 * 1024  # of a play, play task, module or host name: Redis takes at most 512 MB at once
_MAX_EXIT_CODE = 255
_MAX_NUMBER = 2**63
_MAX_TIME = 32503680000.0  # the year 3000: datetime has an upper bound
_VERDICTS = get_args(Verdict)
_KINDS = ("play_start", "task_start", "host_result")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "play": str,
    "task": str,
    "module": str,
    "host": str,
    "handler": bool,
    "verdict": str,
    "duration_seconds": (int, float),
    "result": dict,
    "groups": list,
}
_OPTIONAL = {"handler", "groups"}
_MAX_GROUPS = 100
_MAX_GROUP_CHARS = 255


def event(frame: wire.Frame) -> dict[str, Any]:
    """Validates an `event` frame; returns only the fields that events have."""
    if frame.get("event") not in _KINDS or frame.get("verdict", "ok") not in _VERDICTS:
        raise WireError("an event of an unknown kind")
    found = {name: frame[name] for name in _FIELDS if name in frame}
    if not all(isinstance(value, _FIELDS[name]) for name, value in found.items()):
        raise WireError("an event with a field of the wrong type")
    if any(len(value) > _MAX_FIELD_CHARS for value in found.values() if isinstance(value, str)):
        raise WireError("an event with a name that is too long")
    if not 0 <= found.get("duration_seconds", 0) <= _MAX_TIME:
        raise WireError("an event with an invalid duration")
    if frame["event"] == "host_result" and not _FIELDS.keys() - _OPTIONAL <= found.keys():
        raise WireError("a host result without all its fields")
    if "groups" in found:
        found["groups"] = _groups(found["groups"])
    return {"event": frame["event"], **found, **_mark_and_time(frame)}


def _groups(names: list[Any]) -> list[str]:
    """Validates the groups of a host."""
    if len(names) > _MAX_GROUPS or not all(isinstance(name, str) and len(name) <= _MAX_GROUP_CHARS for name in names):
        raise WireError("a host result with invalid groups")
    # Lone surrogates cannot be stored.
    return [name.encode(errors="replace").decode() for name in names]


def plan(frame: wire.Frame) -> dict[str, Any]:
    """Validates the `plan` frame of a preview run, as an event. Its reader validates what is inside the plan."""
    found, too_large = frame.get("plan"), frame.get("too_large", False)
    if not isinstance(found, dict) or not isinstance(too_large, bool):
        raise WireError("a preview with a field of the wrong type")
    return {"event": "plan", "plan": found, "too_large": too_large, **_mark_and_time(frame)}


def hide(frame: wire.Frame) -> list[str]:
    """Validates the lines of a key that are to be masked."""
    lines = frame.get("lines")
    if not isinstance(lines, list) or len(lines) > _MAX_KEY_LINES:
        raise WireError("a key that is no list of lines")
    if not all(isinstance(line, str) and len(line) <= _MAX_KEY_LINE_CHARS for line in lines):
        raise WireError("a key with an invalid line")
    return lines


def end(frame: wire.Frame) -> dict[str, Any]:
    """Validates a run's `end` frame; returns all but its exit code."""
    stats, custom, broken = frame.get("stats", {}), frame.get("custom_stats", {}), frame.get("broken")
    warning, reason = frame.get("warning"), frame.get("reason")
    counts = list(stats.values()) if isinstance(stats, dict) else [None]
    if not all(isinstance(one, dict) and all(type(count) is int for count in one.values()) for one in counts):
        raise WireError("an end with invalid counts")
    is_known = warning in (None, *wire.WARNINGS) and reason in (None, wire.EMPTY_LIMIT)
    if not isinstance(custom, dict) or not isinstance(broken, str | None) or not is_known:
        raise WireError("an end with a field of the wrong type")
    # Lone surrogates cannot be stored.
    broken = broken and broken[:_MAX_TEXT_CHARS].encode(errors="replace").decode()
    known = {"stats": stats, "custom_stats": custom, "broken": broken, "warning": warning, "reason": reason}
    return {**known, **_mark_and_time(frame)}


def _mark_and_time(frame: wire.Frame) -> dict[str, Any]:
    mark, time = frame.get("mark", 0), frame.get("time")
    if type(mark) is not int or not 0 <= mark < _MAX_NUMBER:
        raise WireError("an invalid mark")
    if time is None:
        return {"mark": mark}
    if not isinstance(time, int | float) or not 0 <= time < _MAX_TIME:
        raise WireError("an invalid time")
    return {"mark": mark, "time": time}


def exited(frame: wire.Frame) -> wire.Frame:
    """Validates a keeper's `exited` frame: `returncode` or `signal`, and what was `stopped`."""
    returncode, number = frame.get("returncode"), frame.get("signal")
    is_signal = type(number) is int and number in signal.valid_signals() and returncode is None
    is_known = type(returncode) is int and 0 <= returncode <= _MAX_EXIT_CODE if number is None else is_signal
    count = frame.get("stopped_count", 0)
    if (
        not is_known
        or not isinstance(frame.get("stopped"), list)
        or type(count) is not int
        or not 0 <= count < _MAX_NUMBER
    ):
        raise WireError("the keeper did not report how the run ended")
    return frame


def failed(frame: wire.Frame) -> str:
    """Returns the reason of a keeper's `failed` frame."""
    reason = str(frame.get("reason") or "the run could not be started")
    return reason[:_MAX_TEXT_CHARS].encode(errors="replace").decode()


def ended(frame: wire.Frame | None) -> tuple[str, ...]:
    """Returns the processes that were ended by force, each as "name (pid)"."""
    stopped = frame["stopped"] if frame else []
    found = [one for one in stopped if isinstance(one, dict)][:_MAX_ENDED]
    return tuple(f"{str(one.get('name'))[:_MAX_NAME_CHARS]} ({str(one.get('pid'))[:_MAX_NAME_CHARS]})" for one in found)
