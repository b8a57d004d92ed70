"""Rules on what rbac.json gives to a user: to act at all, become, git, environment variables, forks and time."""

from __future__ import annotations

from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings, comma_list
from flansible.errors import Forbidden
from flansible.identity.users import User
from flansible.models import RunOptions, TaskOptions

_BECOME_FIELDS = ("become", "become_user", "become_method", "become_password")


def check_may_act(user: User) -> None:
    """Raises Forbidden for those who may look only: nothing is started or canceled by them."""
    if user.is_admin or user.role == "operator":
        return
    message = f"{user.name} has the role {user.role}, which starts and cancels nothing; ask the admin for operator"
    raise Forbidden(message, code="role_forbidden")


def check_become(user: User, request: RunOptions) -> None:
    for field in _BECOME_FIELDS:
        if not user.may_become and getattr(request, field):
            raise forbidden(field, "become_forbidden", "you may not become another user; leave it out")


def check_git(user: User, field: str) -> None:
    if not user.is_admin and not user.may_use_git:
        message = "you may not update checkouts: rbac.json does not give you git"
        raise forbidden(field, "git_forbidden", message)


def check_environment(user: User, request: RunOptions, settings: Settings) -> None:
    permitted = {*comma_list(settings.environment_names), *user.environment}
    for name in request.environment or {}:
        if name not in permitted:
            message = "is not among environment_names of config.ini, nor under environment of yours in rbac.json"
            raise forbidden(f"environment.{name}", "environment_forbidden", message)


def forks(user: User, request: RunOptions) -> int | None:
    """What the run gets: as asked for, and a limit where nothing is."""
    return _within("forks", request.forks, user.max_forks)


def time_limit(user: User, request: TaskOptions) -> int | None:
    """Seconds; as asked for, and a limit where nothing is."""
    return _within("time_limit", request.time_limit, user.max_seconds)


def _within(field: str, asked: int | None, most: int | None) -> int | None:
    if asked is not None and most is not None and asked > most:
        raise forbidden(field, "limit_exceeded", f"must be at most {most}, your limit")
    return most if asked is None else asked
