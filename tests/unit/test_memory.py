"""How much memory is left, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible.system import memory

MEMINFO = "MemTotal:       8000 kB\nMemFree:        100 kB\nMemAvailable:   {} kB\nHugePages_Total:       0\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    group = tmp_path / "groups" / "flansible"
    group.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/flansible\n")
    (tmp_path / "meminfo").write_text(MEMINFO.format(4000))
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    return tmp_path


def limit(files: Path, most: str, current: int, inactive: int) -> None:
    group = files / "groups" / "flansible"
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


def test_this_machine_has_some_memory() -> None:
    assert 0 < memory.available_share() <= 1


def test_without_a_limit_the_machines_memory_counts(files: Path) -> None:
    assert memory.available_share() == 0.5
    limit(files, "max", 900, 0)
    assert memory.available_share() == 0.5


def test_the_smaller_share_counts(files: Path) -> None:
    limit(files, "1000", 900, 100)
    assert memory.available_share() == pytest.approx(0.2)
    (files / "meminfo").write_text(MEMINFO.format(400))
    assert memory.available_share() == pytest.approx(0.05)


def test_what_cannot_be_read_is_not_short(files: Path) -> None:
    (files / "meminfo").write_text("nothing\n")
    (files / "cgroup").unlink()
    assert memory.available_share() == 1.0
