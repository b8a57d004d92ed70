"""Whether a process is dead: only what is certain counts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flansible.system import process_identity, runner_processes


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def identity() -> str:
    return process_identity.own_identity()


def test_a_live_process_is_not_taken_for_dead_for_want_of_a_descriptor(identity: str) -> None:
    """What is taken for dead has its tasks judged, and what it started killed."""
    tag = process_identity.tag(identity)
    with no_descriptor_left():
        found = process_identity.explain_death(identity), process_identity.is_tag_of_dead(tag)
        with pytest.raises(OSError, match="Too many open files"):
            runner_processes.of_worker(identity)
        with pytest.raises(OSError, match="Too many open files"):
            runner_processes.tags()
    assert found == (None, False)


def test_a_process_that_has_ended_is_dead(identity: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        parts = identity.split()
        parts[3] = str(process.pid)
        parts[4] = str(process_identity._start_ticks(process.pid))
        other = " ".join(parts)
        assert process_identity.explain_death(other) is None
        assert process_identity.lives_here(other)
    assert "died while it ran" in str(process_identity.explain_death(other))
    assert process_identity.is_tag_of_dead(process_identity.tag(other))
    assert not process_identity.lives_here(other)
