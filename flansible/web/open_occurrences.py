"""Reads the due times of schedules that are not over, and writes what becomes of them, for one round of the scheduler.

A due time is over once its start was refused, or the task that it has started is final. Tasks that ended one after
another without success may pause their schedule (`pause_after_failures`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from flansible.definitions.schedule_decisions import KnownSchedule, milliseconds, reason_of
from flansible.history.schedule_rows import STARTING, ScheduleRows, StoredOccurrence
from flansible.models import FINAL_STATES, State
from flansible.web.context import WebContext


class OpenOccurrences:
    """The occurrences that are not over when a round begins, and those that it settles. begun: without a task yet."""

    def __init__(self, context: WebContext, rows: ScheduleRows, known: dict[str, KnownSchedule], now: datetime) -> None:
        self._context = context
        self._rows = rows
        self._now = milliseconds(now)
        self._known = known
        self._settled: list[StoredOccurrence] = []
        self._ended: list[tuple[StoredOccurrence, bool]] = []
        found = rows.waiting()
        self.begun = [one for one in found if one.task_id is None]
        self._open: dict[str, list[StoredOccurrence]] = {}
        started = [one for one in found if one.task_id is not None]
        positions = context.store.positions([one.task_id or "" for one in started]) if started else {}
        for one in started:
            position = positions.get(one.task_id or "")
            state = position.state if position else None
            if state is None or state in FINAL_STATES:
                self._ended.append((one, state is State.SUCCEEDED))
            else:
                self._open.setdefault(one.schedule, []).append(one)

    @property
    def is_empty(self) -> bool:
        return not (self.begun or self._open or self._ended)

    def open_tasks(self, name: str) -> list[StoredOccurrence]:
        """Returns the occurrences of a schedule whose task is not final."""
        return self._open.get(name, [])

    def settle(self, found: StoredOccurrence) -> None:
        if found.outcome != STARTING:
            self._settled.append(found)
        if found.task_id is not None and found.is_open:
            self._open.setdefault(found.schedule, []).append(found)

    def write(self) -> None:
        """Writes what was settled since the last time, and counts tasks that have ended."""
        if not self._settled and not self._ended:
            return
        with self._rows.writing() as writer:
            for one in self._settled:
                writer.settle(replace(one, recorded=self._now))
            states = writer.states() if self._ended else {}
            for one, is_good in self._ended:
                writer.settle(replace(one, is_open=False))
                known, state = self._known.get(one.schedule), states.get(one.schedule)
                if known is None or state is None:
                    continue
                state = replace(state, failures=0 if is_good else state.failures + 1)
                most = known.spec.pause_after_failures
                if most is not None and state.failures >= most and not known.is_paused(state):
                    note = f"{state.failures} tasks in a row did not succeed"
                    state = replace(state, paused=True, paused_by="failures", note=note)
                states[one.schedule] = state
                writer.set_state(state)
        count_skips(self._context, self._settled)
        for name in {one.schedule for one, is_good in self._ended if is_good and one.schedule in self._known}:
            self._context.store.note_schedule_success(name, self._now / 1000)
        self._settled, self._ended = [], []


def count_skips(context: WebContext, found: Iterable[StoredOccurrence]) -> None:
    """Counts, for /metrics, why these due times have started nothing."""
    reasons = Counter(reason for one in found if (reason := reason_of(one.outcome)) is not None)
    if reasons:
        context.store.count_schedule_skips(reasons)
