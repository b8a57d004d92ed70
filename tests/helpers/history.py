"""History databases of the tests: SQLite's in a folder, PostgreSQL's on the server of this process of the test run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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

    def __init__(self, folder: Path, server: PostgresqlServer) -> None:
        self.server = server
        self._folder = folder
        self._templates: dict[str, str] = {}

    def empty(self, kind: str, folder: Path) -> str:
        """Returns the URL of a database without tables."""
        if kind == "sqlite":
            return f"sqlite:///{folder}/history.sqlite3"
        return self.server.url(self.server.new_database())

    def migrated(self, kind: str, folder: Path) -> str:
        """Returns the URL of a database with the tables of this version, and nothing in them."""
        if kind == "sqlite":
            template = self._template("sqlite")
            shutil.copy(template.removeprefix("sqlite:///"), folder / "history.sqlite3")
            return f"sqlite:///{folder}/history.sqlite3"
        template = self._template("postgresql").rpartition("/")[2]
        return self.server.url(self.server.new_database(template))

    def _template(self, kind: str) -> str:
        if kind not in self._templates:
            url = self.empty(kind, self._folder)
            with opened(url) as database:
                migrate(database)
            self._templates[kind] = url
        return self._templates[kind]


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
