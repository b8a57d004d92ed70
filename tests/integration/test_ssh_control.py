"""The directories of ssh masters: one for each worker and user, and what becomes of a dead worker's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.system import ssh_control
from flansible.system.ssh_control import ControlMasters

# A process that calls itself as ssh does its masters; `deaf` ones do not end when asked to.
PRETEND = """
import signal, sys, time
if int(sys.argv[1]):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ssh"


def pretend(directory: str, deaf: bool = False, stopped: bool = False) -> subprocess.Popen[str]:
    title = "ssh: [stopped mux]" if stopped else f"ssh: {directory}/0123456789 [mux]"
    process = subprocess.Popen(
        [title, "-c", PRETEND, str(int(deaf))],
        executable=sys.executable,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


@pytest.fixture
def masters(root: Path) -> Iterator[ControlMasters]:
    found = ControlMasters(root)
    yield found
    found.close()
    ssh_control.end_orphaned_masters(root)
    assert not root.exists()


def test_each_user_has_a_directory_of_their_own(masters: ControlMasters) -> None:
    one, other = masters.directory_of("dev"), masters.directory_of("../ops")
    assert one != other
    assert one == masters.directory_of("dev")
    assert Path(one).parent == Path(other).parent
    assert Path(one).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("deaf", [False, True])
def test_closing_ends_them_even_those_that_do_not_listen(root: Path, deaf: bool) -> None:
    masters = ControlMasters(root)
    process = pretend(masters.directory_of("dev"), deaf)
    masters.close()
    assert process.wait(5) < 0
    assert list(root.iterdir()) == []


def test_closing_ends_those_that_take_no_more_sessions_too(root: Path) -> None:
    masters = ControlMasters(root)
    directory = Path(masters.directory_of("dev"))
    ours, somebody_elses = pretend(str(directory), stopped=True), pretend(str(directory), stopped=True)
    (directory / f"stopped-{ours.pid}").touch()
    (directory / "stopped-1").touch()  # a process id that has become another's
    masters.close()
    assert ours.wait(5) < 0
    assert somebody_elses.poll() is None
    somebody_elses.kill()
    somebody_elses.wait()


def test_another_workers_are_left_alone_while_it_lives(masters: ControlMasters, root: Path) -> None:
    process = pretend(masters.directory_of("dev"))
    ControlMasters(root).close()
    ssh_control.end_orphaned_masters(root)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_those_of_a_dead_worker_are_ended_by_the_next(root: Path) -> None:
    code = "import sys, pathlib; from flansible.system.ssh_control import ControlMasters as M; "
    code += "print(M(pathlib.Path(sys.argv[1])).directory_of('dev'))"
    done = subprocess.run([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True, check=True)
    process = pretend(done.stdout.strip())
    next_one = ControlMasters(root)
    assert process.wait(5) < 0
    assert not Path(done.stdout.strip()).exists()
    next_one.close()


def test_a_directory_of_somebody_else_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4711)
    with pytest.raises(PermissionError):
        ControlMasters(root)


def test_folders_nested_deeper_than_python_can_follow_are_removed(root: Path) -> None:
    """A confined user can write there; a worker that could not remove it would never start again."""
    masters = ControlMasters(root)
    nest = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\n"
    subprocess.run([sys.executable, "-c", nest, masters.directory_of("dev")], check=True)
    masters.close()
    assert list(root.iterdir()) == []
    ssh_control.end_orphaned_masters(root)
    assert not root.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become nobody")
def test_folders_that_are_locked_are_removed() -> None:
    """Not by root, to whom no folder is locked."""
    place = Path(tempfile.mkdtemp(prefix="flansible-locked-"))
    locked = place / "folder/locked"
    (locked / "within").mkdir(parents=True)
    for path in (place, place / "folder", locked, locked / "within"):
        os.chown(path, 65534, 65534)
    (place / "folder").chmod(0)
    locked.chmod(0)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        ssh_control._remove(place / "folder")
        os._exit(0)
    os.waitpid(child, 0)
    assert list(place.iterdir()) == []
    place.rmdir()
