"""Where Redis' append-only file can be cut: after the last command, or transaction, that is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible.launcher import append_only_file
from tests.helpers.append_only import clock, command

UNITS = (
    command("SELECT", "0"),
    command("SET", "a", "1"),
    command("MULTI") + command("SET", "b", "two\r\n*3\r\n$1\r\n") + clock(1000.5) + command("EXEC"),
    b"#TS:1796025088\r\n",
    command("SET", "c", bytes(range(256))),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "appendonly.aof"


def read(path: Path, data: bytes) -> append_only_file.Content:
    path.write_bytes(data)
    return append_only_file.read(path)


def test_a_file_that_ends_anywhere_is_cut_after_the_last_whole_transaction_or_command(path: Path) -> None:
    whole = b"".join(UNITS)
    ends = [0]
    for unit in UNITS:
        ends.append(ends[-1] + len(unit))
    for size in range(len(whole) + 1):
        found = read(path, whole[:size])
        assert found.good_bytes == max(end for end in ends if end <= size), size
        assert bool(found.problem) == (size not in ends), size


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"\xff\x80rubbish\r\n" * 50, b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n" + b"\0" * 9, b"\r\n"]
)
def test_what_is_no_command_is_cut_off(path: Path, tail: bytes) -> None:
    found = read(path, b"".join(UNITS) + tail)
    assert (found.good_bytes, found.lost_bytes) == (len(b"".join(UNITS)), len(tail))
    assert found.problem and (found.later_commands, found.lost_seconds) == (0, None)


def test_commands_behind_the_damage_and_their_time_are_counted(path: Path) -> None:
    later = b"".join(clock(1002 + number) + command("SET", "d", "*1\r\n") for number in range(20))
    found = read(path, b"".join(UNITS) + b"\0" * 4096 + later + b"\0" * 100 + command("SET", "e", "1") * 5)
    assert (found.later_commands, found.lost_seconds) == (45, 20.5)


def test_an_empty_file_is_whole(path: Path) -> None:
    assert read(path, b"").problem == ""
