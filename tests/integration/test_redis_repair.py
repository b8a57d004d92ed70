"""The embedded Redis' files as a power loss leaves them, mended, and read by each redis-server of this machine."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from flansible.config import Settings
from flansible.errors import ConfigurationError
from flansible.launcher import append_only_file, embedded_redis, redis_repair
from tests.helpers.append_only import clock, command
from tests.helpers.redis_server import client_of, redis_program
from tests.helpers.waiting import eventually, missing


def programs() -> list[str]:
    found = {embedded_redis.find_program(), shutil.which("redis-server")} - {None}
    return sorted(str(program) for program in found) or [""]


class Place:
    """A data_dir, and the embedded Redis on it."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        settings = Settings(data_dir=folder, base_dir=folder)
        self.command = [program, *embedded_redis.command_line(settings)[1:]]
        self.settings = settings

    @property
    def last_file(self) -> Path:
        single = self.folder / "appendonly.aof"
        return single if single.exists() else max((self.folder / "appendonlydir").glob("*.incr.aof"))

    def run(self, *, fill: bool = False) -> dict[bytes, bytes] | None:
        """Starts Redis, perhaps fills it, stops it; the numbered strings in it, None if it did not start."""
        process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        client = client_of(self.settings.redis_socket)
        try:
            if not eventually(lambda: process.poll() is not None or answers(client)) or process.poll() is not None:
                return None
            if fill:
                fill_with_everything(client)
            names = sorted(client.keys("number:*"))
            return dict(zip(names, client.mget(names), strict=True)) if names else {}
        finally:
            client.close()
            process.terminate()
            process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def fill_with_everything(client: redis.Redis) -> None:
    """Values of all types, small and large, into a snapshot; then ten commands after it."""
    for size in (3, 700):
        many = [f"{number}:{'x' * 80}" for number in range(size)]
        client.rpush(f"list{size}", *many)
        client.sadd(f"set{size}", *many)
        client.sadd(f"numbers{size}", *range(size))
        client.zadd(f"zset{size}", {name: number / 3 for number, name in enumerate(many)})
        client.hset(f"hash{size}", mapping=dict.fromkeys(many, "value"))
        for name in many[:200]:
            client.xadd(f"stream{size}", {"event": name})
    client.xgroup_create("stream700", "group", "0")
    client.xreadgroup("group", "reader", {"stream700": ">"}, count=3)
    client.set("long", "words " * 20_000)
    client.set("random", random.Random(1).randbytes(20_000), ex=10_000)
    client.bgrewriteaof()
    eventually(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    eventually(lambda: client.info("persistence")["aof_rewrite_scheduled"] == 0)
    for number in range(10):
        client.set(f"number:{number}", number)


@pytest.fixture(scope="module", params=programs())
def filled(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from made(str(request.param) or redis_program())


@pytest.fixture(scope="module")
def filled_in_parts() -> Iterator[Place]:
    program = next((program for program in programs() if program and embedded_redis.version(program) >= 7), None)
    if program is None:
        missing("redis-server of version 7 or newer")
    yield from made(str(program))


def made(program: str) -> Iterator[Place]:
    place = Place(Path(tempfile.mkdtemp(prefix="fl-aof-")), program)
    assert place.run(fill=True) is not None
    yield place
    shutil.rmtree(place.folder)


@pytest.fixture
def place(filled: Place) -> Iterator[Place]:
    """A copy of a folder with data."""
    yield from copied(filled)


@pytest.fixture
def in_parts(filled_in_parts: Place) -> Iterator[Place]:
    """The same of a Redis that has several files, with a list of them."""
    yield from copied(filled_in_parts)


def copied(filled: Place) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="fl-aof-"))
    shutil.rmtree(folder)
    shutil.copytree(filled.folder, folder)
    yield Place(folder, filled.command[0])
    shutil.rmtree(folder)


