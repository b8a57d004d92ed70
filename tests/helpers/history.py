"""History databases of the tests: SQLite's in a folder, PostgreSQL's on the server of this process of the test run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from flansible.history.database import Database
from flansible.history.migrate import migrate
from tests.helpers.postgresql import PostgresqlServer

KINDS = ("sqlite", "postgresql")
# For a web server of a test, whose Redis is not the embedded one (`before` of WebServer).
EMBEDDED = """
from flansible import config
config.Settings.database_url = property(lambda settings: f"sqlite:///{settings.data_dir}/history.sqlite3")
"""


class Databases:
    """Makes databases that are migrated already, as copies of one."""

    def __init__(self, server: PostgresqlServer) -> None:
        self.server = server
        self._template: str | None = None  # PostgreSQL's name of the one that is copied

    def empty(self, kind: str, folder: Path) -> str:
        """Returns the URL of a database without tables."""
        if kind == "sqlite":
            return f"sqlite:///{folder}/history.sqlite3"
        return self.server.url(self.server.new_database())

    def migrated(self, kind: str, folder: Path) -> str:
        """Returns the URL of a database with the tables of this version, and nothing in them."""
        if kind == "sqlite":
            copy_migrated(folder)
            return f"sqlite:///{folder}/history.sqlite3"
        if self._template is None:
            url = self.empty(kind, folder)
            with opened(url) as database:
                migrate(database)
            self._template = url.rpartition("/")[2]
        return self.server.url(self.server.new_database(self._template))


def copy_migrated(folder: Path) -> None:
    """Puts an embedded database with the tables of this version into a data_dir."""
    shutil.copy(_migrated_file(), folder / "history.sqlite3")


@cache
def _migrated_file() -> Path:
    """Made once in each process of the test run; it goes with the process's TMPDIR."""
    file = Path(tempfile.mkdtemp(prefix="fl-history-")) / "history.sqlite3"
    with opened(f"sqlite:///{file}") as database:
        migrate(database)
    return file


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
