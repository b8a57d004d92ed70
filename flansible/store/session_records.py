"""Browser sessions: who is logged in, stored under the digest of the cookie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

from flansible.store.connection import Connection, text, translated
from flansible.store.keys import PREFIX


@dataclass(frozen=True)
class Session:
    """A browser session. csrf: the token that requests which change something must also send; password: a digest of
    the user's password in rbac.json, so that a new password ends the session; began: seconds since 1970."""

    user: str
    csrf: str
    password: str
    began: float


class Sessions(Connection):
    """The part of Store for browser sessions. It stores digests, so that a copy of Redis contains no valid cookie."""

    def begin_session(self, cookie: str, session: Session, idle_seconds: int) -> None:
        """Stores a session, which expires after `idle_seconds` without a request."""
        with translated():
            self._redis.set(_key(cookie), json.dumps(asdict(session)), ex=idle_seconds)

    def session(self, cookie: str, idle_seconds: int) -> Session | None:
        """Reads a cookie's session and extends it by `idle_seconds` from now; None when there is none."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(_key(cookie))
            pipeline.expire(_key(cookie), idle_seconds)
            found, _ = pipeline.execute()
        return Session(**json.loads(text(found))) if found else None

    def end_session(self, cookie: str) -> None:
        """Deletes a session."""
        with translated():
            self._redis.delete(_key(cookie))


def _key(cookie: str) -> str:
    return f"{PREFIX}session:{sha256(cookie.encode(errors='surrogatepass')).hexdigest()}"
