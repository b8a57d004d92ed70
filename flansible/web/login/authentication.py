"""Authenticates requests by password (Basic), token (Bearer), session cookie, or the operator's login function.

`identify` alone decides who the user is; what a user may do is decided in flansible.authorization.
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

from flansible.errors import Forbidden, NotAuthenticated, StoreUnavailable, TooManyRequests
from flansible.identity.custom_login import Headers, LoginRequest
from flansible.identity.tokens import TEXT, Scope
from flansible.identity.users import User
from flansible.store import Session
from flansible.web.context import web_context
from flansible.web.login import session_cookie
from flansible.web.middleware import audit_context, error_handlers

log = logging.getLogger(__name__)

# One text for every wrong login, so that it does not reveal which users and tokens exist.
_WRONG_LOGIN = "This user and password, or this token, are not accepted."
_NO_LOGIN = "Give a user and password by HTTP Basic, as curl -u does, or a token as Authorization: Bearer."
_SCHEMES = ("basic", "bearer")
_READING = ("GET", "HEAD")

_basic = HTTPBasicAuth()


@dataclass(frozen=True)
class Identity:
    """The user of a request and its scope. token: the id of the API token used, or ''; session: that of its cookie."""

    user: User
    scope: Scope = "run"
    token: str = ""
    session: Session | None = None


def identify() -> Identity | None:
    """Returns the authenticated identity, None without valid credentials. Raises TooManyRequests.

    Passwords verified before cost nothing. Any other password, also one for the login function, passes the login
    throttle first.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    given = request.authorization
    if scheme.lower() == "bearer" and (credentials.startswith("flansible_") or web_context().login_function is None):
        found = _check_token(credentials.strip())
    elif given is not None and given.type == "basic" and given.username:
        found = check_password(given.username, given.password or "")
    else:
        found = (_check_session() if not scheme else None) or _call_login_function(Headers(request.headers.items()))
    if found is not None:
        audit_context.set_user(found.user.name, found.token)
    return found


def _check_token(text: str) -> Identity | None:
    token = web_context().tokens.find(text, datetime.now(UTC))
    user = web_context().rbac.users().get(token.user) if token else None
    if token is None or user is None:
        shape = TEXT.fullmatch(text)
        audit_context.login_failed("", f"token {shape[1]}" if shape else "token")
        return None
    return Identity(user, token.scope, token.id)


def check_password(name: str, password: str) -> Identity | None:
    """Verifies a password; returns the identity it belongs to, or None. Raises TooManyRequests."""
    rbac = web_context().rbac
    user = rbac.known(name, password)
    if user is None:
        throttle = _LoginThrottle(name, request.remote_addr or "")
        if web_context().login_function is not None:
            throttle.check()
            # In the form of HTTP Basic, which the function knows.
            login = Authorization("basic", {"username": name, "password": password}).to_header()
            given = (pair for pair in request.headers.items() if pair[0].lower() != "authorization")
            if (found := _call_login_function(Headers((*given, ("Authorization", login))))) is not None:
                return found
        user = rbac.authenticate(name, password, throttle)
    return Identity(user) if user else None


def check_own_password(name: str, password: str) -> bool:
    """Whether it is the user's password in rbac.json, before it is changed. Raises TooManyRequests."""
    return web_context().rbac.authenticate(name, password, _LoginThrottle(name, request.remote_addr or "")) is not None


def require_no_token() -> None:
    """Raises Forbidden for a login by token: who finds one must not be able to make more of it."""
    if g.token:
        message = "Log in with a password or a session for this: a token makes no tokens and sets no password."
        raise Forbidden(message, code="token_forbidden")


def _check_session() -> Identity | None:
    cookie = session_cookie.read()
    session = web_context().store.session(cookie, session_cookie.idle_seconds()) if cookie else None
    user = web_context().rbac.users().get(session.user) if session else None
    if session is None or user is None or not session_cookie.is_valid(session, user):
        return None
    return Identity(user, session=session)


def _call_login_function(headers: Headers) -> Identity | None:
    function = web_context().login_function
    if function is None:
        return None
    try:
        name = function(LoginRequest(headers, request.remote_addr or "", request.method, request.path))
    except Exception:  # the operator's code may raise anything; a failure denies the login
        log.exception("login_function failed")
        return None
    user = web_context().rbac.users().get(name) if isinstance(name, str) else None
    if name is not None and user is None:
        audit_context.login_failed(str(name), "login_function: not in rbac.json")
    return Identity(user) if user else None


class _LoginThrottle:
    """The login throttle for one attempt, as the PasswordThrottle that identity.users calls."""

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._address = address

    def check(self) -> None:
        seconds = web_context().login_throttle.locked_seconds(self._name, self._address)
        if seconds:
            message = f"Too many wrong passwords. Try again in {seconds} seconds, or use a token."
            raise TooManyRequests(message, code="too_many_logins", retry_after_seconds=seconds)

    def record_failure(self) -> None:
        audit_context.login_failed(audit_context.loggable_name(self._name), "password")
        if web_context().login_throttle.record_failure(self._name, self._address):
            audit_context.login_locked(self._name)


@_basic.verify_password
def _verify(_name: str, _password: str) -> User | None:
    found = identify()
    if found is None:
        return None
    g.scope, g.token = found.scope, found.token
    if request.method not in _READING:
        require_run_scope()
    if found.session is not None and request.method not in _READING:
        # A browser sends the cookie with requests of any page; only our own page knows this header's value.
        given = request.headers.get(session_cookie.CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(errors="replace"), found.session.csrf.encode()):
            message = f"Send the session's csrf_token (GET /api/session) in the header {session_cookie.CSRF_HEADER}."
            raise Forbidden(message, code="csrf")
    g.session = found.session
    return found.user


def may_run() -> bool:
    """Whether this request's login may start runs: a token of scope read may not. Only within a PrivateResource."""
    return bool(g.scope != "read")


def require_run_scope() -> None:
    """Raises Forbidden for a token that may only read; for a GET that starts a run. Only within a PrivateResource."""
    if not may_run():
        raise Forbidden("This token is read-only (scope read).", code="scope_forbidden")


@_basic.error_handler
def _refuse(status: int) -> Response:
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    return error_handlers.error_response(NotAuthenticated(_WRONG_LOGIN if scheme in _SCHEMES else _NO_LOGIN))


def current_user() -> User:
    """Returns the user of this request; only within a PrivateResource."""
    return cast(User, _basic.current_user())


def current_session() -> Session | None:
    """Returns the session of this request's cookie, if it has one; only within a PrivateResource."""
    return cast("Session | None", g.get("session"))


def optional_user() -> User | None:
    """Returns the user of a request with a valid login, else None; for public resources.

    None also when the store is away or refuses, and with it what limits guessing and keeps sessions: health says why.
    """
    try:
        found = identify()
    except (TooManyRequests, StoreUnavailable):
        return None
    return found.user if found else None


class PrivateResource(Resource):
    """A resource that only a user of rbac.json may use."""

    method_decorators = [_basic.login_required]
