"""Hands a client's socket to the stream loop; where that is not possible, the request's thread serves the reply.

The resources call `follow`. The handoff needs a server that gives the client's socket away, as
flansible.web.gunicorn_server does for plain HTTP; with TLS it does not, and no other WSGI server does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

from flask import Flask, Response, current_app, request
from werkzeug.http import http_date

from flansible.errors import StoreUnavailable, TaskDeleted, Unavailable
from flansible.store import READ_AGAIN_SECONDS, Store
from flansible.system.sockets import reset
from flansible.web.context import WebContext, web_context
from flansible.web.streaming import thread_slots
from flansible.web.streaming.feeds import Feed, Piece, ReplyHead
from flansible.web.streaming.stream_loop import StreamLoop

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

# A key of environ, where the server supports it: a function that returns the client's socket and detaches it.
TAKE_SOCKET = "flansible.take_socket"
_EXTENSION = "flansible.stream_loop"
_FULL_RETRY_SECONDS = 5
_STORE_TIMEOUT_SECONDS = 1.0  # all followers of the process wait together
_IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05)  # between reads that find nothing: short at first, then longer


def register(app: Flask) -> None:
    """Registers the stream loop, once the app has its context. The thread starts with the first follower."""
    url = cast(WebContext, app.extensions["flansible"]).settings.store_url
    app.extensions[_EXTENSION] = StreamLoop(lambda: Store(url, reply_timeout_seconds=_STORE_TIMEOUT_SECONDS))


def stream_loop_of(app: Flask) -> StreamLoop:
    return cast(StreamLoop, app.extensions[_EXTENSION])


def follow(feed: Feed, mimetype: str, wait_seconds: float | None = None) -> Response:
    """Returns a reply that sends all of the feed, as it becomes available.

    wait_seconds: a long poll: one whole reply, the first there is, or the feed's timeout reply after this time.
    Raises Unavailable when there are too many followers.
    """
    if request.method == "HEAD":
        return Response(iter(()), mimetype=mimetype)
    if TAKE_SOCKET in request.environ:
        response: Response = _hand_off(feed, mimetype, wait_seconds)
    else:
        response = _serve_on_this_thread(feed, mimetype, wait_seconds)
    if wait_seconds is None:
        response.headers["X-Accel-Buffering"] = "no"  # else nginx buffers it
    return response


def cut_off_if_deleted(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the pieces of a reply's body. Breaks the connection when the task is deleted meanwhile: a reply that ended
    properly would look whole. Call it within the request."""
    return _cut_off_if_deleted(request.environ, pieces)


def _cut_off_if_deleted(environ: dict[str, Any], pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except TaskDeleted as error:
        log.info("a reply is cut off: %s", error)
        # Without chunks only a reset shows that it is not whole.
        if environ["SERVER_PROTOCOL"] == "HTTP/1.0" and TAKE_SOCKET in environ:
            reset(environ[TAKE_SOCKET]())
        # gunicorn treats it like a client that has disconnected, and sends no last chunk.
        raise BrokenPipeError(errno.EPIPE, str(error)) from error


class _HandoffResponse(Response):
    """A reply that detaches the client's socket from the server once its headers are complete."""

    def __init__(self, add: Callable[[socket.socket, ReplyHead], None], mimetype: str) -> None:
        super().__init__(iter(()), mimetype=mimetype)
        self._add = add

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> NoReturn:
        headers = (("Date", http_date()), *self.get_wsgi_headers(environ).items())
        head = ReplyHead(self.status, headers, is_chunked=environ["SERVER_PROTOCOL"] == "HTTP/1.1")
        self._add(environ[TAKE_SOCKET](), head)
        # gunicorn treats it like a client that has disconnected: no reply and no log line.
        raise BrokenPipeError(errno.EPIPE, "the socket was handed to the stream loop")


def _hand_off(feed: Feed, mimetype: str, wait_seconds: float | None) -> Response:
    loop = stream_loop_of(current_app)
    if loop.is_full:
        raise _too_many_followers()
    return _HandoffResponse(lambda client, head: loop.add(client, head, feed, wait_seconds), mimetype)


def _too_many_followers() -> Unavailable:
    message = "Too many replies are being followed. Read page by page instead (offset, after), or try again."
    return Unavailable(message, code="too_many_followers", retry_after_seconds=_FULL_RETRY_SECONDS)


def _serve_on_this_thread(feed: Feed, mimetype: str, wait_seconds: float | None) -> Response:
    if not thread_slots.acquire():
        raise _too_many_followers()
    store, client = web_context().store, request.environ.get("gunicorn.socket")
    if wait_seconds is None:
        pieces = _stream(_pieces(feed, store, client, None), feed)
        response = Response(cut_off_if_deleted(pieces), mimetype=mimetype)
        response.call_on_close(thread_slots.release)
        return response
    try:
        *_, piece = _pieces(feed, store, client, time.monotonic() + wait_seconds)
    finally:
        thread_slots.release()
    response = Response(piece.data, mimetype=mimetype)
    response.headers.extend(piece.headers)
    return response


def _stream(pieces: Iterable[Piece], feed: Feed) -> Iterator[bytes]:
    yield feed.opening  # the head at once: a proxy must not mistake a quiet task for a dead service
    quiet_since = time.monotonic()
    for piece in pieces:
        data = piece.data
        if not data and feed.keep_alive and time.monotonic() - quiet_since > feed.keep_alive_seconds:
            data = feed.keep_alive
        if data:
            yield data
            quiet_since = time.monotonic()


def _pieces(feed: Feed, store: Store, client: Any, deadline: float | None) -> Iterator[Piece]:
    """Yields what the stream loop would send, and an empty piece whenever nothing is new. Raises TaskDeleted."""
    idle, keep_at = 0, 0.0
    while True:
        if time.monotonic() >= keep_at:
            keep_at = time.monotonic() + READ_AGAIN_SECONDS
            with contextlib.suppress(StoreUnavailable):
                store.keep_while_read([feed.task_id])
        piece = _next_piece(feed, store)
        is_late = deadline is not None and time.monotonic() >= deadline and piece.rest is not None
        yield feed.timeout_reply() if is_late else piece
        if piece.rest is None or is_late or _has_disconnected(client):
            return
        idle = idle + 1 if piece.rest == feed else 0
        feed = piece.rest
        if idle:
            time.sleep(_IDLE_SECONDS[min(idle, len(_IDLE_SECONDS)) - 1])


def _next_piece(feed: Feed, store: Store) -> Piece:
    try:
        return feed.next(store, store.positions([feed.task_id])[feed.task_id])
    except StoreUnavailable:
        return Piece(b"", feed)


def _has_disconnected(client: Any) -> bool:
    """Whether the client has disconnected: while nothing is sent, only this check notices and frees the thread."""
    if client is None:
        return False
    try:
        return bool(select.select([client], [], [], 0)[0]) and client.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
