"""What a worker has started, found by its tag: continued where it was stopped, ended where the worker cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from flansible.broker.recovery import LEFT_SECONDS, LOOK_SECONDS, Recovery
from flansible.store import Store
from flansible.system import process_identity, runner_processes
from tests.helpers.waiting import eventually

SLEEPER = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('ready', flush=True); time.sleep(600)"
)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def started() -> Iterator[dict[str, list[psutil.Process]]]:
    """By a tag: a process that has it, and its child."""
    found: dict[str, list[psutil.Process]] = {}
    dead = subprocess.Popen(["true"])
    tags = {"own": process_identity.tag(process_identity.own_identity()), "dead": f"worker={dead.pid}:1"}
    dead.wait()
    processes = []
    for name, tag in tags.items():
        process = subprocess.Popen([sys.executable, "-c", SLEEPER, tag], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        processes.append(process)
        found[name] = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    yield found
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    for one in [one for both in found.values() for one in both]:
        if one.is_running():
            one.kill()
    for process in processes:
        process.wait()
    psutil.wait_procs([child for _, child in found.values()], timeout=10)


def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_what_was_stopped_is_continued_and_named(started: dict[str, list[psutil.Process]]) -> None:
    own, _ = started["own"]
    pids = runner_processes.of_worker(process_identity.own_identity())
    assert pids == {own.pid} and runner_processes.resume(pids) == set()
    own.send_signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(own))
    assert runner_processes.resume(pids) == {own.pid}
    eventually(lambda: not is_stopped(own))
    assert runner_processes.of_worker("elsewhere boot ns 1 1 ?") == set()


def test_what_dead_workers_left_is_continued_first_and_killed_later_without_the_store(
    started: dict[str, list[psutil.Process]], store: Store
) -> None:
    (left, below), (own, _) = started["dead"], started["own"]
    clock = Clock()
    recovery = Recovery(store, clock)
    for process in (left, own):
        process.send_signal(signal.SIGSTOP)
        eventually(lambda process=process: is_stopped(process))
    store.close()
    recovery.end_left_runs()
    eventually(lambda: not is_stopped(left))
    assert is_stopped(own), "a worker that is alive looks after its own"
    while clock.seconds < LEFT_SECONDS:
        assert left.is_running() and below.is_running()
        clock.seconds += LOOK_SECONDS
        recovery.end_left_runs()
    eventually(lambda: left.status() == psutil.STATUS_ZOMBIE)
    eventually(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE)
    assert own.is_running()


def test_a_tag_says_whether_its_process_lives_or_is_stopped() -> None:
    own = process_identity.tag(process_identity.own_identity())
    assert not process_identity.is_tag_of_dead(own) and not process_identity.is_tag_of_stopped(own)
    assert process_identity.is_tag_of_dead(f"worker={os.getpid()}:1")
    assert not process_identity.is_tag_of_dead("worker=1") and not process_identity.is_tag_of_dead("x")
