"""Refuses cross-origin requests that change something, and answers CORS for the origins in `cors_origins`.

Without `cors_origins` no page of another origin can read a reply.
"""

from __future__ import annotations

from flask import Flask, Response, request

from flansible.config import Settings
from flansible.errors import Forbidden
from flansible.identity.request_origin import SAFE_METHODS, is_cross_origin

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_READABLE = "Flansible-Final, Flansible-Next-Offset, Idempotency-Replayed, Link, Location, Retry-After"


def register(app: Flask, settings: Settings) -> None:
    allowed = settings.allowed_origins

    def refuse() -> None:
        if request.method not in SAFE_METHODS and is_cross_origin(request.headers.get, request.host, allowed):
            message = "This request comes from a page of another site, which is not one of cors_origins."
            raise Forbidden(message, code="cross_site")

    def share(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin in allowed:
            # No Access-Control-Allow-Credentials: such a page sends the password itself, or none.
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _READABLE
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                response.headers.update(_PREFLIGHT)
        return response

    app.before_request(refuse)
    if allowed:
        app.after_request(share)
