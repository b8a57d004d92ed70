"""Sessions of people in a browser: who is logged in, by the digest of what the browser's cookie says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

from flansible.store.connection import Connection, text, translated
from flansible.store.keys import PREFIX


@dataclass(frozen=True)
class Session:
    """user: their name; csrf: what a request that changes something has to say besides; password: a digest of the
    user's password as rbac.json has it, so that another password ends the session; began: seconds since 1970."""

    user: str
    csrf: str
    password: str
    began: float


class Sessions(Connection):
    """Part of Store. Whoever reads Redis finds no cookie there: only digests are kept."""

    def begin_session(self, cookie: str, session: Session, idle_seconds: int) -> None:
        with translated():
            self._redis.set(_key(cookie), json.dumps(asdict(session)), ex=idle_seconds)

    def session(self, cookie: str, idle_seconds: int) -> Session | None:
        """The session of a cookie, which lives on for `idle_seconds` from now; None when there is none."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(_key(cookie))
            pipeline.expire(_key(cookie), idle_seconds)
            found, _ = pipeline.execute()
        return Session(**json.loads(text(found))) if found else None

    def end_session(self, cookie: str) -> None:
        with translated():
            self._redis.delete(_key(cookie))


def _key(cookie: str) -> str:
    return f"{PREFIX}session:{sha256(cookie.encode(errors='surrogatepass')).hexdigest()}"
