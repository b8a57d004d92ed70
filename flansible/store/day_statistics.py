"""Statistics by day, counted when tasks end: their states, playbooks and how long they take, hosts that fail."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flansible.models import FINAL_STATES, State
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import PREFIX, WORKER_SLOTS, WORKERS, index_key

_DAY_SECONDS = 86400


@dataclass
class PlaybookCounts:
    """Runs of a playbook that Ansible ended, how many of them failed, seconds of all of them and of the longest."""

    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass
class Counts:
    """Statistics of some days. days: day since 1970 -> state -> tasks; hosts: in how many runs each failed or was
    unreachable."""

    days: dict[int, dict[str, int]] = field(default_factory=dict)
    playbooks: dict[str, PlaybookCounts] = field(default_factory=lambda: defaultdict(PlaybookCounts))
    hosts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True)
class WorkerLoad:
    """A live worker. name: its process, as flansible.system.process_identity writes it; slots: how many runs it can
    have at a time; running: how many it has reported, those included that it is ending."""

    name: str
    slots: int
    running: int


class Stats(Connection):
    """The part of Store for statistics. `lua/move.lua` counts a task when it makes it final."""

    def counts(self, user: str | None, days: int) -> Counts:
        """Reads the statistics of the last days (UTC), today included. user None: those of all users."""
        today = int(time.time()) // _DAY_SECONDS
        wanted = range(today - days + 1, today + 1)
        pipeline = self._redis.pipeline(transaction=False)
        for day in wanted:
            pipeline.hgetall(f"{PREFIX}stats:{day}" + (f":{user}" if user is not None else ""))
        with translated():
            rows = pipeline.execute()
        found = Counts()
        for day, row in zip(wanted, rows, strict=True):
            found.days[day] = {state.value: 0 for state in FINAL_STATES}
            for name, number in row.items():
                _add(found, day, text(name), float(number))
        return found

    def queued_and_running(self, user: str | None) -> tuple[int, int]:
        """Returns how many tasks are queued, and how many are running. user None: of all users."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for state in (State.QUEUED, State.RUNNING):
                pipeline.zcard(index_key(user, state))
            queued, running = pipeline.execute()
        return int(queued), int(running)

    def workers(self) -> list[WorkerLoad]:
        """Lists the live workers by name."""
        answer: Any = self._run("workers", [WORKERS, WORKER_SLOTS])
        rows = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return sorted((WorkerLoad(text(name), int(slots), int(runs)) for name, slots, runs in rows), key=_by_name)


def _add(found: Counts, day: int, name: str, number: float) -> None:
    what, _, of = name.partition(":")
    if what == "state":
        found.days[day][of] = int(number)
    elif what == "host":
        found.hosts[of] += int(number)
    elif what == "runs":
        found.playbooks[of].runs += int(number)
    elif what == "failed":
        found.playbooks[of].failed += int(number)
    elif what == "seconds":
        found.playbooks[of].seconds += number
    elif what == "longest":
        found.playbooks[of].longest = max(found.playbooks[of].longest, number)


def _by_name(load: WorkerLoad) -> str:
    return load.name
