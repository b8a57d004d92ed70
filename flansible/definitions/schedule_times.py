"""When a schedule is due, and when a freeze is in force. Pure: the present is always an argument.

Wall-clock times that a change of the zone leaves out or doubles:

| written as                    | in the hour that is left out       | in the hour that is doubled |
|-------------------------------|------------------------------------|-----------------------------|
| `cron` with a fixed hour      | right after it                     | once, the first time        |
| `cron` with `*` or a step     | no such time                       | in both                     |
| `every`                       | counts the seconds that pass       | counts the seconds that pass|
| `at`                          | refused, with the next time        | the first time              |
| `until`, `exclude`, a freeze  | the moment of the change           | the first time              |
"""

from __future__ import annotations

import fnmatch
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from operator import itemgetter
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from flansible.errors import FieldError
from flansible.models.schedule_specs import FreezeSpec, NextTime, ScheduleSpec, Window

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_FIRST_YEAR, _LAST_YEAR = 1971, 2999
LONGEST = timedelta(days=3650)
_ONE_DAY = timedelta(days=1)
_START = itemgetter(0)
_MOST_PASSED = 100  # windows of `exclude`, on the way to the next times: behind each one a crontab line begins anew


class Times:
    """The due times of one schedule. anchor: when it was written, from which `every` counts."""

    def __init__(self, spec: ScheduleSpec, anchor: datetime) -> None:
        self._spec = spec
        self._anchor = anchor
        self._zone = ZoneInfo(spec.timezone)
        self._until = moment_of(spec.until, self._zone) if spec.until is not None else None

    def after(self, start: datetime) -> Iterator[datetime]:
        """Yields the due times behind a moment, in UTC; also those that `exclude` leaves out."""
        for due in self._all_after(start):
            if self._until is not None and due > self._until:
                return
            yield due

    def is_excluded(self, due: datetime) -> bool:
        """Whether `exclude` leaves this time out."""
        return self._excluded_until(due) is not None

    def next(self, start: datetime, count: int) -> list[NextTime]:
        """Returns the next times behind a moment that are not left out: fewer, or none, behind _MOST_PASSED windows."""
        found: list[NextTime] = []
        dues, passed = self.after(start), 0
        while len(found) < count and (due := next(dues, None)) is not None:
            end = self._excluded_until(due)
            if end is not None:
                passed += 1
                if passed > _MOST_PASSED:
                    break
                # Not one by one: a schedule of each second has millions of due times in a window of weeks.
                dues = self.after(end - timedelta.resolution)
                continue
            local = due.astimezone(self._zone).isoformat(timespec="seconds")
            found.append(NextTime(local=local, utc=_utc_text(due)))
        return found

    def words(self) -> str:
        """Says when it is due."""
        spec = self._spec
        if spec.cron is not None:
            words = CronSim(spec.cron, datetime(2026, 1, 1)).explain()
        elif spec.every is not None:
            number, unit = int(spec.every[:-1]), _WORDS[spec.every[-1]]
            words = f"Every {unit}" if number == 1 else f"Every {number} {unit}s"
            words += f", counted from {self._anchor.astimezone(self._zone).isoformat(' ', 'seconds')}"
        else:
            words = f"Once, at {(spec.at or '').replace('T', ' ')}"
        return f"{words} ({spec.timezone})" + (f", until {spec.until.replace('T', ' ')}" if spec.until else "")

    def _excluded_until(self, due: datetime) -> datetime | None:
        """Returns when what leaves a time out ends, None for a time that is not left out."""
        number = bisect_right(self._excluded, due, key=_START)
        if number == 0 or due >= self._excluded[number - 1][1]:
            return None
        return self._excluded[number - 1][1]

    @cached_property
    def _excluded(self) -> list[tuple[datetime, datetime]]:
        """The windows of `exclude` in UTC: in order, none overlaps or touches the next. Converting them takes long, and
        thousands of due times are compared with them."""
        merged: list[tuple[datetime, datetime]] = []
        for start, end in sorted(map(self._window_of, self._spec.exclude)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _window_of(self, item: str | Window) -> tuple[datetime, datetime]:
        if isinstance(item, Window):
            return moment_of(item.start, self._zone), moment_of(item.end, self._zone)
        following = date.fromisoformat(item) + _ONE_DAY
        return moment_of(f"{item}T00:00", self._zone), moment_of(f"{following}T00:00", self._zone)

    def _all_after(self, start: datetime) -> Iterator[datetime]:
        spec = self._spec
        if spec.cron is not None:
            yield from cron_after(spec.cron, start, self._zone)
        elif spec.every is not None:
            step = duration(spec.every)
            count = max(1, (start - self._anchor) // step + 1)
            while True:
                yield self._anchor + count * step
                count += 1
        elif spec.at is not None and (due := moment_of(spec.at, self._zone)) > start:
            yield due


class Freeze:
    """The times of one freeze."""

    def __init__(self, name: str, spec: FreezeSpec) -> None:
        self.name = name
        self._spec = spec
        self._zone = ZoneInfo(spec.timezone)

    def holds(self, now: datetime, template: str) -> bool:
        """Whether nothing of this template may start now."""
        patterns = self._spec.templates
        return self.is_active(now) and (not patterns or any(fnmatch.fnmatchcase(template, one) for one in patterns))

    def is_active(self, now: datetime) -> bool:
        spec = self._spec
        if spec.start is not None and spec.end is not None:
            return moment_of(spec.start, self._zone) <= now < moment_of(spec.end, self._zone)
        if spec.cron is None or spec.duration is None:
            return False
        began = next(cron_after(spec.cron, now - duration(spec.duration), self._zone), None)
        return began is not None and began <= now


def cron_after(line: str, start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yields the times of a crontab line behind a moment, in UTC."""
    last = start
    for local in CronSim(line, start.astimezone(zone)):
        due = local.astimezone(UTC)
        # What a change of the zone moves may come to where another one is already.
        if due > last:
            yield due
            last = due


def duration(text: str) -> timedelta:
    """Returns how long, LONGEST at most: what was written when there was no limit must not leave the calendar."""
    return timedelta(seconds=min(_seconds(text), LONGEST.total_seconds()))


def moment_of(text: str, zone: ZoneInfo) -> datetime:
    """Returns a wall-clock time in UTC: of two the first; of one that the zone leaves out the moment of the change."""
    local = datetime.fromisoformat(text)
    return _after_gap(local, zone) or local.replace(tzinfo=zone).astimezone(UTC)


def faults(spec: ScheduleSpec) -> list[FieldError]:
    """Returns what is wrong with the times of a schedule."""
    given = [name for name in ("cron", "every", "at") if getattr(spec, name) is not None]
    if len(given) != 1:
        return [FieldError(given[-1] if given else "cron", "give one of cron, every and at")]
    zone = _zone(spec.timezone)
    if zone is None:
        return [_no_zone()]
    errors = _cron_faults(spec.cron)
    for name in ("every", "catch_up", "jitter"):
        errors += _duration_faults(name, getattr(spec, name))
    for field, text in (("at", spec.at), ("until", spec.until)):
        errors += _time_faults(field, text)
    for number, item in enumerate(spec.exclude):
        if isinstance(item, Window):
            errors += _window_faults(f"exclude[{number}].", item.start, item.end)
        else:
            errors += _time_faults(f"exclude[{number}]", f"{item}T00:00")
    if not errors and spec.at is not None:
        after = _after_gap(datetime.fromisoformat(spec.at), zone)
        if after is not None:
            there = after.astimezone(zone).isoformat(timespec="seconds")
            errors.append(FieldError("at", f"there is no such time in {spec.timezone}; the next one is {there}"))
    return errors


def freeze_faults(spec: FreezeSpec) -> list[FieldError]:
    """Returns what is wrong with the times of a freeze."""
    once, again = (spec.start, spec.end), (spec.cron, spec.duration)
    if sum(None not in pair for pair in (once, again)) != 1 or any(once) and any(again):
        return [FieldError("start", "give start and end, or cron and duration")]
    if _zone(spec.timezone) is None:
        return [_no_zone()]
    if spec.start is not None and spec.end is not None:
        return _window_faults("", spec.start, spec.end)
    return _cron_faults(spec.cron) + _duration_faults("duration", spec.duration)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _no_zone() -> FieldError:
    return FieldError("timezone", "is no zone that this machine knows, such as Europe/Berlin or UTC")


def _cron_faults(line: str | None) -> list[FieldError]:
    if line is None:
        return []
    try:
        if len(line.split()) != 5:
            raise CronSimError("Wrong number of fields")
        next(CronSim(line, datetime(2026, 1, 1)))
    except CronSimError as error:
        return [FieldError("cron", f"is no line of a crontab: {str(error).lower()}")]
    except StopIteration:
        return [FieldError("cron", "is never due")]
    return []


def _duration_faults(field: str, text: str | None) -> list[FieldError]:
    if text is None or _seconds(text) <= LONGEST.total_seconds():
        return []
    return [FieldError(field, f"must be {LONGEST.days} days or less")]


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]]


def _time_faults(field: str, text: str | None) -> list[FieldError]:
    if text is None:
        return []
    try:
        year = datetime.fromisoformat(text).year
    except ValueError:
        return [FieldError(field, "is no date and time")]
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return [FieldError(field, f"must be in the years {_FIRST_YEAR} to {_LAST_YEAR}")]
    return []


def _window_faults(prefix: str, start: str, end: str) -> list[FieldError]:
    errors = [*_time_faults(f"{prefix}start", start), *_time_faults(f"{prefix}end", end)]
    if not errors and datetime.fromisoformat(end) <= datetime.fromisoformat(start):
        errors.append(FieldError(f"{prefix}end", "must be after the start"))
    return errors


def _after_gap(local: datetime, zone: ZoneInfo) -> datetime | None:
    """Returns the moment of the change that leaves a wall-clock time out, None for a time that there is."""
    aware = local.replace(tzinfo=zone)
    if aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local:
        return None
    # Before the change the zone has the distance of fold 0, after it that of fold 1.
    early, late = aware.replace(fold=1).astimezone(UTC), aware.astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


def _utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
