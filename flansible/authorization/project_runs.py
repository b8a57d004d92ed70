"""Authorizes runs of a project's commit: its files are on the workers only, so nothing here looks at any.

Paths in the project count from its root and stay within it. Absolute ones are of this machine, under the rules of
flansible.authorization.rules. The rest is as in flansible.authorization.authorize.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from flansible.authorization import authorize, preview_request, project_rights, visibility
from flansible.authorization.entries import by_one_entry
from flansible.authorization.isolation import Isolation
from flansible.authorization.rules import credential_rules, grants, hosts, modules, unsandboxed
from flansible.authorization.rules import paths as path_rules
from flansible.authorization.rules.credential_rules import NO_CREDENTIALS, UsedCredentials
from flansible.authorization.rules.refusal import ASK, forbidden
from flansible.config import Settings
from flansible.errors import FieldError, InvalidRequest
from flansible.identity.users import User, resolve
from flansible.models import (
    DEFAULT_QUEUE,
    About,
    AdhocRequest,
    AuthorizedRun,
    PlaybookRequest,
    ProjectRun,
    RunOptions,
    Step,
    Visibility,
    command_line,
)
from flansible.models.file_names import escape, unescape

_EXTENSIONS = (".yml", ".yaml", ".json")


@by_one_entry
def authorize_playbook(
    user: User,
    request: PlaybookRequest,
    project: ProjectRun,
    settings: Settings,
    isolation: Isolation,
    used: UsedCredentials = NO_CREDENTIALS,
) -> AuthorizedRun:
    """Authorizes a playbook at a commit of a project. Raises Forbidden and InvalidRequest.

    used: the stored secrets that it names, opened.
    """
    sent = request
    request = authorize.with_credentials(user, request, used, settings, isolation)
    authorize.check_request(user, request, settings)
    _check_use(user, project)
    folder = within(request.playbook_dir, "playbook_dir")
    names = [_playbook(user, name, folder, project) for name in request.playbooks]
    permitted, paths, shown = _limit_to_rights(user, request, folder, project, settings)
    if not user.is_admin:
        unsandboxed.check_playbook(user, isolation)
    argv = command_line.playbook(permitted, paths, names)
    step = authorize.ansible_step("ansible-playbook", user, permitted, argv, Path(folder))
    summary = f"{user.name}: playbook {' '.join(map(escape, request.playbooks))} of {_at(project)}"
    if request.limit:
        summary += f" on {request.limit}"
    about = About(
        playbook=authorize.line(
            " ".join(f"{project.name}:{escape(posixpath.normpath(posixpath.join(folder, name)))}" for name in names)
        ),
        hosts=request.limit and authorize.line(request.limit),
        inventory=authorize.line(", ".join(shown)) or None,
        **_about(project),
    )
    run = authorize.authorized("playbook", user, permitted, summary, (step,), settings, about, sent)
    run = credential_rules.with_secrets(run, sent, used)
    return _completed(run, user, request, project, shown)


@by_one_entry
def authorize_adhoc(
    user: User,
    request: AdhocRequest,
    project: ProjectRun,
    settings: Settings,
    isolation: Isolation,
    used: UsedCredentials = NO_CREDENTIALS,
) -> AuthorizedRun:
    """Authorizes an ad-hoc command in the tree of a project's commit. Raises Forbidden and InvalidRequest.

    used: the stored secrets that it names, opened.
    """
    sent = request
    request = authorize.with_credentials(user, request, used, settings, isolation)
    authorize.check_request(user, request, settings)
    _check_use(user, project)
    folder = within(request.chdir or ".", "chdir")
    if not user.is_admin:
        modules.check(user, request)
    playbook_dir = within(request.playbook_dir, "playbook_dir") if request.playbook_dir else None
    beside = None if playbook_dir is None else posixpath.relpath(playbook_dir, folder)
    permitted, paths, shown = _limit_to_rights(user, request, folder, project, settings, beside)
    if not user.is_admin:
        # The project's own plugins are code for the control machine.
        unsandboxed.check_playbook(user, isolation)
    step = authorize.ansible_step("ansible", user, permitted, command_line.adhoc(permitted, paths), Path(folder))
    summary = f"{user.name}: adhoc {request.module} on {request.pattern} with {_at(project)}"
    about = About(
        module=request.module,
        hosts=authorize.line(request.pattern),
        inventory=authorize.line(", ".join(shown)) or None,
        **_about(project),
    )
    run = authorize.authorized("adhoc", user, permitted, summary, (step,), settings, about, sent)
    run = credential_rules.with_secrets(run, sent, used)
    return _completed(run, user, request, project, shown)


def hidden_run(user: User, project: ProjectRun, settings: Settings, summary: str, seconds: int) -> AuthorizedRun:
    """Returns the hidden run of a project's own steps, such as looking for a commit. Raises Forbidden."""
    grants.check_may_act(user)
    project_rights.check_use(user, project.name)
    entry = next((one for one in user.entries if not one.is_admin and _uses(one, project)), user)
    return AuthorizedRun(
        kind="git",
        user=user.name,
        entry=entry.entry,
        summary=authorize.line(f"{user.name}: {summary} of project {project.name}"),
        steps=(Step(program="project", argv=(), cwd="/"),),
        project=project,
        queue=project.queue or DEFAULT_QUEUE,
        time_limit=seconds,
        confinement=authorize.confinement_of(entry),
        hidden=True,
    )


