"""Stored secrets in requests: whether an entry of rbac.json may use them, and what they put into the request.

Each becomes what a secret field of the request would be, so that every rule on those fields holds for it; but a key of
the kind `ssh` goes to an agent that signs for the run, and `environment` beside the request's own. Pure: the web
process has opened them (flansible.definitions.stored_credentials). For tasks of earlier only the right is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from flansible.authorization.definition_rights import matches
from flansible.authorization.isolation import Isolation
from flansible.authorization.reserved_variables import CONNECTION_VARIABLE
from flansible.authorization.rules import strings
from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings, comma_list
from flansible.errors import FieldError, InvalidRequest
from flansible.identity.users import ADMIN, User
from flansible.models import AuthorizedRun, RunOptions, Secrets
from flansible.models.credential_spec import CredentialSpec
from flansible.models.request_fields import secrets_problem
from flansible.models.requests import DEFAULT_VAULT_ID

RunBody = TypeVar("RunBody", bound=RunOptions)


@dataclass(frozen=True)
class UsedCredential:
    """A credential that a request names. place: the field that names it."""

    place: str
    name: str
    owner: str
    spec: CredentialSpec


@dataclass(frozen=True)
class UsedCredentials:
    """Those of one request. own: the names of those that its user has written; opened: none for a task of earlier."""

    own: frozenset[str] = frozenset()
    opened: tuple[UsedCredential, ...] = field(default=(), repr=False)


NO_CREDENTIALS = UsedCredentials()
_USER_CODES = {"ssh": "remote_user_forbidden", "become": "become_forbidden"}


def check(user: User, request: RunOptions, used: UsedCredentials, settings: Settings, isolation: Isolation) -> None:
    """Raises Forbidden for a credential that this entry may not use, and where runs of the user are not confined."""
    for place, name in _named(request):
        if not (user.is_admin or name in used.own or matches(name, user.credentials)):
            message = f"You may not use credential {name}. Ask an admin to add it to credentials in rbac.json."
            raise forbidden(place, "credential_forbidden", message)
    if request.credentials and not user.is_admin and not isolation.in_force:
        message = f"Stored secrets are for confined runs, and yours are not confined here ({isolation})."
        raise forbidden("credentials", "credential_unconfined", message)
    for one in used.opened:
        _check_names(user, one, settings)
        if one.spec.kind == "become" and not user.may_become:
            message = f"credential {one.name} is for become, and you may not become another user."
            raise forbidden(one.place, "become_forbidden", message)


def _check_names(user: User, one: UsedCredential, settings: Settings) -> None:
    """Refuses names that decide more than a secret, unless admin has written the credential."""
    if one.owner == ADMIN:
        return
    permitted = {*comma_list(settings.environment_names), *user.environment}
    for name in one.spec.variables or {}:
        if name not in permitted:
            message = f"credential {one.name} of {one.owner} sets {name}, which only a credential of admin may."
            raise forbidden(one.place, "environment_forbidden", message)
    if one.spec.kind in _USER_CODES and not strings.is_user(one.spec.user):
        message = f"credential {one.name} of {one.owner} has a user whose name is no plain one."
        raise forbidden(one.place, _USER_CODES[one.spec.kind], message)
    if one.spec.variable is not None and CONNECTION_VARIABLE.match(one.spec.variable):
        message = f"credential {one.name} of {one.owner} sets {one.spec.variable}, which decides how Ansible connects."
        raise forbidden(one.place, "connection_variable_forbidden", message)


def merged(request: RunBody, used: UsedCredentials) -> RunBody:
    """Returns the request with these secrets in its fields. Raises InvalidRequest for two secrets of one use."""
    changes: dict[str, Any] = {}
    secrets: list[str] = []
    for one in used.opened:
        _MERGE[one.spec.kind](request, one, changes)
        secrets += _values(one.spec)
    own = request.secrets
    problem = secrets_problem([*secrets, *(own.values if own else ())])
    if problem:
        raise InvalidRequest(
            f"credentials: {problem}", code="invalid_field", errors=[FieldError("credentials", problem)]
        )
    return request.model_copy(update={name: value for name, value in changes.items() if not name.startswith("_")})


def with_secrets(run: AuthorizedRun, request: RunOptions, used: UsedCredentials) -> AuthorizedRun:
    """Returns the run with what no field of a request has: the agent's key, and secret variables of the environment."""
    secrets = run.secrets or Secrets()
    for one in used.opened:
        if one.spec.kind == "ssh" and one.spec.private_key is not None:
            key = {"agent_key": one.spec.private_key, "agent_key_passphrase": one.spec.private_key_passphrase}
            secrets = secrets.model_copy(update=key)
        elif one.spec.kind == "environment":
            variables = {**secrets.environment, **(one.spec.variables or {})}
            secrets = secrets.model_copy(update={"environment": variables})
    names = tuple(request.credentials or ())
    return run.model_copy(
        update={
            "secrets": None if secrets == Secrets() else secrets,
            "credentials": names,
            "own_credentials": tuple(name for name in names if name in used.own),
        }
    )


