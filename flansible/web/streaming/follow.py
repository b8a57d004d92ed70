"""Replies that are followed: the resources call `follow`, and the server gives the client's socket to the stream loop.

This needs the server of `flansible web` (flansible.web.server.worker), which recognizes a `FollowedBody`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import Flask, Response, current_app, request

from flansible.config import Settings
from flansible.errors import TooManyRequests, Unavailable
from flansible.history.opening import open_records
from flansible.web.context import WebContext, web_context
from flansible.web.middleware import audit_context
from flansible.web.middleware.proxy_headers import counted_by
from flansible.web.streaming.feeds import Feed
from flansible.web.streaming.stream_loop import Owner, StreamLoop, always

_EXTENSION = "flansible.stream_loop"
_FULL_RETRY_SECONDS = 5
_STORE_TIMEOUT_SECONDS = 1.0  # all followers of the process wait together


@dataclass(frozen=True)
class FollowedBody:
    """The body of a reply that the stream loop sends. wait_seconds: a long poll, for one whole reply."""

    feed: Feed
    owner: Owner
    wait_seconds: float | None


def register(app: Flask) -> None:
    """Registers the stream loop, once the app has its context. The thread starts with the first follower."""
    settings = cast(WebContext, app.extensions["flansible"]).settings
    app.extensions[_EXTENSION] = StreamLoop(lambda: open_records(settings, _STORE_TIMEOUT_SECONDS))


def stream_loop_of(app: Flask) -> StreamLoop:
    return cast(StreamLoop, app.extensions[_EXTENSION])


def follow(
    feed: Feed, mimetype: str, wait_seconds: float | None = None, may_follow: Callable[[], bool] = always
) -> Response:
    """Returns a reply that sends all of the feed, as it becomes available.

    wait_seconds: a long poll: one whole reply, the first there is, or the feed's timeout reply after this time.
    may_follow: called before each piece; once it returns False, the reply ends.
    Raises Unavailable or TooManyRequests when there are too many followers.
    """
    if request.method == "HEAD":
        return Response(iter(()), mimetype=mimetype)
    owner = Owner(audit_context.user(), counted_by(request.remote_addr or ""), may_follow)
    _require_place(stream_loop_of(current_app), owner, web_context().settings)
    response = Response(FollowedBody(feed, owner, wait_seconds), mimetype=mimetype, direct_passthrough=True)  # type: ignore[arg-type]
    if wait_seconds is None:
        response.headers["X-Accel-Buffering"] = "no"  # else nginx buffers it
    return response


def _require_place(loop: StreamLoop, owner: Owner, settings: Settings) -> None:
    advice = "Close some, read page by page instead (offset, after), or try again."
    if loop.is_full:
        message = f"Too many replies are being followed. {advice}"
        raise Unavailable(message, code="too_many_followers", retry_after_seconds=_FULL_RETRY_SECONDS)
    of_user, of_address = loop.counts(owner)
    for count, most, whose, key in (
        (of_user, settings.max_followers_per_user, owner.user, "max_followers_per_user"),
        (of_address, settings.max_followers_per_address, owner.address, "max_followers_per_address"),
    ):
        if most and count >= most:
            message = f"{whose} follows {count} replies already, the most that is allowed ({key}). {advice}"
            raise TooManyRequests(message, code="follower_limit", retry_after_seconds=_FULL_RETRY_SECONDS)
