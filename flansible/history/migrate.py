"""Migrates the database: a process of its own (`python -m flansible.history.migrate`), started by upgrade.py.

Reads the URL from standard input, as it may hold a password. All migrations that are due are one transaction, so one
that is killed leaves the tables as they were. Of several processes that begin at the same time one migrates: the others
wait for its lock, and then find nothing left to do.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from flansible.errors import ConfigurationError, HistoryUnavailable
from flansible.history.database import Database
from flansible.history.upgrade import EXIT_NEWER, EXIT_UNAVAILABLE, MIGRATION_SECONDS

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x666C616E  # a number of ours among PostgreSQL's advisory locks


def migrate(database: Database, to: str = "head") -> None:
    """Migrates as far as the newest migration. to: an earlier one, for tests. Raises HistoryUnavailable."""
    # The folder is a package of ours, whose files are called v<number>_<what>.py.
    script = ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER)])

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(to, revision)

    with database.writing() as connection:
        if not database.is_sqlite:  # SQLite's transactions that write exclude each other
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        with EnvironmentContext(Config(), script, fn=steps) as environment:
            environment.configure(connection=connection, transactional_ddl=True)
            environment.run_migrations()


def main(url: str) -> int:
    try:
        with closing(Database(url, MIGRATION_SECONDS)) as database:
            database.require_known_version()
            migrate(database)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_NEWER
    except HistoryUnavailable as error:
        print(error.reason, file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(os.fsdecode(sys.stdin.buffer.read())))
