"""Folders that are built once, shared, and removed when none uses them: by several processes, some of them killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flansible.projects.shelf import Shelf, make_room

BUILD = """
import sys, time
from pathlib import Path
from flansible.projects.shelf import Shelf
shelf = Shelf(Path(sys.argv[1]), "trees")
shelf.make()
lease = shelf.lease("k")
with shelf.building("k") as folder:
    if folder is not None:
        (folder / "half").write_text("x")
        print("building", flush=True)
        time.sleep(float(sys.argv[2]))
        (folder / "whole").write_text("x")
print("built" if folder is not None else "there", flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    found = Shelf(tmp_path, "trees")
    found.make()
    return found


def build(shelf: Shelf, key: str, size: int = 1000) -> None:
    lease = shelf.lease(key)
    with shelf.building(key) as folder:
        if folder is not None:
            (folder / "file").write_bytes(b"x" * size)
            (folder / "inner").mkdir()
            (folder / "inner" / "deep").write_text("y")
    lease.close()


def process(folder: Path, build_seconds: float = 0, hold_seconds: float = 0) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BUILD, str(folder), str(build_seconds), str(hold_seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def ended(found: subprocess.Popen[str]) -> str:
    assert found.stdout is not None
    text = found.stdout.read()
    found.stdout.close()
    found.wait(20)
    return text


def test_of_processes_that_add_the_same_folder_at_once_one_builds_it(tmp_path: Path) -> None:
    said = [ended(one) for one in [process(tmp_path, 0.2) for _ in range(4)]]
    assert sorted(text.split()[-1] for text in said) == ["built", "there", "there", "there"]
    assert sorted(os.listdir(tmp_path / "shown" / "trees")) == ["k"]


def test_what_a_killed_process_left_is_not_used_and_goes_away(shelf: Shelf, tmp_path: Path) -> None:
    killed = process(tmp_path, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "building\n"
    assert not shelf.path("k").exists()
    with pytest.raises(BlockingIOError), shelf.building("k", may_wait=False):
        pass
    killed.send_signal(signal.SIGKILL)
    ended(killed)
    assert not shelf.is_there("k")
    assert ended(process(tmp_path)).split() == ["building", "built"]
    assert sorted(os.listdir(tmp_path / "shown" / "trees")) == ["k"]
    assert (shelf.path("k") / "whole").exists()


def test_a_folder_that_lacks_its_stamp_is_built_anew(shelf: Shelf, tmp_path: Path) -> None:
    shelf.path("k").mkdir()
    (shelf.path("k") / "half").write_text("of one killed between the name and the stamp")
    build(shelf, "k")
    assert shelf.is_there("k") and not (shelf.path("k") / "half").exists()


def test_what_a_killed_cleaner_or_builder_left_without_a_stamp_goes_away_unless_it_is_used(
    shelf: Shelf, tmp_path: Path
) -> None:
    build(shelf, "k")
    (tmp_path / "kept" / "trees-k.json").unlink()  # the cleaner's first step, and the builder's last
    used = shelf.lease("k")
    make_room([shelf], 1 << 40, 3600.0, time.time())
    assert (shelf.path("k") / "file").exists()
    used.close()
    make_room([shelf], 1 << 40, 3600.0, time.time())
    assert [path for path in tmp_path.rglob("*") if not path.is_dir() or path.name == "k"] == []


def test_folders_are_read_only_and_a_change_is_noticed(shelf: Shelf) -> None:
    build(shelf, "k")
    assert (shelf.path("k") / "file").stat().st_mode & 0o222 == 0
    assert (shelf.path("k") / "inner").stat().st_mode & 0o222 == 0
    assert not shelf.is_changed("k")
    os.chmod(shelf.path("k") / "inner", 0o755)
    (shelf.path("k") / "inner" / "new").write_text("z")
    assert shelf.is_changed("k")
    shelf.withdraw("k")
    assert not shelf.is_there("k")
    build(shelf, "k")
    assert not (shelf.path("k") / "inner" / "new").exists()
    make_room([shelf], 1 << 40, 3600.0, time.time())
    assert sorted(os.listdir(shelf.path("k").parent)) == ["k"]


def test_room_is_made_of_what_is_longest_unused_and_never_of_what_is_used(shelf: Shelf, tmp_path: Path) -> None:
    for number in range(5):
        build(shelf, f"k{number}", 100_000)
    used = shelf.lease("k0")
    for number in range(5):
        os.utime(tmp_path / "kept" / f"trees-k{number}.lock", (number, number))
    make_room([shelf], 250_000, 1e12, time.time())
    assert sorted(item.key for item in shelf.items()) == ["k0", "k4"]
    make_room([shelf], 0, 1e12, time.time())
    assert sorted(item.key for item in shelf.items()) == ["k0"]
    assert (shelf.path("k0") / "file").exists()
    used.close()
    make_room([shelf], 1 << 40, 3600.0, time.time())  # not used for an hour
    assert list(shelf.items()) == []
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_a_lease_keeps_a_folder_until_its_process_is_killed(shelf: Shelf, tmp_path: Path) -> None:
    holder = process(tmp_path, 0, 60)
    assert holder.stdout is not None
    assert [holder.stdout.readline() for _ in range(2)] == ["building\n", "built\n"]
    assert not shelf.remove_unused("k")
    holder.send_signal(signal.SIGKILL)
    ended(holder)
    assert shelf.remove_unused("k")
    assert not shelf.path("k").exists()


def test_a_run_keeps_a_folder_that_its_worker_let_go_and_can_keep_nobody_from_using_it(shelf: Shelf) -> None:
    build(shelf, "k")
    lease = shelf.lease("k")
    lease.close()
    with open(lease.run_lock) as held:  # by a user's code, which may take any lock on what it can read
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not shelf.remove_unused("k")
        shelf.lease("k").close()
        build(shelf, "k")
        assert shelf.is_there("k")
    assert shelf.remove_unused("k")


def test_leases_and_removals_at_once_lose_no_folder_in_use(shelf: Shelf, tmp_path: Path) -> None:
    """A cleaner removes all it can while others build and use; whoever has a lease finds the folder whole."""
    cleaner = subprocess.Popen([sys.executable, "-c", CLEAN, str(tmp_path)])
    try:
        built, give_up_at = 0, time.monotonic() + 30
        while built < 20 and time.monotonic() < give_up_at:
            lease = shelf.lease("k")
            with shelf.building("k") as folder:
                if folder is not None:
                    (folder / "whole").write_text("x")
                    built += 1
            assert shelf.is_there("k")
            assert (lease.path / "whole").read_text() == "x"
            lease.close()
        assert built == 20  # the cleaner was at work meanwhile
        cleaner.send_signal(signal.SIGKILL)
        cleaner.wait(20)
        build(shelf, "k")
        assert shelf.is_there("k")
    finally:
        cleaner.kill()
        cleaner.wait(20)


CLEAN = """
import sys, time
from pathlib import Path
from flansible.projects.shelf import Shelf, make_room
shelf = Shelf(Path(sys.argv[1]), "trees")
while True:
    make_room([shelf], 0, 0.0, time.time())
"""
