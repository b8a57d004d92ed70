"""Creates and revokes tokens, sets passwords, adds and removes users; each change is audited.

For `flansible token`, `flansible passwd` and `flansible user`.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

from werkzeug.security import generate_password_hash

from flansible.audit.log import Audit, AuditEvent
from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault
from flansible.identity import passwords, rbac_editor, tokens
from flansible.identity import users as rbac_users
from flansible.identity.rbac_editor import Document
from flansible.identity.rbac_schema import Role
from flansible.identity.tokens import NewToken, Scope, Token
from flansible.system.timestamps import timestamp

_ROLES: tuple[str, ...] = get_args(Role)  # the default first
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


def add_user(
    settings: Settings, user: str, password: str, inventories: tuple[str, ...], groups: tuple[str, ...], role: str
) -> None:
    """Adds a user. Raises ConfigurationError, also for one that exists, or AuditUnavailable; then nothing changed."""

    def change(document: Document, hashed: str) -> None:
        if rbac_editor.entry_of(document, user) is not None:
            message = "exists already; `flansible passwd` and `flansible user groups` change it"
            raise ConfigurationError([Fault(str(settings.rbac_file), user, message)])
        rbac_editor.set_password(document, user, hashed, inventories)
        entry = document["rbac"][-1]
        entry |= {"role": role} if role != _ROLES[0] else {}
        rbac_editor.set_groups(document, user, groups)

    with rbac_editor.editing(settings.rbac_file, is_trial=True) as document:
        change(document, "any")
    hashed = generate_password_hash(password)
    what = f"{user}, role {role}" + (f", groups {', '.join(groups)}" if groups else "")
    with _audited(settings, _event("user_added", what)), rbac_editor.editing(settings.rbac_file) as document:
        change(document, hashed)


def remove_user(settings: Settings, user: str) -> int:
    """Removes a user with all tokens; returns how many these were. Raises ConfigurationError or AuditUnavailable.

    The tokens first: a later user of this name must not have them.
    """
    _require_user(settings, user)
    if user == rbac_users.ADMIN:
        message = "is the one who may do everything, and cannot be removed here"
        raise ConfigurationError([Fault(str(settings.rbac_file), user, message)])
    with rbac_editor.editing(settings.rbac_file, is_trial=True) as document:
        rbac_editor.remove(document, user)
    with _audited(settings, _event("user_removed", user)):
        revoked = [revoke_token(settings, token.id) for token in tokens.read(settings.token_file) if token.user == user]
        with rbac_editor.editing(settings.rbac_file) as document:
            rbac_editor.remove(document, user)
    return len(revoked)


def set_groups(settings: Settings, user: str, groups: tuple[str, ...]) -> None:
    """Replaces the groups of a user. Raises ConfigurationError or AuditUnavailable; then nothing changed."""
    _require_user(settings, user)
    with rbac_editor.editing(settings.rbac_file, is_trial=True) as document:
        rbac_editor.set_groups(document, user, groups)
    event = _event("user_groups_set", f"of {user}: {', '.join(groups) or 'none'}")
    with _audited(settings, event), rbac_editor.editing(settings.rbac_file) as document:
        rbac_editor.set_groups(document, user, groups)


def groups_of(settings: Settings, user: str) -> tuple[str, ...]:
    """Returns the groups of a user. Raises ConfigurationError."""
    return _require_user(settings, user).groups


def list_users(settings: Settings) -> list[str]:
    """Returns a table of the users as lines with a heading."""
    users = rbac_users.RbacFile(settings.rbac_file, settings=settings).users()
    rows = [("USER", "ROLE", "SEES", "GROUPS", "INVENTORIES")]
    for user in users.values():
        role, sees = ("admin", "all") if user.is_admin else (user.role, user.sees)
        listed = ", ".join(map(str, user.inventories))
        rows.append((user.name, role, sees, ", ".join(user.groups) or "-", "all" if user.is_admin else listed or "-"))
    return _table(rows)


def list_groups(settings: Settings) -> list[str]:
    """Returns a table of the groups with their members as lines with a heading; empty when there are none."""
    document = rbac_editor.read(settings.rbac_file)
    users = rbac_users.RbacFile(settings.rbac_file, settings=settings).users()
    rows = [("GROUP", "MEMBERS", "INVENTORIES")]
    for group in document.get("groups", []):
        members = [user.name for user in users.values() if group["name"] in user.groups]
        rows.append((group["name"], ", ".join(members) or "-", ", ".join(group.get("inventories", [])) or "-"))
    return _table(rows) if len(rows) > 1 else []


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    return ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _require_user(settings: Settings, user: str) -> rbac_users.User:
    found = rbac_users.RbacFile(settings.rbac_file, settings=settings).users().get(user)
    if found is None:
        message = "is not a user; `flansible user list` shows them"
        raise ConfigurationError([Fault(str(settings.rbac_file), user, message)])
    return found


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
