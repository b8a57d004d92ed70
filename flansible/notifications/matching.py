"""Decides which events an end or start of a task is, and which notifications ask for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flansible.models import FINAL_STATES, State, TaskStatus
from flansible.models.event_names import EventName, end_name
from flansible.models.notification_specs import Match, QuietHours

# Of these states the one before counts as a failure, for `recovered` and `first_failure`.
_FAILURES = FINAL_STATES - {State.SUCCEEDED, State.CANCELED}


def events_of_end(task: TaskStatus, state: str, previous: str) -> Iterator[EventName]:
    """Yields the events that a task's end is. previous: how the run before it ended, '' for none."""
    ended = State(state)
    yield end_name(ended)
    if task.counts.get("changed", 0) > 0:
        yield "changed"
    if task.counts.get("unreachable", 0) > 0:
        yield "unreachable"
    had_failed = previous != "" and State(previous) in _FAILURES
    if ended is State.SUCCEEDED and had_failed:
        yield "recovered"
    # What is never compared (ad-hoc commands, checkouts) has no first failure.
    if ended in _FAILURES and not had_failed and (task.template or task.playbook):
        yield "first_failure"


def matches(wanted: Match | None, task: TaskStatus) -> bool:
    """Whether a task meets all conditions."""
    given = {} if wanted is None else wanted.model_dump(exclude_none=True)
    return all(getattr(task, name) == value for name, value in given.items())


def matches_late(wanted: Match | None, template: str) -> bool:
    """Whether a schedule of this template, which has started no task, meets all conditions."""
    given = {} if wanted is None else wanted.model_dump(exclude_none=True)
    known = {"template": template, "trigger": "schedule"}
    return all(known.get(name) == value for name, value in given.items())


def end_of_quiet(hours: QuietHours | None, now: datetime) -> datetime | None:
    """Returns when the quiet hours end in which this moment is; None outside of them."""
    if hours is None:
        return None
    local = now.astimezone(ZoneInfo(hours.timezone))
    clock = local.strftime("%H:%M")
    spans_midnight = hours.end < hours.begin
    if spans_midnight:
        is_quiet = clock >= hours.begin or clock < hours.end
    else:
        is_quiet = hours.begin <= clock < hours.end
    if not is_quiet:
        return None
    day = local.date() + timedelta(days=1) if spans_midnight and clock >= hours.begin else local.date()
    hour, minute = (int(part) for part in hours.end.split(":"))
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(hours.timezone)).astimezone(UTC)
