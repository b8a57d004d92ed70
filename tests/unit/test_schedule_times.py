"""When schedules are due, over both changes of the clock in five zones, and what becomes of what was missed."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from flansible.definitions import schedule_times
from flansible.definitions.schedule_decisions import GRACE, KnownSchedule, decide, milliseconds, moment, words_of
from flansible.definitions.schedule_times import Freeze, Times
from flansible.history.definition_rows import StoredDefinition
from flansible.history.schedule_rows import ScheduleState
from flansible.models.schedule_specs import FreezeSpec, ScheduleSpec

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
# Zone -> hour and minute that one change of 2026 leaves out and the other doubles. Each of its own kind: an hour after
# midnight UTC; later in the day; half an hour; at midnight; in the other half of the year.
ZONES = {
    "Europe/Berlin": (2, 30),
    "America/New_York": (2, 30),
    "Australia/Lord_Howe": (2, 10),
    "America/Santiago": (0, 30),
    "Pacific/Auckland": (2, 30),
}
# In these three the doubled time is another one than that left out.
DOUBLED = {
    **ZONES,
    **{"America/New_York": (1, 30), "Australia/Lord_Howe": (1, 40), "America/Santiago": (23, 30)},
}


def spec(timezone: str = "UTC", **fields: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"template": "a", "timezone": timezone, **fields})


def times(timezone: str = "UTC", anchor: datetime = WRITTEN, **fields: Any) -> Times:
    return Times(spec(timezone, **fields), anchor)


def between(found: Times, start: datetime, end: datetime) -> list[datetime]:
    return list(itertools.takewhile(lambda due: due < end, found.after(start)))


def changes(zone: str) -> tuple[datetime, datetime]:
    """The moments in 2026 at which the zone's clock goes forward, and back."""
    moments = [WRITTEN + timedelta(minutes=10 * number) for number in range(6 * 24 * 365)]
    found = {}
    for one, other in itertools.pairwise(moments):
        before, after = (moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in (one, other))
        assert before is not None and after is not None
        if before != after:
            found[after > before] = other
    return found[True], found[False]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("doubled", [False, True])
def test_a_daily_time_is_due_once_on_each_day_of_a_year_with_both_changes(zone: str, doubled: bool) -> None:
    hour, minute = (DOUBLED if doubled else ZONES)[zone]
    start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(seconds=1)
    end = datetime(2027, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    found = between(times(zone, cron=f"{minute} {hour} * * *"), start, end)
    days = [due.astimezone(ZoneInfo(zone)).date() for due in found]
    assert days == [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    forward, back = changes(zone)
    local = {due.astimezone(ZoneInfo(zone)).strftime("%H:%M") for due in found}
    assert local - {f"{hour:02}:{minute:02}"} <= {forward.astimezone(ZoneInfo(zone)).strftime("%H:%M")}
    # Asked from anywhere, also between the two times of a doubled hour, the answer is the same.
    for one in (forward, back):
        near = [due for due in found if abs(due - one) < timedelta(days=2)]
        for offset in range(-300, 300, 7):
            asked = one + timedelta(minutes=offset)
            [following, *_] = [due for due in near if due > asked]
            assert next(times(zone, cron=f"{minute} {hour} * * *").after(asked)) == following


@pytest.mark.parametrize("zone", ZONES)
def test_a_time_that_is_left_out_is_due_right_after_and_a_doubled_one_the_first_time(zone: str) -> None:
    forward, back = changes(zone)
    hour, minute = ZONES[zone]
    due = next(times(zone, cron=f"{minute} {hour} * * *").after(forward - timedelta(hours=3)))
    assert due == forward
    hour, minute = DOUBLED[zone]
    due = next(times(zone, cron=f"{minute} {hour} * * *").after(back - timedelta(hours=3)))
    assert back - timedelta(hours=1) <= due < back


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "America/Santiago", "Pacific/Auckland"])
def test_what_is_due_each_hour_is_due_in_both_hours_and_every_counts_seconds(zone: str) -> None:
    for change in changes(zone):
        start, end = change - timedelta(hours=8), change + timedelta(hours=8)
        for found in (times(zone, cron="30 * * * *"), times(zone, every="60m")):
            dues = between(found, start, end)
            assert {later - earlier for earlier, later in itertools.pairwise(dues)} == {timedelta(hours=1)}


def test_every_counts_from_when_it_was_written() -> None:
    anchor = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)
    found = times(every="2s", anchor=anchor)
    first = list(itertools.islice(found.after(anchor - timedelta(days=1)), 2))
    assert first == [anchor + timedelta(seconds=2), anchor + timedelta(seconds=4)]
    assert next(found.after(anchor + timedelta(seconds=2))) == anchor + timedelta(seconds=4)
    assert next(found.after(anchor + timedelta(seconds=3))) == anchor + timedelta(seconds=4)


