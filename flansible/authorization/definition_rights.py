"""Who may read and write definitions. Pure decisions; called by flansible.definitions."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from flansible.authorization.rules.grants import check_may_act
from flansible.errors import Forbidden
from flansible.identity.users import User


def may_define(user: User, kind: str) -> bool:
    """Whether the user may write definitions of this kind at all."""
    return user.is_admin or kind in _definable(user)


def _definable(user: User) -> list[str]:
    """Returns the kinds that an entry of the user, which may also act, names."""
    return sorted({kind for entry in user.entries if entry.role == "operator" for kind in entry.may_define})


def check_may_define(user: User, kind: str) -> None:
    """Raises Forbidden for a user without `may_define` for this kind."""
    check_may_act(user)
    if not may_define(user, kind):
        allowed = ", ".join(_definable(user)) or "none"
        message = f"You may not write {kind}. Kinds you may write: {allowed}. Ask an admin to add it to may_define."
        raise Forbidden(message, code="may_not_define")


def may_change(user: User, owner: str) -> bool:
    """Whether the user may change and delete a definition of this owner; admin may every one."""
    return user.is_admin or owner == user.name


def check_may_change(user: User, kind: str, name: str, owner: str) -> None:
    """Raises Forbidden for a definition of another user; admin may change every one."""
    if not may_change(user, owner):
        message = f"{kind}/{name} belongs to another user. Choose another name, or ask an admin."
        raise Forbidden(message, code="not_owner")


def may_read(user: User, owner: str, shared_with: frozenset[str]) -> bool:
    """Whether the user may read a definition: the owner, who it is shared with, admin and auditors."""
    return user.sees_all or owner == user.name or is_among(user, shared_with)


def is_among(user: User, shared_with: frozenset[str]) -> bool:
    """Whether the user is one of these: names of groups, and `user:` with that of a user. No name has a colon."""
    return not shared_with.isdisjoint((*user.groups, f"user:{user.name}"))


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a definition has one of these names, each of which may be a glob."""
    return any(fnmatchcase(name, glob) for glob in globs)
