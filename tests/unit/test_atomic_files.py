"""Files and folders that appear whole: what a process leaves that is killed while it makes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flansible.system import atomic_files
from flansible.worker import homes, snapshots
from flansible.worker.snapshots import SnapshotPlan

KILLED = """
import os, pathlib, signal, sys
from flansible.system import atomic_files
from flansible.worker import homes, snapshots
place = pathlib.Path(sys.argv[1])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = os.rename = os.link = pathlib.Path.rename = die
"""
MAKE = {
    "a file": ("atomic_files.replace(place / 'f', 'text')", lambda place: atomic_files.replace(place / "f", "text")),
    "a home": ("homes.make_home('dev', place)", lambda place: homes.make_home("dev", place)),
    "a snapshot": (
        "snapshots.make(snapshots.SnapshotPlan([]), place)",
        lambda place: snapshots.make(SnapshotPlan([]), place),
    ),
}


def unfinished(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if ".new-" in path.name]


@pytest.mark.parametrize("what", MAKE)
def test_what_a_killed_process_was_making_goes_when_another_makes_it(tmp_path: Path, what: str) -> None:
    program, make = MAKE[what]
    ended = subprocess.run([sys.executable, "-P", "-c", KILLED + program, str(tmp_path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL and len(unfinished(tmp_path)) == 1
    make(tmp_path)
    assert unfinished(tmp_path) == []


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with atomic_files.replacing(path) as one, atomic_files.new_folder(tmp_path, ".f.new-") as folder:
        with atomic_files.replacing(path) as other:
            other.write_text("other")
        assert one.exists() and folder.exists() and path.read_text() == "other"
        one.write_text("one")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_names_and_links_that_others_have_made_stay(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("text")
    others = [tmp_path / name for name in (".f.original", ".f.new-", ".f.new-longer_name", ".g.new-abcdefgh")]
    for path in others:
        path.touch()
    link = tmp_path / ".f.new-abcdefgh"
    link.symlink_to(target)
    atomic_files.replace(tmp_path / "f", "new")
    assert all(path.exists() for path in others) and target.read_text() == "text" and link.is_symlink()


def test_many_that_make_one_at_once_do_not_take_each_others_for_abandoned(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def make(number: int) -> None:
        try:
            for _ in range(100):
                atomic_files.replace(tmp_path / "f", f"{number}")
                with atomic_files.new_folder(tmp_path, ".f.new-") as folder:
                    (folder / "in").touch()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and [path.name for path in tmp_path.iterdir()] == ["f"]


def test_folders_that_lie_thousandfold_in_one_another_are_removed(tmp_path: Path) -> None:
    """As a user's run can leave them, to keep the next from being made."""
    left = tmp_path / ".f.new-abcdefgh"
    for place in (left, tmp_path / "inner"):
        subprocess.run(["mkdir", "-p", place / ("a/" * 1500)], check=True)
    atomic_files.remove_abandoned(tmp_path, ".f.new-")
    assert not left.exists()
    with atomic_files.new_folder(tmp_path, ".f.new-") as folder:
        os.rename(tmp_path / "inner", folder / "inner")
    assert list(tmp_path.iterdir()) == []
    atomic_files.remove_folder(tmp_path / "not there")
