"""Waits until a descriptor of a step is ready, for supervisor.py."""

from __future__ import annotations

import select
import socket


class StepPoll:
    """The poll(2) of one step. recorder: it has taken more; signals: each is returned once, and stays readable."""

    def __init__(self, channel: socket.socket, recorder: int, signals: set[int]) -> None:
        self._channel = channel
        self._signals = set(signals)
        self._pipes: set[int] = set()
        self._poll = select.poll()
        for descriptor in (recorder, *signals):
            self._poll.register(descriptor, select.POLLIN)

    def wait(self, pipes: set[int], has_unsent: bool, milliseconds: float) -> set[int]:
        """Returns those that are ready of these pipes, the channel, the recorder and the signals.

        has_unsent: the channel is ready as well once it takes bytes.
        """
        for descriptor in self._pipes - pipes:
            self._poll.unregister(descriptor)
        for descriptor in pipes - self._pipes:
            self._poll.register(descriptor, select.POLLIN)
        self._pipes = set(pipes)
        self._poll.register(self._channel, select.POLLIN | (select.POLLOUT if has_unsent else 0))
        ready = {descriptor for descriptor, _ in self._poll.poll(milliseconds)}
        for descriptor in self._signals & ready:
            # It stays readable: without this, poll would return at once from now on.
            self._poll.unregister(descriptor)
            self._signals.discard(descriptor)
        return ready
