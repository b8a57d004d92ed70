"""Serves long-lived replies from one epoll thread per web process: followed output and events, and long polls.

The resources check the request, and the server (flansible.web.server.worker) hands the client's socket over. From then
on a follower costs a descriptor and one piece of what it reads, never a thread: it is woken when Redis publishes a
change, and it gets the next piece when its client has taken the last.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from flansible.errors import HistoryUnavailable, StoreUnavailable, TaskDeleted
from flansible.store import READ_AGAIN_SECONDS, Changes, Position, Store
from flansible.system.sockets import WOULD_BLOCK, end_sending, reset
from flansible.web.streaming.feeds import Feed, Piece, ReplyHead

log = logging.getLogger(__name__)

MAX_FOLLOWERS = 1000  # of one process
POLL_SECONDS = 1.0  # finds changes whose notification was lost, such as while Redis was reconnected
RETRY_SECONDS = 1.0
LINGER_SECONDS = 2.0

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def always() -> bool:
    return True


@dataclass(frozen=True)
class Owner:
    """Whose place a follower takes. may_follow: whether the user still has the right to what is sent."""

    user: str
    address: str
    may_follow: Callable[[], bool] = field(default=always, compare=False)


@dataclass(eq=False)
class _Follower:
    """One client. connection: an SSLSocket where the server speaks TLS.

    wait_until: a long poll, for one whole reply, and when it times out; None: a stream. feed: what is still to be read
    from the store, None after the last piece; unsent: what the client has not taken yet; is_done: everything was sent,
    and the connection is to be closed; is_gone: it is closed.
    """

    connection: socket.socket
    head: ReplyHead
    feed: Feed | None
    task_id: str
    owner: Owner
    wait_until: float | None
    timer_at: float = 0.0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    is_done: bool = False
    is_gone: bool = False


@dataclass
class _Task:
    """A followed task: its last known position, None before the first read, and its followers."""

    position: Position | None = None
    followers: set[_Follower] = field(default_factory=set)


class StreamLoop:
    """The stream loop of a web process; the first `add` starts it. `add` and `close` may be called by any thread."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """open_store: opens a store for the loop alone, with a short reply timeout: all followers wait together."""
        self._open_store = open_store
        self._lock = threading.Lock()
        self._newcomers: deque[_Follower] = deque()
        self._loop: _LoopThread | None = None
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether the limit of followers is reached. Checked before `add`, so concurrent requests may exceed it."""
        # Half of the descriptors are left to all else: without one for `accept`, gunicorn's process would end.
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = MAX_FOLLOWERS if descriptors == resource.RLIM_INFINITY else min(MAX_FOLLOWERS, descriptors // 2)
        loop = self._loop
        return (len(loop.followers) if loop else 0) + len(self._newcomers) >= most

    def counts(self, owner: Owner) -> tuple[int, int]:
        """Returns how many followers this user has, and this address. Checked before `add`, as `is_full` is."""
        loop = self._loop
        owners = [one.owner for one in (*(tuple(loop.followers.values()) if loop else ()), *tuple(self._newcomers))]
        return sum(one.user == owner.user for one in owners), sum(one.address == owner.address for one in owners)

    def add(
        self, connection: socket.socket, head: ReplyHead, feed: Feed, owner: Owner, wait_seconds: float | None
    ) -> None:
        """Takes over the socket, which does not block, and sends `feed` to the client.

        wait_seconds: sends one whole reply instead, the first there is, or after this time the feed's timeout reply.
        """
        wait_until = None if wait_seconds is None else time.monotonic() + wait_seconds
        with self._lock:
            if self._is_closed:
                connection.close()
                return
            self._newcomers.append(_Follower(connection, head, feed, feed.task_id, owner, wait_until))
            if self._loop is None:
                self._loop = _LoopThread(self._open_store, self._newcomers)
                self._loop.thread.start()
            self._loop.wake()

    def close(self) -> None:
        """Disconnects all followers: their clients reconnect, to another process or a later one, and resume."""
        with self._lock:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()


class _LoopThread:
    """The loop's thread, and the state that only this thread uses (except `_newcomers`).

    Eight collections hold its state:

    | collection        | holds                                                                                        |
    |-------------------|----------------------------------------------------------------------------------------------|
    | `_newcomers`      | followers that request threads have added and the loop has not admitted yet                  |
    | `followers`       | every admitted follower until it is gone, by descriptor                                      |
    | `_tasks`          | the followed tasks: last known position, and the followers that are not done                 |
    | `_to_subscribe`   | followed tasks whose changes are not subscribed to in Redis yet                              |
    | `_to_unsubscribe` | tasks without followers whose changes are still subscribed to                                |
    | `_stale`          | tasks whose position is to be read again: Redis published a change, or may have              |
    | `_ready`          | followers that may be given a piece, in turn                                                 |
    | `_timers`         | a heap of times at which a follower needs a keep-alive, a timeout reply, or its close        |

    Between any two steps of `_round`:

    1. A follower is in `_newcomers`, in `followers`, or gone. It enters `followers` before it leaves `_newcomers`, so
       that `is_full`, which counts both, never counts too few.
    2. A follower in `followers` is in `_tasks[task_id].followers`, unless it is done. No task is without followers.
    3. Subscribed in Redis = `_tasks` − `_to_subscribe` + `_to_unsubscribe`; the two lists have no task in common.
    4. `_ready` holds only followers of `_tasks`. One with unsent data, or whose task has no position yet, may be in it:
       `_send_pieces` removes it unserved. It returns when its client takes the data, or with the next position.
    5. `_stale` and `_timers` may hold what is gone; it is skipped. The timer that counts is the follower's `timer_at`:
       an entry that comes up before it is pushed again, so that sending costs no change of the heap.

    One follower's life, of the output of a running task that has printed `one`:

    1. `add` appends it to `_newcomers` and wakes the loop; `_admit` moves it to `followers`, registers its socket with
       epoll, puts the task in `_tasks`, `_stale` and `_to_subscribe`, sends the head and sets a keep-alive timer.
    2. `_update_subscriptions` subscribes to the task (before its position is read: no change falls between the two).
       `_refresh_positions` reads the position, 4 bytes, and puts the follower in `_ready`.
    3. `_send_pieces` reads `one` and sends it. The feed has changed, so the follower is ready again; the next piece is
       empty and the feed the same, so it leaves `_ready` until the position changes.
    4. The task prints 10 MB: Redis publishes, the task is stale, its position grows, the follower is ready. After a few
       pieces the socket is full: the rest stays in `unsent`, epoll waits for EPOLLOUT, and `_flush` continues then.
    5. The task ends: the last piece has `rest` None. Once it is sent, `_half_close` removes the follower from `_tasks`
       and `_ready` (the task, now without followers, goes to `_to_unsubscribe`) and sends FIN. When the client has
       closed as well, or after LINGER_SECONDS, `_drop` closes the socket and removes it from `followers`.
    """

    def __init__(self, open_store: Callable[[], Store], newcomers: deque[_Follower]) -> None:
        self.thread = threading.Thread(target=self._run, name="stream-loop", daemon=True)
        self.followers: dict[int, _Follower] = {}
        self._open_store = open_store
        self._newcomers = newcomers
        self._is_stopped = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._tasks: dict[str, _Task] = {}
        self._ready: dict[_Follower, None] = {}  # an ordered set
        self._stale: set[str] = set()
        self._to_subscribe: set[str] = set()
        self._to_unsubscribe: set[str] = set()
        self._timers: list[tuple[float, int, _Follower]] = []
        self._tie_breakers = itertools.count()
        self._change_socket: socket.socket | None = None  # registered with epoll
        self._poll_at = self._retry_at = 0.0
        self._keep_at = math.inf  # when the retention is next to spare the followed tasks

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
                    # The thread must survive: later followers would wait for ever. These clients reconnect.
                    log.exception("all followers are disconnected")
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
                self._handle_event(self.followers[descriptor], events)
        self._admit()
        self._run_timers()
        if time.monotonic() >= self._retry_at:
            try:
                self._update_subscriptions(changes)
                self._refresh_positions(store)
                self._send_pieces(store)
            except StoreUnavailable as error:
                # They stay connected. Missed changes are found by polling once the store is back.
                log.debug("followers wait for the store: %s", error)
                self._retry_at = self._poll_at = time.monotonic() + RETRY_SECONDS
                self._register(None)
            else:
                self._register(changes.socket())

    def _pause_seconds(self) -> float | None:
        if not self._tasks and not self._timers:
            return None
        now = time.monotonic()
        if self._ready and now >= self._retry_at:
            return 0
        moments = [max(self._poll_at, self._retry_at), *(alarm[0] for alarm in self._timers[:1])]
        return max(0.0, min(moments) - now)

    def _admit(self) -> None:
        while self._newcomers:
            # Added before it is removed: `is_full` in another thread must not count too few.
            follower = self._newcomers[0]
            self.followers[follower.connection.fileno()] = follower
            self._newcomers.popleft()
            self._epoll.register(follower.connection, _GONE)
            if follower.task_id not in self._tasks:
                self._stale.add(follower.task_id)
                self._keep_at = 0.0
                if follower.task_id in self._to_unsubscribe:
                    self._to_unsubscribe.discard(follower.task_id)
                else:
                    self._to_subscribe.add(follower.task_id)
            task = self._tasks.setdefault(follower.task_id, _Task())
            task.followers.add(follower)
            if task.position is not None:
                self._ready[follower] = None
            self._start_reply(follower)

    def _start_reply(self, follower: _Follower) -> None:
        assert follower.feed is not None
        if follower.wait_until is not None:
            self._set_timer(follower, follower.wait_until)
            return
        if follower.feed.keep_alive:
            self._set_timer(follower, time.monotonic() + follower.feed.keep_alive_seconds)
        # The head at once: a proxy must not mistake a quiet task for a dead service.
        self._send(follower, follower.head.for_stream() + follower.head.frame(follower.feed.opening))

    def _set_timer(self, follower: _Follower, moment: float) -> None:
        follower.timer_at = moment
        heapq.heappush(self._timers, (moment, next(self._tie_breakers), follower))

    def _run_timers(self) -> None:
        """Handles timers that are due: keep-alives, timeout replies, closes that the client delays."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            follower = heapq.heappop(self._timers)[2]
            if follower.is_gone:
                continue
            if follower.timer_at > now:  # something was sent meanwhile
                self._set_timer(follower, follower.timer_at)
            elif follower.is_done:
                self._drop(follower)
            elif not follower.owner.may_follow():
                self._drop(follower, is_cut_off=True)
            elif follower.feed is not None and follower.wait_until is not None:
                self._send_piece(follower, follower.feed.timeout_reply())
            elif follower.feed is not None:
                if not follower.unsent:
                    self._send(follower, follower.head.frame(follower.feed.keep_alive))
                self._set_timer(follower, now + follower.feed.keep_alive_seconds)

    def _update_subscriptions(self, changes: Changes) -> None:
        for task_ids, apply in ((self._to_unsubscribe, changes.unfollow), (self._to_subscribe, changes.follow)):
            for task_id in tuple(task_ids):
                apply(task_id)
                task_ids.discard(task_id)
        self._stale |= changes.poll()

    def _register(self, change_socket: socket.socket | None) -> None:
        """Registers the socket of changes with epoll; a new one may reuse the descriptor of a closed one."""
        if change_socket is not self._change_socket:
            if self._change_socket is not None and self._change_socket.fileno() >= 0:
                self._epoll.unregister(self._change_socket)
            if change_socket is not None:
                self._epoll.register(change_socket, select.EPOLLIN)
            self._change_socket = change_socket

    def _refresh_positions(self, store: Store) -> None:
        """Reads the positions of stale tasks, and every POLL_SECONDS those of all; marks their followers ready."""
        now = time.monotonic()
        if now >= self._poll_at:
            self._poll_at = now + POLL_SECONDS
            self._stale.update(self._tasks)
        self._stale.intersection_update(self._tasks)
        if now >= self._keep_at and self._tasks:
            store.keep_while_read(list(self._tasks))
            self._keep_at = now + READ_AGAIN_SECONDS
        if not self._stale:
            return
        for task_id, position in store.positions(list(self._stale)).items():
            task = self._tasks[task_id]
            if position != task.position:
                task.position = position
                self._ready.update(dict.fromkeys(one for one in task.followers if not one.unsent))
        self._stale.clear()

    def _send_pieces(self, store: Store) -> None:
        """Sends one piece to each ready follower, in turn; one that can take more is ready again."""
        read: dict[Feed, Piece | None] = {}
        for follower in tuple(self._ready):
            feed, position = follower.feed, self._tasks[follower.task_id].position
            if feed is None or position is None or follower.unsent:
                del self._ready[follower]
                continue
            if not follower.owner.may_follow():
                self._drop(follower, is_cut_off=True)
                continue
            if feed not in read:
                try:
                    read[feed] = self._read(feed, store, position)
                except HistoryUnavailable as error:
                    log.debug("followers wait for the history database: %s", error)
                    self._tasks[follower.task_id].position = None  # its next reading makes them ready again
                    del self._ready[follower]
                    continue
            piece = read[feed]
            del self._ready[follower]
            if piece is None:
                self._drop(follower, is_cut_off=True)
                continue
            self._send_piece(follower, piece)
            if follower.feed not in (None, feed) and not follower.unsent and not follower.is_gone:
                self._ready[follower] = None

    def _read(self, feed: Feed, store: Store, position: Position) -> Piece | None:
        try:
            return feed.next(store, position)
        except StoreUnavailable:
            raise
        except TaskDeleted as error:
            log.info("followers are disconnected: %s", error)
            return None
        except Exception:
            # A feed that fails must not affect the others.
            log.exception("followers of task %s are disconnected", feed.task_id)
            return None

    def _send_piece(self, follower: _Follower, piece: Piece) -> None:
        follower.feed = piece.rest
        if follower.wait_until is None:
            self._send(follower, follower.head.frame(piece.data, piece.rest is None))
        elif piece.rest is None:
            self._send(follower, follower.head.for_whole(piece) + piece.data)

    def _send(self, follower: _Follower, data: bytes) -> None:
        if data:
            follower.unsent = memoryview(data)
            if follower.wait_until is None and follower.feed is not None:
                follower.timer_at = time.monotonic() + follower.feed.keep_alive_seconds
        self._flush(follower)

    def _flush(self, follower: _Follower) -> None:
        """Sends what the socket takes; epoll continues with the rest."""
        was_blocked = False
        try:
            if follower.unsent:
                follower.unsent = follower.unsent[follower.connection.send(follower.unsent) :]
        except WOULD_BLOCK:
            was_blocked = True
        except OSError:
            self._drop(follower)
            return
        if follower.unsent or was_blocked:
            self._epoll.modify(follower.connection, _GONE | select.EPOLLOUT)
            return
        follower.unsent = memoryview(b"")
        if follower.feed is None:
            self._half_close(follower)

    def _handle_event(self, follower: _Follower, events: int) -> None:
        if events & _GONE:
            self._drop(follower)
        elif follower.is_done:
            self._drain(follower)
        elif events & select.EPOLLOUT:
            self._epoll.modify(follower.connection, _GONE)
            self._flush(follower)
            if not follower.unsent and not follower.is_done and not follower.is_gone:
                self._ready[follower] = None

    def _half_close(self, follower: _Follower) -> None:
        """Sends FIN after the last byte; the socket is closed when the client has closed its side.

        To close it while something of the client, such as its next request, is unread would reset the connection, and
        the client could lose data it has not read yet (RFC 9112, 9.6).
        """
        follower.is_done = True
        self._detach(follower)
        try:
            end_sending(follower.connection)
        except OSError:
            self._drop(follower)
            return
        self._epoll.modify(follower.connection, _GONE | select.EPOLLIN)
        self._set_timer(follower, time.monotonic() + LINGER_SECONDS)

    def _drain(self, follower: _Follower) -> None:
        try:
            if not follower.connection.recv(65536):
                self._drop(follower)
        except WOULD_BLOCK:
            return
        except OSError:
            self._drop(follower)

    def _drop(self, follower: _Follower, is_cut_off: bool = False) -> None:
        """Closes the connection. is_cut_off: in the middle of a reply, which the client has to see."""
        if not follower.is_gone:
            follower.is_gone = True
            follower.unsent = memoryview(b"")
            self._detach(follower)
            del self.followers[follower.connection.fileno()]
            if is_cut_off and not follower.head.is_chunked:
                reset(follower.connection)
            follower.connection.close()  # which epoll notices

    def _detach(self, follower: _Follower) -> None:
        self._ready.pop(follower, None)
        task = self._tasks.get(follower.task_id)
        if task is not None:
            task.followers.discard(follower)
            if not task.followers:
                del self._tasks[follower.task_id]
                if follower.task_id in self._to_subscribe:
                    self._to_subscribe.discard(follower.task_id)
                else:
                    self._to_unsubscribe.add(follower.task_id)
