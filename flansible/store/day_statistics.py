"""What is counted of tasks as they end, by day: how they ended, playbooks and how long they take, hosts that fail."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flansible.models import FINAL_STATES, State
from flansible.store.connection import PREFIX, Connection, index_name, text, translated
from flansible.store.lua import COMMON

_DAY_SECONDS = 86400


@dataclass
class PlaybookCounts:
    """Runs that Ansible has ended, those of them that failed, and how long all and the longest took."""

    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass
class Counts:
    """days: day since 1970 -> state -> tasks; hosts: in how many runs each failed or was unreachable."""

    days: dict[int, dict[str, int]] = field(default_factory=dict)
    playbooks: dict[str, PlaybookCounts] = field(default_factory=lambda: defaultdict(PlaybookCounts))
    hosts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True)
class WorkerLoad:
    """name: its process, as flansible.system.process_identity names it; slots: how many runs it carries side by side;
    running: how many it does now."""

    name: str
    slots: int
    running: int


# Adds a task that has ended to the counts of its day, everybody's and its user's: by state, by playbook, by hosts that
# failed in it. took: seconds it ran, or nil.
COUNT_END = """
local function count_end(id, user, state, took)
  local day = math.floor(seconds() / 86400)
  local about = list(redis.call('HGET', task_key(id), 'about'))
  for _, key in ipairs({P .. 'stats:' .. day, P .. 'stats:' .. day .. ':' .. user}) do
    local function add(name, number) redis.call('HINCRBYFLOAT', key, name, number) end
    add('state:' .. state, 1)
    local has_room = redis.call('HLEN', key) < 20000
    if has_room and took and about.playbook and (state == 'succeeded' or state == 'failed') then
      local name = about.playbook
      add('runs:' .. name, 1)
      add('seconds:' .. name, took)
      if state == 'failed' then add('failed:' .. name, 1) end
      if took > tonumber(redis.call('HGET', key, 'longest:' .. name) or 0) then
        redis.call('HSET', key, 'longest:' .. name, took)
      end
    end
    for _, host in ipairs(has_room and redis.call('ZRANGEBYSCORE', task_key(id) .. ':hosts', 0, 0) or {}) do
      add('host:' .. host, 1)
    end
    redis.call('EXPIRE', key, 100 * 86400)
  end
end
"""

# Live workers: {name, slots, runs, ...}.
_WORKERS = (
    COMMON
    + """
local running, found = {}, {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'tasks:state:running', 0, 9999)) do
  local worker = redis.call('HGET', task_key(id), 'process') or ''
  running[worker] = (running[worker] or 0) + 1
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', seconds(), '+inf')) do
  table.insert(found, name)
  table.insert(found, redis.call('HGET', P .. 'workers:slots', name) or 0)
  table.insert(found, running[name] or 0)
end
return found
"""
)


class Stats(Connection):
    """Part of Store. Adding up (COUNT_END) is a part of the move that ends a task."""

    def counts(self, user: str | None, days: int) -> Counts:
        """Of the last so many days (UTC), today included; user None: everybody's."""
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

    def waiting_and_running(self, user: str | None) -> tuple[int, int]:
        """How many tasks are queued, and how many run."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for state in (State.QUEUED, State.RUNNING):
                pipeline.zcard(PREFIX + index_name(user, state))
            queued, running = pipeline.execute()
        return int(queued), int(running)

    def workers(self) -> list[WorkerLoad]:
        """Those that live, by name."""
        answer: Any = self._run(_WORKERS)
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
