"""`make demo`, less the making of the virtual environment: scripts/demo.sh, run and interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.waiting import require_program

TOP = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """The temp folder of the demo's user; a short name, because a socket's path in it is limited to 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="fl-demo-"))
    yield path
    shutil.rmtree(path)


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(TOP / "scripts" / "demo.sh")],
        # Settings of the caller must not matter.
        env={**os.environ, "PYTHON": sys.executable, "TMPDIR": str(folder), "FLANSIBLE_WEB_WORKERS": "none"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_demo_shows_both_requests_with_their_statuses_and_outputs(folder: Path) -> None:
    require_program("curl")
    with _start(folder) as demo:
        shown, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, shown
    words = ("/api/ansiblecommand", '"ping": "pong"', "/api/ansibleplaybook", "PLAY RECAP", "everything is stopped")
    places = [shown.find(word) for word in words]
    assert places == sorted(places) and places[0] >= 0, shown
    assert len(re.findall(r"^\$ curl ", shown, re.MULTILINE)) == 6
    assert shown.count('"Status":"SUCCESS"') == 2
    assert list(folder.iterdir()) == []


@pytest.mark.nightly
def test_an_interrupted_demo_stops_what_it_started(folder: Path) -> None:
    with _start(folder) as demo:
        assert demo.stdout is not None
        shown = ""
        for line in demo.stdout:
            shown += line
            if line.startswith("Flansible is ready"):
                os.killpg(demo.pid, signal.SIGINT)  # as Ctrl-C does
        demo.wait(20)
    assert demo.returncode == 130, shown
    assert "everything is stopped" in shown
    assert list(folder.iterdir()) == []
