"""Everyone who stays on the line, in one thread of each web process: output and events as they come, and long-polls.

The resources check the request, and flansible.web.streaming.socket_handoff hands the client's socket over. From then
on a follower
costs a descriptor and one piece of what it reads, never a thread: it is woken when Redis tells of a change, and it is
given the next piece when its client has taken the last.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from flansible.errors import StoreUnavailable
from flansible.store import Changes, Position, Store
from flansible.web.streaming.feeds import Feed, Piece, ReplyHead

log = logging.getLogger(__name__)

MAX_FOLLOWERS = 1000  # of one process
LOOK_SECONDS = 1.0  # what Redis told while nobody could hear it is found by looking
RETRY_SECONDS = 1.0
LINGER_SECONDS = 2.0

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_UNSENT_BYTES = 128 * 1024
# Nobody says so when a client's machine loses power; the kernel asks.
_TCP_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    # What the kernel takes for a client that does not read: without it, megabytes for each.
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES),
)


@dataclass(eq=False)
class _Follower:
    """One client. wait_until: it waits for one whole reply, until then at the longest.

    feed None: all has been given out; unsent: what its client has not taken yet; is_done: all has been sent as well.
    """

    connection: socket.socket
    head: ReplyHead
    feed: Feed | None
    task_id: str
    wait_until: float | None
    alarm_at: float = 0.0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    is_done: bool = False
    is_gone: bool = False


@dataclass
class _Task:
    """A task that is followed, how far it is known to be, and by whom."""

    position: Position | None = None
    followers: set[_Follower] = field(default_factory=set)


class Followers:
    """The followers of this process. The thread starts with the first of them; `add` and `close` are for any thread."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """open_store: a store of the thread's own, which gives up soon when Redis does not answer."""
        self._open_store = open_store
        self._lock = threading.Lock()
        self._newcomers: deque[_Follower] = deque()
        self._line: _Line | None = None
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many. Asked before each `add`: threads that ask together may all come in."""
        # Half of the descriptors are for everyone else: without one for `accept`, gunicorn's process would end.
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = MAX_FOLLOWERS if descriptors == resource.RLIM_INFINITY else min(MAX_FOLLOWERS, descriptors // 2)
        line = self._line
        return (len(line.followers) if line else 0) + len(self._newcomers) >= most

    def add(self, connection: socket.socket, head: ReplyHead, feed: Feed, wait_seconds: float | None) -> None:
        """Send `feed` to this client; the socket is ours from now on, and its state is nobody else's business.

        wait_seconds: it is to get one whole reply, the first that comes or, after this time, what `give_up` says.
        """
        wait_until = None if wait_seconds is None else time.monotonic() + wait_seconds
        with self._lock:
            if self._is_closed:
                connection.close()
                return
            self._newcomers.append(_Follower(connection, head, feed, feed.task_id, wait_until))
            if self._line is None:
                self._line = _Line(self._open_store, self._newcomers)
                self._line.thread.start()
            self._line.wake()

    def close(self) -> None:
        """Cut everyone off: they come back, to another process or a later one, and go on where they were cut."""
        with self._lock:
            self._is_closed = True
            line, self._line = self._line, None
        if line is not None:
            line.stop()


class _Line:
    """The thread, and what only it touches."""

    def __init__(self, open_store: Callable[[], Store], newcomers: deque[_Follower]) -> None:
        self.thread = threading.Thread(target=self._run, name="followers", daemon=True)
        self.followers: dict[int, _Follower] = {}
        self._open_store = open_store
        self._newcomers = newcomers
        self._is_stopped = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._tasks: dict[str, _Task] = {}
        self._ready: dict[_Follower, None] = {}  # in turn; those that may be given a piece
        self._stale: set[str] = set()  # tasks that have changed, or may have
        self._to_follow: set[str] = set()
        self._to_unfollow: set[str] = set()
        self._heard_from: socket.socket | None = None
        self._alarms: list[tuple[float, int, _Follower]] = []
        self._numbers = itertools.count()
        self._look_at = self._retry_at = 0.0

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self._is_stopped = True
        self.wake()
        self.thread.join()

    def _run(self) -> None:
        store = self._open_store()
        changes = store.changes()
        try:
            while not self._is_stopped:
                try:
                    self._round(store, changes)
                except Exception:
                    # The thread must live: later followers would wait for ever. These come back.
                    log.exception("all followers are cut off")
                    for follower in tuple(self.followers.values()):
                        self._drop(follower)
        finally:
            for follower in (*self.followers.values(), *self._newcomers):
                follower.connection.close()
            changes.close()
            store.close()
            self._epoll.close()
            os.close(self._wake)

    def _round(self, store: Store, changes: Changes) -> None:
        for descriptor, events in self._epoll.poll(self._pause_seconds()):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif descriptor in self.followers:
                self._attend(self.followers[descriptor], events)
        self._welcome()
        self._ring()
        if time.monotonic() >= self._retry_at:
            try:
                self._listen(changes)
                self._look(store)
                self._give(store)
            except StoreUnavailable as error:
                # They stay on the line. Whatever was missed is found by looking, once the store is back.
                log.debug("followers wait for the store: %s", error)
                self._retry_at = self._look_at = time.monotonic() + RETRY_SECONDS
                self._watch(None)
            else:
                self._watch(changes.socket())

    def _pause_seconds(self) -> float | None:
        if not self._tasks and not self._alarms:
            return None
        now = time.monotonic()
        if self._ready and now >= self._retry_at:
            return 0
        moments = [max(self._look_at, self._retry_at), *(alarm[0] for alarm in self._alarms[:1])]
        return max(0.0, min(moments) - now)

    def _welcome(self) -> None:
        while self._newcomers:
            # Among the followers first: whoever counts them must not see a moment with fewer.
            follower = self._newcomers[0]
            self.followers[follower.connection.fileno()] = follower
            self._newcomers.popleft()
            self._prepare(follower.connection)
            self._epoll.register(follower.connection, _GONE)
            if follower.task_id not in self._tasks:
                self._stale.add(follower.task_id)
                if follower.task_id in self._to_unfollow:
                    self._to_unfollow.discard(follower.task_id)
                else:
                    self._to_follow.add(follower.task_id)
            task = self._tasks.setdefault(follower.task_id, _Task())
            task.followers.add(follower)
            if task.position is not None:
                self._ready[follower] = None
            self._begin(follower)

    def _prepare(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        for option in _TCP_OPTIONS:
            with contextlib.suppress(OSError):  # a Unix socket has none of these
                connection.setsockopt(*option)

    def _begin(self, follower: _Follower) -> None:
        assert follower.feed is not None
        if follower.wait_until is not None:
            self._set_alarm(follower, follower.wait_until)
            return
        if follower.feed.keep_alive:
            self._set_alarm(follower, time.monotonic() + follower.feed.keep_alive_seconds)
        # The head at once: a proxy must not take a quiet task for a dead service.
        self._send(follower, follower.head.of_stream() + follower.head.framed(follower.feed.opening))

    def _set_alarm(self, follower: _Follower, moment: float) -> None:
        follower.alarm_at = moment
        heapq.heappush(self._alarms, (moment, next(self._numbers), follower))

    def _ring(self) -> None:
        """Do what is due by the clock: keep-alives, replies that were waited for long enough, late closes."""
        now = time.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            follower = heapq.heappop(self._alarms)[2]
            if follower.is_gone:
                continue
            if follower.alarm_at > now:  # something was sent meanwhile
                self._set_alarm(follower, follower.alarm_at)
            elif follower.is_done:
                self._drop(follower)
            elif follower.feed is not None and follower.wait_until is not None:
                self._give_piece(follower, follower.feed.give_up())
            elif follower.feed is not None:
                if not follower.unsent:
                    self._send(follower, follower.head.framed(follower.feed.keep_alive))
                self._set_alarm(follower, now + follower.feed.keep_alive_seconds)

    def _listen(self, changes: Changes) -> None:
        for wishes, tell in ((self._to_unfollow, changes.unfollow), (self._to_follow, changes.follow)):
            for task_id in tuple(wishes):
                tell(task_id)
                wishes.discard(task_id)
        self._stale |= changes.heard()

    def _watch(self, heard_from: socket.socket | None) -> None:
        """Be woken by what is heard. A new connection may have the old one's number, which epoll has forgotten."""
        if heard_from is not self._heard_from:
            if self._heard_from is not None and self._heard_from.fileno() >= 0:
                self._epoll.unregister(self._heard_from)
            if heard_from is not None:
                self._epoll.register(heard_from, select.EPOLLIN)
            self._heard_from = heard_from

    def _look(self, store: Store) -> None:
        """Learn how far the tasks are that have changed; now and then, how far all are."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._stale.update(self._tasks)
        self._stale.intersection_update(self._tasks)
        if not self._stale:
            return
        for task_id, position in store.positions(list(self._stale)).items():
            task = self._tasks[task_id]
            if position != task.position:
                task.position = position
                self._ready.update(dict.fromkeys(one for one in task.followers if not one.unsent))
        self._stale.clear()

    def _give(self, store: Store) -> None:
        """One piece to each that is ready, in turn; whoever can take more is ready again."""
        read: dict[Feed, Piece | None] = {}
        for follower in tuple(self._ready):
            feed, position = follower.feed, self._tasks[follower.task_id].position
            if feed is None or position is None or follower.unsent:
                del self._ready[follower]
                continue
            if feed not in read:
                read[feed] = self._read(feed, store, position)
            piece = read[feed]
            del self._ready[follower]
            if piece is None:
                self._drop(follower)
                continue
            self._give_piece(follower, piece)
            if follower.feed not in (None, feed) and not follower.unsent and not follower.is_gone:
                self._ready[follower] = None

    def _read(self, feed: Feed, store: Store, position: Position) -> Piece | None:
        try:
            return feed.next(store, position)
        except StoreUnavailable:
            raise
        except Exception:
            # One that cannot be served must not cost the others theirs.
            log.exception("what follows task %s is cut off", feed.task_id)
            return None

    def _give_piece(self, follower: _Follower, piece: Piece) -> None:
        follower.feed = piece.rest
        if follower.wait_until is None:
            self._send(follower, follower.head.framed(piece.data, piece.rest is None))
        elif piece.rest is None:
            self._send(follower, follower.head.of_whole(piece) + piece.data)

    def _send(self, follower: _Follower, data: bytes) -> None:
        if data:
            follower.unsent = memoryview(data)
            if follower.wait_until is None and follower.feed is not None:
                follower.alarm_at = time.monotonic() + follower.feed.keep_alive_seconds
        self._push(follower)

    def _push(self, follower: _Follower) -> None:
        """Send what the client takes; the rest when it takes more."""
        was_blocked = False
        try:
            if follower.unsent:
                follower.unsent = follower.unsent[follower.connection.send(follower.unsent) :]
        except BlockingIOError:
            was_blocked = True
        except OSError:
            self._drop(follower)
            return
        if follower.unsent or was_blocked:
            self._epoll.modify(follower.connection, _GONE | select.EPOLLOUT)
            return
        follower.unsent = memoryview(b"")
        if follower.feed is None:
            self._finish(follower)

    def _attend(self, follower: _Follower, events: int) -> None:
        if events & _GONE:
            self._drop(follower)
        elif follower.is_done:
            self._drain(follower)
        elif events & select.EPOLLOUT:
            self._epoll.modify(follower.connection, _GONE)
            self._push(follower)
            if not follower.unsent and not follower.is_done and not follower.is_gone:
                self._ready[follower] = None

    def _finish(self, follower: _Follower) -> None:
        """All was sent. The connection is closed when the client has done so: to close it with something of the
        client's unread, such as its next request, would take back what it has not read yet (RFC 9112, 9.6)."""
        follower.is_done = True
        self._leave(follower)
        try:
            follower.connection.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(follower)
            return
        self._epoll.modify(follower.connection, _GONE | select.EPOLLIN)
        self._set_alarm(follower, time.monotonic() + LINGER_SECONDS)

    def _drain(self, follower: _Follower) -> None:
        try:
            if not follower.connection.recv(65536):
                self._drop(follower)
        except BlockingIOError:
            return
        except OSError:
            self._drop(follower)

    def _drop(self, follower: _Follower) -> None:
        if not follower.is_gone:
            follower.is_gone = True
            follower.unsent = memoryview(b"")
            self._leave(follower)
            del self.followers[follower.connection.fileno()]
            follower.connection.close()  # which epoll notices

    def _leave(self, follower: _Follower) -> None:
        self._ready.pop(follower, None)
        task = self._tasks.get(follower.task_id)
        if task is not None:
            task.followers.discard(follower)
            if not task.followers:
                del self._tasks[follower.task_id]
                if follower.task_id in self._to_follow:
                    self._to_follow.discard(follower.task_id)
                else:
                    self._to_unfollow.add(follower.task_id)
