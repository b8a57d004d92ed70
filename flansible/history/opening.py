"""Opens the records as the settings have them: Redis alone, or with the history database."""

from __future__ import annotations

from flansible.config import Settings
from flansible.history.archive import Archive
from flansible.history.merged_records import Records
from flansible.store import Retention
from flansible.store.connection import REPLY_TIMEOUT_SECONDS

# What waits for the database must still be there when it is back after months.
_WAITING_DAYS = 3650


def redis_retention(settings: Settings) -> Retention:
    """Returns what Redis deletes by itself: nothing that is to be archived."""
    if settings.database_url:
        return Retention(_WAITING_DAYS, 0, 0)
    return Retention(settings.kept_days, settings.kept_tasks, settings.retention_bytes)


def open_records(settings: Settings, reply_seconds: float = REPLY_TIMEOUT_SECONDS) -> Records:
    """Returns the records of both places; connects at the first use. Raises ConfigurationError for a DATABASE_URL that
    cannot be used."""
    url = settings.database_url
    archive = Archive(url, reply_seconds) if url else None
    return Records(settings.store_url, archive, redis_retention(settings), reply_seconds)
