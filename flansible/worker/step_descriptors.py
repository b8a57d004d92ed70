"""The descriptors of one step: its channel and its two pipes. Opened by supervisor.py, all of them or none.

A worker that comes to its limit of open files fails in the middle, and must not lose those it has opened.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass


@dataclass(frozen=True)
class StepDescriptors:
    """Our end and the run's end (`_end`, `theirs`) of each."""

    channel: socket.socket
    theirs: socket.socket
    output: int
    output_end: int
    events: int
    events_end: int

    @classmethod
    def open(cls) -> StepDescriptors:
        """Opens all of them. Raises OSError."""
        with ExitStack() as opened:
            channel, theirs = socket.socketpair()
            opened.callback(channel.close)
            opened.callback(theirs.close)
            pipes = []
            for _ in range(2):
                pipe = os.pipe2(os.O_CLOEXEC)
                for descriptor in pipe:
                    opened.callback(os.close, descriptor)
                # Our ends only: Ansible refuses a non-blocking standard output.
                os.set_blocking(pipe[0], False)
                pipes.append(pipe)
            opened.pop_all()
        return cls(channel, theirs, *pipes[0], *pipes[1])

    def close_theirs(self) -> None:
        self.theirs.close()
        os.close(self.output_end)
        os.close(self.events_end)

    def close_ours(self) -> None:
        self.channel.close()
        os.close(self.output)
        os.close(self.events)
