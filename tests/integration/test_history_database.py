"""The history database: its tables, their migrations, its versions, and what is said when it is away or damaged."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from flansible.config import Settings
from flansible.doctor import servers
from flansible.errors import ConfigurationError, HistoryUnavailable
from flansible.history import migrate, schema, upgrade
from flansible.history.database import Database
from tests.helpers.history import KINDS, Databases, opened
from tests.helpers.postgresql import PASSWORD, PostgresqlServer
from tests.helpers.waiting import eventually


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> str:
    return databases.empty(request.param, tmp_path)


def test_the_migrations_make_the_tables_that_the_code_knows(history_url: str) -> None:
    with opened(history_url) as database, database.reading() as connection:
        opts = {"compare_type": True, "include_name": _is_known}
        found = compare_metadata(MigrationContext.configure(connection, opts=opts), schema.metadata)
    assert found == []


def _is_known(name: str | None, _kind: str, _parents: object) -> bool:
    """The words of search are in tables of each database's own kind, which SQLAlchemy does not know."""
    return not str(name).startswith(("search_record_words", "search_output_words"))


def test_the_version_is_that_of_the_newest_migration() -> None:
    script = ScriptDirectory(str(migrate._FOLDER), version_locations=[str(migrate._FOLDER)])
    assert script.get_current_head() == f"{schema.VERSION:04}"


def test_a_new_database_is_migrated_once_and_then_left_alone(empty_url: str) -> None:
    with opened(empty_url) as database:
        assert database.version() == 0
        upgrade.upgrade(database, empty_url)
        assert database.version() == schema.VERSION
        began = time.monotonic()
        upgrade.upgrade(database, empty_url)
        assert time.monotonic() - began < 0.5, "a process was started for nothing"


def test_of_several_that_migrate_at_once_one_does_it(empty_url: str) -> None:
    faults: list[BaseException] = []

    def run() -> None:
        try:
            with opened(empty_url) as database:
                upgrade.upgrade(database, empty_url)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with opened(empty_url) as database, database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM archiver")).scalar() == 1


# Migrates as the service does, but never comes to the end of it.
_HANGS = """
import sys, time
import alembic.op
from flansible.history.database import Database
from flansible.history.migrate import migrate
original = alembic.op.create_index
def stop(name, *rest):
    if name == "tasks_finished":
        print("half", flush=True)
        time.sleep(60)
    return original(name, *rest)
alembic.op.create_index = stop
migrate(Database(sys.stdin.read()))
"""


