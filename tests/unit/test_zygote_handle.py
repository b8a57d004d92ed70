"""What the worker takes from a zygote, which a confined user's code may have taken over."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from flansible.errors import NotForkable
from flansible.worker.zygote_handle import ForkedProcess, Zygote


class Answering(Zygote):
    """Answers each request with this descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._lock, self._is_late, self._sandbox = threading.Lock(), False, None
        self._control, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(theirs, [b"F"], [descriptor])
            self._theirs = theirs.dup()


@pytest.fixture
def event() -> Iterator[int]:
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


def test_a_descriptor_that_is_of_no_process_is_refused(event: int) -> None:
    zygote = Answering(event)
    with zygote._control, zygote._theirs, pytest.raises(NotForkable, match="does not answer"):
        ForkedProcess(zygote)
    assert zygote._is_late


def test_a_descriptor_of_a_process_is_taken() -> None:
    own = os.pidfd_open(os.getpid())
    zygote = Answering(own)
    with zygote._control, zygote._theirs:
        process = ForkedProcess(zygote)
    process.hang_up()
    os.close(own)
    assert process.pid == os.getpid()


def test_a_fork_server_that_was_left_to_the_worker_is_reaped() -> None:
    """Its zygote has died, and the worker is process 1 of a container."""
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    zygote = Answering(pidfd := os.pidfd_open(child))
    with zygote._control, zygote._theirs:
        process = ForkedProcess(zygote)
    process.hang_up()
    os.close(pidfd)
    assert process.wait(10) and not process.alive
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)