def _named(request: RunOptions) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(request.credentials or ()):
        yield f"credentials[{number}]", name


def _values(spec: CredentialSpec) -> list[str]:
    single = (spec.password, spec.token, spec.private_key, spec.private_key_passphrase)
    return [value for value in (*single, *(spec.variables or {}).values()) if value]


def _merge_ssh(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    if one.spec.private_key is not None:
        _set_once(request, one, changes, "_agent_key", ("private_key", "private_key_file"))
        changes["_agent_key"] = one.spec.private_key
    else:
        _set_once(request, one, changes, "connection_password", ("connection_password", "connection_password_file"))
        changes["connection_password"] = one.spec.password
    if one.spec.user is not None and request.remote_user is None:
        changes.setdefault("remote_user", one.spec.user)


def _merge_become(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    _set_once(request, one, changes, "become_password", ("become_password", "become_password_file"))
    changes["become_password"] = one.spec.password
    if one.spec.user is not None and request.become_user is None:
        changes["become_user"] = one.spec.user


def _merge_vault(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    given = changes.get("vault_password", request.vault_password)
    passwords = {DEFAULT_VAULT_ID: given} if isinstance(given, str) else dict(given or {})
    label = one.spec.vault_id or DEFAULT_VAULT_ID
    if label in passwords:
        _refuse(one, f"has the password of vault id {label}, which another credential or vault_password has too")
    changes["vault_password"] = {**passwords, label: one.spec.password}


def _merge_environment(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    taken = {*(request.environment or {}), *changes.get("_environment", ())}
    for name in one.spec.variables or {}:
        if name in taken:
            _refuse(one, f"sets {name}, which another credential or environment sets too")
    changes["_environment"] = {*changes.get("_environment", ()), *(one.spec.variables or {})}


def _merge_http(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    if one.spec.variable is None:
        _refuse(one, "is of the kind http and names no variable, so a run would not get it")
    variables = dict(changes.get("secret_vars", request.secret_vars) or {})
    if one.spec.variable in variables:
        _refuse(one, f"sets {one.spec.variable}, which another credential or secret_vars sets too")
    changes["secret_vars"] = {**variables, one.spec.variable: one.spec.token}


def _refuse_git(request: RunOptions, one: UsedCredential, changes: dict[str, Any]) -> None:
    _refuse(one, "is of the kind git, which projects use, not requests")


_MERGE = {
    "ssh": _merge_ssh,
    "become": _merge_become,
    "vault": _merge_vault,
    "environment": _merge_environment,
    "http": _merge_http,
    "git": _refuse_git,
}


def _set_once(
    request: RunOptions, one: UsedCredential, changes: dict[str, Any], what: str, fields: tuple[str, ...]
) -> None:
    """Refuses a second secret of one use: of another credential, or of a field of the request."""
    if what in changes:
        _refuse(one, f"is a second {_WORDS[what]}: name one")
    for name in fields:
        if getattr(request, name) is not None:
            _refuse(one, f"and {name} exclude each other: give one of them")


_WORDS = {"_agent_key": "ssh key", "connection_password": "ssh password", "become_password": "become password"}


def _refuse(one: UsedCredential, why: str) -> NoReturn:
    message = f"credential {one.name} {why}"
    raise InvalidRequest(f"{one.place}: {message}", code="invalid_field", errors=[FieldError(one.place, message)])
