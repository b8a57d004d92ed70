"""What can be done with a schedule besides writing it: its occurrences, `run`, `pause`, `resume` and `skip`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from flansible.authorization import authorize, definition_rights
from flansible.definitions.kinds import SCHEDULES
from flansible.definitions.schedule_decisions import KnownSchedule, milliseconds
from flansible.history.definition_rows import StoredDefinition
from flansible.history.schedule_rows import STARTED, ScheduleRows, ScheduleState, StoredOccurrence
from flansible.models.schedule_specs import Occurrence, PauseBody
from flansible.system.timestamps import from_milliseconds
from flansible.web import serialization, task_launch, template_launch
from flansible.web.context import definitions_of, web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import MAX_NUMBER, NoFields, parse_body, parse_query, require_no_body
from flansible.web.resources import definitions
from flansible.web.resources.submissions import accepted
from flansible.web.task_launch import IDEMPOTENCY_KEY, Launched
from flansible.web.template_launch import TemplateLaunch


class OccurrencesQuery(BaseModel):
    """`?limit=&before=` of the occurrences of a schedule."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Occurrences per page.")
    before: int | None = Field(None, ge=0, le=MAX_NUMBER, description="Cursor: `next_before` of the page before.")


class SkipQuery(BaseModel):
    """`?next=` of a skip."""

    model_config = ConfigDict(extra="forbid")

    next: int = Field(1, ge=0, le=1000, description="How many of the next times are skipped; 0: none.")


class RunQuery(BaseModel):
    """`?during_freeze=` of a run."""

    model_config = ConfigDict(extra="forbid")

    during_freeze: bool = Field(False, description="Start it also while a freeze is in force.")


class ScheduleOccurrences(PrivateResource):
    """The times at which a schedule was due, the latest first, and what became of each. Kept for 90 days."""

    def get(self, name: str) -> Response:
        """List the occurrences of a schedule"""
        query = parse_query(OccurrencesQuery)
        _read(name)
        found = _rows().page(name, query.before, query.limit + 1)
        shown = found[: query.limit]
        next_before = shown[-1].due if len(found) > query.limit else None
        items = [
            Occurrence(
                due_at=from_milliseconds(one.due),
                outcome=one.outcome,
                detail=one.detail,
                task_id=one.task_id,
                recorded_at=from_milliseconds(one.recorded),
            ).model_dump()
            for one in shown
        ]
        response = jsonify({"items": items, "next_before": next_before})
        if next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=next_before))
        return response


class ScheduleRun(PrivateResource):
    """Launch the template of a schedule now, with its values, as the caller. The caller has to be allowed to launch
    the template. It is an occurrence as well."""

    def post(self, name: str) -> Response:
        """Run a schedule now"""
        query = parse_query(RunQuery)
        require_no_body()
        known = _may_change(name)
        key = task_launch.check_key(request.headers.get(IDEMPOTENCY_KEY))
        wanted = TemplateLaunch(
            known.spec.template, current_user(), known.spec.values, key=key, during_freeze=query.during_freeze
        )
        launched: Launched = template_launch.launch(web_context(), wanted, audit_context.event)
        if launched.is_replay:
            return accepted(launched)
        now = milliseconds(datetime.now(UTC))
        found = StoredOccurrence(
            *(name, now, STARTED, now, f"run by {current_user().name}"), task_id=launched.task_id, is_open=True
        )
        with _rows().writing() as writer:
            writer.add([found])
        return accepted(launched)


class SchedulePause(PrivateResource):
    """Have a schedule start nothing, until `resume` or a change of it. Its due times are recorded as skipped."""

    def post(self, name: str) -> Response:
        """Pause a schedule"""
        parse_query(NoFields)
        note, user = parse_body(PauseBody).note, current_user().name
        return _change(name, "paused", lambda state: replace(state, paused=True, paused_by=user, note=note))


class ScheduleResume(PrivateResource):
    """Have a schedule start again what is due from now on."""

    def post(self, name: str) -> Response:
        """Resume a schedule"""
        parse_query(NoFields)
        require_no_body()
        return _change(
            name, "resumed", lambda state: replace(state, paused=False, paused_by=None, note=None, failures=0)
        )


class ScheduleSkip(PrivateResource):
    """Skip the next times of a schedule."""

    def post(self, name: str) -> Response:
        """Skip the next times of a schedule"""
        query = parse_query(SkipQuery)
        require_no_body()
        return _change(name, f"skips {query.next}", lambda state: replace(state, skips=query.next))


def _rows() -> ScheduleRows:
    rows = web_context().schedules
    assert rows is not None
    return rows


def _read(name: str) -> StoredDefinition:
    """Returns a schedule that the caller may read. Raises NotFound."""
    definitions.find_name(SCHEDULES, name)
    return definitions_of(web_context()).get(current_user(), SCHEDULES, name)


def _may_change(name: str) -> KnownSchedule:
    """Returns a schedule that the caller may change. Raises NotFound, Forbidden."""
    found = _read(name)
    authorize.check_may_act(current_user())
    definition_rights.check_may_change(current_user(), SCHEDULES.name, name, found.owner)
    return KnownSchedule.of(found)


def _change(name: str, outcome: str, change: Callable[[ScheduleState], ScheduleState]) -> Response:
    known = _may_change(name)
    with _rows().writing() as writer:
        writer.set_state(change(known.state(writer.states().get(name))))
        # Within the transaction: what cannot be audited is rolled back.
        web_context().audit.write(audit_context.event("schedule", what=f"schedules/{name}", outcome=outcome))
    return definitions.reply(SCHEDULES, known.stored)
