"""What a restore refuses, changing nothing: damaged, newer and crafted files, and what is in the way."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flansible import config
from flansible.backup import archive_format, restore_backup
from flansible.backup.archive_format import BackupHeader, BackupWriter
from flansible.errors import BackupUnusable, ConfigurationError
from flansible.history.schema import VERSION
from tests.helpers.history import Databases, opened

HEADER = BackupHeader(archive_format.FORMAT, "1.2.3", "2026-11-30T00:00:00.000Z", VERSION)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new service."""
    folder = tmp_path / "new"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def backup(tmp_path: Path, databases: Databases) -> Callable[..., Path]:
    """Writes a backup: `backup(rbac=b"...")` replaces a member, None leaves it out."""

    def write(header: BackupHeader = HEADER, **changes: bytes | None) -> Path:
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        databases.migrated("sqlite", source)
        members: dict[str, bytes | None] = {
            "config.ini": b"[Default]\nFlask_tcp_port = 3999\n",
            "rbac.json": b'{"rbac": []}',
            "tokens.json": b'{"tokens": []}',
            "secret.key": b"key",
            "redis.rdb": b"REDIS0009",
            "history.sqlite3": (source / "history.sqlite3").read_bytes(),
        }
        members |= {name.replace("_", "."): data for name, data in changes.items()}
        target = tmp_path / "backup.tar"
        with target.open("wb") as file:
            writer = BackupWriter(file, header)
            for name, data in members.items():
                if data is not None:
                    (source / "member").write_bytes(data)
                    writer.add(name, source / "member")
            writer.finish()
        return target

    return write


def restore(file: Path) -> list[str]:
    return restore_backup.restore(file, Path.cwd(), config.load)


def refused(file: Path, words: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(BackupUnusable, match=words):
        restore(file)
    assert sorted(Path.cwd().rglob("*")) == before, "something was left"


def test_all_of_it_gets_its_place_for_the_service_alone(base: Path, backup: Callable[..., Path]) -> None:
    lines = "\n".join(restore(backup()))
    assert "2026-11-30T00:00:00.000Z, of Flansible 1.2.3" in lines
    data = base / ".flansible"
    assert config.load().Flask_tcp_port == 3999
    assert sorted(path.name for path in data.iterdir()) == [
        *("appendonly.aof", "history.sqlite3", "secret.key", "tokens.json"),
    ]
    for path in (base / "rbac.json", base / "config.ini", *data.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    with opened(f"sqlite:///{data}/history.sqlite3") as database:
        assert database.version() == VERSION


def test_a_config_that_is_there_is_the_one_that_counts(base: Path, backup: Callable[..., Path]) -> None:
    (base / "config.ini").write_text("[Default]\ndata_dir = elsewhere\n")
    restore(backup(secret_key=None))
    assert (base / "elsewhere/history.sqlite3").exists() and (base / "config.ini").read_text().endswith("elsewhere\n")


@pytest.mark.parametrize("name", [".flansible/anything", "rbac.json", ".flansible/tokens.json"])
def test_what_exists_is_never_replaced(base: Path, backup: Callable[..., Path], name: str) -> None:
    path = base / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    refused(backup(), "is not empty: .*Nothing was restored")
    assert path.read_text() == "mine"


def test_a_link_in_the_way_is_not_followed(base: Path, backup: Callable[..., Path], tmp_path: Path) -> None:
    (base / "rbac.json").symlink_to(tmp_path / "victim")
    refused(backup(), "rbac.json")
    assert not (tmp_path / "victim").exists()


def test_a_damaged_file_is_refused(base: Path, backup: Callable[..., Path]) -> None:
    file = backup()
    data = file.read_bytes()
    for at in range(700, len(data) - 2048, len(data) // 25):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            restore(file)
        except BackupUnusable:
            assert list(base.iterdir()) == []
            continue
        # In what tar fills up with, or a field of it that we do not read.
        unpacked = {path.name: path.read_bytes() for path in (base / ".flansible").iterdir()}
        assert unpacked["secret.key"] == b"key" and len(unpacked) == 4
        remove(base)
    for end in (0, 100, 512, 5000, len(data) // 2, len(data) - 12_000):
        file.write_bytes(data[:end])
        refused(file, "is not a backup, or is damaged")


def remove(base: Path) -> None:
    for path in sorted(base.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_file_of_something_else_is_refused(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "other"
    for content in (b"", b"\0" * 10240, os.urandom(5000), b"SQLite format 3\0"):
        file.write_bytes(content)
        refused(file, "is not a backup, or is damaged")
    with pytest.raises(BackupUnusable, match="No such file"):
        restore(tmp_path / "missing")


def test_a_newer_one_is_refused_in_words(base: Path, backup: Callable[..., Path]) -> None:
    for header in (BackupHeader(2, "9.9", "x", VERSION), BackupHeader(1, "9.9", "x", VERSION + 1)):
        refused(backup(header), "was made by Flansible 9.9, which is newer than this one")


def test_a_header_that_lies_about_the_database_is_refused(base: Path, backup: Callable[..., Path]) -> None:
    refused(backup(BackupHeader(1, "1", "x", VERSION - 1)), "is damaged: its database has version")
    refused(backup(history_sqlite3=b"no database"), "cannot be read")


def member(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    data = b"evil" if info.isreg() else b""
    info.size = len(data)
    return info, data


CRAFTED = {
    "a path upwards": member("../rbac.json"),
    "an absolute path": member("/tmp/flansible-evil"),
    "a folder's file": member("rbac.json/x"),
    "a name of ours with a dot": member("./rbac.json"),
    "a link": member("rbac.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": member("rbac.json", type=tarfile.LNKTYPE, linkname="backup.json"),
    "a folder": member("rbac.json", type=tarfile.DIRTYPE),
    "a device": member("rbac.json", type=tarfile.CHRTYPE),
    "a pipe": member("redis.rdb", type=tarfile.FIFOTYPE),
    "a file nobody knows": member("authorized_keys"),
    "a second header": member("backup.json"),
}


@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_crafted_member_is_refused(base: Path, tmp_path: Path, crafted: tuple[tarfile.TarInfo, bytes]) -> None:
    file = tmp_path / "crafted.tar"
    header = json.dumps({"format": 1, "flansible": "1", "created": "x", "history_version": None}).encode()
    with tarfile.open(file, "w:") as tar:
        info = tarfile.TarInfo("backup.json")
        info.size = len(header)
        tar.addfile(info, io.BytesIO(header))
        tar.addfile(crafted[0], io.BytesIO(crafted[1]))
    refused(file, "no part of a backup, or twice")
    assert not Path("/tmp/flansible-evil").exists()


def test_records_of_another_kind_of_service_are_refused(base: Path, backup: Callable[..., Path]) -> None:
    (base / "config.ini").write_text("[Default]\nCELERY_BROKER_URL = redis://x\nCELERY_RESULT_BACKEND = redis://x\n")
    refused(backup(), "has the records of an embedded Redis")
    refused(backup(redis_rdb=None), "has an embedded history database")


def test_a_config_that_is_wrong_leaves_nothing(base: Path, backup: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError):
        restore(backup(config_ini=b"[Default]\nno_such_key = 1\n"))
    assert list(base.iterdir()) == []
