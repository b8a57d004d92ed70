"""The connection to the database: its engine, timeouts, and the translation of its errors into ours.

Opened at the first use; threads may share it, processes after a fork may not. Nothing that is raised or logged quotes
the URL, which may hold a password, or a value of a statement.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, pool, text
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from flansible.errors import ConfigurationError, Fault, HistoryUnavailable
from flansible.history.schema import VERSION

SQLITE = "sqlite:///"
CONNECT_TIMEOUT_SECONDS = 3
_POOL_CONNECTIONS, _MORE_CONNECTIONS = 5, 60  # the request threads of a process; SQLite's cost a few descriptors each
_WRITES = "flansible_writes"
# What a machine that has lost power may lose is what was committed last; the archiver has removed that from Redis by
# then. So each commit is on the disk: one fsync for a task.
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864")
# SQLite's result codes (https://www.sqlite.org/rescode.html), and PostgreSQL's classes of errors.
_SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: "is busy: another process writes to it",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_READONLY: "cannot be written: its file is read-only",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error, or is full",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
}
_POSTGRESQL_REASONS = {
    "08": "does not answer",
    "28": "refuses the user or password of DATABASE_URL",
    "3D": "does not exist on its server: create it",
    "25006": "is read-only",
    "40": "is busy: another transaction was in the way",
    "42501": "does not permit its user what is needed (GRANT)",
    "53100": "cannot be written: the disk of its server is full",
    "53": "has no connection or memory left",
    "57014": "does not answer in time",
    "55P03": "is busy: a lock is held for too long",
    "55": "is busy: what is needed is in use",
    "57": "is being stopped, or is starting",
    "58": "cannot read or write: its server's disk or system reports an error",
}
# What refuses a connection comes as text alone.
_CONNECT_REASONS = {
    "authentication failed": "refuses the user or password of DATABASE_URL",
    "no pg_hba.conf entry": "does not let this machine connect (pg_hba.conf)",
    "does not exist": "does not exist on its server, or its user does not",
    "starting up": "is starting",
    "shutting down": "is being stopped",
    "too many clients": "has no connection left (max_connections)",
    "remaining connection slots": "has no connection left (max_connections)",
}
REFUSED = "refused a statement; the log has the details"
DAMAGED = "is damaged"
_DAMAGED_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """One history database. url: of DATABASE_URL, or of the embedded file; reply_seconds: what one statement may take
    (PostgreSQL), or wait for the lock of another process (SQLite)."""

    def __init__(self, url: str, reply_seconds: float = 10.0) -> None:
        """Raises ConfigurationError where the driver is missing or the URL cannot be read."""
        self.url = url
        self.file = Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None
        self._reply_seconds = reply_seconds
        self._damage: tuple[tuple[int, int] | None, str] = (None, "")  # of which file, and what is said
        try:
            self._engine = self._sqlite() if self.file else self._postgresql(url)
        except ImportError:
            message = "needs psycopg, which is not installed: pip install 'flansible[postgresql]'"
            raise ConfigurationError([Fault("config", "DATABASE_URL", message)]) from None
        except (ArgumentError, ValueError):
            raise ConfigurationError([Fault("config", "DATABASE_URL", "is not a URL of PostgreSQL")]) from None

    @property
    def name(self) -> str:
        """The product, for people."""
        return "SQLite" if self.file else "PostgreSQL"

    @property
    def is_sqlite(self) -> bool:
        return self.file is not None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Opens a transaction that only reads; what it reads is of one moment in SQLite. Raises HistoryUnavailable."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Opens a transaction that is committed at the end, and rolled back by any error. Raises HistoryUnavailable."""
        with self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def version(self) -> int:
        """Returns the version of its tables, 0 for a database without any. Raises HistoryUnavailable."""
        if self.file and not self.file.exists() and self.file.parent.is_dir():
            return 0
        with self.reading() as connection:
            if not self._engine.dialect.has_table(connection, "alembic_version"):
                return 0
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return int(found or 0)

    def require_known_version(self) -> int:
        """Returns the version. Raises ConfigurationError when it is of a later Flansible: a downgrade would write what
        that one cannot read."""
        found = self.version()
        if found > VERSION:
            message = f"the history database has version {found}, this Flansible knows {VERSION} and earlier ones: "
            message += "run the newer Flansible again, or restore the backup that was made before it"
            raise ConfigurationError([Fault("history", "DATABASE_URL", message)])
        return found

    def damage(self) -> str:
        """Returns what was found damaged in the present file so far, '' for nothing."""
        found, message = self._damage
        return message if message and found == self._identity() else ""

    def check(self) -> None:
        """Reads all of an embedded database. Raises HistoryUnavailable for the first damage; takes seconds for each GB.
        A server of PostgreSQL checks its own."""
        if self.file is None or not self.file.exists():
            return
        with self.reading() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
        if found != "ok":
            raise HistoryUnavailable(self._damaged(str(found)), DAMAGED)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _sqlite(self) -> Engine:
        assert self.file is not None
        engine = create_engine(
            URL.create("sqlite", database=str(self.file)),
            hide_parameters=True,
            poolclass=pool.QueuePool,
            pool_size=_POOL_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_timeout=self._reply_seconds,
            connect_args={"timeout": self._reply_seconds, "check_same_thread": False},
        )
        event.listen(engine, "do_connect", self._make_private)
        event.listen(engine, "connect", self._prepare_sqlite)
        event.listen(engine, "checkout", self._refuse_replaced)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _postgresql(self, url: str) -> Engine:
        milliseconds = int(self._reply_seconds * 1000)
        return create_engine(
            make_url(url),
            hide_parameters=True,
            pool_size=_POOL_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_timeout=self._reply_seconds,
            pool_pre_ping=True,  # after a restart of the server no request fails
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": "flansible",
                "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
                "-c idle_in_transaction_session_timeout=60000",
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15000,
            },
        )

    def _make_private(self, *_: Any) -> None:
        """Makes the file, which SQLite would make readable for others; what SQLite puts beside it has its mode.

        A file that exists is not opened: to close it would drop the locks that this process's other connections have on
        it, and the next process to close would delete the WAL that they go on writing to.
        """
        assert self.file is not None
        try:
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            reason = "cannot be opened"
            raise HistoryUnavailable(f"the history database {reason}: {self.file}: {error.strerror}", reason) from error

    def _prepare_sqlite(self, connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # sqlite3 would begin transactions as it sees fit; `_begin_sqlite` does it
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        record.info["file"] = self._identity()

    def _refuse_replaced(self, _connection: Any, record: Any, _proxy: Any) -> None:
        """Has a connection made anew whose file was removed or replaced: it would go on with the one that is gone."""
        if record.info.get("file") != self._identity():
            raise DisconnectionError("the file was replaced")

    def _identity(self) -> tuple[int, int] | None:
        assert self.file is not None
        try:
            status = os.stat(self.file)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason, detail = self._reason(error)
            raise HistoryUnavailable(f"{self._subject} {reason}{detail}", reason) from error

    @property
    def _subject(self) -> str:
        return f"the history database ({self.name})"

    def _damaged(self, what: str) -> str:
        """Remembers a damage, for health; returns what is said of it."""
        advice = "stop the service, then restore a backup, or run `flansible repair`, which saves what can be read"
        said = f"{self._subject} {DAMAGED} ({self.file}: {what}): {advice}"
        self._damage = (self._identity(), said)
        return said

    def _reason(self, error: SQLAlchemyError) -> tuple[str, str]:
        """Returns what is wrong, as a predicate, and what only an operator is told."""
        if isinstance(error, PoolTimeout):
            return "is busy: all connections of this process are in use", ""
        cause = error.orig if isinstance(error, DBAPIError) else None
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGED_CODES:
            return DAMAGED, self._damaged(str(cause)).removeprefix(f"{self._subject} {DAMAGED}")
        if code is not None:
            return _SQLITE_REASONS.get(code & 0xFF, REFUSED), f" ({self.file}: {cause})"
        state = str(getattr(cause, "sqlstate", None) or "")
        for known in (state, state[:2]):
            if known in _POSTGRESQL_REASONS:
                return _POSTGRESQL_REASONS[known], ""
        # With another code it is the statement's own error, such as a text too long for an index: if it counted as a
        # server that is away, the archiver would try the same task for ever, and no other.
        if isinstance(error, OperationalError) and not state:
            found = (reason for words, reason in _CONNECT_REASONS.items() if words in str(cause))
            return next(found, "does not answer"), ""
        return REFUSED, f" ({' '.join([type(cause or error).__name__, state]).strip()})"


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: one that reads first may have to be given up.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
