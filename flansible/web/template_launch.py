"""Launches templates: whoever may, whatever their other rights, within what the template leaves open.

The run has the rights of the template's owner as of now, or of its `run_as`. Requests, schedules, hooks and retries
launch by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from pydantic import JsonValue

from flansible.authorization import credential_rights, definition_rights, launch_values
from flansible.definitions import template_schema, template_values
from flansible.definitions.definition_store import not_found
from flansible.definitions.kinds import CREDENTIALS, TEMPLATES
from flansible.definitions.stored_credentials import forbidden as credential_forbidden
from flansible.definitions.template_values import Merged
from flansible.errors import FieldError, Forbidden, InvalidRequest, NotFound
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import ADMIN, User
from flansible.models import AuthorizedRun, Origin, PlaybookRequest, TaskOptions, Trigger
from flansible.models.template_specs import TemplateSpec
from flansible.web import choices, freezes, playbook_variables, task_launch, template_guards
from flansible.web.context import WebContext, definitions_of
from flansible.web.task_launch import Launched, MakeEvent

# What the `user` of a credential sets where the request does not: no template can leave it open.
_USER_FIELDS = {"ssh": "remote_user", "become": "become_user"}


@dataclass(frozen=True)
class TemplateLaunch:
    """A launch of a template. user: who launches it, as rbac.json is now; values: the body of its POST.

    trigger: what started it; key: an idempotency key, with a space in it if it is the service's own; retry_of: the task
    whose hosts are tried again, `hosts`; attempt: number of retries before it; during_freeze: whether it may start
    while a freeze is in force.
    """

    name: str
    user: User
    values: Mapping[str, JsonValue]
    trigger: Trigger = "api"
    key: str | None = None
    retry_of: str | None = None
    hosts: tuple[str, ...] = ()
    attempt: int = 0
    locks: tuple[str, ...] = ()
    during_freeze: bool = False


@dataclass(frozen=True)
class Prepared:
    """An authorized launch. rights: the user whose rights it has."""

    run: AuthorizedRun
    body: TaskOptions
    rights: User
    spec: TemplateSpec


def may_launch(user: User, found: StoredDefinition) -> bool:
    """Whether the user may launch the template: admin, its owner, and who is in `allow`."""
    if user.is_admin or user.name == found.owner:
        return True
    return definition_rights.is_among(user, TEMPLATES.shared_with(found.spec))


def find(context: WebContext, user: User, name: str) -> StoredDefinition:
    """Returns a template that the user may launch. Raises the same NotFound for any other and for none."""
    found = definitions_of(context).find(TEMPLATES.name, name)
    if found is None or not may_launch(user, found):
        raise not_found(TEMPLATES, name)
    return found


def rights_user(context: WebContext, found: StoredDefinition) -> User:
    """Returns the user with whose rights a template runs, as rbac.json is now. Raises Forbidden."""
    users = context.rbac.users()
    # Its owner too where it has `run_as`: that is in force by the rights of who wrote it.
    for name in (found.owner, found.spec.get("run_as") or found.owner):
        if name not in users:
            message = f"This template runs by the rights of {name}, who is not in rbac.json. Ask an admin."
            raise Forbidden(message, code="rights_lost")
    return users[name]


def digest_of(found: StoredDefinition) -> str:
    """Returns a digest of a definition as it is, for the record of a task."""
    return sha256(json.dumps([found.owner, found.spec], sort_keys=True).encode()).hexdigest()[:32]


def prepare(context: WebContext, wanted: TemplateLaunch, *, is_preview: bool = False) -> Prepared:
    """Authorizes a launch by the rights that the template has now. Raises NotFound, Forbidden, InvalidRequest."""
    found = find(context, wanted.user, wanted.name)
    rights = rights_user(context, found)
    spec = described(context, TemplateSpec.model_validate(found.spec), rights)
    merged = template_values.merge(choices.filled(context, spec, rights), wanted.values)
    _check_credentials(context, spec, wanted, found.owner)
    if wanted.hosts:
        merged = replace(merged, body={**merged.body, "limit": ",".join(wanted.hosts)})
    body, run = _authorized(context, spec, rights, merged, is_preview=is_preview)
    changes: dict[str, Any] = {
        "user": wanted.user.name,
        "summary": f"{wanted.user.name}: {run.summary.removeprefix(f'{rights.name}: ')}",
        "origin": Origin(
            trigger=wanted.trigger,
            template=wanted.name,
            template_digest=digest_of(found),
            run_as=rights.name,
            retry_of=wanted.retry_of,
        ),
        "locks": tuple(sorted({*run.locks, *wanted.locks})),
        **_limits(context, wanted.user),
    }
    return Prepared(run.model_copy(update=changes), body, rights, spec)


def launch(context: WebContext, wanted: TemplateLaunch, event: MakeEvent) -> Launched:
    """Starts a task of a template.

    Raises NotFound, Forbidden, InvalidRequest, Conflict, TooManyRequests, Unavailable, StoreUnavailable,
    BrokerUnavailable, AuditUnavailable.
    """
    prepared = prepare(context, wanted)
    if wanted.trigger != "schedule":  # the scheduler has looked, and recorded it
        freezes.check(context, wanted.name, wanted.user, wanted.trigger, is_meant=wanted.during_freeze)
    template_guards.check(context, prepared.spec, prepared.run, prepared.body, prepared.rights)
    run = template_guards.with_slot(context, wanted.name, prepared.spec, prepared.run)
    run = template_guards.with_retry(prepared.spec, run, wanted.values, wanted.attempt)
    idempotency = task_launch.idempotency(context, wanted.key, run, prepared.body)
    return task_launch.submit(context, run, prepared.rights, event, idempotency)


def described(context: WebContext, spec: TemplateSpec, rights: User) -> TemplateSpec:
    """Fills in what the playbook's roles say about the template's variables."""
    if spec.kind != "playbook" or not spec.variables:
        return spec
    try:
        request = PlaybookRequest.model_validate(spec.request)
    except ValueError:
        return spec
    return template_schema.with_listed(spec, playbook_variables.of_request(rights, request, context.settings))


def _check_credentials(context: WebContext, spec: TemplateSpec, wanted: TemplateLaunch, owner: str) -> None:
    """Raises Forbidden for a credential that a launch names, and whoever launches may not use: that the owner may is
    no right of theirs. Those that the template itself names are.

    Raises InvalidRequest for one that sets more than the template leaves open, unless admin or the template's owner has
    written it: they could have written that into the template. Its `run_as` could not."""
    given, own = wanted.values.get("credentials"), spec.request.get("credentials")
    named = given if isinstance(given, list) else []
    for number, name in enumerate(named):
        if isinstance(own, list) and name in own:
            continue
        found = definitions_of(context).find(CREDENTIALS.name, str(name))
        if not credential_rights.may_use(wanted.user, str(name), found.owner if found else None):
            raise credential_forbidden(str(name), f"credentials[{number}]")
        if found is not None and found.owner not in (ADMIN, owner) and (more := _not_open(spec, found.spec)):
            others = " or ".join(sorted({ADMIN, owner}))
            message = f"credential {name} of {found.owner} sets {more}, which is not open. Use one of {others}"
            message += ", or one without `user`" if more in _USER_FIELDS.values() else ""
            place = f"credentials[{number}]"
            raise InvalidRequest(f"{place}: {message}", code="invalid_field", errors=[FieldError(place, message)])


def _not_open(spec: TemplateSpec, credential: Mapping[str, JsonValue]) -> str:
    """Returns what a credential sets, besides a secret, that a launch may not; empty for none."""
    if credential.get("kind") == "environment":
        return "the environment"
    field = _USER_FIELDS.get(str(credential.get("kind")))
    if field is not None:
        return field if credential.get("user") and not spec.request.get(field) else ""
    name = str(credential.get("variable") or "")
    declared = spec.variables.get(name)
    is_open = f"{template_values.SECRETS}.{name}" in spec.open or (declared is not None and declared.secret)
    return "" if is_open else name


def _authorized(
    context: WebContext, spec: TemplateSpec, rights: User, merged: Merged, *, is_preview: bool
) -> tuple[TaskOptions, AuthorizedRun]:
    body = task_launch.parse_request(spec.kind, merged.body)
    try:
        run = task_launch.authorize_request(context, rights, body, is_preview=is_preview)
    except (Forbidden, NotFound) as refusal:
        message = f"The rights of {rights.name}, with which this template runs, do not allow it: {refusal.message}"
        raise type(refusal)(message, code=refusal.code, errors=refusal.errors) from None
    return body, launch_values.set_apart(run, merged.values)


def _limits(context: WebContext, user: User) -> dict[str, int]:
    settings = context.settings
    return {
        "max_running": settings.max_running_per_user if user.max_running is None else user.max_running,
        "max_queued": settings.max_queued_per_user if user.max_queued is None else user.max_queued,
    }