def test_a_migration_that_is_killed_in_the_middle_leaves_nothing_and_the_next_one_succeeds(empty_url: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HANGS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(empty_url)
    process.stdin.close()
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.wait()
    process.stdout.close()
    with opened(empty_url) as database:
        assert database.version() == 0
        with database.reading() as connection:
            assert not sqlalchemy.inspect(connection).has_table("tasks")
        upgrade.upgrade(database, empty_url)
        assert database.version() == schema.VERSION


def test_a_newer_database_is_refused_in_words(history_url: str) -> None:
    with opened(history_url) as database:
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        words = f"has version 9999, this Flansible knows {schema.VERSION} and earlier"
        with pytest.raises(ConfigurationError, match=words):
            upgrade.upgrade(database, history_url)
    assert migrate.main(history_url) == upgrade.EXIT_NEWER


def test_a_transaction_that_fails_leaves_nothing(history_url: str) -> None:
    with opened(history_url) as database:
        with pytest.raises(HistoryUnavailable, match="refused a statement"), database.writing() as connection:
            connection.execute(text("UPDATE archiver SET token = 7"))
            connection.execute(text("INSERT INTO archiver (id, token) VALUES (2, 1)"))
        with database.reading() as connection:
            assert connection.execute(text("SELECT token FROM archiver")).scalar() == 0


def test_a_statement_that_postgresql_cannot_do_does_not_count_as_a_server_that_is_away(
    databases: Databases, tmp_path: Path
) -> None:
    """The archiver tries again what is away, and goes on without what was refused."""
    long = random.Random(1).randbytes(3000).hex()
    with opened(databases.migrated("postgresql", tmp_path)) as database:
        refused = pytest.raises(HistoryUnavailable, match=r"refused a statement.*\(ProgramLimitExceeded 54000\)")
        with refused, database.writing() as connection:
            connection.execute(text("INSERT INTO hosts (name, inventory) VALUES (:name, '')"), {"name": long})


def test_any_folder_will_do(databases: Databases, tmp_path: Path) -> None:
    folder = tmp_path / "größe ?a=b#\n%41\udcff"
    folder.mkdir()
    url = databases.empty("sqlite", folder)
    with opened(url) as database:
        upgrade.upgrade(database, url)
        assert database.version() == schema.VERSION
    assert (folder / "history.sqlite3").exists()


def test_the_file_and_what_lies_beside_it_is_for_the_service_alone(databases: Databases, tmp_path: Path) -> None:
    url = databases.empty("sqlite", tmp_path)
    mask = os.umask(0)
    try:
        with opened(url) as database:
            migrate.migrate(database)
            with database.writing() as connection:
                connection.execute(text("UPDATE archiver SET token = 1"))
                names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert names == {f"history.sqlite3{end}": 0o600 for end in ("", "-wal", "-shm")}


def test_what_is_committed_is_on_the_disk(databases: Databases, tmp_path: Path) -> None:
    with opened(databases.migrated("sqlite", tmp_path)) as database, database.reading() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_what_is_committed_is_seen_after_another_process_has_closed_the_file(
    databases: Databases, tmp_path: Path
) -> None:
    url = databases.migrated("sqlite", tmp_path)
    with opened(url) as database:
        # A connection that is made while another one is open: its locks have to stay.
        with database.reading() as first, database.reading() as second:
            assert [_token(connection) for connection in (first, second)] == [0, 0]
        assert _token_elsewhere(url) == "0"
        with database.writing() as connection:
            connection.execute(text("UPDATE archiver SET token = 7"))
        assert _token_elsewhere(url) == "7", "the other process deleted the WAL, and this one wrote to it"
    assert _token_elsewhere(url) == "7"


def _token(connection: sqlalchemy.Connection) -> int:
    return int(connection.execute(text("SELECT token FROM archiver")).scalar_one())


def _token_elsewhere(url: str) -> str:
    """What a process of its own reads, which closes the file when it ends."""
    program = """
import sys
from sqlalchemy import text
from flansible.history.database import Database
database = Database(sys.argv[1])
with database.reading() as connection:
    print(connection.execute(text("SELECT token FROM archiver")).scalar_one())
database.close()
"""
    return subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_file_that_is_put_back_is_the_one_that_is_read(databases: Databases, tmp_path: Path) -> None:
    with opened(databases.migrated("sqlite", tmp_path)) as database:
        with database.writing() as connection:
            connection.execute(text("UPDATE archiver SET token = 1"))
        for name in ("history.sqlite3", "history.sqlite3-wal", "history.sqlite3-shm"):
            (tmp_path / name).unlink()
        databases.migrated("sqlite", tmp_path)
        with database.reading() as connection:
            assert connection.execute(text("SELECT token FROM archiver")).scalar() == 0


def test_a_damaged_file_is_named_with_what_to_do(databases: Databases, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    databases.migrated("sqlite", tmp_path)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    path.write_bytes(data)
    with opened(f"sqlite:///{path}") as database, pytest.raises(HistoryUnavailable) as caught:
        with database.reading() as connection:
            connection.execute(text("SELECT * FROM archiver"))
    assert caught.value.reason == "is damaged"
    assert str(path) in str(caught.value) and "run `flansible repair`" in str(caught.value)


def test_a_disk_that_is_full_is_said(databases: Databases, tmp_path: Path) -> None:
    with opened(databases.migrated("sqlite", tmp_path)) as database:
        with pytest.raises(HistoryUnavailable, match="the disk is full"), database.writing() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            connection.execute(text("INSERT INTO hosts (name, inventory) VALUES (:name, '')"), {"name": "x" * 100_000})
        with database.reading() as connection:
            assert connection.execute(text("SELECT count(*) FROM hosts")).scalar() == 0


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/gone/history.sqlite3") as database:
        with pytest.raises(HistoryUnavailable, match="cannot be opened: .*gone.*: No such file"):
            database.version()


def test_a_server_that_was_restarted_is_found_again(databases: Databases) -> None:
    server = PostgresqlServer()
    try:
        server.start()
        with opened(server.url("postgres")) as database:
            assert database.version() == 0
            server.stop(signal.SIGQUIT)
            with pytest.raises(HistoryUnavailable, match="does not answer"):
                database.version()
            server.start()
            assert database.version() == 0
            server.stop()
            server.start(default_transaction_read_only="on")
            with pytest.raises(HistoryUnavailable, match="is read-only"), database.writing() as connection:
                connection.execute(text("CREATE TABLE t (a int)"))
    finally:
        server.remove()


def test_a_statement_that_takes_too_long_is_given_up(databases: Databases) -> None:
    database = Database(databases.migrated("postgresql", Path("/")), 0.2)
    try:
        with pytest.raises(HistoryUnavailable, match="does not answer in time"), database.reading() as connection:
            connection.execute(text("SELECT pg_sleep(30)"))
    finally:
        database.close()


def test_no_message_has_the_password(databases: Databases) -> None:
    url = databases.server.url("no_such_database")
    wrong = url.replace("pass-w", "secret-w")
    for given, reason in ((url, "does not exist"), (wrong, "refuses the user or password")):
        with opened(given) as database, pytest.raises(HistoryUnavailable, match=reason) as caught:
            database.version()
        said = f"{caught.value} {caught.value.reason} {database!r}"
        assert not any(word in said for word in (PASSWORD, "pass-w", "secret-w", "w%C3"))
    with pytest.raises(ConfigurationError) as refused:
        Database("postgresql+psycopg://u:hunter2@host:port/x")
    assert "hunter2" not in str(refused.value)


def test_the_doctor_shows_the_version_and_what_to_do(
    databases: Databases, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    def line(**changes: str) -> str:
        return "\n".join(map(str, servers.history(make_settings(data_dir=tmp_path, **changes))))

    assert line().startswith("warn history: finished tasks are not archived") and "DATABASE_URL = " in line()
    assert f"a worker takes it to version {schema.VERSION}" in line(CELERY_RESULT_BACKEND="embedded")
    url = databases.migrated("postgresql", tmp_path)
    databases.migrated("sqlite", tmp_path)
    assert line(CELERY_RESULT_BACKEND="embedded") == f"ok   history: SQLite, version {schema.VERSION}"
    assert line(DATABASE_URL=url) == f"ok   history: PostgreSQL, version {schema.VERSION}"
    missing = line(DATABASE_URL=databases.server.url("nowhere"))
    assert missing.startswith("FAIL history: the history database (PostgreSQL) does not exist") and "fix" in missing
    with opened(url) as database, database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "FAIL history" in line(DATABASE_URL=url) and "run the newer Flansible again" in line(DATABASE_URL=url)


def test_the_url_is_never_an_argument_of_a_process(databases: Databases) -> None:
    """Another user of the machine sees arguments, for as long as the migration takes."""
    url = databases.empty("postgresql", Path("/"))
    with opened(url) as database:
        thread = threading.Thread(target=upgrade.upgrade, args=(database, url))
        thread.start()
        seen = eventually(_migrating)
        thread.join()
    assert "pass-w" not in seen and "w%C3" not in seen


def _migrating() -> str:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "flansible.history.migrate" in line:
                return line + path.with_name("environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
    return ""
