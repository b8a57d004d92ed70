"""Describes a user's rights in short sentences, which a preview shows. Pure.

Nothing is decided here; the rules are in flansible.authorization.rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flansible.authorization.isolation import Isolation
from flansible.identity.users import User


def sentences(user: User, isolation: Isolation) -> list[str]:
    """Returns who the user is, what the user may do, and whether runs are sandboxed."""
    if user.is_admin:
        return ["You are admin. You may run anything, without a sandbox."]
    found = [f"You are {user.name}, with the role {user.role}."]
    if user.role != "operator":
        return [*found, "You may read tasks. You may not start or cancel any."]
    return [*found, *_may(user), *_limits(user), _sandboxed(user, isolation)]


def _may(user: User) -> Iterator[str]:
    yield f"You may use these inventories: {_listed(user.inventories)}."
    if user.hosts is not None:
        yield f"You may use only their hosts that match {_listed(user.hosts)}."
    if user.playbooks is not None:
        yield f"You may start these playbooks: {_listed(user.playbooks)}."
    if user.modules_allowed is not None:
        yield f"You may run these modules ad hoc: {_listed(user.modules_allowed)}."
    if user.modules_denied:
        yield f"You may not run these modules ad hoc: {_listed(user.modules_denied)}."
    yield "You may become another user." if user.may_become else "You may not become another user."
    if user.writable:
        yield f"Your runs may write these folders: {_listed(user.writable)}."
    if not user.may_use_git:
        yield "You may not update checkouts."


def _limits(user: User) -> Iterator[str]:
    if user.max_forks is not None:
        yield f"A run may work on at most {user.max_forks} hosts at a time."
    if user.max_seconds is not None:
        yield f"A run may take at most {user.max_seconds} seconds."


def _sandboxed(user: User, isolation: Isolation) -> str:
    if user.control_node:
        machine = "You may run on the control machine."
    else:
        machine = "You may not run on the control machine."
    if isolation.in_force:
        return f"The run is sandboxed: it sees playbook_root, your inventories and your own home. {machine}"
    if isolation.is_missing:
        return f"Runs cannot be sandboxed here, so what could reach the control machine is refused. {machine}"
    return f"The run is not sandboxed (isolation = none). {machine}"


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
