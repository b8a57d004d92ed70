"""Who is asking: by password (HTTP Basic) or token (Bearer) of a user of rbac.json, by the cookie of a session, or as
a login function says.

`identify` is the one place that decides it; what a user may do is decided elsewhere.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from flask import Response, g, request
from flask_httpauth import HTTPBasicAuth
from flask_restful import Resource
from werkzeug.datastructures import Authorization

from flansible.errors import Forbidden, NotAuthenticated, TooManyRequests
from flansible.identity.custom_login import Headers, LoginRequest
from flansible.identity.tokens import TEXT, Scope
from flansible.identity.users import User
from flansible.store import Session
from flansible.web.context import services
from flansible.web.login import session_cookie
from flansible.web.middleware import audit_context, error_handlers

log = logging.getLogger(__name__)

# One text for all that can be wrong: which users and tokens there are is nobody's business.
_ADVICE = "Give a user and password by HTTP Basic, as curl -u does, or a token as Authorization: Bearer."
_READING = ("GET", "HEAD")

_basic = HTTPBasicAuth()


@dataclass(frozen=True)
class Identity:
    """Whose request this is, and how far it goes. token: the id of the one it came with, or ''; session: the one whose
    cookie it came with."""

    user: User
    scope: Scope = "run"
    token: str = ""
    session: Session | None = None


def identify() -> Identity | None:
    """Whose request this is, None when that cannot be said. Raises TooManyRequests.

    What is known costs nothing. What would have to be checked, a password or whatever a login function makes of it, is
    first shown to the doors.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = request.authorization
    if scheme.lower() == "bearer" and (credentials.startswith("flansible_") or services().login_function is None):
        found = _by_token(credentials.strip())
    elif given is not None and given.type == "basic" and given.username:
        found = by_password(given.username, given.password or "")
    else:
        found = (_by_session() if not scheme else None) or _by_function(Headers(request.headers.items()))
    if found is not None:
        audit_context.known_as(found.user.name, found.token)
    return found


def _by_token(text: str) -> Identity | None:
    token = services().tokens.find(text, datetime.now(UTC))
    user = services().rbac.users().get(token.user) if token else None
    if token is None or user is None:
        shape = TEXT.fullmatch(text)
        audit_context.login_failed("", f"token {shape[1]}" if shape else "token")
        return None
    return Identity(user, token.scope, token.id)


def by_password(name: str, password: str) -> Identity | None:
    """Whose password this is. Raises TooManyRequests."""
    rbac = services().rbac
    user = rbac.known(name, password)
    if user is None:
        door = _Door(name, request.remote_addr or "")
        if services().login_function is not None:
            door.enter()
            # As it would have come with HTTP Basic, which is what the function knows.
            login = Authorization("basic", {"username": name, "password": password}).to_header()
            given = (pair for pair in request.headers.items() if pair[0].lower() != "authorization")
            if (found := _by_function(Headers((*given, ("Authorization", login))))) is not None:
                return found
        user = rbac.authenticate(name, password, door)
    return Identity(user) if user else None


def _by_session() -> Identity | None:
    cookie = session_cookie.given()
    session = services().store.session(cookie, session_cookie.idle_seconds()) if cookie else None
    user = services().rbac.users().get(session.user) if session else None
    if session is None or user is None or not session_cookie.holds(session, user):
        return None
    return Identity(user, session=session)


def _by_function(headers: Headers) -> Identity | None:
    function = services().login_function
    if function is None:
        return None
    try:
        name = function(LoginRequest(headers, request.remote_addr or "", request.method, request.path))
    except Exception:  # it is the operator's own, and may raise anything; who it fails on is not let in
        log.exception("login_function failed")
        return None
    user = services().rbac.users().get(name) if isinstance(name, str) else None
    if name is not None and user is None:
        audit_context.login_failed(str(name), "login_function: not in rbac.json")
    return Identity(user) if user else None


class _Door:
    """rbac's Gate for one password."""

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._address = address

    def enter(self) -> None:
        seconds = services().doors.closed_seconds(self._name, self._address)
        if seconds:
            message = "Too many wrong passwords: no other is looked at for now. A token goes on being taken."
            raise TooManyRequests(message, code="too_many_logins", retry_after_seconds=seconds)

    def was_wrong(self) -> None:
        audit_context.login_failed(audit_context.shown(self._name), "password")
        if services().doors.failed(self._name, self._address):
            audit_context.login_locked(self._name)


@_basic.verify_password
def _verify(_name: str, _password: str) -> User | None:
    found = identify()
    if found is None:
        return None
    if found.scope == "read" and request.method not in _READING:
        raise Forbidden("This token is for reading only (scope read).", code="scope_forbidden")
    if found.session is not None and request.method not in _READING:
        # A browser sends the cookie with whatever a page asks for; this header only our own page can know.
        given = request.headers.get(session_cookie.CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(errors="replace"), found.session.csrf.encode()):
            message = f"A session needs the header {session_cookie.CSRF_HEADER} with its csrf_token (GET /api/session)."
            raise Forbidden(message, code="csrf")
    g.session = found.session
    return found.user


@_basic.error_handler
def _refuse(status: int) -> Response:
    return error_handlers.answer(NotAuthenticated(_ADVICE))


def current_user() -> User:
    """The user whose request this is; only within a PrivateResource."""
    return cast(User, _basic.current_user())


def current_session() -> Session | None:
    """The session whose cookie this request came with, if it did; only within a PrivateResource."""
    return cast("Session | None", g.get("session"))


def asking_user() -> User | None:
    """The user when the request carries a right login; None for everyone else. For public resources."""
    try:
        found = identify()
    except TooManyRequests:
        return None
    return found.user if found else None


class PrivateResource(Resource):
    """A resource that only a user of rbac.json may touch."""

    method_decorators = [_basic.login_required]
