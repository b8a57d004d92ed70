"""What the commands change in who may do what, each change told to the audit log: `flansible token` and `passwd`."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from flansible.audit.log import Audit, AuditEvent
from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault
from flansible.identity import passwords, tokens
from flansible.identity import users as rbac_users
from flansible.identity.tokens import NewToken, Scope, Token
from flansible.system.timestamps import timestamp

_COLUMNS = "{:14}{:20}{:7}{:22}{:22}{}"


def create_token(settings: Settings, user: str, scope: Scope, expires: datetime | None) -> NewToken:
    """Raises ConfigurationError, and AuditUnavailable; then there is no new token."""
    if user not in rbac_users.RbacFile(settings.rbac_file).users():
        raise ConfigurationError([Fault(str(settings.rbac_file), user, "is no user; `flansible passwd` adds one")])
    made = tokens.make(user, scope, expires, datetime.now(UTC))
    until = timestamp(expires, "seconds") if expires else "never"
    # Before it is there: a token that no line tells of would be one that nobody looks for.
    with _told(settings, _event("token_created", f"for {user}, scope {scope}, expires {until}", made.token.id)):
        tokens.add(settings.token_file, made.token)
    return made


def revoke_token(settings: Settings, token_id: str) -> Token | None:
    """The one that was revoked, or None when there is none. A log that cannot be written does not keep it alive."""
    gone = tokens.remove(settings.token_file, token_id)
    if gone is not None:
        _audit(settings).note(_event("token_revoked", f"of {gone.user}, scope {gone.scope}", gone.id))
    return gone


def list_tokens(settings: Settings, user: str | None) -> list[str]:
    """Lines for a person; a heading first, when there are any."""
    now = datetime.now(UTC)
    users = rbac_users.RbacFile(settings.rbac_file).users()
    found = [token for token in tokens.read(settings.token_file) if user in (None, token.user)]
    lines = [_COLUMNS.format("ID", "USER", "SCOPE", "CREATED", "EXPIRES", "STATE")] if found else []
    for token in found:
        state = "expired" if token.is_expired(now) else "in force" if token.user in users else "no such user"
        expires = timestamp(token.expires, "seconds") if token.expires else "never"
        lines.append(
            _COLUMNS.format(token.id, token.user, token.scope, timestamp(token.created, "seconds"), expires, state)
        )
    return lines


def set_password(settings: Settings, user: str, password: str, inventories: tuple[str, ...]) -> bool:
    """True when the user is new. Raises ConfigurationError, and AuditUnavailable; then nothing has changed."""
    passwords.check(settings.rbac_file, user, inventories)
    with _told(settings, _event("password_set", f"of {user}")):
        return passwords.set_password(settings.rbac_file, user, password, inventories)


@contextmanager
def _told(settings: Settings, event: AuditEvent) -> Iterator[None]:
    """Told before it is done, and once more should it fail. Raises AuditUnavailable, and then it is not done."""
    audit = _audit(settings)
    audit.write(event)
    try:
        yield
    except ConfigurationError:
        audit.note(replace(event, outcome="failed"))
        raise


def _audit(settings: Settings) -> Audit:
    # Not to standard output: that is what was asked for.
    return Audit(settings.audit_file, settings.secret_key_file)


def _event(name: str, what: str, token: str = "") -> AuditEvent:
    return AuditEvent(name, user=_operator(), request=f"command, process {os.getpid()}", what=what, token=token)


def _operator() -> str:
    """Who is at the command line; not a user of rbac.json."""
    try:
        return f"{getpass.getuser()} (uid {os.getuid()})"
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
