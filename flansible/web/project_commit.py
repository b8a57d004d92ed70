"""Finds the commit that a request for a project will run: a hidden run on a worker asks the remote, or it is known.

The web machine has neither git nor keys nor the repository.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from flansible.authorization import isolation, project_rights, project_runs
from flansible.authorization.rules import grants
from flansible.definitions.kinds import PROJECTS
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import BadGateway, FieldError, Forbidden, InvalidRequest, NotFound, StoreUnavailable, Unavailable
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import ADMIN, User
from flansible.models import AuthorizedRun, ProjectRun, Secrets
from flansible.models.project_spec import MaxAge, ProjectSpec
from flansible.store import KnownCommit, RemoteState
from flansible.web.context import definitions_of, web_context
from flansible.web.preview_run import run_preview

# Opens a project's credential, once: an external store is asked only where a worker needs the secret.
OpenSecrets = Callable[[], Secrets | None]
WAIT_SECONDS = 10.0
_SHOWN_CHARACTERS = 2000


def find(user: User, project: str, ref: str | None, queue: str | None = None) -> tuple[ProjectRun, OpenSecrets]:
    """Returns the project of a request at its commit, and what opens its credential. queue: whose workers find the
    commit.

    Raises InvalidRequest, Forbidden, NotFound, BadGateway, Unavailable.
    """
    project_rights.check_use(user, project)
    spec, owner = _defined(project)
    named = ref or spec.ref or ""
    project_rights.check_ref(spec, named)
    if named != (spec.ref or ""):
        project_rights.check_ref_of_user(user, project, named)
    run = _run(project, spec, owner, named)
    opened = _credential_of(user, spec)
    store = web_context().store
    check_queue(user, run, queue)
    known = store.known_commit(project, spec.url, _known_as(run))
    if known is not None and _is_recent(spec, known):
        return run.model_copy(update={"commit": known.commit, "ref": named or known.ref}), opened
    found, _ = ask(user, run, opened, queue)
    return found, opened


def refresh(user: User, project: str) -> tuple[ProjectRun, str | None]:
    """Asks the remote for the project's own ref, whatever its `refresh` says. Raises as `find`."""
    return ask(user, *described(user, project))


def described(user: User, project: str) -> tuple[ProjectRun, OpenSecrets]:
    """Returns a project at its own ref, whose commit is not looked for, and what opens its credential. Raises
    Forbidden, NotFound, Unavailable."""
    project_rights.check_use(user, project)
    spec, owner = _defined(project)
    return _run(project, spec, owner, spec.ref or ""), _credential_of(user, spec)


def stored(project: str) -> StoredDefinition:
    """Returns a project's definition. Raises NotFound, Unavailable."""
    found = definitions_of(web_context()).find(PROJECTS.name, project)
    if found is None:
        message = f"There is no project {project}."
        raise NotFound(message, code="project_not_found", errors=[FieldError("project", "does not exist")])
    return found


def _defined(project: str) -> tuple[ProjectSpec, str]:
    """Returns how a project is defined, and its owner. Raises NotFound, Unavailable, Forbidden for an owner's url."""
    found = stored(project)
    spec = ProjectSpec.model_validate(found.spec, strict=False)
    if found.owner != ADMIN and (why := project_rights.needs_admin(spec)):
        message = f"Project {project} belongs to {found.owner}: {why}."
        raise Forbidden(message, code="project_url_forbidden", errors=[FieldError("project", message)])
    return spec, found.owner


def _credential_of(user: User, spec: ProjectSpec) -> OpenSecrets:
    """Returns what opens the secrets for git. Whoever may use the project may fetch it: a credential's rights are for
    runs. Raises Forbidden."""
    credentials, name = web_context().credentials, spec.credential
    if name is None or credentials is None:
        return lambda: None
    confined = isolation.for_user(user, web_context().settings.isolation)
    if not user.is_admin and not confined.in_force:
        message = f"The project's credential is for confined runs, and yours are not confined here ({confined})."
        raise Forbidden(message, code="credential_unconfined", errors=[FieldError("project", message)])
    return cache(lambda: _opened(credentials, name))


def _opened(credentials: Credentials, name: str) -> Secrets:
    """Opens a project's credential. Raises Unavailable."""
    # Only admin may name one in a project, so it is opened with admin's rights.
    try:
        found = credentials.open(web_context().rbac.users()[ADMIN], name).spec
    except NotFound as error:
        raise Unavailable(f"The project's {error.message}", code="credential_unavailable") from error
    if found.kind != "git":
        message = f"The project's credential {name} is of the kind {found.kind}, not git."
        raise Unavailable(message, code="credential_unavailable")
    given = {
        "user": found.user,
        "password": found.password or found.token,
        "private_key": found.private_key,
        "private_key_passphrase": found.private_key_passphrase,
    }
    return Secrets(git_credential={field: value for field, value in given.items() if value is not None})


def check_queue(user: User, project: ProjectRun, queue: str | None) -> None:
    """Raises Forbidden for a queue that no entry of the user names: its workers would ask the remote."""
    wanted = queue or project.queue
    if not grants.may_name_queue(user, wanted):
        grants.check_queue(user, wanted, ())


