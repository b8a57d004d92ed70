"""Statistics: queued and running tasks, workers, and the outcomes of the last days."""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import nlargest

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from flansible.models import DayStats, HostStats, PlaybookStats, ServiceStats, WorkerStats
from flansible.store import Counts
from flansible.system import process_identity
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import parse_query

_DAY_SECONDS = 86400
_MOST = 20


class StatsQuery(BaseModel):
    """`?days=` of the statistics."""

    model_config = ConfigDict(extra="forbid")

    days: int = Field(30, ge=1, le=90, description="Number of days, today included (UTC).")


class StatsResource(PrivateResource):
    """Statistics of the caller's tasks; of all users' tasks for admin and auditors. Kept for 90 days."""

    def get(self) -> Response:
        """Read statistics"""
        query = parse_query(StatsQuery)
        user, store = current_user(), web_context().store
        whose = None if user.sees_all else user.name
        queued, running = store.queued_and_running(whose)
        counts = store.counts(whose, query.days)
        found = ServiceStats(
            queued=queued,
            running=running,
            workers=[
                WorkerStats(name=process_identity.describe(load.name), slots=load.slots, running=load.running)
                for load in store.workers()
            ],
            days=[DayStats(day=_date(day), **states) for day, states in counts.days.items()],
            playbooks=_slowest(counts),
            hosts=[
                HostStats(host=host, failed=failed)
                for host, failed in nlargest(_MOST, counts.hosts.items(), key=lambda pair: (pair[1], pair[0]))
            ],
            everybody=user.sees_all,
        )
        return jsonify(found.model_dump())


def _slowest(counts: Counts) -> list[PlaybookStats]:
    found = [
        PlaybookStats(
            playbook=name,
            runs=of.runs,
            failed=of.failed,
            mean_seconds=round(of.seconds / of.runs, 3),
            longest_seconds=round(of.longest, 3),
        )
        for name, of in counts.playbooks.items()
        if of.runs
    ]
    return nlargest(_MOST, found, key=lambda one: one.mean_seconds)


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_SECONDS, UTC).date().isoformat()