def test_the_leap_day_is_due_in_leap_years() -> None:
    found = itertools.islice(times(cron="0 0 29 2 *").after(WRITTEN), 3)
    assert [due.date() for due in found] == [date(2028, 2, 29), date(2032, 2, 29), date(2036, 2, 29)]


@pytest.mark.parametrize(
    ("zone", "at", "following"),
    [
        ("Europe/Berlin", "2027-03-28T02:30", "2027-03-28T03:00:00+02:00"),
        ("America/New_York", "2026-03-08T02:00", "2026-03-08T03:00:00-04:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10", "2026-10-04T02:30:00+11:00"),
        ("America/Santiago", "2026-09-06T00:30", "2026-09-06T01:00:00-03:00"),
        ("Pacific/Auckland", "2026-09-27T02:59:59", "2026-09-27T03:00:00+13:00"),
    ],
)
def test_a_single_time_that_is_left_out_is_refused_with_the_next_one(zone: str, at: str, following: str) -> None:
    [error] = schedule_times.faults(spec(zone, at=at))
    assert error.field == "at" and error.message.endswith(f"the next one is {following}")


def test_a_single_time_that_is_doubled_is_the_first_one_and_a_plain_one_is_as_written() -> None:
    assert schedule_times.faults(spec("Europe/Berlin", at="2026-10-25T02:30")) == []
    [doubled] = times("Europe/Berlin", at="2026-10-25T02:30").after(WRITTEN)
    [plain] = times("Europe/Berlin", at="2027-03-28T04:30").after(WRITTEN)
    assert (doubled, plain) == (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2027, 3, 28, 2, 30, tzinfo=UTC))
    assert list(times("Europe/Berlin", at="2026-10-25T02:30").after(doubled)) == []


def test_the_next_times_leave_out_dates_and_windows_and_end_with_until() -> None:
    window = {"start": "2026-01-03T01:00", "end": "2026-01-04T02:00"}
    found = times("Europe/Berlin", cron="0 2 * * *", exclude=["2026-01-02", window], until="2026-01-06T02:00")
    assert [item.local for item in found.next(WRITTEN, 5)] == [f"2026-01-0{day}T02:00:00+01:00" for day in (1, 4, 5, 6)]
    assert found.next(WRITTEN, 1)[0].utc == "2026-01-01T01:00:00Z"
    assert times(cron="0 0 * * *", exclude=[f"2026-01-{day:02}" for day in range(1, 32)]).next(WRITTEN, 1)[0].utc == (
        "2026-02-01T00:00:00Z"
    )


def test_the_next_times_come_after_a_window_that_leaves_out_any_number_of_them() -> None:
    window, following = {"start": "2026-01-01T00:00", "end": "2026-03-01T00:00"}, "2026-03-01"
    found = times("Europe/Berlin", every="1s", exclude=[following, window]).next(WRITTEN, 2)
    assert [item.local for item in found] == ["2026-03-02T00:00:00+01:00", "2026-03-02T00:00:01+01:00"]
    assert times(every="1s", exclude=[window], until="2026-02-01T00:00").next(WRITTEN, 2) == []
    [last] = times(cron="* * * * *", exclude=[window], until="2026-03-01T00:00").next(WRITTEN, 2)
    assert last.utc == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize("zone", ZONES)
def test_a_date_is_left_out_as_long_as_it_is_in_the_zone(zone: str) -> None:
    for change in changes(zone):
        day = change.astimezone(ZoneInfo(zone)).date()
        found = times(zone, every="10m", exclude=[day.isoformat()])
        near = [change + timedelta(minutes=10 * number) for number in range(-300, 300)]
        assert [due for due in near if found.is_excluded(due)] == [
            due for due in near if due.astimezone(ZoneInfo(zone)).date() == day
        ]


