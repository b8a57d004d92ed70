"""Starts what schedules are due for, in one web process at a time.

| what                                 | so that                                                               |
|--------------------------------------|-----------------------------------------------------------------------|
| a lease in Redis                     | one process looks; when it dies, another one does within seconds      |
| a row for each start, by due time    | two that look at once, or a clock set back, start nothing twice       |
| an idempotency key for each due time | whoever goes on after a process that died does not start it twice     |

A start gets its row first, together with how far the schedule has come; then the task is started, and the row says
which. A row without an outcome is one whose process died in between: it is started by whoever looks next. Or its start
takes long, since it waits for a remote, a URL or a preview: it goes on in a thread and delays no other (SlowStarts).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic

from flansible.definitions.kinds import SCHEDULES, TEMPLATES
from flansible.definitions.schedule_decisions import LATE, KnownSchedule, decide, milliseconds, moment
from flansible.errors import Forbidden, InvalidRequest, NotFound, RequestError, StoreUnavailable, TooManyRequests
from flansible.history.definition_rows import StoredDefinition
from flansible.history.schedule_rows import STARTED, STARTING, ScheduleRows, ScheduleState, StoredOccurrence
from flansible.store import LateSchedule
from flansible.web import task_launch, template_launch
from flansible.web.context import WebContext
from flansible.web.freezes import freezes_of, holding
from flansible.web.open_occurrences import OpenOccurrences, count_skips
from flansible.web.slow_starts import SlowStarts, is_slow
from flansible.web.template_launch import TemplateLaunch

log = logging.getLogger(__name__)

LEASE_SECONDS = 6.0
KEPT = timedelta(days=90)  # occurrences that are over
_PRUNE_SECONDS = 3600
_WRITTEN_AT_ONCE = 50
_TRIED_AGAIN = timedelta(seconds=5)  # a start that failed, which may ask a remote or run a preview
_PATIENCE_SECONDS = 0.5  # of a round, with starts that may be slow


def _now() -> datetime:
    return datetime.now(UTC)


class Scheduler:
    """What one web process does about schedules. clock: the time in UTC."""

    def __init__(self, context: WebContext, clock: Callable[[], datetime] = _now) -> None:
        self._context = context
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._known: dict[str, KnownSchedule] = {}
        self._next_start: dict[str, tuple[tuple[str, int], datetime | None]] = {}
        self._counted: frozenset[str] | None = None  # the names that /metrics may have
        self._tried: dict[tuple[str, int], datetime] = {}  # when due times that are open were last tried
        self._faulty: set[str] = set()  # revisions of schedules that cannot be computed
        self._prune_at = 0.0
        self._last_claimed = ""  # the schedule that was looked at last
        self._is_idle = False  # there was nothing to look at
        self._slow = SlowStarts()

    def tick(self) -> None:
        """Looks, if this process holds the lease. Raises StoreUnavailable."""
        rows = self._context.schedules
        if rows is not None and self.hold_lease():
            self.run_round(rows)

    def run_round(self, rows: ScheduleRows) -> None:
        """Records every time that is due, and starts what is to be started. Raises StoreUnavailable."""
        now = self._clock()
        self._read_definitions()
        if self._is_idle and not self._known:
            return
        still_open = OpenOccurrences(self._context, rows, self._known, now)
        self._is_idle = not self._known and still_open.is_empty
        still_open.write()  # a schedule may be paused for tasks that have failed
        held = self._held_back(rows, now) if still_open.begun else {}
        claimed = self._claim(rows, now)
        slow = self._slow_templates([*still_open.begun, *claimed])
        renewed = monotonic()
        for number, occurrence in enumerate([*still_open.begun, *claimed]):
            if self._slow.is_starting(occurrence.schedule):
                continue  # this one, or an earlier one of the same schedule
            # One that this process has not tried may have been started by another one, which died before it said so.
            if occurrence.schedule in held and (occurrence.schedule, occurrence.due) in self._tried:
                self._settle(_over(occurrence, held[occurrence.schedule]), still_open, now)
                continue
            if self._was_tried(occurrence, now):
                continue
            if self._template_of(occurrence) in slow:
                owner = self._known[occurrence.schedule].stored.owner
                self._slow.start(occurrence, owner, partial(self._start, occurrence, still_open, now))
            else:
                self._settle(self._start(occurrence, still_open, now), still_open, now)
            if number % _WRITTEN_AT_ONCE == _WRITTEN_AT_ONCE - 1 or monotonic() - renewed > LEASE_SECONDS / 3:
                still_open.write()
                if not self.hold_lease():
                    break  # whoever has it goes on
                renewed = monotonic()
        for occurrence in self._slow.ended(_PATIENCE_SECONDS):
            self._settle(occurrence, still_open, now)
        still_open.write()
        self._prune(rows, now)

    def _held_back(self, rows: ScheduleRows, now: datetime) -> dict[str, str]:
        """Returns the schedules that may start nothing now, and why: for starts that an earlier round has put off."""
        states, freezes = rows.states(), freezes_of(self._context)
        found: dict[str, str] = {}
        for name, known in self._known.items():
            if known.is_paused(known.state(states.get(name))):
                found[name] = "skipped: paused"
            elif (freeze := holding(freezes, now, known.spec.template)) is not None:
                found[name] = f"skipped: freeze {freeze}"
        return found

    def _was_tried(self, occurrence: StoredOccurrence, now: datetime) -> bool:
        tried = self._tried.get((occurrence.schedule, occurrence.due))
        return tried is not None and timedelta() <= now - tried < _TRIED_AGAIN

    def _settle(self, found: StoredOccurrence, still_open: OpenOccurrences, now: datetime) -> None:
        key = (found.schedule, found.due)
        if found.outcome == STARTING:
            self._tried[key] = now
        else:
            self._tried.pop(key, None)
        still_open.settle(found)

    def hold_lease(self) -> bool:
        """Whether this process is the one that starts what is due. Raises StoreUnavailable."""
        return self._context.store.hold_scheduler_lease(self._token, LEASE_SECONDS)

    def _read_definitions(self) -> None:
        definitions = self._context.definitions
        assert definitions is not None
        found: dict[str, KnownSchedule] = {}
        for stored in definitions.all(SCHEDULES.name):
            before = self._known.get(stored.name)
            if before is not None and before.stored.revision == stored.revision:
                found[stored.name] = before
                continue
            try:
                found[stored.name] = KnownSchedule.of(stored)
            except Exception:
                self._log_faulty(stored)
        if found.keys() != self._counted:
            self._context.store.keep_schedule_successes(found)
            self._counted = frozenset(found)
        self._known = found

    def _log_faulty(self, stored: StoredDefinition) -> None:
        """Logs, once for each version, a schedule that cannot be computed: it must not hold up the others."""
        if stored.revision not in self._faulty:
            self._faulty.add(stored.revision)
            log.exception("schedule %s cannot be computed, and starts nothing", stored.name)

    def _claim(self, rows: ScheduleRows, now: datetime) -> list[StoredOccurrence]:
        """Records the times that are due, and returns those that this process is to start."""
        states = rows.states()
        due = [known for known in self._known.values() if self._is_due(known, states.get(known.name), now)]
        if not due:
            return []
        # Those that the last round had no time for come first.
        due.sort(key=lambda known: (known.name <= self._last_claimed, known.name))
        freezes = freezes_of(self._context)

        claimed: list[StoredOccurrence] = []
        late: list[tuple[KnownSchedule, StoredOccurrence]] = []
        skipped: list[StoredOccurrence] = []
        with rows.writing() as writer:
            states = writer.states()
            began = monotonic()
            for known in due:
                # After a night there are thousands of times for each schedule.
                if monotonic() - began > LEASE_SECONDS / 3:
                    break
                self._last_claimed = known.name
                try:
                    found, state = decide(known, known.state(states.get(known.name)), now, partial(holding, freezes))
                except Exception:
                    self._log_faulty(known.stored)
                    continue
                added = writer.add(found)
                claimed += [one for one in added if one.is_open]
                skipped += [one for one in added if not one.is_open]
                # Of a night's, the last one is told.
                late += [(known, one) for one in added if one.outcome.startswith(LATE)][-1:]
                writer.set_state(state)
        count_skips(self._context, skipped)
        for known, one in late:
            self._tell_late(known, one)
        return sorted(claimed, key=lambda one: one.due)

    def _tell_late(self, known: KnownSchedule, occurrence: StoredOccurrence) -> None:
        """Has those notified who want to know of a schedule that could not start in time."""
        late = LateSchedule(known.name, known.stored.owner, known.spec.template, occurrence.due)
        with contextlib.suppress(StoreUnavailable):
            self._context.store.add_late_schedule(late)

    def _is_due(self, known: KnownSchedule, stored: ScheduleState | None, now: datetime) -> bool:
        state = known.state(stored)
        key = (state.revision, state.position)
        cached = self._next_start.get(known.name)
        if cached is None or cached[0] != key:
            try:
                cached = (key, known.next_start(state))
            except Exception:
                self._log_faulty(known.stored)
                cached = (key, None)
            self._next_start[known.name] = cached
        return cached[1] is not None and cached[1] <= now

    def _template_of(self, occurrence: StoredOccurrence) -> str | None:
        known = self._known.get(occurrence.schedule)
        return None if known is None else known.spec.template

    def _slow_templates(self, occurrences: list[StoredOccurrence]) -> set[str]:
        """Returns the templates of these occurrences whose launch waits for a remote, a URL or a preview."""
        definitions = self._context.definitions
        assert definitions is not None
        names = {name for name in map(self._template_of, occurrences) if name is not None}
        found = {name: definitions.find(TEMPLATES.name, name) for name in names}
        return {name for name, stored in found.items() if stored is not None and is_slow(stored.spec)}

    def _start(self, occurrence: StoredOccurrence, still_open: OpenOccurrences, now: datetime) -> StoredOccurrence:
        """Starts the task of a due time; returns what became of it, the same where it is to be tried again."""
        known = self._known.get(occurrence.schedule)
        if known is None:
            return _over(occurrence, "skipped: deleted")
        earlier = still_open.open_tasks(occurrence.schedule)
        locks: tuple[str, ...] = ()
        if earlier and known.spec.overlap == "skip" or len(earlier) > 1 and known.spec.overlap == "queue_one":
            return _over(occurrence, "skipped: overlap", f"task {earlier[-1].task_id} is not final")
        if known.spec.overlap in ("queue_one", "cancel_running"):
            # No request can name such a lock: it has a null byte.
            locks = (f"\0schedule:{known.name}",)
        try:
            task_id = launch(self._context, known, occurrence.due, locks)
        except task_launch.MAY_SUCCEED_LATER as error:
            if now <= known.latest(moment(occurrence.due)):
                log.info("schedule %s starts later: %s", known.name, error)
                return occurrence
            self._tell_late(known, occurrence)
            return _over(occurrence, "failed: the service could not start it", str(error))
        except RequestError as error:
            return _over(occurrence, _refusal(error), error.message)
        except Exception:  # one that cannot be started must not hold up the others
            log.exception("schedule %s cannot be started", known.name)
            return _over(occurrence, "failed: see the log of the web server")
        if known.spec.overlap == "cancel_running":
            # Not before: a start that is refused cancels nothing. Until then the new task waits for the lock.
            for one in earlier:
                try:
                    self._context.store.cancel(one.task_id or "", f"schedule {known.name}")
                except StoreUnavailable as error:
                    log.warning(
                        "task %s goes on, and the next of schedule %s waits: %s", one.task_id, known.name, error
                    )
        return replace(occurrence, outcome=STARTED, task_id=task_id)

    def _prune(self, rows: ScheduleRows, now: datetime) -> None:
        if now.timestamp() >= self._prune_at:
            self._prune_at = now.timestamp() + _PRUNE_SECONDS
            rows.prune(milliseconds(now - KEPT))


def launch(context: WebContext, known: KnownSchedule, due: int, locks: tuple[str, ...]) -> str:
    """Launches the template of a schedule for a due time; returns the task's id, the same each time. Raises what
    template_launch.launch raises."""
    user = context.rbac.users().get(known.stored.owner)
    if user is None:
        raise Forbidden(f"{known.stored.owner}, who owns the schedule, is not in rbac.json.", code="rights_lost")
    key = f"schedule {known.name} {due}"
    wanted = TemplateLaunch(known.spec.template, user, known.spec.values, trigger="schedule", key=key, locks=locks)
    event = task_launch.background_event(user.name, f"schedule {known.name}")
    return template_launch.launch(context, wanted, event).task_id


def _over(occurrence: StoredOccurrence, outcome: str, detail: str | None = None) -> StoredOccurrence:
    return replace(occurrence, outcome=outcome, detail=detail, is_open=False)


def _refusal(error: RequestError) -> str:
    if isinstance(error, Forbidden):
        return "refused: rights"
    if isinstance(error, NotFound):
        return "refused: no template" if error.code == "definition_not_found" else "refused: not there"
    if isinstance(error, InvalidRequest):
        return "refused: values"
    return "skipped: queue is full" if isinstance(error, TooManyRequests) else f"refused: {error.code}"
