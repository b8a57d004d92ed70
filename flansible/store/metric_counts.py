"""Counters of GET /metrics: written by the scripts that count, and by web processes for the requests they answered.

They are in one hash, `flansible:metrics`, whose fields are `<what>:<labels>`; a duration's bucket has its upper bound
last (lua/common/metrics.lua). They fall only where Redis loses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flansible.models import State
from flansible.store import keys
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import index_key

# As in lua/common/metrics.lua: seconds.
BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0, 86400.0)
_HTTP, _SUCCESS = "http", "schedule_success"


class AnsweredRequest(NamedTuple):
    """What requests are counted by. route: a declared one, or `other`; method: one that some route has, or `other`."""

    method: str
    route: str
    status: int


@dataclass(frozen=True)
class Durations:
    """A histogram. buckets: up to each of BOUNDS, and one more above them; not cumulative."""

    buckets: tuple[int, ...]
    sum_seconds: float


@dataclass(frozen=True)
class MetricsSnapshot:
    """The counters, by field, and the queue of this moment. unarchived: final tasks in Redis; None: no such task."""

    counters: Mapping[str, float]
    queued: int
    running: int
    oldest_queued_seconds: float | None
    workers: int
    slots: int
    unarchived: int
    oldest_unarchived_seconds: float | None

    def count(self, *labels: str) -> float:
        return self.counters.get(":".join(labels), 0.0)

    def durations(self, *labels: str) -> Durations:
        names = [f"{bound:g}" for bound in BOUNDS] + ["+Inf"]
        return Durations(tuple(int(self.count(*labels, name)) for name in names), self.count(*labels, "sum"))

    def requests(self) -> dict[AnsweredRequest, int]:
        found = {}
        for field, number in self.counters.items():
            what, _, labels = field.partition(":")
            if what == _HTTP:
                method, status, route = labels.split(":", 2)
                found[AnsweredRequest(method, route, int(status))] = int(number)
        return found

    def schedule_successes(self) -> dict[str, float]:
        """Returns when each schedule was last seen to have succeeded, in seconds since 1970."""
        fields = ((field.partition(":"), at) for field, at in self.counters.items())
        return {name: at for (what, _, name), at in fields if what == _SUCCESS}


class MetricCounts(Connection):
    """The part of Store for GET /metrics."""

    def count_requests(self, counts: Mapping[AnsweredRequest, int]) -> None:
        """Adds requests that this process has answered. One round trip."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            for answered, number in counts.items():
                field = f"{_HTTP}:{answered.method}:{answered.status}:{answered.route}"
                pipeline.hincrby(keys.METRICS, field, number)
            pipeline.execute()

    def count_delivery(self, kind: str, outcome: str) -> None:
        """Counts an attempt to deliver a notification."""
        with translated():
            self._redis.hincrby(keys.METRICS, f"deliveries:{kind}:{outcome}", 1)

    def count_schedule_skips(self, counts: Mapping[str, int]) -> None:
        """Adds due times of schedules that started nothing, by reason."""
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            for reason, number in counts.items():
                pipeline.hincrby(keys.METRICS, f"schedule_skips:{reason}", number)
            pipeline.execute()

    def note_schedule_success(self, name: str, at: float) -> None:
        """Notes when a task of a schedule was seen to have succeeded, in seconds since 1970."""
        with translated():
            self._redis.hset(keys.METRICS, f"{_SUCCESS}:{name}", at)

    def keep_schedule_successes(self, names: Iterable[str]) -> None:
        """Forgets the successes of all other schedules."""
        kept = {f"{_SUCCESS}:{name}" for name in names}
        with translated():
            found: Any = self._redis.hkeys(keys.METRICS)
            fields = [field for one in found if (field := text(one)).startswith(f"{_SUCCESS}:")]
            if gone := [field for field in fields if field not in kept]:
                self._redis.hdel(keys.METRICS, *gone)

    def metrics(self) -> MetricsSnapshot:
        names = [keys.METRICS, index_key(None, State.QUEUED), index_key(None, State.RUNNING)]
        answer: Any = self._run("metrics", [*names, keys.WORKERS, keys.WORKER_SLOTS, keys.EXPIRING])
        flat, queued, running, oldest, workers, slots, unarchived, first_ended = answer
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return MetricsSnapshot(
            {text(name): float(number) for name, number in pairs},
            int(queued),
            int(running),
            _seconds(oldest),
            int(workers),
            int(slots),
            int(unarchived),
            _seconds(first_ended),
        )


def _seconds(value: bytes) -> float | None:
    return float(value) if value else None
