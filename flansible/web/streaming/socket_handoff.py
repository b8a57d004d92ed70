"""Replies that go on: the client is handed over to the followers' thread; where it cannot be, its thread stays.

`follow` is what the resources call. Handing over needs a server that gives the client's socket away, as
flansible.web.gunicorn_server does for plain HTTP. Another WSGI server does not, nor is it done with TLS in gunicorn.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

from flask import Flask, Response, current_app, request
from werkzeug.http import http_date

from flansible.errors import StoreUnavailable, Unavailable
from flansible.store import Store
from flansible.web.context import Services, services
from flansible.web.streaming import thread_slots
from flansible.web.streaming.feeds import Feed, Piece, ReplyHead
from flansible.web.streaming.stream_loop import Followers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# In environ, where the server can do it: gives the client's socket, and the server forgets it.
TAKE_SOCKET = "flansible.take_socket"
_EXTENSION = "flansible.followers"
_FULL_SECONDS = 5
_STORE_TIMEOUT_SECONDS = 1.0  # all followers wait together for the store
_IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05)  # between looks for more: soon at first, then more calmly


def register(app: Flask) -> None:
    """To be called once the app has its services. The thread starts with the first follower."""
    url = cast(Services, app.extensions["flansible"]).settings.store_url
    app.extensions[_EXTENSION] = Followers(lambda: Store(url, reply_timeout_seconds=_STORE_TIMEOUT_SECONDS))


def followers_of(app: Flask) -> Followers:
    return cast(Followers, app.extensions[_EXTENSION])


def follow(feed: Feed, mimetype: str, wait_seconds: float | None = None) -> Response:
    """The reply to this request: all that the feed will give, as it comes.

    wait_seconds: one whole reply instead, the first there is, or what the feed says when the time is over.
    Raises Unavailable when too many are following.
    """
    if request.method == "HEAD":
        return Response(iter(()), mimetype=mimetype)
    if TAKE_SOCKET in request.environ:
        response: Response = _hand_over(feed, mimetype, wait_seconds)
    else:
        response = _stay(feed, mimetype, wait_seconds)
    if wait_seconds is None:
        response.headers["X-Accel-Buffering"] = "no"  # nginx would keep it until there is enough
    return response


class _HandedOver(Response):
    """A reply whose client is taken away from the server as soon as its headers stand."""

    def __init__(self, add: Callable[[socket.socket, ReplyHead], None], mimetype: str) -> None:
        super().__init__(iter(()), mimetype=mimetype)
        self._add = add

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> NoReturn:
        headers = (("Date", http_date()), *self.get_wsgi_headers(environ).items())
        head = ReplyHead(self.status, headers, is_chunked=environ["SERVER_PROTOCOL"] == "HTTP/1.1")
        self._add(environ[TAKE_SOCKET](), head)
        # What gunicorn knows from clients that have gone: it neither answers nor complains.
        raise BrokenPipeError(errno.EPIPE, "the client was handed over to the followers' thread")


def _hand_over(feed: Feed, mimetype: str, wait_seconds: float | None) -> Response:
    followers = followers_of(current_app)
    if followers.is_full:
        raise _full()
    return _HandedOver(lambda client, head: followers.add(client, head, feed, wait_seconds), mimetype)


def _full() -> Unavailable:
    message = "Too many replies are being followed; ask for what there is instead (offset, after), or try again."
    return Unavailable(message, code="too_many_followers", retry_after_seconds=_FULL_SECONDS)


def _stay(feed: Feed, mimetype: str, wait_seconds: float | None) -> Response:
    if not thread_slots.take():
        raise _full()
    store, client = services().store, request.environ.get("gunicorn.socket")
    if wait_seconds is None:
        response = Response(_stream(_pieces(feed, store, client, None), feed), mimetype=mimetype)
        response.call_on_close(thread_slots.give_back)
        return response
    try:
        *_, piece = _pieces(feed, store, client, time.monotonic() + wait_seconds)
    finally:
        thread_slots.give_back()
    response = Response(piece.data, mimetype=mimetype)
    response.headers.extend(piece.headers)
    return response


def _stream(pieces: Iterable[Piece], feed: Feed) -> Iterator[bytes]:
    yield feed.opening  # the head at once: a proxy must not take a quiet task for a dead service
    quiet_since = time.monotonic()
    for piece in pieces:
        data = piece.data
        if not data and feed.keep_alive and time.monotonic() - quiet_since > feed.keep_alive_seconds:
            data = feed.keep_alive
        if data:
            yield data
            quiet_since = time.monotonic()


def _pieces(feed: Feed, store: Store, client: Any, give_up_at: float | None) -> Iterator[Piece]:
    """What the followers' thread would send; an empty piece whenever there is nothing new. The last is the end."""
    idle = 0
    while True:
        piece = _next(feed, store)
        is_late = give_up_at is not None and time.monotonic() >= give_up_at and piece.rest is not None
        yield feed.give_up() if is_late else piece
        if piece.rest is None or is_late or _has_gone(client):
            return
        idle = idle + 1 if piece.rest == feed else 0
        feed = piece.rest
        if idle:
            time.sleep(_IDLE_SECONDS[min(idle, len(_IDLE_SECONDS)) - 1])


def _next(feed: Feed, store: Store) -> Piece:
    try:
        return feed.next(store, store.positions([feed.task_id])[feed.task_id])
    except StoreUnavailable:
        return Piece(b"", feed)


def _has_gone(client: Any) -> bool:
    """Whether the follower has left: while nothing is sent, nobody else would notice, and its thread would wait."""
    if client is None:
        return False
    try:
        return bool(select.select([client], [], [], 0)[0]) and client.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
