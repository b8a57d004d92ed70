"""What changes, as it changes: Redis tells of each task that has new output or events or another state."""

from __future__ import annotations

import socket
import time

import redis

from flansible.errors import StoreUnavailable
from flansible.store.connection import CONNECT_TIMEOUT_SECONDS, text, translated
from flansible.store.keys import CHANGED_CHANNEL

_GLANCE_SECONDS = 0.001


class Changes:
    """One subscription, for one thread. After Redis was away every followed task is told: something may be missed."""

    def __init__(self, client: redis.Redis) -> None:
        self._pubsub = client.pubsub()  # type: ignore[no-untyped-call]
        self._followed: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._changed: set[str] = set()

    def follow(self, task_id: str) -> None:
        """What changes from now on is told. Raises StoreUnavailable; the wish is kept and tried again by `wait`."""
        self._followed.add(task_id)
        self._unconfirmed.add(task_id)
        with translated():
            self._subscribe()

    def unfollow(self, task_id: str) -> None:
        """Nothing more is told of this task, even when StoreUnavailable is raised."""
        for tasks in (self._followed, self._unconfirmed, self._changed):
            tasks.discard(task_id)
        with translated():
            self._pubsub.unsubscribe(CHANGED_CHANNEL + task_id)

    def wait(self, seconds: float) -> set[str]:
        """The followed tasks that have changed, as soon as one has; none when nothing did in time.

        Raises StoreUnavailable at once while Redis is away.
        """
        give_up_at = time.monotonic() + seconds
        with translated():
            self._subscribe()
            while True:
                left = 0.0 if self._changed else max(0.0, give_up_at - time.monotonic())
                if not self._take(left) and left == 0.0:
                    changed, self._changed = self._changed, set()
                    return changed

    def poll(self) -> set[str]:
        """As `wait`, without waiting: for one who polls `socket` among other things."""
        changed: set[str] = set()
        if self._pubsub.connection is None:
            return changed
        if self.socket() is None:
            changed |= self.wait(_GLANCE_SECONDS)
        # Until nothing is left: what has been read off the socket does not make it readable again.
        while self._can_read():
            changed |= self.wait(_GLANCE_SECONDS)
        return changed

    def socket(self) -> socket.socket | None:
        """Readable when there is something to hear. Another one after each new connection, None while there is none."""
        connection = self._pubsub.connection
        return None if connection is None else connection._get_socket()

    def close(self) -> None:
        self._pubsub.close()

    def _can_read(self) -> bool:
        try:
            with translated():
                return bool(self._pubsub.connection.can_read(timeout=0))
        except StoreUnavailable:
            return True  # the connection has ended: `wait` makes a new one

    def _subscribe(self) -> None:
        """Until Redis has confirmed it: else a change that comes at once could be missed."""
        for task_id in self._unconfirmed:
            self._pubsub.subscribe(CHANGED_CHANNEL + task_id)
        while self._unconfirmed:
            if not self._take(CONNECT_TIMEOUT_SECONDS):
                raise StoreUnavailable("Redis does not answer: a subscription is not confirmed")

    def _take(self, seconds: float) -> bool:
        """Whether there was anything to read."""
        message = self._pubsub.get_message(timeout=seconds)
        if message is None:
            return False
        task_id = text(message["channel"]).removeprefix(CHANGED_CHANNEL)
        if message["type"] == "subscribe" and task_id in self._unconfirmed:
            self._unconfirmed.discard(task_id)
        elif message["type"] in ("message", "subscribe"):  # nobody asked for the latter: the connection is a new one
            self._changed |= self._followed & {task_id}
        return True