def test_as_many_windows_as_a_schedule_may_have_cost_little_also_over_many_due_times() -> None:
    late = [{"start": f"{1999 + number}-05-01T00:00", "end": f"{1999 + number}-05-02T00:00"} for number in range(999)]
    found = times(
        "Europe/Berlin", every="1s", exclude=[*late, {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00"}]
    )
    began = time.process_time()
    assert [item.local[:10] for item in found.next(WRITTEN, 5)] == ["2999-01-01"] * 5
    dues = itertools.islice(found.after(WRITTEN), 2000)
    assert all(found.is_excluded(due) for due in dues)
    assert time.process_time() - began < 1, "compares each due time with each window"


def test_the_next_times_begin_a_crontab_line_anew_behind_a_few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def begin(line: str, start: datetime) -> CronSim:
        begun.append(line)
        return CronSim(line, start)

    monkeypatch.setattr(schedule_times, "CronSim", begin)
    found = times(cron="0 0 1 1 *", exclude=[f"{year}-01-01" for year in range(2027, 2999)])
    assert found.next(WRITTEN, 5) == [] and len(begun) <= 101
    assert len(times(cron="0 0 1 1 *", exclude=["2027-01-01", "2029-01-01"]).next(WRITTEN, 5)) == 5


def test_words_say_when_it_starts() -> None:
    assert times("Europe/Berlin", cron="30 2 * * *").words() == "At 02:30 every day (Europe/Berlin)"
    assert times(every="1h").words() == "Every hour, counted from 2026-01-01 00:00:00+00:00 (UTC)"
    assert times(at="2027-03-28T04:30", until="2028-01-01T00:00").words() == (
        "Once, at 2027-03-28 04:30 (UTC), until 2028-01-01 00:00"
    )


FAULTY: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "cron"),
    "two of three": ({"cron": "0 2 * * *", "every": "1h"}, "every"),
    "no line": ({"cron": "0 2 * *"}, "cron"),
    "seconds": ({"cron": "0 0 2 * * *"}, "cron"),
    "no such minute": ({"cron": "61 2 * * *"}, "cron"),
    "no such day": ({"cron": "0 0 31 2 *"}, "cron"),
    "no zone": ({"every": "1h", "timezone": "Europe/Berlinn"}, "timezone"),
    "a folder of zones": ({"every": "1h", "timezone": "Europe"}, "timezone"),
    "no such date": ({"at": "2026-02-30T00:00"}, "at"),
    "no year": ({"at": "0001-01-01T00:00"}, "at"),
    "no date to leave out": ({"every": "1h", "exclude": ["2026-13-01"]}, "exclude[0]"),
    "a window that ends first": (
        {"every": "1h", "exclude": [{"start": "2026-01-02T00:00", "end": "2026-01-01T00:00"}]},
        "exclude[0].end",
    ),
    "an interval beyond the calendar": ({"every": "999999w"}, "every"),
    "a lateness beyond it": ({"every": "1h", "catch_up": "999999999w"}, "catch_up"),
    "a delay beyond it": ({"every": "1h", "jitter": "3651d"}, "jitter"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_times_that_make_no_sense_are_refused(name: str) -> None:
    fields, where = FAULTY[name]
    given = spec(**{"timezone": "UTC", **fields})
    assert [error.field for error in schedule_times.faults(given)] == [where]


def freeze(**fields: Any) -> Freeze:
    found = FreezeSpec.model_validate({"timezone": "Europe/Berlin", **fields})
    assert schedule_times.freeze_faults(found) == []
    return Freeze("f", found)


def test_a_freeze_holds_from_its_start_to_its_end_for_the_templates_it_names() -> None:
    found = freeze(start="2026-03-29T01:30", end="2026-03-29T03:30", templates=["prod-*"])
    began, ended = datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert found.holds(began, "prod-db") and not found.holds(began, "dev") and not found.holds(ended, "prod-db")
    assert not found.holds(began - timedelta(seconds=1), "prod-db")


def test_a_freeze_may_come_again_and_lasts_as_long_as_it_says() -> None:
    found = freeze(cron="0 22 * * FRI", duration="8h")
    friday = datetime(2026, 1, 2, 21, 0, tzinfo=UTC)
    held = [found.holds(friday + timedelta(hours=hour), "any") for hour in (-1, 0, 7, 8, 24)]
    assert held == [False, True, True, False, False]
    errors = schedule_times.freeze_faults(FreezeSpec(timezone="UTC", start="2026-01-01T00:00", duration="1h"))
    assert [error.field for error in errors] == ["start"]


def test_durations_of_more_than_ten_years_are_refused_and_what_is_stored_already_counts_as_ten_years() -> None:
    ten_years = timedelta(days=3650)
    assert schedule_times.faults(spec(every="3650d", catch_up="3650d", jitter="3650d")) == []
    assert times(every="999999999w").next(WRITTEN, 5)[0].local == (WRITTEN + ten_years).isoformat()
    found = known(every="1h", catch_up="999999999w", jitter="999999w")
    assert found.latest(WRITTEN) == found.start_of(WRITTEN) + ten_years
    assert outcomes(found, after(hours=2)) == []
    endless = FreezeSpec(timezone="UTC", cron="0 22 * * FRI", duration="999999d")
    assert [error.field for error in schedule_times.freeze_faults(endless)] == ["duration"]
    assert Freeze("f", endless).is_active(WRITTEN)


def known(**fields: Any) -> KnownSchedule:
    found = spec(**{"every": "1h", **fields})
    stored = StoredDefinition("schedules", "nightly", "dev", {}, "r1", 0, milliseconds(WRITTEN))
    return KnownSchedule(stored, found, Times(found, WRITTEN))


def outcomes(found: KnownSchedule, now: datetime, state: ScheduleState | None = None) -> list[str]:
    occurrences, _ = decide(found, found.state(state), now, lambda *_: None)
    return [one.outcome for one in occurrences]


def after(**distance: float) -> datetime:
    return WRITTEN + timedelta(**distance)


def test_what_is_due_starts_once_and_what_comes_later_waits() -> None:
    found = known()
    assert outcomes(found, after(minutes=59)) == []
    occurrences, state = decide(found, found.state(None), after(hours=1), lambda *_: None)
    assert [(moment(one.due), one.outcome, one.is_open) for one in occurrences] == [(after(hours=1), "starting", True)]
    assert outcomes(found, after(hours=1, minutes=30), state) == []
    assert outcomes(found, after(hours=-1), state) == [], "a clock that was set back"


def test_a_night_that_was_missed_leaves_a_record_for_each_time() -> None:
    now = after(hours=9, minutes=30)
    assert outcomes(known(), now) == [f"skipped: late by {hours} h" for hours in range(8, 0, -1)] + [
        "skipped: late by 30 min"
    ]
    assert outcomes(known(), after(hours=3, seconds=40))[-1] == "starting", "within a minute nothing is late"


def test_of_several_that_may_be_made_up_for_the_last_one_starts() -> None:
    found = known(catch_up="3h")
    assert outcomes(found, after(hours=5, minutes=10)) == [
        "skipped: late by 4 h",
        "skipped: late by 3 h",
        "skipped: late by 2 h, and a later one is due",
        "skipped: late by 1 h, and a later one is due",
        "starting",
    ]
    assert outcomes(found, after(hours=5)) == [
        *(f"skipped: late by {hours} h" + ("" if hours > 3 else ", and a later one is due") for hours in (4, 3, 2, 1)),
        "starting",
    ]


def test_paused_skipped_excluded_and_frozen_times_say_so() -> None:
    now = after(hours=1)
    assert outcomes(known(paused=True), now) == ["skipped: paused"]
    fresh = known().state(None)
    assert outcomes(known(paused=True), now, ScheduleState(**{**vars(fresh), "paused": False})) == ["starting"]
    assert outcomes(known(exclude=["2026-01-01"]), now) == ["skipped: excluded"]
    skips = ScheduleState(**{**vars(fresh), "skips": 1})
    occurrences, state = decide(known(every="20s"), skips, after(seconds=41), lambda *_: None)
    assert [one.outcome for one in occurrences] == ["skipped: on request", "starting"] and state.skips == 0
    occurrences, _ = decide(known(), fresh, now, lambda at, template: f"{template} {at == now}")
    assert occurrences[0].outcome == "skipped: freeze a True"


def test_a_schedule_that_was_changed_owes_nothing_of_before() -> None:
    stale = ScheduleState("nightly", "r0", milliseconds(after(hours=-5)), paused=True, skips=3, failures=2)
    state = known().state(stale)
    assert (state.position, state.paused, state.skips, state.failures) == (milliseconds(WRITTEN), None, 0, 0)


def test_jitter_delays_each_start_by_less_than_it_says_and_always_by_the_same() -> None:
    found = known(jitter="10m")
    delays = [found.start_of(after(hours=hour)) - after(hours=hour) for hour in range(200)]
    assert timedelta() <= min(delays) < timedelta(minutes=1) and timedelta(minutes=9) < max(delays)
    assert max(delays) <= timedelta(minutes=10) and len(set(delays)) > 190
    assert [found.start_of(after(hours=hour)) - after(hours=hour) for hour in range(200)] == delays
    start = found.start_of(after(hours=1))
    assert outcomes(found, start - timedelta(milliseconds=1)) == [] and outcomes(found, start) == ["starting"]
    assert outcomes(found, start + GRACE) == ["starting"], "what it delays is not late"


def test_a_lateness_is_said_as_people_do() -> None:
    words = [words_of(timedelta(seconds=seconds)) for seconds in (59, 60, 3599, 3600, 86399, 86400 * 3)]
    assert words == ["59 s", "1 min", "59 min", "1 h", "23 h", "3 d"]
