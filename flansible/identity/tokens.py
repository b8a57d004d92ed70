"""API tokens, used instead of a password; kept hashed in one file beside rbac.json.

`flansible token` writes the file, and the web processes read it again when it changes. No Flask, no Redis.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from flansible import wording
from flansible.errors import ConfigurationError, Fault
from flansible.system import atomic_files, timestamps
from flansible.system.atomic_files import OnChange, ignore_change

log = logging.getLogger(__name__)

Scope = Literal["read", "run"]
SCOPES: tuple[Scope, ...] = ("read", "run")
MOST_OF_USER = 100  # that have not expired: the file is read as a whole
_SHOWN_EXPIRED = timedelta(days=30)
TEXT = re.compile(r"flansible_([0-9a-f]{12})_([0-9a-f]{64})")


class Token(BaseModel):
    """A token as stored: with the digest of its secret, never the secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    user: str = Field(min_length=1)
    scope: Scope
    created: AwareDatetime
    expires: AwareDatetime | None
    # One round of SHA-256 is enough: unlike a password, 256 random bits cannot be guessed, however fast a guess is.
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)

    def is_expired(self, moment: datetime) -> bool:
        return self.expires is not None and self.expires <= moment


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tokens: list[Token]


@dataclass(frozen=True)
class NewToken:
    """A token just created; `text` is shown once and stored nowhere."""

    token: Token
    text: str = field(repr=False)


def parse_expiry(expires: str, now: datetime) -> datetime | None:
    """Parses `30d`, `12h` or `90m` from now, a date (its beginning, UTC), or `never`. Raises ValueError."""
    if expires == "never":
        return None
    span = timestamps.parse_span(expires, units="mhd")
    if span is not None:
        moment = (now + span).replace(microsecond=0)
    else:
        moment = datetime.strptime(expires, "%Y-%m-%d").replace(tzinfo=UTC)
    if moment <= now:
        raise ValueError("is in the past")
    return moment


def make(user: str, scope: Scope, expires: datetime | None, now: datetime) -> NewToken:
    secret = secrets.token_hex(32)
    token_id = secrets.token_hex(6)
    created = now.replace(microsecond=0)
    token = Token(id=token_id, user=user, scope=scope, created=created, expires=expires, digest=_digest(secret))
    return NewToken(token, f"flansible_{token_id}_{secret}")


def add(path: Path, token: Token) -> None:
    """Adds a token to the file. Raises ConfigurationError; then nothing changed."""
    try:
        atomic_files.make_private_folder(path.parent)
        with atomic_files.exclusive_lock(path):
            _write(path, [*(one for one in read(path) if not one.is_expired(token.created - _SHOWN_EXPIRED)), token])
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be written: {error}")]) from error


def remove(path: Path, token_id: str) -> Token | None:
    """Removes a token and returns it; None for an unknown id. Raises ConfigurationError."""
    if not path.exists():
        return None
    try:
        with atomic_files.exclusive_lock(path):
            found = read(path)
            gone = next((token for token in found if token.id == token_id), None)
            if gone is not None:
                _write(path, [token for token in found if token is not gone])
            return gone
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be written: {error}")]) from error


def read(path: Path) -> list[Token]:
    """Reads all tokens, expired ones too; none when there is no file. Raises ConfigurationError."""
    try:
        data = path.read_bytes()
        return _Document.model_validate_json(data).tokens
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be read: {error}")]) from error
    except ValidationError as error:
        faults = [_fault(data, item["loc"], item["type"], item["msg"]) for item in error.errors(include_input=False)]
        raise ConfigurationError(
            [Fault(str(path), "", f"is not a valid token file: {'; '.join(faults[:3])}")]
        ) from None


def _fault(data: bytes, loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """Returns a fault with its token and key: `token "0123" of dev: unknown key "scop", did you mean "scope"?`."""
    if kind == "json_invalid":
        return wording.plain(message)
    # `tokens`, the token's number, its key.
    place, (*above, key) = "", loc or ("",)
    if len(loc) > 1 and isinstance(token := json.loads(data)["tokens"][loc[1]], dict):
        place = f'token "{token.get("id", loc[1])}" of {token.get("user", "nobody")}: '
    elif len(loc) > 1:
        place = f"tokens[{loc[1]}]: "
    if kind == "extra_forbidden":
        return place + wording.unknown_key(str(key), (Token if above else _Document).model_fields)
    return place + (f"{key}: " if isinstance(key, str) and key else "") + wording.plain(message)


def _write(path: Path, kept: list[Token]) -> None:
    document = _Document(tokens=kept).model_dump(mode="json")
    atomic_files.replace(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


class TokenFile:
    """The valid tokens; each lookup checks whether the file changed, so all processes refuse a revoked token at once.

    While the file is broken no token is valid. A broken rbac.json keeps its last valid version instead; but the edit
    that broke this file may have been a revocation, and accepting a revoked token is worse than refusing a valid one.
    `flansible token` never leaves a broken file. No file: no tokens.
    """

    def __init__(self, path: Path, on_change: OnChange = ignore_change) -> None:
        """Raises ConfigurationError if the file exists and is broken."""
        self._path = path
        self._on_change = on_change
        self._fault = ""
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._tokens = {token.id: token for token in read(path)}

    def find(self, text: str, now: datetime) -> Token | None:
        """Returns the valid token with this text, or None. An unknown id takes as long as a wrong secret."""
        tokens = self._current()
        given = TEXT.fullmatch(text)
        token = tokens.get(given[1]) if given else None
        expected = token.digest if token else _DUMMY_DIGEST
        is_right = hmac.compare_digest(_digest(given[2] if given else text), expected)
        return token if token is not None and is_right and not token.is_expired(now) else None

    def is_valid(self, token_id: str, now: datetime) -> bool:
        """Whether there is a token of this id that has not expired."""
        token = self._current().get(token_id)
        return token is not None and not token.is_expired(now)

    def _current(self) -> dict[str, Token]:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            with self._lock:
                if stamp != self._stamp:
                    self._reload(stamp)
        return self._tokens

    def _reload(self, stamp: atomic_files.Stamp | None) -> None:
        try:
            self._tokens = {token.id: token for token in read(self._path)}
            self._stamp, self._fault = stamp, ""
            self._report(f"{len(self._tokens)} tokens", is_good=True)
        except ConfigurationError as error:
            self._tokens = {}
            # A file that could not be read may become readable without another edit.
            self._stamp = None if isinstance(error.__cause__, OSError) else stamp
            if str(error) != self._fault:
                self._fault = str(error)
                self._report(f"no token is valid until this is fixed: {error}", is_good=False)

    def _report(self, what: str, is_good: bool) -> None:
        log.log(logging.INFO if is_good else logging.ERROR, "%s was read again: %s", self._path, what)
        self._on_change(what, is_good)


_DUMMY_DIGEST = sha256(b"").hexdigest()


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _stamp(path: Path) -> atomic_files.Stamp | None:
    try:
        return atomic_files.stamp(path)
    except OSError:
        return None
