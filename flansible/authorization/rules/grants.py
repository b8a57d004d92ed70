"""Rules on what rbac.json grants a user: starting tasks at all, become, git, environment variables, forks and time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings, comma_list
from flansible.errors import Forbidden
from flansible.identity.users import User
from flansible.models import DEFAULT_QUEUE, RunOptions, TaskOptions

_BECOME_FIELDS = ("become", "become_user", "become_method", "become_password")


def check_may_act(user: User) -> None:
    """Raises Forbidden for users who may only read: the roles viewer and auditor start and cancel nothing."""
    if user.may_act:
        return
    message = (
        f"{user.name} may not start or cancel tasks with the role {user.role}. Ask an admin for the role operator."
    )
    raise Forbidden(message, code="role_forbidden")


def check_become(user: User, request: RunOptions) -> None:
    for field in _BECOME_FIELDS:
        if not user.may_become and getattr(request, field):
            raise forbidden(
                field,
                "become_forbidden",
                "You may not become another user. Leave this field out, or ask an admin for become in rbac.json.",
            )


def check_git(user: User, field: str) -> None:
    if not user.is_admin and not user.may_use_git:
        message = "You may not update checkouts. Ask an admin for git in rbac.json."
        raise forbidden(field, "git_forbidden", message)


def check_environment(user: User, request: RunOptions, settings: Settings) -> None:
    permitted = {*comma_list(settings.environment_names), *user.environment}
    for name in request.environment or {}:
        if name not in permitted:
            message = "You may not set this variable. Ask an admin to add it to environment in rbac.json."
            raise forbidden(f"environment.{name}", "environment_forbidden", message)


def check_queue(user: User, queue: str | None, inventories: Iterable[str]) -> None:
    """Raises Forbidden for a queue that the entry does not name, or does not name with these inventories. Resolved."""
    if user.is_admin:
        return
    name, granted = queue or DEFAULT_QUEUE, dict(user.queues)
    if name not in granted:
        if name == DEFAULT_QUEUE:
            return
        allowed = ", ".join((DEFAULT_QUEUE, *(one for one in granted if one != DEFAULT_QUEUE)))
        message = f"You may not use queue {name}. Yours: {allowed}. Ask an admin to add it to queues in rbac.json."
        raise forbidden("queue", "queue_forbidden", message)
    for path in inventories:
        if not any(_is_within(path, one) for one in granted[name]):
            message = f"You may not use inventory {path} on queue {name}. Ask an admin to add it in rbac.json."
            raise forbidden("queue", "queue_forbidden", message)


def _is_within(inventory: str, granted: str) -> bool:
    """Whether an inventory is one that is granted, or in it: a resolved path, or one in a project."""
    if inventory.startswith("/") or granted.startswith("/"):
        return Path(inventory).is_relative_to(granted)
    return inventory == granted or inventory.startswith(f"{granted}/") or inventory.partition(":")[0] + ":." == granted


def may_name_queue(user: User, queue: str | None) -> bool:
    """Whether an entry of the user names a queue, with whatever inventories."""
    name = queue or DEFAULT_QUEUE
    return user.is_admin or name == DEFAULT_QUEUE or any(name in dict(entry.queues) for entry in user.entries)


def forks(user: User, request: RunOptions) -> int | None:
    """Returns the request's forks, or the user's limit when it has none. Raises Forbidden above the limit."""
    return _at_most("forks", request.forks, user.max_forks)


def time_limit(user: User, request: TaskOptions) -> int | None:
    """Returns the request's time limit in seconds, or the user's when it has none. Raises Forbidden above it."""
    return _at_most("time_limit", request.time_limit, user.max_seconds)


def _at_most(field: str, given: int | None, most: int | None) -> int | None:
    if given is not None and most is not None and given > most:
        raise forbidden(field, "limit_exceeded", f"must be at most {most}, your limit")
    return most if given is None else given
