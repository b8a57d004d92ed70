"""Change notifications: Redis publishes the id of each task that has new output, new events or another state."""

from __future__ import annotations

import socket
import time

import redis

from flansible.errors import StoreUnavailable
from flansible.store.connection import CONNECT_TIMEOUT_SECONDS, text, translated
from flansible.store.keys import CHANGED_CHANNEL

_POLL_SECONDS = 0.001


class Changes:
    """Subscribes to changes of tasks, for one thread. After Redis was away, it reports every followed task as changed,
    because notifications may be missing."""

    def __init__(self, client: redis.Redis) -> None:
        self._pubsub = client.pubsub()  # type: ignore[no-untyped-call]
        self._followed: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._changed: set[str] = set()

    def follow(self, task_id: str) -> None:
        """Reports changes of this task from now on. Raises StoreUnavailable; `wait` then tries again to subscribe."""
        self._followed.add(task_id)
        self._unconfirmed.add(task_id)
        with translated():
            self._subscribe()

    def unfollow(self, task_id: str) -> None:
        """Reports no more changes of this task. That holds even when StoreUnavailable is raised."""
        for tasks in (self._followed, self._unconfirmed, self._changed):
            tasks.discard(task_id)
        with translated():
            self._pubsub.unsubscribe(CHANGED_CHANNEL + task_id)

    def wait(self, seconds: float) -> set[str]:
        """Waits until a followed task has changed, and returns those that have; none when the time is over.

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
        """Like `wait`, but returns at once: for callers that poll `socket` together with other descriptors."""
        changed: set[str] = set()
        if self._pubsub.connection is None:
            return changed
        if self.socket() is None:
            changed |= self.wait(_POLL_SECONDS)
        # Until nothing is left: what was read into the buffer does not make the socket readable again.
        while self._can_read():
            changed |= self.wait(_POLL_SECONDS)
        return changed

    def socket(self) -> socket.socket | None:
        """Returns the socket that becomes readable with a notification; None while there is no connection. A new
        connection has another socket."""
        connection = self._pubsub.connection
        return None if connection is None else connection._get_socket()

    def close(self) -> None:
        """Closes the connection."""
        self._pubsub.close()

    def _can_read(self) -> bool:
        try:
            with translated():
                return bool(self._pubsub.connection.can_read(timeout=0))
        except StoreUnavailable:
            return True  # the connection has ended: `wait` makes a new one

    def _subscribe(self) -> None:
        """Waits until Redis has confirmed each subscription; a change just after it could be missed otherwise."""
        for task_id in self._unconfirmed:
            self._pubsub.subscribe(CHANGED_CHANNEL + task_id)
        while self._unconfirmed:
            if not self._take(CONNECT_TIMEOUT_SECONDS):
                raise StoreUnavailable("Redis does not answer: a subscription is not confirmed")

    def _take(self, seconds: float) -> bool:
        """Reads one message; returns whether there was one."""
        message = self._pubsub.get_message(timeout=seconds)
        if message is None:
            return False
        task_id = text(message["channel"]).removeprefix(CHANGED_CHANNEL)
        if message["type"] == "subscribe" and task_id in self._unconfirmed:
            self._unconfirmed.discard(task_id)
        elif message["type"] in ("message", "subscribe"):  # an unexpected `subscribe`: the connection is a new one
            self._changed |= self._followed & {task_id}
        return True
