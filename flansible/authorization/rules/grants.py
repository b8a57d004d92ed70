"""Rules on what rbac.json grants a user: starting tasks at all, become, git, environment variables, forks and time."""

from __future__ import annotations

from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings, comma_list
from flansible.errors import Forbidden
from flansible.identity.users import User
from flansible.models import RunOptions, TaskOptions

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
