"""The cookie of a session: what it is called, what stands in it, and whether its session still holds."""

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
from flansible.web.context import services

CSRF_HEADER = "X-CSRF-Token"
_BYTES = 32
_LONGEST_SECONDS = 7 * 24 * 3600  # however often it is used


def given() -> str:
    """The cookie of this request, or ''."""
    return request.cookies.get(_name(services().settings.secret_key_file), "") if request.cookies else ""


def begin(user: User) -> tuple[str, Session]:
    """A new cookie and its session."""
    session = Session(user.name, secrets.token_urlsafe(_BYTES), _digest(user), time.time())
    cookie = secrets.token_urlsafe(_BYTES)
    services().store.begin_session(cookie, session, idle_seconds())
    return cookie, session


def holds(session: Session, user: User) -> bool:
    """Whether it is not too old, and of the password that the user has now."""
    return time.time() - session.began < _LONGEST_SECONDS and hmac.compare_digest(session.password, _digest(user))


def put(response: Response, cookie: str) -> None:
    """Have the browser keep it until it is closed: the end of the session is ours to know."""
    name, path = _name(services().settings.secret_key_file), _path()
    response.set_cookie(name, cookie, path=path, secure=request.is_secure, httponly=True, samesite="Strict")


def take(response: Response) -> None:
    """Have the browser forget it."""
    name, path = _name(services().settings.secret_key_file), _path()
    response.delete_cookie(name, path=path, secure=request.is_secure, httponly=True, samesite="Strict")


def idle_seconds() -> int:
    return services().settings.session_hours * 3600


def _path() -> str:
    return request.script_root or "/"


def _digest(user: User) -> str:
    return services().sealer.digest(f"session\0{user.name}\0{user.password}".encode())


@cache
def _name(key_file: Path) -> str:
    """Of its own for each installation: a browser sends a host's cookies to all of its ports."""
    return f"flansible_session_{Sealer(key_file).digest(b'cookie')[:8]}"