def listing_run(
    user: User, project: ProjectRun, settings: Settings, playbook: tuple[str, ...], seconds: int
) -> AuthorizedRun:
    """Returns the hidden run that lists a project's files, or one playbook with its variables: of a user one at a time,
    previews included. Raises Forbidden."""
    run = hidden_run(user, project, settings, "list", seconds)
    step = run.steps[0].model_copy(update={"listing": "files", "argv": playbook})
    # What is installed does not matter here.
    read_only = project.model_copy(update={"requirements": "none"})
    return run.model_copy(update={"steps": (step,), "project": read_only, "locks": preview_request.locks_of(run)})


def _uses(entry: User, project: ProjectRun) -> bool:
    return any(grant.name == project.name for grant in entry.projects)


def _check_use(user: User, project: ProjectRun) -> None:
    """As check_use, for one entry."""
    if not user.is_admin and not _uses(user, project):
        project_rights.check_use(user, project.name)
        raise forbidden("project", "project_forbidden", f"You may not use project {project.name}. {ASK}")


def within(given: str, field: str) -> str:
    """Returns a path in a project, normalized. Raises InvalidRequest for one that leads out of it."""
    path = posixpath.normpath(unescape(given))
    if path.startswith(("/", "~")) or path == ".." or path.startswith("../") or "$" in path:
        message = "must be a path in the project, relative to its root"
        raise InvalidRequest(f"{field} {message}", code="invalid_field", errors=[FieldError(field, message)])
    return path


def _playbook(user: User, given: str, folder: str, project: ProjectRun) -> str:
    """Returns a playbook for Ansible's command line, from the folder of the run."""
    if user.is_admin and given.startswith("/"):
        path_rules.check_unwritten(user, [given], Path("/"), "playbook", "playbook_forbidden")
        return given
    path = within(posixpath.join(folder, given), "playbook")
    if user.is_admin:
        return given
    if not may_start(user, path, project):
        yours = ", ".join(user.playbooks or ()) or "none"
        message = f"You may not start playbook {project.name}:{escape(path)}. Yours: {yours}. {ASK}"
        raise forbidden("playbook", "playbook_forbidden", message)
    return posixpath.relpath(path, folder)


def may_start(entry: User, path: str, project: ProjectRun) -> bool:
    """Whether an entry may start the playbook at a path in a project, or of an installed collection by its name."""
    if entry.is_admin:
        return True
    is_collections = path_rules.COLLECTION_PLAYBOOK.fullmatch(path) and not path.endswith(_EXTENSIONS)
    if entry.playbooks is None and not is_collections:
        return True
    named = (text.removeprefix(f"{project.name}:") for text in entry.playbooks or () if _is_of(text, project))
    return any(path_rules.matches_glob(glob, path) for glob in named)


@by_one_entry
def check_playbook(user: User, path: str, project: ProjectRun) -> str:
    """Returns a playbook's path in a project. Raises Forbidden for one that the user may not start."""
    _check_use(user, project)
    return posixpath.normpath(_playbook(user, path, ".", project))


@by_one_entry
def authorize_inventory(
    user: User, inventory: str, project: ProjectRun, settings: Settings, isolation: Isolation
) -> AuthorizedRun:
    """Authorizes listing an inventory of a project, like an ad-hoc command on all its hosts."""
    body = {"host_pattern": "all", "module": "ping", "inventory": inventory, "project": project.name}
    return authorize_adhoc(user, AdhocRequest.model_validate(body), project, settings, isolation)


def _is_of(text: str, project: ProjectRun) -> bool:
    return text.startswith(f"{project.name}:")


def _limit_to_rights(
    user: User,
    request: authorize.RunRequest,
    folder: str,
    project: ProjectRun,
    settings: Settings,
    playbook_dir: str | None = None,
) -> tuple[authorize.RunRequest, command_line.Paths, list[str]]:
    """Returns the request within the user's rights, its paths for Ansible, and its inventories as they are shown."""
    inventories, shown = _inventories(user, request, folder, project, settings)
    if user.is_admin:
        path_rules.check_files_of_admin(user, request, Path("/nowhere"))
        vaults = tuple(request.vault_ids), tuple(request.vault_password_files)
        return request, command_line.Paths(tuple(inventories), *vaults, playbook_dir), shown
    grants.check_queue(user, request.queue or project.queue, shown)
    hosts.check(user, request, None)
    given = [request.module_path] if isinstance(request.module_path, str) else request.module_path or []
    vault_field = "vault_file" if request.vault_file else "vault_password_file"
    changes = {
        "forks": grants.forks(user, request),
        "module_path": [_module_path(user, text, folder, settings) for text in given] or None,
        "private_key_file": request.private_key_file and _key(user, request.private_key_file, folder, settings),
    }
    paths = command_line.Paths(
        inventories=tuple(inventories),
        vault_ids=tuple(_vault_id(user, text, folder, settings) for text in request.vault_ids),
        vault_password_files=tuple(
            _vault_file(user, text, vault_field, folder, settings) for text in request.vault_password_files
        ),
        playbook_dir=playbook_dir,
    )
    return request.model_copy(update=changes), paths, shown


