"""Files and folders that appear whole: what a process leaves that is killed while it makes one."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flansible.system import atomic_files
from flansible.worker import homes, snapshots
from flansible.worker.snapshots import SnapshotPlan

# As a service of its own user, to whom a closed folder is closed.
NOT_ROOT = """
import os, pathlib, subprocess, sys
from flansible.projects.private_copy import private_copy
from flansible.system import atomic_files
place = pathlib.Path(sys.argv[1])
if os.geteuid() == 0:
    os.chown(place, 65534, 65534)
    os.setuid(65534)
"""
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


@pytest.mark.parametrize(
    ("closed", "mode"), (("a/" * 1500, 0o555), ("a/b", 0o555), ("a/b", 0o311), ("a/b", 0), (".", 0o555), (".", 0))
)
def test_folders_that_are_closed_are_removed_however_deep_they_lie(closed: str, mode: int, open_folder: Path) -> None:
    """As a run leaves them, or a worker that is killed while it copies a tree."""
    program = f"""
closed = place / ".f.new-abcdefgh" / {closed!r}
subprocess.run(["mkdir", "-p", closed / "inner"], check=True)
(closed / "file").touch()
closed.chmod({mode})
atomic_files.remove_abandoned(place, ".f.new-")
"""
    subprocess.run([sys.executable, "-P", "-c", NOT_ROOT + program, str(open_folder)], check=True, timeout=60)
    assert list(open_folder.iterdir()) == []


def test_a_private_copy_that_its_run_has_closed_is_gone_with_the_run(open_folder: Path) -> None:
    program = """
(place / "tree").mkdir()
with private_copy(place / "tree", place / "shop", "dev", lambda: False) as copy:
    copy.chmod(0)
"""
    subprocess.run([sys.executable, "-P", "-c", NOT_ROOT + program, str(open_folder)], check=True, timeout=60)
    assert list(open_folder.rglob(".run-*")) == []


@pytest.mark.parametrize("step", range(12))
def test_a_folder_that_a_run_swaps_for_a_link_while_it_is_removed_leads_nowhere(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a descriptor, which it keeps wherever the folder moves to."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "above/inner/file").mkdir(parents=True)
    (folder / "above/inner").chmod(0o500)
    (outside / "kept").mkdir(parents=True)
    outside.chmod(0o500)
    above = os.open(folder / "above", os.O_DIRECTORY)
    steps = itertools.count()

    def swap_at(function: Callable[..., Any]) -> Callable[..., Any]:
        def swapping(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                with contextlib.suppress(OSError):
                    rename("inner", "away", src_dir_fd=above, dst_dir_fd=above)
                    os.symlink(outside, "inner", dir_fd=above)
            return function(*args, **kwargs)

        return swapping

    rename = os.rename
    with monkeypatch.context() as patched:
        for name in ("chmod", "open", "listdir", "scandir", "unlink", "rename", "rmdir"):
            patched.setattr(os, name, swap_at(getattr(os, name)))
        with contextlib.suppress(OSError):
            atomic_files.remove_folder(folder)
    os.close(above)
    assert next(steps) > step
    assert outside.stat().st_mode & 0o777 == 0o500 and (outside / "kept").exists()
    atomic_files.remove_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
