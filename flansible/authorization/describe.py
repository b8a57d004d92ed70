"""What rbac.json gives a user, in short sentences. Pure; a preview shows them, and decides nothing by them.

The rules themselves are flansible.rules'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flansible.authorization.isolation import Isolation
from flansible.identity.users import User


def sentences(user: User, isolation: Isolation) -> list[str]:
    """Who the user is, what is within reach, and what confines the run."""
    if user.is_admin:
        return ["You are admin: no rule restricts what you run, and it is not confined."]
    found = [f"You are {user.name}, with the role {user.role}."]
    if user.role != "operator":
        return [*found, "You may look, and start nothing."]
    return [*found, *_may(user), *_limits(user), _confined(user, isolation)]


def _may(user: User) -> Iterator[str]:
    yield f"You may use these inventories: {_listed(user.inventories)}."
    if user.hosts is not None:
        yield f"Of their hosts you reach those that match {_listed(user.hosts)}; all others are left out."
    if user.playbooks is not None:
        yield f"You may start these playbooks: {_listed(user.playbooks)}."
    if user.modules_allowed is not None:
        yield f"You may run these modules ad hoc: {_listed(user.modules_allowed)}."
    if user.modules_denied:
        yield f"You may not run these modules ad hoc: {_listed(user.modules_denied)}."
    yield "You may become another user." if user.may_become else "You may not become another user."
    if not user.may_use_git:
        yield "You may not update checkouts."


def _limits(user: User) -> Iterator[str]:
    if user.max_forks is not None:
        yield f"At most {user.max_forks} hosts are worked on side by side."
    if user.max_seconds is not None:
        yield f"A run may take {user.max_seconds} seconds at most."


def _confined(user: User, isolation: Isolation) -> str:
    if user.control_node:
        reach = "rbac.json lets you work on the control machine itself"
    else:
        reach = "the control machine itself is not within your reach"
    if isolation.in_force:
        return f"The run is confined: it sees playbook_root, your inventories and a home of your own; {reach}."
    if isolation.is_missing:
        return f"Runs cannot be confined here, so what could reach the control machine is refused; {reach}."
    return f"The run is not confined (isolation = none); {reach}."


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
