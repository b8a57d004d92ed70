"""What becomes of the times at which a schedule is due: a start, or the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import takewhile

from flansible.definitions.schedule_times import Times, duration
from flansible.history.definition_rows import StoredDefinition
from flansible.history.schedule_rows import STARTING, ScheduleState, StoredOccurrence
from flansible.models.schedule_specs import ScheduleSpec

# No start is late within this: a process that dies needs to be replaced.
LATE = "skipped: late by"  # an outcome, and how late
GRACE = timedelta(minutes=1)
# What keeps a due time from starting anything, as outcomes begin to say it.
NO_STARTS = (
    *("deleted", "excluded", "failed", "freeze", "late", "on request", "overlap", "paused", "queue is full", "refused"),
)
# Due times in one round. Of a night that a schedule of each second has missed there are more: they have further rounds.
MOST_DUE = 2000


@dataclass(frozen=True)
class KnownSchedule:
    """A schedule as it is defined, ready to be asked."""

    stored: StoredDefinition
    spec: ScheduleSpec
    times: Times

    @classmethod
    def of(cls, stored: StoredDefinition) -> KnownSchedule:
        spec = ScheduleSpec.model_validate(stored.spec)
        return cls(stored, spec, Times(spec, moment(stored.updated)))

    @property
    def name(self) -> str:
        return self.stored.name

    def state(self, found: ScheduleState | None) -> ScheduleState:
        """Returns how far it has come. What was due before it was written as it is now is not owed."""
        if found is not None and found.revision == self.stored.revision:
            return found
        position = max(self.stored.updated, found.position if found else 0)
        return ScheduleState(self.name, self.stored.revision, position, skips=0)

    def is_paused(self, state: ScheduleState) -> bool:
        return self.spec.paused if state.paused is None else state.paused

    def latest(self, due: datetime) -> datetime:
        """Returns when a due time may start at the latest."""
        allowed = duration(self.spec.catch_up) if self.spec.catch_up is not None else timedelta()
        return self.start_of(due) + max(GRACE, allowed)

    def start_of(self, due: datetime) -> datetime:
        """Returns when a due time starts: `jitter` delays each by as much as its time and name say."""
        if self.spec.jitter is None:
            return due
        most = duration(self.spec.jitter).total_seconds()
        digest = blake2b(f"{self.name} {milliseconds(due)}".encode(), digest_size=4).digest()
        return due + timedelta(seconds=round(most * int.from_bytes(digest) / 2**32, 3))

    def due(self, state: ScheduleState, now: datetime) -> list[datetime]:
        """Returns the times that are due and have no record yet."""
        found: list[datetime] = []
        for due in self.times.after(moment(state.position)):
            if self.start_of(due) > now or len(found) == MOST_DUE:
                break
            found.append(due)
        return found

    def next_start(self, state: ScheduleState) -> datetime | None:
        """Returns when the next due time starts."""
        due = next(self.times.after(moment(state.position)), None)
        return None if due is None else self.start_of(due)


def decide(
    known: KnownSchedule,
    state: ScheduleState,
    now: datetime,
    frozen_by: Callable[[datetime, str], str | None],
) -> tuple[list[StoredOccurrence], ScheduleState]:
    """Returns what becomes of each time that is due now, and how far the schedule has come by that.

    frozen_by: the freeze in which nothing of a template may start at a moment.
    """
    dues = known.due(state, now)
    outcomes: list[str] = []
    for due, outcome in zip(dues, _reasons(known, state, dues, now), strict=True):
        if outcome is None and state.skips > 0:
            outcome, state = "skipped: on request", replace(state, skips=state.skips - 1)
        if outcome is None and (freeze := frozen_by(now, known.spec.template)) is not None:
            outcome = f"skipped: freeze {freeze}"
        outcomes.append(outcome or STARTING)
        state = replace(state, position=milliseconds(due))
    recorded = milliseconds(now)
    found = [
        StoredOccurrence(known.name, milliseconds(due), outcome, recorded, is_open=outcome == STARTING)
        for due, outcome in zip(dues, outcomes, strict=True)
    ]
    return found, state


def _reasons(
    known: KnownSchedule, state: ScheduleState, dues: Sequence[datetime], now: datetime
) -> Iterator[str | None]:
    """Yields for each due time why it does not start, None where it does, by its time alone."""
    on_time = len(list(takewhile(lambda due: now - known.start_of(due) <= GRACE, reversed(dues))))
    for number, due in enumerate(dues):
        late = now - known.start_of(due)
        if known.times.is_excluded(due):
            yield "skipped: excluded"
        elif known.is_paused(state):
            yield "skipped: paused"
        elif now > known.latest(due):
            yield f"{LATE} {words_of(late)}"
        elif late > GRACE and (on_time or number < len(dues) - 1):
            # Of several that were missed the last one makes up for all.
            yield f"{LATE} {words_of(late)}, and a later one is due"
        else:
            yield None


def reason_of(outcome: str) -> str | None:
    """Returns which of NO_STARTS an outcome has; None where something was started, or is to be."""
    kind, _, rest = outcome.partition(": ")
    return next(
        (reason for reason in NO_STARTS if kind == reason or (kind == "skipped" and rest.startswith(reason))), None
    )


def words_of(late: timedelta) -> str:
    """Says how long, as people do: `40 s`, `12 min`, `3 h`, `2 d`."""
    seconds = int(late.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def milliseconds(found: datetime) -> int:
    return round(found.timestamp() * 1000)


def moment(found: int) -> datetime:
    return datetime.fromtimestamp(found / 1000, UTC)
