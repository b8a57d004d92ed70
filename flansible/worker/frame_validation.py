"""What a run and its keeper say about themselves, before it is believed.

Both may be in a sandbox with code of a user's that writes into their pipes. Nothing it could say there is true, but it
must not break more than its own record. Every function raises WireError for what the runner never says.
"""

from __future__ import annotations

import json
import signal
from typing import Any, get_args

from flansible import wire
from flansible.errors import WireError
from flansible.models import Verdict

_MOST_ENDED = 200
_LONGEST_NAME = 64
_LONGEST_TEXT = 4096
_LONGEST_WORD = 64 * 1024  # of a play, task, module or host: Redis takes half a gigabyte at once, not more
_MOST_STATS_BYTES = 32 * 1024 * 1024
_MOST_PLAN_BYTES = 5 * 1024 * 1024
_MOST_CODE = 255
_MOST_BYTES = 2**63
_LATEST_TIME = 32503680000.0  # the year 3000: a datetime has an end
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
}


def event(frame: wire.Frame) -> dict[str, Any]:
    """An event, with nothing in it but what events have."""
    if frame.get("event") not in _KINDS or frame.get("verdict", "ok") not in _VERDICTS:
        raise WireError("an event of no known kind")
    found = {name: frame[name] for name in _FIELDS if name in frame}
    if not all(isinstance(value, _FIELDS[name]) for name, value in found.items()):
        raise WireError("an event with a field of the wrong type")
    if any(len(value) > _LONGEST_WORD for value in found.values() if isinstance(value, str)):
        raise WireError("an event with a name that is none")
    if not 0 <= found.get("duration_seconds", 0) <= _LATEST_TIME:
        raise WireError("a duration that is none")
    if frame["event"] == "host_result" and not _FIELDS.keys() - {"handler"} <= found.keys():
        raise WireError("a result that lacks what results have")
    return {"event": frame["event"], **found, **_moment(frame)}


def plan(frame: wire.Frame) -> dict[str, Any]:
    """What a listing run has found, as an event. Its form is for whoever reads it to check."""
    found, too_large = frame.get("plan"), frame.get("too_large", False)
    if not isinstance(found, dict) or not isinstance(too_large, bool):
        raise WireError("a plan with a field of the wrong type")
    if len(json.dumps(found)) > _MOST_PLAN_BYTES:
        raise WireError("a plan that is too long")
    return {"event": "plan", "plan": found, "too_large": too_large, **_moment(frame)}


def end(frame: wire.Frame) -> dict[str, Any]:
    """The end of a run: `stats`, `custom_stats`, `broken`, `offset` and `time`."""
    stats, custom, broken = frame.get("stats", {}), frame.get("custom_stats", {}), frame.get("broken")
    counts = list(stats.values()) if isinstance(stats, dict) else [None]
    if not all(isinstance(one, dict) and all(type(count) is int for count in one.values()) for one in counts):
        raise WireError("counts that are none")
    if not isinstance(custom, dict) or not isinstance(broken, str | None):
        raise WireError("an end with a field of the wrong type")
    if len(json.dumps([stats, custom])) > _MOST_STATS_BYTES:
        raise WireError("an end that is too long")
    # What is no Unicode cannot be stored.
    broken = broken and broken[:_LONGEST_TEXT].encode(errors="replace").decode()
    return {"stats": stats, "custom_stats": custom, "broken": broken, **_moment(frame)}


def _moment(frame: wire.Frame) -> dict[str, Any]:
    offset, time = frame.get("offset", 0), frame.get("time")
    if type(offset) is not int or not 0 <= offset < _MOST_BYTES:
        raise WireError("an offset that is none")
    if time is None:
        return {"offset": offset}
    if not isinstance(time, int | float) or not 0 <= time < _LATEST_TIME:
        raise WireError("a time that is none")
    return {"offset": offset, "time": time}


def exited(frame: wire.Frame) -> wire.Frame:
    """How the keeper says the run ended: `returncode` or `signal`, and what was `stopped`."""
    returncode, number = frame.get("returncode"), frame.get("signal")
    is_signal = type(number) is int and number in signal.valid_signals() and returncode is None
    is_known = type(returncode) is int and 0 <= returncode <= _MOST_CODE if number is None else is_signal
    count = frame.get("stopped_count", 0)
    if (
        not is_known
        or not isinstance(frame.get("stopped"), list)
        or type(count) is not int
        or not 0 <= count < _MOST_BYTES
    ):
        raise WireError("the keeper did not say how the run ended")
    return frame


def ended(frame: wire.Frame | None) -> tuple[str, ...]:
    """The processes that were ended before their time, in words."""
    stopped = frame["stopped"] if frame else []
    found = [one for one in stopped if isinstance(one, dict)][:_MOST_ENDED]
    return tuple(f"{str(one.get('name'))[:_LONGEST_NAME]} ({str(one.get('pid'))[:_LONGEST_NAME]})" for one in found)
