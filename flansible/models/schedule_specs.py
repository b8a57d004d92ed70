"""Schedules, which launch a template by themselves, and freezes, during which nothing starts by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from flansible.models.definition_specs import DefinitionName, Spec
from flansible.models.records import Record
from flansible.models.request_fields import MAX_LIST_ITEMS, Request

MAX_NOTE_CHARACTERS = 1000
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[smhdw]$", max_length=10)]
LocalTime = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$", max_length=19)]
LocalDate = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", max_length=10)]
ZoneName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")]
Cron = Annotated[str, Field(min_length=1, max_length=200)]
Note = Annotated[str, Field(max_length=MAX_NOTE_CHARACTERS)]
Pattern = Annotated[str, Field(min_length=1, max_length=100)]
Overlap = Literal["skip", "queue_one", "cancel_running", "allow"]


class Window(Request):
    """A time in which nothing starts, in the schedule's zone."""

    start: LocalTime = Field(description="When it begins: `2027-12-24T12:00`.")
    end: LocalTime = Field(description="When it ends; not part of it.")


class ScheduleSpec(Spec):
    """Launches a template at certain times. One of `cron`, `every` and `at` says when."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "template": "deploy",
                "values": {"extra_vars": {"version": "7"}},
                "cron": "0 2 * * *",
                "timezone": "Europe/Berlin",
            }
        }
    )

    template: DefinitionName = Field(description="The template, which its owner may launch.")
    values: dict[str, JsonValue] = Field({}, description="What the launch sets; no secrets.")
    cron: Cron | None = Field(None, description="Five fields as in crontab, in the time of the zone: `0 2 * * *`.")
    every: Duration | None = Field(
        None, description="A number and s, m, h, d or w: `90m`. Counts from the PUT, in seconds that pass."
    )
    at: LocalTime | None = Field(None, description="Once, in the time of the zone: `2027-03-28T04:30`.")
    timezone: ZoneName = Field(description="IANA's name of the zone: `Europe/Berlin`, `UTC`.")
    exclude: list[LocalDate | Window] = Field(
        [], max_length=MAX_LIST_ITEMS, description="Dates and windows, in the time of the zone, without a start."
    )
    overlap: Overlap = Field(
        "skip",
        description="While an earlier task is not final: `skip` this start; `queue_one` waits for it, one at most; "
        "`cancel_running` cancels it; `allow` starts beside it.",
    )
    catch_up: Duration | None = Field(
        None, description="How late a start that was missed may still be made up for; by default a minute."
    )
    jitter: Duration | None = Field(None, description="Each start is delayed by up to so much.")
    until: LocalTime | None = Field(None, description="No start after this, in the time of the zone.")
    paused: bool = Field(False, description="Whether it starts nothing; `pause` and `resume` change it.")
    note: Note = Field("", description="Why, for people; `pause` changes it.")
    pause_after_failures: int | None = Field(
        None, ge=1, le=1000, description="Pause after so many of its tasks in a row did not succeed."
    )


class NextTime(Record):
    """A time at which a schedule is due."""

    local: str = Field(description="In the zone of the schedule, with its distance from UTC.")
    utc: str = Field(description="The same in UTC.")


class ScheduleComputed(BaseModel):
    """What the service adds when it shows a schedule."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "words": "At 02:00 every day (Europe/Berlin)",
                "next": [{"local": "2026-02-01T02:00:00+01:00", "utc": "2026-02-01T01:00:00Z"}],
                "paused_by": None,
                "skips_left": 0,
                "failures": 0,
            }
        }
    )

    words: str = Field(description="When it starts, in words.")
    next: list[NextTime] = Field(description="The next five times at most, whether or not it is paused.")
    paused_by: str | None = Field(description="Who has paused it: a user, or `failures`; null: nobody since its PUT.")
    skips_left: int = Field(description="How many of the next times are skipped.")
    failures: int = Field(description="How many of its last tasks in a row did not succeed.")


class FreezeSpec(Spec):
    """A time in which no schedule starts anything, and whoever launches a template has to say so."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"start": "2027-12-20T00:00", "end": "2028-01-03T06:00", "timezone": "Europe/Berlin"}
        }
    )

    start: LocalTime | None = Field(None, description="When it begins, in the time of the zone; with `end`.")
    end: LocalTime | None = Field(None, description="When it ends; not part of it.")
    cron: Cron | None = Field(None, description="When it begins, again and again; with `duration`.")
    duration: Duration | None = Field(None, description="How long it lasts each time: `8h`.")
    timezone: ZoneName = Field(description="IANA's name of the zone.")
    templates: list[Pattern] = Field(
        [], max_length=MAX_LIST_ITEMS, description="Only for these templates: names, `*` is any text. None: for all."
    )
    note: Note = Field("", description="Why, for people.")


class FreezeComputed(BaseModel):
    """What the service adds when it shows a freeze."""

    model_config = ConfigDict(json_schema_extra={"example": {"is_active": False}})

    is_active: bool = Field(description="Whether it is in force now.")


class Occurrence(Record):
    """One time at which a schedule was due, and what became of it."""

    due_at: str = Field(description="When it was due, the first where `detail` tells of several; RFC 3339, UTC.")
    outcome: str = Field(
        description="`started`, `starting`, `skipped: overlap`, `skipped: late by 3 h`, `refused: rights`, ..."
    )
    detail: str | None = Field(description="More about it, for people.")
    task_id: str | None = Field(description="The task that was started.")
    recorded_at: str = Field(description="When this was recorded; RFC 3339, UTC.")


class OccurrenceList(Record):
    """A page of occurrences, the latest first."""

    items: list[Occurrence] = Field(description="The occurrences.")
    next_before: int | None = Field(description="For the next page's `before`; null on the last one.")


class PauseBody(Request):
    """`POST /api/schedules/<name>/pause`."""

    model_config = ConfigDict(json_schema_extra={"example": {"note": "until the disk is mended"}})

    note: Note = Field("", description="Why, for people.")
