"""Ports for servers: each process of the test run has its own range, below the kernel's ephemeral ports.

A port that the kernel gave could be taken by any client's connection before the server that is meant to have it starts.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _EACH = 12_000, 1_000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = itertools.cycle(range(_FIRST + _WORKER * _EACH, _FIRST + (_WORKER + 1) * _EACH))


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that this function gives to no other test for a long time."""
    for port in itertools.islice(_numbers, _EACH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # another checkout's tests run on this machine as well
            return port
    raise AssertionError("no free port in the range of this process")
