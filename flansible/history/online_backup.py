"""Copies the embedded history database while it is written to, by SQLite's backup API. Called by `flansible backup`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from flansible.errors import HistoryUnavailable

_BUSY_SECONDS = 60.0


def copy_database(source: Path, target: Path) -> int:
    """Copies the database as it is at one moment; returns the version of its tables. Writers do not wait.

    Raises HistoryUnavailable.
    """
    try:
        # Opened for writing: a database in WAL mode may need its -shm file made.
        with (
            closing(sqlite3.connect(f"file:{quote(bytes(source))}?mode=rw", uri=True, timeout=_BUSY_SECONDS)) as opened,
            closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as copy,
        ):
            opened.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # so that the copy is one file
            return _version(copy)
    except sqlite3.Error as error:
        reason = f"cannot be copied: {error}"
        raise HistoryUnavailable(f"the history database {source} {reason}", reason) from error


def version_of(file: Path) -> int:
    """Returns the version of the tables in a copy. Raises HistoryUnavailable."""
    try:
        with closing(sqlite3.connect(f"file:{quote(bytes(file))}?mode=ro&immutable=1", uri=True)) as opened:
            return _version(opened)
    except sqlite3.Error as error:
        reason = f"cannot be read: {error}"
        raise HistoryUnavailable(f"the history database in the backup {reason}", reason) from error


def _version(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    if found is None:
        return 0
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return int(row[0]) if row else 0
