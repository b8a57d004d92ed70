"""Sessions for browsers: a cookie instead of a password with each request. The console logs in here."""

from __future__ import annotations

import contextlib
import socket

from flask import Response, jsonify, request
from flask_restful import Resource

from flansible.authorization import describe, isolation, visibility
from flansible.config import Settings, is_loopback
from flansible.errors import NotAuthenticated
from flansible.identity.users import User
from flansible.models import LoginBody, SessionReply
from flansible.web.context import web_context
from flansible.web.login import session_cookie
from flansible.web.login.authentication import PrivateResource, check_password, current_session, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_body, parse_query

_CONNECT_TIMEOUT_SECONDS = 0.1


class Login(Resource):  # type: ignore[misc]
    """Log in with the user and password of rbac.json.

    The reply sets a cookie that is valid until `DELETE /api/session`, a new password, or `session_hours` without a
    request. Each POST and DELETE with the cookie must send `csrf_token` in the header `X-CSRF-Token`.
    """

    def post(self) -> Response:
        """Start a session"""
        body = parse_body(LoginBody, is_public=True)
        found = check_password(body.user, body.password)
        if found is None:
            raise NotAuthenticated("User or password is wrong.")
        audit_context.set_user(found.user.name, "")
        if old := session_cookie.read():
            web_context().store.end_session(old)
        cookie, session = session_cookie.create_session(found.user)
        web_context().audit.note(audit_context.event("session", what="login", outcome="allowed"))
        response = _reply(found.user, session.csrf)
        session_cookie.set_on(response, cookie)
        return response


class CurrentSession(PrivateResource):
    """The caller's user and role."""

    def get(self) -> Response:
        """Show who is logged in"""
        parse_query(NoFields)
        session = current_session()
        return _reply(current_user(), session.csrf if session else "")

    def delete(self) -> Response:
        """Log out"""
        parse_query(NoFields)
        if current_session() is not None:
            web_context().store.end_session(session_cookie.read())
            web_context().audit.note(audit_context.event("session", what="logout", outcome="allowed"))
        response = Response(status=204)
        del response.headers["Content-Type"]
        session_cookie.clear_on(response)
        return response


def _reply(user: User, csrf: str) -> Response:
    acting = [entry for entry in user.entries if entry.may_act]
    has_team = bool(visibility.readers(user))
    settings = web_context().settings
    found = SessionReply(
        user=user.name,
        role=user.role,
        groups=list(user.groups),
        is_admin=user.is_admin,
        sees_all=user.sees_all,
        sees="all" if user.sees_all else "inventories" if has_team else "own",
        has_team=has_team,
        cancels="all" if user.is_admin else "inventories" if visibility.cancels_of_others(user) else "own",
        may_act=user.may_act,
        may_become=any(entry.may_become for entry in acting),
        may_use_git=any(entry.may_use_git for entry in acting),
        launches_only=not user.sees_all and not any(entry.inventories for entry in user.entries),
        rights=describe.sentences(user, isolation.for_user(user, settings.isolation)),
        csrf_token=csrf,
        flower_url=_flower_url(settings) if user.is_admin else None,
    )
    return jsonify(found.model_dump())


def _flower_url(settings: Settings) -> str | None:
    """Returns the URL of Flower for this browser, if Flower runs on this machine and the browser can reach it."""
    if is_loopback(settings.flower_tcp_ip) and not is_loopback(request.remote_addr or ""):
        return None
    address = "127.0.0.1" if settings.flower_tcp_ip in ("0.0.0.0", "::") else settings.flower_tcp_ip
    with contextlib.suppress(OSError):
        socket.create_connection((address, settings.flower_tcp_port), _CONNECT_TIMEOUT_SECONDS).close()
        host = request.host.rpartition(":")[0] if request.host[-1:].isdigit() and ":" in request.host else request.host
        return f"http://{host}:{settings.flower_tcp_port}/"
    return None
