"""Opens the records as the settings have them: Redis alone, or with the history database; and says where that is."""

from __future__ import annotations

from pathlib import Path

from flansible.config import Settings
from flansible.history.archive import Archive
from flansible.history.database import SQLITE
from flansible.history.limits import redis_retention
from flansible.history.merged_records import Records
from flansible.store.connection import REPLY_TIMEOUT_SECONDS


def embedded_file(settings: Settings) -> Path | None:
    """Returns the file of the embedded database; None where there is none, or none yet."""
    url = settings.database_url or ""
    file = Path(url.removeprefix(SQLITE))
    return file if url.startswith(SQLITE) and file.exists() else None


def open_records(settings: Settings, reply_seconds: float = REPLY_TIMEOUT_SECONDS) -> Records:
    """Returns the records of both places; connects at the first use. Raises ConfigurationError for a DATABASE_URL that
    cannot be used."""
    url = settings.database_url
    archive = Archive(url, reply_seconds) if url else None
    return Records(settings.store_url, archive, redis_retention(settings), reply_seconds)
