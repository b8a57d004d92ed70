"""Ports for servers: each process of a test run has its own range, below the kernel's ephemeral ports.

A port that the kernel gave could be taken by any client's connection before the server that is meant to have it starts.
Other checkouts' tests may run on this machine: a process claims its range by a name in the abstract namespace of Unix
sockets, which the kernel gives to one process alone and takes back when that ends.
"""

from __future__ import annotations

import itertools
import socket

_FIRST, _LAST, _EACH = 12_000, 32_000, 500


def _claimed() -> range:
    """The first range that no other process has."""
    for first in range(_FIRST, _LAST, _EACH):
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                claim.bind(f"\0flansible-tests-{first}")
            except OSError:
                continue
            claim.detach()  # held until this process ends
            return range(first, first + _EACH)
    raise AssertionError("other tests of this machine have all ranges of ports")


_numbers = itertools.cycle(_claimed())  # at import: a test must not be taken to have left the claim behind


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that this function gives to no other test for a long time."""
    for port in itertools.islice(_numbers, _EACH):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # a server that is no test's
            return port
    raise AssertionError("no free port in the range of this process")
