"""The session cookie: its name, its content, and whether its session is still valid."""

from __future__ import annotations

import hmac
import secrets
import time
from functools import cache
from pathlib import Path

from flask import Response, request

from flansible.identity.users import User
from flansible.sealing import Sealer
from flansible.store import Session
from flansible.web.context import web_context

CSRF_HEADER = "X-CSRF-Token"
_BYTES = 32
_MAX_AGE_SECONDS = 7 * 24 * 3600  # however often it is used


def read() -> str:
    """Returns the cookie of this request, or ''."""
    return request.cookies.get(_name(web_context().settings.secret_key_file), "") if request.cookies else ""


def create_session(user: User) -> tuple[str, Session]:
    """Creates a session in the store; returns its cookie and the session."""
    session = Session(user.name, secrets.token_urlsafe(_BYTES), _digest(user), time.time())
    cookie = secrets.token_urlsafe(_BYTES)
    web_context().store.begin_session(cookie, session, idle_seconds())
    return cookie, session


def is_valid(session: Session, user: User) -> bool:
    """Whether the session is unexpired and the password unchanged since login."""
    return time.time() - session.began < _MAX_AGE_SECONDS and hmac.compare_digest(session.password, _digest(user))


def set_on(response: Response, cookie: str) -> None:
    """Sets the cookie, without an expiry: the server decides when a session ends."""
    name, path = _name(web_context().settings.secret_key_file), _path()
    response.set_cookie(name, cookie, path=path, secure=request.is_secure, httponly=True, samesite="Strict")


def clear_on(response: Response) -> None:
    """Deletes the cookie from the browser."""
    name, path = _name(web_context().settings.secret_key_file), _path()
    response.delete_cookie(name, path=path, secure=request.is_secure, httponly=True, samesite="Strict")


def idle_seconds() -> int:
    return web_context().settings.session_hours * 3600


def _path() -> str:
    return request.script_root or "/"


def _digest(user: User) -> str:
    return web_context().sealer.digest(f"session\0{user.name}\0{user.password}".encode())


@cache
def _name(key_file: Path) -> str:
    """Returns a name that differs per installation: a browser sends a host's cookies to all of its ports."""
    return f"flansible_session_{Sealer(key_file).digest(b'cookie')[:8]}"
