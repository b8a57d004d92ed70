"""What the worker's machine denies a run, a full disk or no descriptors, is the task's error, at the first attempt."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.services import Service, child, started
from tests.helpers.waiting import eventually

BODY: dict[str, Any] = {"module": "debug", "on_lost": "requeue"}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of the service: a small disk of its own."""
    place = Path(tempfile.mkdtemp(prefix="fl-home-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip(f"a disk of its own cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        with started("worker_concurrency = 2\n") as running:
            yield running


def leftovers(home: Path) -> list[str]:
    return [path.name for path in home.glob(".ansible/tmp/*ansible-*")]


def runs_well(service: Service) -> None:
    status = service.wait(service.submit("ansiblecommand", BODY))
    assert status["state"] == "succeeded", status


@contextlib.contextmanager
def kept_full(folder: Path) -> Iterator[None]:
    """Fills the file system, again and again: what an earlier run still removes would make room for the next one."""
    filler, over = folder / "filler", threading.Event()

    def fill(file: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                os.write(file, b"x" * 4096)

    def keep_full(file: int) -> None:
        while not over.wait(0.01):
            fill(file)

    with filler.open("wb") as opened:
        fill(opened.fileno())
        thread = threading.Thread(target=keep_full, args=(opened.fileno(),))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    filler.unlink()


def test_a_full_home_is_the_error_of_each_run_and_leaves_nothing(service: Service, home: Path) -> None:
    runs_well(service)
    before = set(leftovers(home))  # fork servers', and perhaps the run's, which are removed meanwhile
    with kept_full(home):
        for _ in range(2):
            status = service.wait(service.submit("ansiblecommand", BODY))
            assert status["state"] == "error" and "attempt" not in status, status
            assert "No space left on device" in status["description"] and str(home) in status["description"]
        assert set(leftovers(home)) <= before
    runs_well(service)


def test_a_worker_without_descriptors_says_so_and_goes_on_once_it_has_some(service: Service) -> None:
    runs_well(service)
    worker = child(service, "worker")
    limits = worker.rlimit(resource.RLIMIT_NOFILE)
    # Each number is one place further in what a run needs: the first descriptors, then the pipes, then all.
    for spare in range(6):
        taken = {int(name) for name in os.listdir(f"/proc/{worker.pid}/fd")}
        free = (number for number in itertools.count() if number not in taken)
        worker.rlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, spare, None)), limits[1]))
        try:
            status = service.wait(service.submit("ansiblecommand", BODY))
        finally:
            worker.rlimit(resource.RLIMIT_NOFILE, limits)
        if status["state"] == "succeeded":
            assert spare > 0
            break
        assert status["state"] == "error" and "Too many open files" in status["description"], status
        assert "attempt" not in status
    count = eventually(worker.num_fds)
    runs_well(service)
    eventually(lambda: worker.num_fds() <= count + 1)