MULTI = command("MULTI") + command("SET", "number:0", "changed") + command("SET", "number:1", "changed")


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda data: data + bytes(30_000), 10),
        (lambda data: data + random.Random(2).randbytes(5000), 10),
        (lambda data: data[:-3], 9),
        (lambda data: data[:-20] + bytes(20), 9),
        (lambda data: data + MULTI, 10),
        (lambda data: data + MULTI + b"*1\r\n$4\r\nEX", 10),
        (lambda data: data + clock(5000) + bytes(4096) + clock(5001) + command("SET", "number:3", "x"), 10),
    ],
    ids=["zeros", "rubbish", "half a command", "zeros over it", "half a script", "nearly a script", "page missing"],
)
def test_a_damaged_end_is_cut_and_every_whole_command_kept(place: Place, damage: object, left: int) -> None:
    path = place.last_file
    before = path.read_bytes()
    assert callable(damage)
    path.write_bytes(damage(before))
    damaged = path.read_bytes()
    assert place.run() is None
    done = redis_repair.mend(place.folder)
    assert len(done) == 1 and str(path) in done[0] and "as after a power loss" in done[0]
    assert place.run() == {b"number:%d" % number: b"%d" % number for number in range(left)}
    (copy,) = path.parent.glob(f"{path.name}.damaged-*")
    assert copy.read_bytes() == damaged and str(copy) in done[0]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert redis_repair.mend(place.folder) == []


def test_half_a_command_is_not_cut_off_by_redis_without_a_word(place: Place) -> None:
    place.last_file.write_bytes(place.last_file.read_bytes()[:-3])
    assert place.run() is None


def test_the_end_of_a_snapshot_is_found_whatever_is_in_it(place: Place) -> None:
    for path in (*place.folder.glob("*.aof"), *place.folder.rglob("*.rdb")):
        found = append_only_file.read(path)
        assert (found.problem, found.good_bytes) == ("", path.stat().st_size), path


def test_a_cut_that_would_take_back_more_than_a_minute_is_left_to_the_operator(place: Place) -> None:
    path = place.last_file
    later = b"".join(clock(5000 + number) for number in range(100))
    path.write_bytes(path.read_bytes() + clock(4999) + bytes(10) + later)
    damaged = path.read_bytes()
    with pytest.raises(ConfigurationError) as refusal:
        redis_repair.mend(place.folder)
    assert str(path) in str(refusal.value) and "100 whole commands follow, made in 100 s" in str(refusal.value)
    assert "flansible repair" in str(refusal.value)
    assert path.read_bytes() == damaged
    assert len(redis_repair.mend(place.folder, cut_all=True)) == 1
    assert len(place.run() or {}) == 10


def test_a_damaged_snapshot_is_left_with_its_name_the_reason_and_a_command(place: Place) -> None:
    (path,) = [*place.folder.glob("*.aof"), *place.folder.rglob("*.base.rdb")]
    path.write_bytes(path.read_bytes()[:2000] + b"\xf0" * 5000)
    assert place.run() is None
    with pytest.raises(ConfigurationError) as refusal:
        redis_repair.mend(place.folder)
    assert "the snapshot in it is damaged (" in str(refusal.value)
    assert f"mv {path} {path}.damaged" in str(refusal.value)


def test_without_room_for_a_copy_nothing_is_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.last_file
    path.write_bytes(path.read_bytes() + bytes(100))
    damaged = path.read_bytes()
    # A folder of the copy's temporary name is as good as a full disk: it cannot be written.
    monkeypatch.setattr(redis_repair.time, "strftime", lambda *_: "now")
    (path.parent / f"temp-{path.name}.damaged-now").mkdir()
    with pytest.raises(ConfigurationError, match="make room for"):
        redis_repair.mend(place.folder)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("text", ["", "\0" * 90, "file appendonly.aof.7.incr.aof seq 7 type i\n", None])
def test_a_list_of_files_that_is_damaged_is_written_anew(in_parts: Place, text: str | None) -> None:
    manifest = in_parts.folder / "appendonlydir/appendonly.aof.manifest"
    before = manifest.read_text()
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    assert redis_repair.has_no_manifest(in_parts.folder) == (not manifest.exists())
    assert len(redis_repair.mend(in_parts.folder)) == 1
    assert manifest.read_text() == before
    assert len(in_parts.run() or {}) == 10


def test_a_list_of_files_is_not_guessed(in_parts: Place) -> None:
    manifest = in_parts.folder / "appendonlydir/appendonly.aof.manifest"
    manifest.write_text("")
    (manifest.parent / "appendonly.aof.9.incr.aof").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="which of .* belong together is not known"):
        redis_repair.mend(in_parts.folder)


def test_records_of_a_newer_redis_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0:0 malloc=libc'\n")
    old.chmod(0o755)
    monkeypatch.setattr(embedded_redis, "find_program", lambda: str(old))
    settings = Settings(data_dir=tmp_path, base_dir=tmp_path)
    embedded_redis.check_files(settings)
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(ConfigurationError, match="is older and would begin without them"):
        embedded_redis.check_files(settings)
