"""Who may use a project, and at which refs. Pure; called by flansible.web and by flansible.definitions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from flansible.authorization.callbacks import is_host_allowed
from flansible.authorization.rules import grants
from flansible.authorization.rules.refusal import ASK, forbidden
from flansible.errors import FieldError, InvalidRequest
from flansible.identity.users import ADMIN, ProjectGrant, User
from flansible.models.project_spec import ProjectSpec

COMMIT = re.compile(r"[0-9a-f]{40}")


def names(user: User) -> frozenset[str]:
    """Returns the projects that an entry of the user may use; of admin none are listed."""
    return frozenset(grant.name for entry in user.entries for grant in entry.projects)


def check_use(user: User, project: str) -> None:
    """Raises Forbidden, in the same words whether there is such a project or not."""
    if not user.is_admin and project not in names(user):
        yours = ", ".join(sorted(names(user))) or "none"
        raise forbidden("project", "project_forbidden", f"You may not use project {project}. Yours: {yours}. {ASK}")


def check_ref(spec: ProjectSpec, ref: str) -> None:
    """Raises Forbidden for a ref that requests may not name; which commits they may is known on the worker."""
    if ref not in ("", spec.ref) and not COMMIT.fullmatch(ref):
        _check_allowed(spec, ref)


def check_pushed_ref(spec: ProjectSpec, ref: str) -> None:
    """Raises Forbidden for a branch or tag, by its full name, that requests may not name. A tag that is called as the
    project's own branch is not that branch."""
    if spec.ref is None or ref not in (spec.ref, f"refs/heads/{spec.ref}"):
        _check_allowed(spec, ref)


def _check_allowed(spec: ProjectSpec, ref: str) -> None:
    if not matches(ref, spec.allow_refs):
        allowed = ", ".join(filter(None, (spec.ref, *spec.allow_refs))) or "its default branch"
        raise forbidden("ref", "ref_forbidden", f"This project is not run at {ref}. Allowed: {allowed}.")


def matches(ref: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs has a ref, by its short or full name. A branch `refs/tags/v1` has no short one: that
    would be the tag."""
    short = re.sub(r"^refs/(heads|tags)/(?!refs/)", "", ref)
    return any(fnmatchcase(short, glob) or fnmatchcase(ref, glob) for glob in globs)


def is_granted(ref: str, grant: ProjectGrant) -> bool:
    """Whether a user may run a project's inventories at a ref, by the name by which it is asked for: `v1` may stand for
    a tag, and `refs/heads/v1` would be somebody's branch."""
    return any(fnmatchcase(ref, glob) for glob in grant.refs)


def needs_admin(spec: ProjectSpec) -> str:
    """Returns why only admin may own a project with this url; '' if others may, too."""
    if spec.is_local:
        return "Only admin may name a path of the workers' machines"
    if spec.url.startswith("http://"):
        return "Only admin may name a http:// url: what it sends can be read and changed on its way. Use https or ssh"
    return ""


def check_definition(user: User, spec: ProjectSpec) -> None:
    """Raises InvalidRequest for what only admin may define (paths of the workers' machines, http, and credentials), and
    for a queue that is not the user's."""
    errors = []
    if not user.is_admin and (why := needs_admin(spec)):
        errors.append(FieldError("url", why))
    if spec.credential is not None and not user.is_admin:
        errors.append(FieldError("credential", "Only admin may name one here: what fetches with it could be anybody's"))
    if not grants.may_name_queue(user, spec.queue):
        errors.append(FieldError("queue", f"You may not use queue {spec.queue}"))
    if errors:
        message = f"{errors[0].field}: {errors[0].message}"
        raise InvalidRequest(message, code="invalid_field", errors=errors)


def is_public_only(owner: str, spec: ProjectSpec, allowed_hosts: Iterable[str]) -> bool:
    """Whether the addresses of its host have to be public ones. allowed_hosts: the setting project_hosts."""
    return owner != ADMIN and not is_host_allowed(spec.host, allowed_hosts)


def check_ref_of_user(user: User, project: str, ref: str) -> None:
    """Raises Forbidden for a ref, other than the project's own, at which the user may run nothing of it."""
    may = any(
        is_granted(ref, grant) or entry.inventories
        for entry in user.entries
        for grant in entry.projects
        if grant.name == project
    )
    if not user.is_admin and not may:
        message = f"You may use project {project} only at its own ref, not at {ref}. {ASK}"
        raise forbidden("ref", "ref_forbidden", message)
