"""What the audit log is told of a request, and the id by which log, reply and client name it."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any

from flask import Flask, Response, g, request

from flansible.audit.log import AuditEvent
from flansible.errors import ConfigurationError
from flansible.web.context import services

REQUEST_ID = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Told in their own words, or not to be told because that is what cannot be done.
_TOLD_ELSEWHERE = frozenset({"not_authenticated", "too_many_logins", "audit_unavailable"})


def register(app: Flask) -> None:
    app.after_request(_finish)


def request_id() -> str:
    """This request's: the client's own where it can stand in a log, else a new one."""
    if "request_id" not in g:
        given = request.headers.get(REQUEST_ID, "")
        g.request_id = given if _ID.fullmatch(given) else secrets.token_hex(16)
    return str(g.request_id)


def known_as(user: str, token: str) -> None:
    """Whose request this is; token: the id of the one it came with, or ''."""
    g.trail_user, g.trail_token = user, token


def event(name: str, **fields: Any) -> AuditEvent:
    """An event of this request."""
    return AuditEvent(
        name,
        **{"user": g.get("trail_user", ""), "token": g.get("trail_token", ""), **fields},
        address=request.remote_addr or "",
        request=f"{request.method} {request.path}",
        request_id=request_id(),
    )


def shown(name: str) -> str:
    """A name as somebody has typed it: what is no user's may be a password that went into the wrong field."""
    if name in services().rbac.users():
        return name
    try:
        return f"unknown:{services().audit.digest(name.encode(errors='surrogatepass'))}"
    except ConfigurationError:
        return "unknown"


def sparingly(who: str, found: AuditEvent) -> None:
    """Tell what a stranger, or a user without the right, can make happen as often as they like."""
    omitted = services().thrift.omitted(who, found.event)
    if omitted is not None:
        services().audit.note(replace(found, omitted=omitted))


def login_failed(user: str, by: str) -> None:
    """by: what was wrong, such as `password`."""
    found = event("login_failure", user=user, what=by, outcome="refused", code="not_authenticated")
    sparingly(found.address, found)


def login_locked(user: str) -> None:
    """Once for each door that closes: what comes while it is closed makes no line."""
    services().audit.note(event("login_locked", user=shown(user), outcome="refused", code="too_many_logins"))


def _finish(response: Response) -> Response:
    response.headers[REQUEST_ID] = request_id()
    if response.status_code >= 400 and _is_refusal(response.status_code, code := g.get("error_code", "")):
        sparingly(g.trail_user, event("refusal", outcome=str(response.status_code), code=code))
    return response


def _is_refusal(status: int, code: str) -> bool:
    """What a user was not let do. A question that cannot be answered is none, nor what strangers ask for."""
    if code in _TOLD_ELSEWHERE or "trail_user" not in g:
        return False
    return status in (403, 429) or request.method == "POST"
