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
