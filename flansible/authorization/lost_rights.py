"""Authorizes tasks of earlier once more, by the rules of flansible.authorization.authorize and the present rbac.json.

Called by the web process, for tasks that are queued or running when their user's entry changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from pydantic import JsonValue, ValidationError

from flansible.authorization import authorize, confinement, entries, isolation, project_rights, project_runs
from flansible.authorization.rules.credential_rules import UsedCredentials
from flansible.authorization.rules.grants import check_may_act
from flansible.config import Settings
from flansible.errors import Forbidden, InvalidRequest, NotFound, RequestError
from flansible.identity.users import GROUP_PREFIX, User
from flansible.models import (
    AdhocRequest,
    AuthorizedRun,
    GitRequest,
    Kind,
    PlaybookRequest,
    ProjectRun,
    Rights,
    principal,
)

_MODELS: dict[Kind, type[AdhocRequest | PlaybookRequest | GitRequest]] = {
    "adhoc": AdhocRequest,
    "playbook": PlaybookRequest,
    "git": GitRequest,
}
_ARGUMENTS, _VARIABLES = "--args=", "--extra-vars="


def rights_of(users: Iterable[User]) -> dict[str, Rights]:
    """Returns the rights of each user by each entry, as the store keeps them: by principal."""
    return {principal(user.name, entry.entry): _rights(entry) for user in users for entry in user.entries}


def _rights(entry: User) -> Rights:
    try:
        check_may_act(entry)
        limits = authorize.confinement_of(entry)
    except Forbidden:
        limits = None
    # repr leaves the password out
    return Rights(entry=sha256(repr(entry).encode(errors="backslashreplace")).hexdigest(), confinement=limits)


def check(user: User | None, run: AuthorizedRun, settings: Settings) -> None:
    """Raises Forbidden when the run would be refused now, or has wider limits than runs by its entry have now.

    user: as rbac.json is now; None where there is none any more. The entry that allowed the run has to allow it still:
    its limits are the run's, and another entry has others. What does not exist any more, or is no valid request for
    this version, is no lost right.
    """
    if user is None:
        raise Forbidden(f"{run.rights_user} is not in rbac.json any more.", code="rights_lost")
    entry = entries.entry_of(user, run.entry)
    if entry is None:
        group = run.entry.removeprefix(GROUP_PREFIX)
        message = f"{run.rights_user} is not in group {group} any more, which allowed it."
        raise Forbidden(message, code="rights_lost")
    check_may_act(entry)
    try:
        _authorize_again(entry, run, settings)
    except NotFound:
        if _is_hidden(entry, run, settings):
            raise Forbidden("What it names is another user's inventory now.", code="rights_lost") from None
    except (InvalidRequest, ValidationError):
        pass
    if run.confinement and (gone := confinement.lost(run.confinement, authorize.confinement_of(entry))):
        raise Forbidden(f"rbac.json does not grant {gone} any more.", code="rights_lost")


def _is_hidden(user: User, run: AuthorizedRun, settings: Settings) -> bool:
    """Whether what is not there for this user is there, and belongs to others."""
    try:
        _authorize_again(replace(user, hidden=()), run, settings)
    except RequestError:
        return False
    return True


def _authorize_again(user: User, run: AuthorizedRun, settings: Settings) -> None:
    if run.project is not None and run.kind == "git":
        return project_rights.check_use(user, run.project.name)
    request = request_of(run)
    confined = isolation.for_user(user, settings.isolation)
    used = UsedCredentials(own=frozenset(run.own_credentials))
    if run.project is not None:
        _authorize_project_again(user, request, run.project, settings, confined, used)
    elif isinstance(request, AdhocRequest):
        authorize.authorize_adhoc(user, request, settings, confined, used)
    elif isinstance(request, PlaybookRequest):
        # As a preview: values for prompts are no right, and finding prompts takes time.
        authorize.authorize_playbook(user, request, settings, confined, used, is_preview=True)
    else:
        authorize.authorize_git(user, request, settings)


def _authorize_project_again(
    user: User,
    request: AdhocRequest | PlaybookRequest | GitRequest,
    project: ProjectRun,
    settings: Settings,
    confined: isolation.Isolation,
    used: UsedCredentials,
) -> None:
    if isinstance(request, AdhocRequest):
        project_runs.authorize_adhoc(user, request, project, settings, confined, used)
    elif isinstance(request, PlaybookRequest):
        project_runs.authorize_playbook(user, request, project, settings, confined, used)


def request_of(run: AuthorizedRun) -> AdhocRequest | PlaybookRequest | GitRequest:
    """Returns the request of a run as the rules read it, with asterisks in place of what was sealed only.

    The body in the record is masked, which could make other names of its text. So what may be masked there and is not
    sealed is taken from the command. Raises ValidationError for a record of a version that kept no body.
    """
    body: dict[str, JsonValue] = dict(run.request)
    step = run.steps[-1]
    of_admin = [word.removeprefix(_VARIABLES) for word in step.argv if word.startswith(_VARIABLES)]
    for field in ("extra_vars", "extra_args"):
        if body.get(field) is not None:
            body[field] = [*step.extra_vars, *of_admin, *([step.launch_vars] if step.launch_vars else ())]
    if body.get("environment") is not None:
        body["environment"] = dict(step.environment)
    for word in step.argv:
        if word.startswith(_ARGUMENTS) and "module_args" in body:
            text = word.removeprefix(_ARGUMENTS)
            body["module_args"] = text if isinstance(body["module_args"], str) else json.loads(text)
    return _MODELS[run.kind].model_validate(body)
