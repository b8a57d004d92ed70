"""How long and how much is kept, in Redis and in the history database. Without SQL: a worker loads this."""

from __future__ import annotations

from typing import NamedTuple

from flansible.config import Settings
from flansible.store import Retention

# What waits for the database must still be there when it is back after months.
_WAITING_DAYS = 3650


class HistoryLimits(NamedTuple):
    """How long and how much is kept; 0 is no limit. output_days: output and events, which go before their task."""

    days: int
    tasks: int = 0
    bytes: int = 0
    output_days: int = 0


def history_limits(settings: Settings) -> HistoryLimits:
    """Returns what the history database keeps."""
    kept = (settings.kept_days, settings.kept_tasks, settings.retention_bytes)
    return HistoryLimits(*kept, settings.retention_output_days)


def redis_retention(settings: Settings) -> Retention:
    """Returns what Redis deletes by itself: nothing that is to be archived."""
    if settings.database_url:
        return Retention(_WAITING_DAYS, 0, 0)
    return Retention(settings.kept_days, settings.kept_tasks, settings.retention_bytes)
