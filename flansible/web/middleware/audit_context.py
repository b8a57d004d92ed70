"""Audit events of a request, and the request id that log, reply and client share."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any

from flask import Flask, Response, g, request

from flansible.audit.log import AuditEvent
from flansible.web.context import web_context

REQUEST_ID = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Error codes without a `refusal` line: the first three have events of their own; for the last, auditing itself failed.
_LOGGED_ELSEWHERE = frozenset({"not_authenticated", "too_many_logins", "task_final", "audit_unavailable"})


def register(app: Flask) -> None:
    app.after_request(_complete)


def request_id() -> str:
    """Returns the id of this request: the client's X-Request-ID where it is safe in a log, else a new one."""
    if "request_id" not in g:
        given = request.headers.get(REQUEST_ID, "")
        g.request_id = given if _ID.fullmatch(given) else secrets.token_hex(16)
    return str(g.request_id)


def set_user(user: str, token: str) -> None:
    """Records the user of this request for its audit lines. token: the id of the API token used, or ''."""
    g.audit_user, g.audit_token = user, token


def user() -> str:
    """Returns the name of this request's user, '' if none is known."""
    return str(g.get("audit_user", ""))


def event(name: str, **fields: Any) -> AuditEvent:
    """Builds an audit event with the user, address and id of this request."""
    return AuditEvent(
        name,
        **{"user": user(), "token": g.get("audit_token", ""), **fields},
        address=request.remote_addr or "",
        request=f"{request.method} {request.path}",
        request_id=request_id(),
    )


def loggable_name(name: str) -> str:
    """Returns a typed name as it may be logged: hashed when unknown, since it may be a password in the wrong field."""
    return web_context().audit.loggable_name(name, web_context().rbac.users())


def note_throttled(who: str, found: AuditEvent) -> None:
    """Writes an audit line, rate-limited: for events that a client can cause as often as it likes."""
    omitted = web_context().audit_throttle.admit(who, found.event)
    if omitted is not None:
        web_context().audit.note(replace(found, omitted=omitted))


def login_failed(user: str, by: str) -> None:
    """Audits a failed login, rate-limited. by: what was wrong, such as `password`."""
    found = event("login_failure", user=user, what=by, outcome="refused", code="not_authenticated")
    note_throttled(found.address, found)


def login_locked(user: str) -> None:
    """Audits the start of a lockout; attempts during a lockout write no line."""
    web_context().audit.note(event("login_locked", user=loggable_name(user), outcome="refused", code="too_many_logins"))


def _complete(response: Response) -> Response:
    response.headers[REQUEST_ID] = request_id()
    if response.status_code >= 400 and _is_refusal(response.status_code, code := g.get("error_code", "")):
        note_throttled(g.audit_user, event("refusal", outcome=str(response.status_code), code=code))
    return response


def _is_refusal(status: int, code: str) -> bool:
    """Whether to audit an error reply: a known user was denied an action, not a mere read."""
    if code in _LOGGED_ELSEWHERE or "audit_user" not in g:
        return False
    return status in (403, 429) or request.method == "POST"