def _inventories(
    user: User, request: RunOptions, folder: str, project: ProjectRun, settings: Settings
) -> tuple[list[str], list[str]]:
    """Returns the inventories for Ansible's command line, from the folder of the run, and as they are shown."""
    default = settings.default_inventory
    if not request.inventories:
        if default and "," not in default:
            default = str(resolve(default, settings.playbook_root))
        if not user.is_admin and (not default or not path_rules.is_within(Path(default), user.inventories)):
            yours = ", ".join(map(str, (*user.inventories, *user.project_inventories))) or "none"
            message = f"You named no inventory, and the default one is not yours. Yours: {yours}."
            raise forbidden("inventory", "inventory_forbidden", message)
        found = [default] if default else []
        return found, found
    named = [_inventory(user, text, folder, project) for text in request.inventories]
    return [one[0] for one in named], [one[1] for one in named]


def _inventory(user: User, given: str, folder: str, project: ProjectRun) -> tuple[str, str]:
    if "," in given and user.is_admin:
        return given, given
    if given.startswith(("/", "~")) or "," in given:
        path = given if user.is_admin else path_rules.one_inventory(user, given)
        return path, path
    path = within(given, "inventory")
    name = f"{project.name}:{path}"
    if not user.is_admin:
        _check_inventory(user, name, project)
    return posixpath.relpath(path, folder), name


def _check_inventory(user: User, name: str, project: ProjectRun) -> None:
    yours = [text for text in user.project_inventories if _is_of(text, project)]
    if not any(name == one or name.startswith(f"{one}/") or one == f"{project.name}:." for one in yours):
        listed = ", ".join(map(str, (*user.inventories, *user.project_inventories))) or "none"
        message = f"You may not use inventory {name}. Yours: {listed}. {ASK}"
        raise forbidden("inventory", "inventory_forbidden", message)
    if not may_use_inventories(user, project):
        message = f"You may use inventory {name} only at the project's own ref, not at {project.ref}. {ASK}"
        raise forbidden("inventory", "inventory_ref_forbidden", message)


def may_use_inventories(entry: User, project: ProjectRun) -> bool:
    """Whether an entry may use a project's inventories at this ref."""
    grants_of_it = (grant for grant in entry.projects if grant.name == project.name)
    return project.is_own_ref or any(project_rights.is_granted(project.ref, grant) for grant in grants_of_it)


def _vault_id(user: User, given: str, folder: str, settings: Settings) -> str:
    label, at, source = given.partition("@") if "@" in given else ("", "", given)
    return given if source == "prompt" else label + at + _vault_file(user, source, "vault_id", folder, settings)


def _vault_file(user: User, given: str, field: str, folder: str, settings: Settings) -> str:
    if os.path.isabs(given):
        return path_rules.vault_file(user, given, field, settings.playbook_root, settings)
    return _inner(given, field, folder)


def _key(user: User, given: str, folder: str, settings: Settings) -> str:
    if os.path.isabs(given):
        return path_rules.private_key_file(user, given, settings.playbook_root, settings)
    path_rules.check_key_name(given)
    return _inner(given, "private_key_file", folder)


def _module_path(user: User, given: str, folder: str, settings: Settings) -> str:
    if os.path.isabs(given) or os.pathsep in given or user.modules_allowed is not None or user.modules_denied:
        return path_rules.module_path(user, given, Path("/"), settings)
    return _inner(given, "module_path", folder)


def _inner(given: str, field: str, folder: str) -> str:
    """Returns a path in the project, from the folder of the run, where Ansible takes relative paths from."""
    return posixpath.relpath(within(posixpath.join(folder, given), field), folder)


def _completed(
    run: AuthorizedRun,
    user: User,
    request: AdhocRequest | PlaybookRequest,
    project: ProjectRun,
    inventories: Iterable[str],
) -> AuthorizedRun:
    """Returns the run with its project, and with what it can reach."""
    named = tuple(inventories)
    is_known = bool(named) and not any("," in text or path_rules.EXPANDED.search(text) for text in named)
    found = None
    if is_known:
        found = Visibility(inventories=named, hosts=tuple(visibility.known_hosts(user, request)))
    queue = request.queue or project.queue or DEFAULT_QUEUE
    return run.model_copy(update={"project": project, "visibility": found, "queue": queue})


def _about(project: ProjectRun) -> dict[str, str | None]:
    return {"project": project.name, "ref": project.ref or None, "commit": project.commit}


def _at(project: ProjectRun) -> str:
    return f"{project.name} at {project.ref or 'its default branch'} ({project.commit[:8]})"