def _known_as(run: ProjectRun) -> str:
    """Returns the name under which the answer for a ref is kept. Whether a commit may be run depends on the refs that
    requests may name, which may be fewer by now."""
    return " ".join((run.ref, *run.allow_refs)) if project_rights.COMMIT.fullmatch(run.ref) else run.ref


def with_secrets(run: AuthorizedRun, secrets: Secrets | None) -> AuthorizedRun:
    """Returns the run with the project's credential among its secrets."""
    if secrets is None:
        return run
    own = run.secrets or Secrets()
    return run.model_copy(update={"secrets": own.model_copy(update={"git_credential": secrets.git_credential})})


def ask(user: User, run: ProjectRun, opened: OpenSecrets, queue: str | None = None) -> tuple[ProjectRun, str | None]:
    """Has a worker ask the remote; returns the project at its commit, and what a remote said that did not answer."""
    check_queue(user, run, queue)
    hidden = project_runs.hidden_run(user, run, web_context().settings, "commit", int(WAIT_SECONDS))
    changes = {"secrets": opened(), "queue": queue or hidden.queue}
    result = run_preview(hidden.model_copy(update=changes), WAIT_SECONDS)
    if result.content is None:
        message = f"The commit of {run.ref or 'the default branch'} cannot be looked up: {result.detail}"
        raise Unavailable(message, code="commit_unknown", retry_after_seconds=5)
    return _found(run, result.content)


def _found(run: ProjectRun, answer: dict[str, Any]) -> tuple[ProjectRun, str | None]:
    now, store, problem = time.time(), web_context().store, answer.get("error")
    named = run.ref or "the default branch"
    if problem == "unreachable":
        said = words_of(answer)
        _keep_state(run.name, RemoteState(now, said))
        raise BadGateway(f"The remote of project {run.name} cannot be read: {said}")
    if problem == "unknown_ref":
        near = [str(name) for name in answer.get("near") or ()]
        advice = f" Did you mean {' or '.join(near)}?" if near else ""
        message = f"Project {run.name} has no branch, tag or commit {named}.{advice}"
        raise NotFound(message, code="ref_not_found", errors=[FieldError("ref", "does not exist")])
    if problem == "ambiguous_ref":
        both = f"refs/heads/{named} or refs/tags/{named}"
        message = f"Project {run.name} has a branch and a tag {named}. Name {both}, here or as the project's ref."
        raise InvalidRequest(message, code="ref_ambiguous", errors=[FieldError("ref", f"name {both}")])
    if problem == "not_reachable":
        message = f"{named} of project {run.name} is in no branch or tag that requests may name."
        raise Forbidden(message, code="ref_forbidden", errors=[FieldError("ref", "is in no allowed branch or tag")])
    commit = str(answer.get("commit", ""))
    if not project_rights.COMMIT.fullmatch(commit):
        raise Unavailable("The worker's answer cannot be read", code="commit_unknown", retry_after_seconds=5)
    found = run.model_copy(update={"commit": commit, "ref": run.ref or str(answer.get("ref") or "")})
    if unread := answer.get("remote"):
        _keep_state(run.name, RemoteState(now, str(unread)[:_SHOWN_CHARACTERS], commit, found.ref))
        remark = f"remote not reachable, commit of {answer.get('date')}"
        return found.model_copy(update={"remark": remark}), remark
    with contextlib.suppress(StoreUnavailable):
        store.keep_commit(run.name, run.url, _known_as(run), KnownCommit(commit, found.ref, now))
    _keep_state(run.name, RemoteState(now, "", commit, found.ref))
    return found, None


def words_of(answer: dict[str, Any]) -> str:
    """Returns what git said of a remote that did not answer."""
    return str(answer.get("message") or "git said nothing")[:_SHOWN_CHARACTERS]


def _keep_state(project: str, state: RemoteState) -> None:
    with contextlib.suppress(StoreUnavailable):
        web_context().store.keep_remote_state(project, state)


def _is_recent(spec: ProjectSpec, known: KnownCommit) -> bool:
    if isinstance(spec.refresh, MaxAge):
        return time.time() - known.found <= spec.refresh.max_age
    return spec.refresh == "manual"


def _run(project: str, spec: ProjectSpec, owner: str, ref: str) -> ProjectRun:
    return ProjectRun(
        name=project,
        url=spec.url,
        ref=ref,
        is_own_ref=ref == (spec.ref or ""),
        allow_refs=tuple(filter(None, (spec.ref, *spec.allow_refs))),
        must_answer=spec.refresh == "on_launch",
        public_only=project_rights.is_public_only(owner, spec, web_context().settings.project_host_list),
        is_admins=owner == ADMIN,
        known_hosts=spec.known_hosts,
        allowed_signers=spec.verify_signatures,
        submodules=spec.submodules,
        depth=spec.depth,
        requirements=spec.requirements,
        private_copy=spec.private_copy,
        queue=spec.queue,
    )
