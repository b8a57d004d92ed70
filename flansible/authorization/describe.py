"""Describes a user's rights in short sentences, entry by entry, which previews and sessions show. Pure.

Nothing is decided here; the rules are in flansible.authorization.rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flansible.authorization import entries
from flansible.authorization.isolation import Isolation
from flansible.identity.users import User


def sentences(user: User, isolation: Isolation) -> list[str]:
    """Returns who the user is, what the user may do, and whether runs are sandboxed."""
    if user.is_admin:
        return ["You are admin. You may run anything, without a sandbox."]
    if not user.as_member:
        return [f"You are {user.name}, with the role {user.role}.", *_of_entry(user, isolation)]
    groups = ", ".join(user.groups)
    found = [
        f"You are {user.name}, a member of {groups}. One entry, your own or a group's, has to allow all of a request."
    ]
    for entry in user.entries:
        name = entries.label(entry)
        words = [f"{name[0].upper()}{name[1:]} has the role {entry.role}.", *_of_entry(entry, isolation)]
        found += [words[0], *(f"By {name}: {sentence[0].lower()}{sentence[1:]}" for sentence in words[1:])]
    return found


def allowed_by(user: User, entry: str) -> list[str]:
    """Returns the sentence that names the entry which allowed a request; none where a user has only one."""
    found = entries.entry_of(user, entry) if user.as_member else None
    return (
        [] if found is None else [f"This request is allowed by {entries.label(found)}, and confined to what that may."]
    )


def _of_entry(user: User, isolation: Isolation) -> list[str]:
    if user.role != "operator":
        return ["You may read tasks. You may not start or cancel any.", *_sees(user)]
    return [*_may(user), *_limits(user), *_sees(user), _sandboxed(user, isolation)]


def _may(user: User) -> Iterator[str]:
    yield f"You may use these inventories: {_listed((*user.inventories, *user.project_inventories))}."
    if user.projects:
        yield f"You may use these projects: {_listed(grant.name for grant in user.projects)}."
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
    for queue, inventories in user.queues:
        yield f"You may use queue {queue} with these inventories: {_listed(inventories)}."
    if user.credentials:
        yield f"You may use these credentials: {_listed(user.credentials)}."
    if not user.may_use_git:
        yield "You may not update checkouts."


def _sees(user: User) -> Iterator[str]:
    if user.sees == "all":
        yield "You see the tasks of all users."
    if user.sees == "inventories":
        yield "You see the tasks of others whose inventories and hosts are all among these."
    if user.cancels == "inventories" and user.role == "operator":
        yield "You may cancel the tasks of others whose inventories and hosts are all among these."


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
