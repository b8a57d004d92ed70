"""Writes the figures of the store in Prometheus' text format. All processes' figures are there, and in no process.

Labels have declared values only: kinds, states, routes, statuses, reasons, and names of schedules that there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from flansible.definitions.schedule_decisions import NO_STARTS
from flansible.models import FINAL_STATES, Kind
from flansible.models.notification_specs import NotificationKind
from flansible.store import METRIC_BOUNDS, Durations, MetricsSnapshot

__all__ = ["CONTENT_TYPE", "text"]

_KINDS = get_args(Kind)
_STARTS = ("warm", "forked", "cold")
_LABELS = [f"{bound:g}" for bound in METRIC_BOUNDS] + ["+Inf"]


def text(found: MetricsSnapshot, version: str, *, has_archive: bool) -> bytes:
    """Returns the whole reply. has_archive: whether final tasks move to a history database."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(found, version, has_archive))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, found: MetricsSnapshot, version: str, has_archive: bool) -> None:
        self._found = found
        self._version = version
        self._has_archive = has_archive

    def collect(self) -> Iterator[Metric]:
        yield _gauge("flansible_build_info", "The version that answers.", 1, version=self._version)
        yield from self._tasks()
        yield from self._now()
        yield from self._workers()
        yield self._requests()
        yield from self._deliveries()
        yield from self._schedules()

    def _tasks(self) -> Iterator[Metric]:
        submitted = CounterMetricFamily("flansible_tasks_submitted", "Tasks that were submitted.", labels=["kind"])
        final = CounterMetricFamily("flansible_tasks_finished", "Final tasks, by state.", labels=["kind", "state"])
        took = HistogramMetricFamily("flansible_run_duration_seconds", "How long runs took.", labels=["kind"])
        waited = HistogramMetricFamily(
            "flansible_task_wait_seconds", "From a task's submission to its first start.", labels=["kind"]
        )
        for kind in _KINDS:
            submitted.add_metric([kind], self._found.count("submitted", kind))
            for state in sorted(FINAL_STATES):
                final.add_metric([kind, state.value], self._found.count("tasks", kind, state.value))
            _add(took, kind, self._found.durations("run", kind))
            _add(waited, kind, self._found.durations("wait", kind))
        yield from (submitted, final, took, waited)

    def _now(self) -> Iterator[Metric]:
        found = self._found
        yield _gauge("flansible_tasks_queued", "Tasks that are queued.", found.queued)
        yield _gauge(
            "flansible_queue_oldest_seconds",
            "Seconds since the oldest queued task was submitted.",
            found.oldest_queued_seconds or 0,
        )
        yield _gauge("flansible_tasks_running", "Tasks that are running.", found.running)
        if self._has_archive:
            yield _gauge("flansible_archive_waiting_tasks", "Final tasks that are still in Redis.", found.unarchived)
            yield _gauge(
                "flansible_archive_delay_seconds",
                "Seconds since the first final task ended that is still in Redis.",
                found.oldest_unarchived_seconds or 0,
            )

    def _workers(self) -> Iterator[Metric]:
        yield _gauge("flansible_workers", "Live workers.", self._found.workers)
        yield _gauge("flansible_worker_slots", "Runs that the live workers can have at a time.", self._found.slots)
        starts = CounterMetricFamily(
            "flansible_run_starts",
            "How runs found Ansible: loaded with their configuration (warm), forked, or to be loaded (cold).",
            labels=["start"],
        )
        for start in _STARTS:
            starts.add_metric([start], self._found.count("starts", start))
        yield starts
        evicted = CounterMetricFamily("flansible_fork_servers_evicted", "Fork servers ended to make room for others.")
        evicted.add_metric([], self._found.count("starts", "evicted"))
        yield evicted

    def _requests(self) -> Metric:
        counted = CounterMetricFamily(
            "flansible_http_requests",
            "Requests that the app has answered, by route and status.",
            labels=["method", "route", "code"],
        )
        for answered, number in sorted(self._found.requests().items()):
            counted.add_metric([answered.method, answered.route, str(answered.status)], number)
        return counted

    def _deliveries(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily(
            "flansible_delivery_attempts", "Attempts to deliver notifications.", labels=["kind", "outcome"]
        )
        for kind in (*get_args(NotificationKind), "callback"):
            for outcome in ("delivered", "failed", "dead"):
                attempts.add_metric([kind, outcome], self._found.count("deliveries", kind, outcome))
        yield attempts
        lost = CounterMetricFamily("flansible_outbox_lost", "Entries of a full outbox that were never delivered.")
        lost.add_metric([], self._found.count("outbox", "lost"))
        yield lost

    def _schedules(self) -> Iterator[Metric]:
        success = GaugeMetricFamily(
            "flansible_schedule_last_success_timestamp_seconds",
            "When a task of the schedule was last seen to have succeeded.",
            labels=["schedule"],
        )
        for name, at in sorted(self._found.schedule_successes().items()):
            success.add_metric([name], at)
        yield success
        skips = CounterMetricFamily(
            "flansible_schedule_skips", "Due times of schedules that started nothing.", labels=["reason"]
        )
        for reason in NO_STARTS:
            skips.add_metric([reason.replace(" ", "_")], self._found.count("schedule_skips", reason))
        yield skips


def _gauge(name: str, about: str, value: float, **labels: str) -> Metric:
    found = GaugeMetricFamily(name, about, labels=list(labels))
    found.add_metric(list(labels.values()), value)
    return found


def _add(family: HistogramMetricFamily, kind: str, found: Durations) -> None:
    buckets = list(zip(_LABELS, accumulate(found.buckets), strict=True))
    family.add_metric([kind], buckets=buckets, sum_value=found.sum_seconds)
