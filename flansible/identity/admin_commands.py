"""Creates and revokes tokens and sets passwords, for `flansible token` and `passwd`; each change is audited."""

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
    """Creates a token for a user. Raises ConfigurationError or AuditUnavailable; then there is no new token."""
    if user not in rbac_users.RbacFile(settings.rbac_file, settings=settings).users():
        raise ConfigurationError(
            [Fault(str(settings.rbac_file), user, "is not a user; add one with `flansible passwd`")]
        )
    made = tokens.make(user, scope, expires, datetime.now(UTC))
    until = timestamp(expires, "seconds") if expires else "never"
    # Audited first: a token without an audit line would go unnoticed.
    with _audited(settings, _event("token_created", f"for {user}, scope {scope}, expires {until}", made.token.id)):
        tokens.add(settings.token_file, made.token)
    return made


def revoke_token(settings: Settings, token_id: str) -> Token | None:
    """Revokes a token and returns it; None if it does not exist. An audit log that fails does not prevent it."""
    gone = tokens.remove(settings.token_file, token_id)
    if gone is not None:
        _audit(settings).note(_event("token_revoked", f"of {gone.user}, scope {gone.scope}", gone.id))
    return gone


def list_tokens(settings: Settings, user: str | None) -> list[str]:
    """Returns a table of tokens as lines with a heading; empty when there are none."""
    now = datetime.now(UTC)
    users = rbac_users.RbacFile(settings.rbac_file, settings=settings).users()
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
    """Sets a password; True if the user is new. Raises ConfigurationError or AuditUnavailable; then nothing changed."""
    passwords.check(settings.rbac_file, user, inventories)
    with _audited(settings, _event("password_set", f"of {user}")):
        return passwords.set_password(settings.rbac_file, user, password, inventories)


def inventories(settings: Settings, user: str) -> list[str]:
    """Returns the inventories that rbac.json gives a user; none without a file. Raises ConfigurationError."""
    if not settings.rbac_file.exists():
        return []
    found = rbac_users.RbacFile(settings.rbac_file, settings=settings).users().get(user)
    return [str(path) for path in found.inventories] if found else []


@contextmanager
def _audited(settings: Settings, event: AuditEvent) -> Iterator[None]:
    """Audits the change before the body makes it, and again if it fails. Raises AuditUnavailable before the body."""
    audit = _audit(settings)
    audit.write(event)
    try:
        yield
    except ConfigurationError:
        audit.note(replace(event, outcome="failed"))
        raise


def _audit(settings: Settings) -> Audit:
    # No copy on standard output, which has the command's result.
    return Audit(settings.audit_file, settings.secret_key_file)


def _event(name: str, what: str, token: str = "") -> AuditEvent:
    return AuditEvent(name, user=_operator(), request=f"command, process {os.getpid()}", what=what, token=token)


def _operator() -> str:
    """Returns who runs the command: the account of the operating system, not a user of rbac.json."""
    try:
        return f"{getpass.getuser()} (uid {os.getuid()})"
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
