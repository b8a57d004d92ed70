"""A damaged page of the embedded database: what is on it is refused in words, the rest is read, nothing dies."""

from __future__ import annotations

import base64
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from flansible.config import Settings
from flansible.doctor import servers
from flansible.errors import HistoryUnavailable
from flansible.history import encoding, salvage
from flansible.history.database import Database
from flansible.history.limits import HistoryLimits
from flansible.history.schema import VERSION
from flansible.store import Store
from flansible.worker.archiver import Archiver
from tests.helpers.history import Databases, opened
from tests.helpers.webserver import ADMIN, RecordedRun, result

TASKS = 6


@pytest.fixture
def file(databases: Databases, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return Path(databases.migrated("sqlite", tmp_path / "data").removeprefix("sqlite:///"))


@pytest.fixture
def tasks(store: Store, redis_url: str, file: Path) -> list[RecordedRun]:
    """Archived, each with output that compresses badly."""
    dice, made = random.Random(1), []
    for _ in range(TASKS):
        run = RecordedRun(store)
        run.write(dice.randbytes(100_000).hex().encode() + b"\n", result("web1"))
        run.end()
        made.append(run)
    archiver = Archiver(Store(redis_url), f"sqlite:///{file}", 0.0, HistoryLimits(365))
    assert archiver.run_round() == TASKS
    archiver.close()
    with opened(f"sqlite:///{file}") as database, database.writing() as connection:
        connection.execute(text("UPDATE archiver SET token = token"))
    assert not file.with_name(f"{file.name}-wal").exists(), "the last one that closes it empties it"
    return made


@pytest.fixture
def client(make_app: Callable[..., Flask], file: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    with monkeypatch.context() as patch:
        patch.setattr(Settings, "database_url", property(lambda _: f"sqlite:///{file}"))
        made = make_app().test_client()
    login = base64.b64encode(":".join(ADMIN).encode()).decode()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Basic {login}"
    return made


def damage(file: Path, table: str) -> None:
    """Overwrites the first page of a table's tree."""
    with opened(f"sqlite:///{file}") as database, database.reading() as connection:
        page = connection.execute(text("SELECT rootpage FROM sqlite_master WHERE name = :name"), {"name": table})
        number = int(page.scalar_one())
        size = int(connection.execute(text("PRAGMA page_size")).scalar_one())
    with file.open("r+b") as opened_file:
        opened_file.seek((number - 1) * size)
        opened_file.write(b"\xaa" * size)


def test_a_damaged_page_is_said_in_health_and_by_the_doctor_and_the_rest_is_read(
    tasks: list[RecordedRun], file: Path, client: FlaskClient, make_settings: Callable[..., Settings]
) -> None:
    damage(file, "output_chunks")
    for run in tasks:
        assert client.get(f"/api/ansibletaskstatus/{run.task_id}").status_code == 200
        reply = client.get(run.output_path, buffered=True)
        assert (reply.status_code, reply.get_json()["code"]) == (503, "history_unavailable")
        assert "is damaged" in reply.get_json()["message"] and str(file) not in reply.get_json()["message"]
    assert len(client.get("/api/ansibletasks").get_json()["tasks"]) == TASKS
    health = client.get("/api/health").get_json()
    said = health["parts"]["history"]["detail"]
    assert str(file) in said and "run `flansible repair`" in said
    assert "repair" not in client.application.test_client().get("/api/health").text, "not for everybody"
    [line] = map(str, servers.history(make_settings(data_dir=file.parent, CELERY_RESULT_BACKEND="embedded")))
    assert line.startswith("FAIL history") and "is damaged" in line and "flansible repair" in line


def test_health_forgets_a_damaged_file_that_was_replaced(tasks: list[RecordedRun], file: Path) -> None:
    whole = file.read_bytes()
    damage(file, "output_chunks")
    database = Database(f"sqlite:///{file}")
    try:
        with pytest.raises(HistoryUnavailable, match="is damaged"):
            database.check()
        assert "is damaged" in database.damage()
        other = file.with_name("other")
        other.write_bytes(whole)
        other.replace(file)
        assert database.damage() == ""
        database.check()
    finally:
        database.close()


def test_a_database_that_is_whole_is_left_alone(tasks: list[RecordedRun], file: Path) -> None:
    before = file.stat()
    assert salvage.mend(file) == []
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("table", ["event_segments", "search_record_words_data", "tasks_number", "output_chunks"])
def test_what_can_be_read_is_saved(
    tasks: list[RecordedRun], file: Path, redis_url: str, store: Store, table: str
) -> None:
    damage(file, table)
    lines = "\n".join(salvage.mend(file))
    assert f"Saved {TASKS} tasks of the history" in lines and "The damaged file is kept: " in lines
    assert (table in lines) == (table in ("event_segments", "output_chunks"))
    [kept] = file.parent.glob("history.sqlite3.damaged-*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and kept.stat().st_size > 600_000
    archiver = Archiver(Store(redis_url), f"sqlite:///{file}", 0.0, HistoryLimits(365))
    archiver.run_round()
    archiver.close()
    with opened(f"sqlite:///{file}") as database:
        database.check()
        assert database.version() == VERSION
        with database.reading() as connection:
            for name, least in (("tasks", TASKS), ("search_records", TASKS), ("output_chunks", 1)):
                count = connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
                assert count >= (0 if name == table else least), name
            found = connection.execute(
                text("SELECT count(*) FROM search_record_words WHERE search_record_words MATCH 'web1'")
            )
            assert found.scalar_one() == TASKS


def test_rows_after_a_damaged_page_are_saved_too(tasks: list[RecordedRun], file: Path) -> None:
    with opened(f"sqlite:///{file}") as database, database.writing() as connection:
        names = [{"name": f"host{number}.example.org", "inventory": "x" * 100} for number in range(2000)]
        connection.execute(text("INSERT INTO hosts (name, inventory) VALUES (:name, :inventory)"), names)
        page = connection.execute(text("PRAGMA page_size")).scalar_one()
    data = file.read_bytes()
    at = data.index(b"host1000.example.org") // page * page
    file.write_bytes(data[:at] + b"\xaa" * page + data[at + page :])
    salvage.mend(file)
    with opened(f"sqlite:///{file}") as database, database.reading() as connection:
        names = set(connection.execute(text("SELECT name FROM hosts")).scalars())
    assert {"host0.example.org", "host1999.example.org"} <= names and 1900 < len(names) < 2002


@pytest.mark.parametrize("at", range(1, 60, 7))
def test_a_bit_that_has_changed_in_a_stored_piece_is_noticed(at: int) -> None:
    """SQLite has no checksums of its own."""
    packed = bytearray(encoding.pack(b"one line of output, and another line of output\n" * 50))
    if at >= len(packed):
        pytest.skip("it is not that long")
    packed[at] ^= 1
    with pytest.raises(HistoryUnavailable, match="is damaged: a part of this task cannot be unpacked"):
        encoding.unpack(bytes(packed))


def test_output_whose_bytes_have_changed_is_refused_in_words(
    tasks: list[RecordedRun], file: Path, client: FlaskClient
) -> None:
    with opened(f"sqlite:///{file}") as database, database.writing() as connection:
        connection.execute(text("UPDATE output_chunks SET data = x'0128b52ffd00' WHERE task_key = 1"))
    replies = [client.get(run.output_path, buffered=True) for run in tasks]
    assert sorted(reply.status_code for reply in replies) == [200] * 5 + [503]
    [refused] = [reply for reply in replies if reply.status_code == 503]
    assert "cannot be unpacked" in refused.get_json()["message"]
    assert client.get("/api/search?in=output&q=nothing").get_json()["hits"] == []
