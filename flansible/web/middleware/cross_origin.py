"""Pages of other sites: what a browser lets them ask of us, and what they are refused.

Without `cors_origins` no other site reads a reply. A browser sends a login that it knows along with whatever a page
asks for, so what changes something is refused when it comes from elsewhere. Programs that are no browsers send none of
these headers, and nobody can make them send a password.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, request

from flansible.config import Settings
from flansible.errors import Forbidden

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_READABLE = "Flansible-Final, Flansible-Next-Offset, Idempotency-Replayed, Link, Location, Retry-After"


def register(app: Flask, settings: Settings) -> None:
    allowed = settings.allowed_origins

    def refuse() -> None:
        if request.method not in _SAFE_METHODS and _is_foreign(allowed):
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


def _is_foreign(allowed: frozenset[str]) -> bool:
    origin = request.headers.get("Origin")
    if origin in allowed:
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site:
        return site not in ("same-origin", "none")
    return origin is not None and _host(origin) != request.host.lower()


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
