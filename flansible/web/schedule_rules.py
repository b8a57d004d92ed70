"""What schedules and freezes have of their own as definitions: checks when they are written, and their next times."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from flansible.authorization.redaction import SECRET_FIELDS
from flansible.definitions import schedule_times, template_values
from flansible.definitions.kinds import TEMPLATES
from flansible.definitions.schedule_decisions import KnownSchedule
from flansible.definitions.schedule_times import Freeze
from flansible.errors import FieldError, InvalidRequest
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.schedule_specs import FreezeSpec, NextTime, ScheduleComputed, ScheduleSpec
from flansible.models.template_specs import TemplateSpec
from flansible.web import template_launch
from flansible.web.context import WebContext
from flansible.web.kind_rules import Written

log = logging.getLogger(__name__)

_SHOWN_TIMES = 5
_MOST_KEPT = 2000  # schedules
_NONE_KEPT_FOR = timedelta(minutes=1)
# What is raised for one that this machine cannot compute, such as after an upgrade without its zone. It is shown so:
# a list must not fail for it.
_NOT_COMPUTED = (ValueError, KeyError, OverflowError)


def check(written: Written) -> None:
    """Raises InvalidRequest for times that make no sense, and for a template that the writer may not launch so."""
    assert isinstance(written.spec, ScheduleSpec)
    errors = schedule_times.faults(written.spec)
    errors += _template_faults(written, written.spec)
    written.refuse(errors)


def compute(context: WebContext, _user: User, found: StoredDefinition, _is_whole: bool) -> dict[str, Any]:
    """Returns the next times, and `paused` and `note` as they are now: sent back in a PUT, they stay so."""
    try:
        return _computed(context, found)
    except _NOT_COMPUTED as error:
        log.error("schedule %s cannot be computed: %r", found.name, error)
        words = f"Never: it cannot be computed ({type(error).__name__}); write it anew"
        return ScheduleComputed(words=words, next=[], paused_by=None, skips_left=0, failures=0).model_dump()


def _computed(context: WebContext, found: StoredDefinition) -> dict[str, Any]:
    known = KnownSchedule.of(found)
    stored = context.schedules.state(found.name) if context.schedules else None
    state = known.state(stored)
    computed = ScheduleComputed(
        words=known.times.words(),
        next=_next_times(known, datetime.now(UTC)),
        paused_by=state.paused_by if state.paused else None,
        skips_left=state.skips,
        failures=state.failures,
    )
    now = {"paused": known.is_paused(state), "note": (state.note or "") if state.paused else known.spec.note}
    return computed.model_dump() | now


@dataclass
class _Kept:
    """The next times of a schedule, true until a moment."""

    until: datetime = datetime.min.replace(tzinfo=UTC)
    times: list[NextTime] = field(default_factory=list)


@lru_cache(_MOST_KEPT)
def _kept(_name: str, _revision: str) -> _Kept:
    return _Kept()


def _next_times(known: KnownSchedule, now: datetime) -> list[NextTime]:
    """Returns the next times. They are kept until the first one has passed: `exclude` has up to 1,000 windows, which a
    list of as many schedules would convert and go through each time."""
    kept = _kept(known.name, known.stored.revision)
    if now < kept.until:
        return kept.times
    times = known.times.next(now, _SHOWN_TIMES)
    until = datetime.fromisoformat(times[0].utc) if times else now + _NONE_KEPT_FOR
    # In this order: another thread may read in between.
    kept.times, kept.until = times, until
    return times


def check_freeze(written: Written) -> None:
    """Raises InvalidRequest for times that make no sense."""
    assert isinstance(written.spec, FreezeSpec)
    written.refuse(schedule_times.freeze_faults(written.spec))


def compute_freeze(_context: WebContext, _user: User, found: StoredDefinition, _is_whole: bool) -> dict[str, Any]:
    """Returns whether it is in force."""
    try:
        freeze = Freeze(found.name, FreezeSpec.model_validate(found.spec))
        return {"is_active": freeze.is_active(datetime.now(UTC))}
    except _NOT_COMPUTED as error:
        log.error("freeze %s cannot be computed, and holds nothing: %r", found.name, error)
        return {"is_active": False}


def _template_faults(written: Written, spec: ScheduleSpec) -> list[FieldError]:
    if secret := SECRET_FIELDS & spec.values.keys():
        return [FieldError(f"values.{name}", "write no secret into a schedule") for name in sorted(secret)]
    found = written.find(TEMPLATES.name, spec.template)
    if found is None or not template_launch.may_launch(written.user, found):
        return [FieldError("template", "there is no such template, or you may not launch it")]
    try:
        template_values.merge(TemplateSpec.model_validate(found.spec), spec.values)
    except InvalidRequest as error:
        return [FieldError(f"values.{one.field}", one.message) for one in error.errors]
    return []
