"""The threads that answer whole requests. None of them waits for a client: what a client does not take, waits for it.

gunicorn makes the environ and the head of the reply. A long reply is continued by whichever thread is free when the
client has taken what is buffered of it; a followed one leaves with the socket to the stream loop.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

from flansible.errors import TaskDeleted
from flansible.system.sockets import end_as_reset
from flansible.web.server.client_connection import ClientConnection, Phase
from flansible.web.server.connection_table import ConnectionTable
from flansible.web.server.fair_queue import FairQueue
from flansible.web.streaming.feeds import ReplyHead
from flansible.web.streaming.follow import FollowedBody
from flansible.web.streaming.stream_loop import StreamLoop

log = logging.getLogger(__name__)

SEND_SECONDS = 120.0  # for a client to take what is buffered of a reply
IDLE_SECONDS = 30.0  # until the next request
CLOSING_SECONDS = 2.0
_PIECE_BYTES = 256 * 1024  # of a long reply, buffered at once
_LINGER_MILLISECONDS = 5


class _Reply:
    """A reply that is being sent: its head, and what is left of the app's body."""

    def __init__(self, head: wsgi.Response, body: Iterable[bytes]) -> None:
        self.head = head
        self._body = body
        self._pieces = iter(body)
        self.is_written = False

    def write(self) -> None:
        """Writes the next pieces of the body, and the end after the last."""
        size = 0
        for piece in self._pieces:
            self.head.write(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                return
        self.head.close()
        self.is_written = True

    def close(self) -> None:
        getattr(self._body, "close", lambda: None)()


class RequestThreads:
    """app: the WSGI app; cfg: gunicorn's; is_whole: parses what a client has sent, and says whether it is a request;
    refuse: replies with an exception, and ends the connection."""

    def __init__(
        self,
        app: Any,
        cfg: Any,
        stream_loop: StreamLoop,
        table: ConnectionTable,
        is_whole: Callable[[ClientConnection], bool],
        refuse: Callable[[ClientConnection, Exception], None],
    ) -> None:
        self._app = app
        self._cfg = cfg
        self._stream_loop = stream_loop
        self._table = table
        self._is_whole = is_whole
        self._refuse = refuse
        self._queue = FairQueue()
        self._count = 0
        # One thread in four never lingers, so that a new client finds a free one.
        self._may_linger = threading.Semaphore(cfg.threads * 3 // 4)
        self.is_stopping = False

    def put(self, connection: ClientConnection) -> None:
        """Has a thread answer its request, or continue its reply. Called by the loop alone."""
        connection.phase = Phase.WORKING
        self._queue.put(connection)
        if self._count < self._cfg.threads and not self._queue.is_empty():
            self._count += 1
            threading.Thread(target=self._run, name=f"request-{self._count}", daemon=True).start()

    def _run(self) -> None:
        while True:
            connection = self._queue.get()
            try:
                self._serve(connection)
            except OSError:
                self._table.drop(connection)  # the client has left
            except Exception:
                log.exception("a connection is dropped")
                self._table.drop(connection)

    def _serve(self, connection: ClientConnection) -> None:
        """Answers the client's request, and those that follow at once. Raises OSError."""
        while True:
            if connection.reply is None and not self._begin(connection):
                return
            if not self._continue(connection):
                return
            if not self._has_next(connection):
                self._table.wait(connection)
                return
            if not self._queue.is_empty():  # the others have their turn
                self._queue.put(connection)
                return

    def _begin(self, connection: ClientConnection) -> bool:
        """Calls the app; returns whether there is a reply for this thread to send."""
        request = connection.request
        assert request is not None
        try:
            head, environ = wsgi.create(request, connection, connection.peer, connection.server, self._cfg)
            environ["wsgi.multithread"] = True
            if self.is_stopping:
                head.force_close()
            body = self._app(environ, head.start_response)
        except Exception as error:
            self._refuse(connection, error)
            self._table.wait(connection)
            return False
        if isinstance(body, FollowedBody):
            self._table.remove(connection)
            headers = (("Date", util.http_date()), *head.headers)
            reply_head = ReplyHead(head.status, headers, is_chunked=request.version >= (1, 1))
            self._stream_loop.add(connection.sock, reply_head, body.feed, body.owner, body.wait_seconds)
            return False
        connection.reply = _Reply(head, body)
        return True

    def _continue(self, connection: ClientConnection) -> bool:
        """Sends what the client takes of its reply; returns whether that was all, and the connection is kept."""
        reply: _Reply = connection.reply
        try:
            while connection.flush() and not reply.is_written:
                reply.write()
        except Exception as error:
            return self._cut_off(connection, error)
        if connection.unsent:
            connection.phase, connection.deadline = Phase.SENDING, time.monotonic() + SEND_SECONDS
            self._table.wait(connection)
            return False
        connection.reply = None
        reply.close()
        is_kept = connection.finish_request() and not reply.head.should_close() and not self.is_stopping
        if is_kept:
            connection.phase, connection.deadline = Phase.IDLE, time.monotonic() + IDLE_SECONDS
        else:
            connection.deadline = time.monotonic() + CLOSING_SECONDS
            connection.end()
            self._table.wait(connection)
        return is_kept

    def _cut_off(self, connection: ClientConnection, error: Exception) -> bool:
        """Breaks a reply off whose rest cannot be had: one that ended properly would look whole."""
        if isinstance(error, TaskDeleted):
            log.info("a reply is cut off: %s", error)
        elif not isinstance(error, OSError):
            log.error("a reply is cut off", exc_info=error)
        if connection.reply.head.chunked and not isinstance(error, OSError):
            connection.flush()
            connection.end()
            connection.deadline = time.monotonic() + CLOSING_SECONDS
            self._table.wait(connection)
        else:
            end_as_reset(connection.sock)  # without chunks, only this shows it
            self._table.drop(connection)  # which forgets it first: once closed, its number may be a new client's
        return False

    def _has_next(self, connection: ClientConnection) -> bool:
        """Returns whether the client's next request is there, or comes in a moment. Raises OSError."""
        if connection.received or self._sends_again(connection):
            return self._is_whole(connection)
        return False

    def _sends_again(self, connection: ClientConnection) -> bool:
        """Waits a moment for more of the client, while nobody else waits for a thread; returns whether it came.

        The way through the loop and the queue takes 20 % more CPU time per status poll of 16 connections (779 against
        650 us; 2026-11-29, `python -m benchmarks.web_parts`).
        """
        if not self._queue.is_empty() or not self._may_linger.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(connection.descriptor, select.POLLIN)
            if not poll.poll(_LINGER_MILLISECONDS):
                return False
        finally:
            self._may_linger.release()
        if not connection.receive():
            raise ConnectionResetError
        return True
