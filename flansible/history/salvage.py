"""Saves what can be read of a damaged embedded database into a new one. Called by `flansible repair`, while the service
is stopped.

Row by row, past what cannot be read; rows whose task is gone are left out. What search finds is not saved: the archiver
makes it anew.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from flansible.errors import HistoryUnavailable
from flansible.history.database import DAMAGED, SQLITE, Database
from flansible.history.migrate import migrate

_BESIDE = ("-wal", "-shm")
_MADE_ANEW = ("search_record", "search_output", "search_pieces", "search_backfill", "alembic_version", "sqlite_")
_LAST_ROWID = 1 << 53


def mend(file: Path) -> list[str]:
    """Replaces a damaged database by a new one with all that can be read of it, and keeps the damaged one beside it.

    Returns lines for the operator, none where nothing is damaged. Raises HistoryUnavailable, OSError.
    """
    with closing(Database(f"{SQLITE}{file}")) as database:
        try:
            database.check()
            return []
        except HistoryUnavailable as error:
            if error.reason != DAMAGED:
                raise
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{quote(bytes(file))}?mode=rw", uri=True)) as source:
            lines = _save(source, new)
    except sqlite3.Error as error:
        reason = f"cannot be mended: {error}; restore a backup"
        raise HistoryUnavailable(f"the history database {file} {reason}", reason) from error
    kept = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for end in _BESIDE:
        beside = file.with_name(f"{file.name}{end}")
        if beside.exists():
            beside.rename(f"{kept}{end}")
    file.rename(kept)
    new.rename(file)
    return [*lines, f"The damaged file is kept: {kept}", "The first worker makes the tasks searchable again"]


def _save(source: sqlite3.Connection, new: Path) -> list[str]:
    source.text_factory = lambda data: data.decode(errors="replace")
    version = source.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    with closing(Database(f"{SQLITE}{new}")) as database:
        migrate(database, version)
    lines = []
    with closing(sqlite3.connect(new)) as target, target:
        target.execute("PRAGMA synchronous = FULL")
        target.execute("DELETE FROM archiver")
        for name in _tables(target):
            count, is_whole = _copy(source, target, name)
            if not is_whole:
                lines.append(f"{name}: {count} rows could be read; others are lost")
        while orphans := target.execute("PRAGMA foreign_key_check").fetchall():
            for name, rowid, *_ in orphans:
                target.execute(f'DELETE FROM "{name}" WHERE rowid = ?', (rowid,))  # noqa: S608  # nosec B608
        target.execute("INSERT OR IGNORE INTO archiver (id, token) VALUES (1, 0)")
        if target.execute("SELECT 1 FROM sqlite_master WHERE name = 'search_backfill'").fetchone():
            target.execute("UPDATE search_backfill SET next_key = (SELECT max(key) FROM tasks)")
        if "scope_key" in (row[1] for row in target.execute("PRAGMA table_info(tasks)")):
            target.execute("UPDATE tasks SET scope_key = NULL")  # what is known of hosts is entered again
        saved = target.execute("SELECT count(*) FROM tasks").fetchone()[0]
    return [f"Saved {saved} tasks of the history", *lines]


def _tables(target: sqlite3.Connection) -> list[str]:
    names = target.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [name for (name,) in names if not name.startswith(_MADE_ANEW)]


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, name: str) -> tuple[int, bool]:
    """Copies a table; returns how many rows, and whether nothing was in the way."""
    columns = [row[1] for row in target.execute(f'PRAGMA table_info("{name}")')]
    listed = ", ".join(f'"{column}"' for column in columns)
    marks = ", ".join("?" for _ in columns)
    insert = f'INSERT OR IGNORE INTO "{name}" ({listed}) VALUES ({marks})'  # noqa: S608  # nosec B608
    reader = _Rows(source, f'SELECT rowid, {listed} FROM "{name}" NOT INDEXED')  # noqa: S608  # nosec B608
    count = 0
    for row in reader.read():
        count += target.execute(insert, row[1:]).rowcount
    return count, reader.is_whole


class _Rows:
    """The rows of a table, by their number; where some cannot be read, those after them."""

    def __init__(self, source: sqlite3.Connection, select: str) -> None:
        self._source = source
        self._select = select
        self.is_whole = True

    def read(self) -> Iterator[tuple[object, ...]]:
        last, step = -1, 1
        while last < _LAST_ROWID:
            try:
                for row in self._source.execute(f"{self._select} WHERE rowid > ? ORDER BY rowid", (last,)):
                    last, step = row[0], 1
                    yield row
                return
            except sqlite3.DatabaseError:
                self.is_whole = False
                last, step = last + step, 2 * step
