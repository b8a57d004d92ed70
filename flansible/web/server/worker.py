"""gunicorn's worker: a loop gathers whole requests from all clients, and gives them to threads.

gunicorn keeps the processes, the signals, the parser and the heads of replies. Its own threaded worker gives a thread
to a client that has not sent a whole request yet, so that forty slow ones stop it.

    accept ─▶ HANDSHAKE ─▶ HEAD ─▶ BODY ─▶ WORKING ─▶ all taken ─▶ IDLE ─▶ HEAD ... or CLOSING
              (TLS)                        │ a thread └▶ SENDING ─▶ WORKING: more of the reply
                                           └▶ followed: the stream loop has the socket
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import socket
import time
from typing import Any

from gunicorn import util
from gunicorn.http.errors import ParseException
from gunicorn.workers.base import Worker

from flansible.system.sockets import prepare
from flansible.web.middleware.proxy_headers import TrustedProxies, counted_by
from flansible.web.server.client_connection import ClientConnection, Phase
from flansible.web.server.connection_table import ConnectionTable
from flansible.web.server.request_threads import CLOSING_SECONDS, RequestThreads
from flansible.web.streaming.follow import stream_loop_of

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
BODY_SECONDS = 120.0
PUBLIC_BODY_SECONDS = 5.0  # of requests that need no login
MAX_CONNECTIONS = 4096  # of one process, without followers
_OWN_DESCRIPTORS = 48  # connections to Redis, files, listeners
_MOST_ACCEPTS = 64  # in one round
_SHARED_OUT = 64  # up to so many connections, each one more is left to the other processes for a moment
_TURN_SECONDS = 0.001
_MOST_EXPIRED = 8  # in one round: each is sent a reply, over TLS in a tenth of a millisecond
_MOST_REFUSED = 16  # of one address, that may read why
_STOP_SECONDS = 3.0
_SWEEP_SECONDS = 1.0
_PAUSE_SECONDS = 0.02
_LISTENING = select.EPOLLIN | select.EPOLLEXCLUSIVE
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TIMEOUT = (408, "Request Timeout", "The request took too long to arrive.")
_CUT_OFF = (400, "Bad Request", "The request is cut off.")
_TOO_MANY = (429, "Too Many Requests", "Too many connections from this address; close some, or try again.")
_FULL = (503, "Service Unavailable", "Too many connections; try again.")


class FrontWorker(Worker):  # type: ignore[misc]
    """app: gunicorn's application, here flansible.web.gunicorn_server's, which has the settings."""

    wsgi: Any

    def run(self) -> None:
        settings = self.app.settings
        self.cfg: Any = self.app.freeze(self.cfg)
        self._most_of_address = settings.max_connections_per_address
        self._proxies = TrustedProxies(settings.proxy_networks)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # followers may have half of them
        most = MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else descriptors // 2 - _OWN_DESCRIPTORS
        self._table = ConnectionTable(max(16, min(most, MAX_CONNECTIONS)))
        stream_loop = stream_loop_of(self.wsgi)
        self._threads = RequestThreads(self.wsgi, self.cfg, stream_loop, self._table, self._is_whole, self._refuse)
        self._listeners = {listener.fileno(): (listener, listener.getsockname()) for listener in self.sockets}
        self._sweep_at = 0.0
        self._turn_at: float | None = None  # until then the other processes accept
        self._handshaking: list[ClientConnection] = []  # the client has sent its part
        self._table.epoll.register(self.PIPE[0], select.EPOLLIN)  # signals end the wait
        for listener in self.sockets:
            listener.setblocking(False)
        self._listen()
        try:
            while self.alive and self.ppid == os.getppid():
                self._round()
            self._stop()
        finally:
            stream_loop.close()

    def _stop(self) -> None:
        """Takes no more connections, and lets requests end that have begun."""
        self._threads.is_stopping = True
        if self._turn_at is None:
            self._leave_turn()
        self._turn_at = None
        for listener in self.sockets:
            listener.close()
        give_up_at = time.monotonic() + _STOP_SECONDS
        self._round(0)  # what has arrived is answered
        while self._table.close_idle() and time.monotonic() < give_up_at:
            self._round(_PAUSE_SECONDS)

    def _round(self, seconds: float = 1.0) -> None:
        if self._handshaking or time.monotonic() >= self._sweep_at:
            seconds = 0
        if self._turn_at is not None:
            seconds = min(seconds, _TURN_SECONDS)
            if time.monotonic() >= self._turn_at:
                self._listen()
        for descriptor, _ in self._table.epoll.poll(seconds):
            if descriptor in self._listeners:
                if self._turn_at is None:
                    self._accept(*self._listeners[descriptor])
            elif descriptor == self.PIPE[0]:
                os.read(descriptor, 4096)
            elif connection := self._table.take(descriptor):
                if connection.phase is Phase.HANDSHAKE:
                    self._handshaking.append(connection)
                else:
                    self._serve(connection)
        if self._handshaking:
            self._serve_handshake()
        if time.monotonic() >= self._sweep_at:
            self.notify()
            expired = self._table.take_expired(_MOST_EXPIRED)
            for connection in expired:
                self._expire(connection)
            if len(expired) < _MOST_EXPIRED:  # otherwise the next round goes on, after those that have sent something
                self._sweep_at = time.monotonic() + _SWEEP_SECONDS

    def _serve_handshake(self) -> None:
        """Continues one TLS handshake, which takes a millisecond or more; requests come between any two.

        That of the address with fewest connections: no client waits behind the many of another address.
        """
        connection = min(self._handshaking, key=lambda one: self._table.shares.count(one.address))
        self._handshaking.remove(connection)
        if connection.deadline < time.monotonic():
            self._table.drop(connection)
        else:
            self._serve(connection)

    def _serve(self, connection: ClientConnection) -> None:
        try:
            if self._advance(connection):
                self._threads.put(connection)
            else:
                self._table.wait(connection)
        except OSError:
            self._table.drop(connection)
        except Exception:
            log.exception("a connection is dropped")
            self._table.drop(connection)

    def _advance(self, connection: ClientConnection) -> bool:
        """Receives or sends what it can; returns whether a thread is needed. Raises OSError when the client is gone."""
        if connection.phase is Phase.SENDING:
            return connection.flush()
        if connection.phase is Phase.HANDSHAKE and not connection.handshake(self.app.tls.current()):
            return False
        if not connection.receive():
            if connection.has_begun_request:
                self._reply(connection, *_CUT_OFF)
            raise ConnectionResetError
        if connection.phase is Phase.CLOSING:
            connection.received.clear()
            return False
        return self._is_whole(connection)

    def _is_whole(self, connection: ClientConnection) -> bool:
        """Parses what has arrived; returns whether it is a whole request. Refuses it when it is malformed.

        Called by request threads as well, with a connection of theirs. Raises OSError.
        """
        if connection.phase is Phase.IDLE and connection.received:
            connection.phase, connection.deadline = Phase.HEAD, time.monotonic() + HEAD_SECONDS
        had_head = connection.request is not None
        try:
            is_whole = connection.parse(self.cfg, self._most_body_bytes)
        except ParseException as error:
            self._refuse(connection, error)
            return False
        if had_head or connection.request is None:
            return is_whole
        if self._proxies and self._is_one_too_many(connection):
            self._reply(connection, *_TOO_MANY)
            return False
        if not is_whole:
            is_public = self.app.is_public(connection.request.path)
            connection.phase = Phase.BODY
            connection.deadline = time.monotonic() + (PUBLIC_BODY_SECONDS if is_public else BODY_SECONDS)
        return is_whole

    def _most_body_bytes(self, path: str) -> int:
        most: int = self.app.settings.max_body_bytes
        return min(most, self.app.public_body_bytes) if self.app.is_public(path) else most

    def _is_one_too_many(self, connection: ClientConnection) -> bool:
        """Counts a request that comes from a trusted proxy by the client that it names; returns whether it may not."""
        assert connection.request is not None
        peer = connection.peer[0] if isinstance(connection.peer, tuple) else ""
        if not self._proxies.is_trusted(peer):
            return False
        named = (value for name, value in connection.request.headers if name == "X-FORWARDED-FOR")
        client = counted_by(self._proxies.client(peer, ",".join(named)))
        if client == connection.address:
            return False
        is_full = 0 < self._most_of_address <= self._table.shares.count(client)
        self._table.shares.move(connection, connection.own_address if is_full else client)
        return is_full and client != connection.own_address

    def _refuse(self, connection: ClientConnection, error: Exception) -> None:
        """Replies that the request is malformed, or that the app has failed, and ends the connection."""
        self.handle_error(connection.request, connection, connection.peer, error)
        self._end(connection)

    def _reply(self, connection: ClientConnection, status: int, reason: str, message: str) -> None:
        util.write_error(connection, status, reason, message)
        self._end(connection)

    def _end(self, connection: ClientConnection) -> None:
        connection.flush()
        connection.end()
        connection.deadline = time.monotonic() + CLOSING_SECONDS

    def _expire(self, connection: ClientConnection) -> None:
        try:
            if not connection.has_begun_request:
                raise TimeoutError
            self._reply(connection, *_TIMEOUT)
            self._table.wait(connection)
        except OSError:
            self._table.drop(connection)

    # New connections

    def _listen(self) -> None:
        for listener in self.sockets:
            self._table.epoll.register(listener, _LISTENING)
        self._turn_at = None

    def _leave_turn(self) -> None:
        """Leaves those that come next to the other processes: the quickest would take all of a client's at once, and
        answer them with one interpreter while the others have nothing to do."""
        for listener in self.sockets:
            self._table.epoll.unregister(listener)
        self._turn_at = time.monotonic() + _TURN_SECONDS

    def _accept(self, listener: socket.socket, server: Any) -> None:
        for _ in range(_MOST_ACCEPTS):
            try:
                client, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    time.sleep(_PAUSE_SECONDS)  # the client waits meanwhile, in the listener's queue
                return
            try:
                self._admit(client, peer, server)
            except Exception as error:
                client.close()
                if not isinstance(error, OSError):
                    log.exception("a connection is dropped")
            if self.cfg.workers > 1 and len(self._table) < _SHARED_OUT:
                return self._leave_turn()

    def _admit(self, client: socket.socket, peer: Any, server: Any) -> None:
        """Takes a new connection in, or refuses it. Raises OSError when the client has left."""
        address = counted_by(peer[0]) if isinstance(peer, tuple) else ""  # a Unix socket: a proxy of this machine
        count = self._table.shares.count(address)
        most = self._most_of_address if address and not self._proxies.is_trusted(peer[0]) else 0
        if most and count >= most + _MOST_REFUSED:
            client.close()
            return
        prepare(client)
        refusal = _TOO_MANY if most and count >= most else None if self._table.make_room(address) else _FULL
        is_tls = self.app.tls is not None
        if is_tls and refusal:  # a handshake, only to say so, is what this protects from
            client.close()
            return
        connection = ClientConnection(client, peer, server, address, time.monotonic() + HEAD_SECONDS, is_tls=is_tls)
        if refusal:
            self._reply(connection, *refusal)
        if refusal is _FULL:
            client.close()
        else:
            self._table.add(connection)
