"""Who may use a stored secret, and what of one only admin may write. Pure; called by flansible.definitions."""

from __future__ import annotations

from flansible.authorization.definition_rights import matches
from flansible.authorization.rules.refusal import forbidden
from flansible.identity.users import User
from flansible.models.credential_spec import CredentialSpec


def globs(user: User) -> frozenset[str]:
    """Returns the names, and globs of names, that an entry of the user, which may also act, may use."""
    return frozenset(glob for entry in user.entries if entry.role == "operator" for glob in entry.credentials)


def may_use(user: User, name: str, owner: str | None) -> bool:
    """Whether the user may use a credential; owner: None where there is none of this name."""
    return user.is_admin or owner == user.name or matches(name, globs(user))


def check_definition(user: User, spec: CredentialSpec) -> None:
    """Raises Forbidden for a `source` of another than admin: who writes one could have any secret of the store."""
    if spec.source is not None and not user.is_admin:
        raise forbidden("source", "field_forbidden", "Only admin may use this field")
