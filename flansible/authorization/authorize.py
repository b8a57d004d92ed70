"""Authorizes requests: returns an AuthorizedRun with its paths resolved, or raises the refusal of a rule.

Each function judges the user's entries one at a time (flansible.authorization.entries). Pure: no Flask, no Redis;
called by flansible.web.resources, and by flansible.authorization.lost_rights for tasks of earlier. The rest of the
system accepts only the AuthorizedRun made here, so skipping the check is a type error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeVar

from flansible.authorization import existence, redaction, visibility
from flansible.authorization.entries import by_one_entry
from flansible.authorization.isolation import Isolation
from flansible.authorization.rules import credential_rules, grants, hosts, modules, strings, unsandboxed
from flansible.authorization.rules import paths as path_rules
from flansible.authorization.rules.credential_rules import NO_CREDENTIALS, UsedCredentials
from flansible.authorization.rules.grants import check_may_act as check_may_act
from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings
from flansible.errors import FieldError, InvalidRequest
from flansible.identity.users import User, resolve
from flansible.models import (
    DEFAULT_QUEUE,
    About,
    AdhocRequest,
    AuthorizedRun,
    Confinement,
    GitRequest,
    Kind,
    PlaybookRequest,
    RunOptions,
    Step,
    TaskOptions,
    command_line,
)
from flansible.models.file_names import escape, unescape

_GIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_REFUSE_BARE_REPOSITORIES = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.bareRepository",
    "GIT_CONFIG_VALUE_0": "explicit",
}
_ADMIN_FIELDS = (
    "connection",
    "ssh_common_args",
    "ssh_extra_args",
    "sftp_extra_args",
    "scp_extra_args",
    "connection_password_file",
    "become_password_file",
    "tree",
    # Mitogen: its variables, mitogen_*, decide how to connect and which programs to start.
    "strategy",
)

RunRequest = TypeVar("RunRequest", AdhocRequest, PlaybookRequest)


@by_one_entry
def authorize_adhoc(
    user: User,
    request: AdhocRequest,
    settings: Settings,
    isolation: Isolation,
    used: UsedCredentials = NO_CREDENTIALS,
) -> AuthorizedRun:
    """Authorizes an ad-hoc command. Raises Forbidden, or NotFound when a permitted `chdir` does not exist.

    used: the stored secrets that it names, opened.
    """
    sent = request
    request = with_credentials(user, request, used, settings, isolation)
    check_request(user, request, settings)
    cwd = _adhoc_directory(user, request.chdir, settings, isolation)
    if not user.is_admin:
        modules.check(user, request)
    playbook_dir = _directory(user, request.playbook_dir, settings) if request.playbook_dir else None
    permitted, paths = _limit_to_rights(user, request, cwd, settings, playbook_dir)
    if not user.is_admin:
        unsandboxed.check_adhoc(user, permitted, paths.vault_ids + paths.vault_password_files, isolation)
    existence.check_inventories(request, paths.inventories, cwd)
    step = ansible_step("ansible", user, permitted, command_line.adhoc(permitted, paths), cwd)
    summary = f"{user.name}: adhoc {request.module} on {request.pattern}"
    about = About(module=request.module, hosts=line(request.pattern), inventory=_inventory(request, settings))
    run = authorized("adhoc", user, permitted, summary, (step,), settings, about, sent)
    run = credential_rules.with_secrets(run, sent, used)
    return _with_visibility(run, user, request, paths, cwd)


@by_one_entry
def authorize_playbook(
    user: User,
    request: PlaybookRequest,
    settings: Settings,
    isolation: Isolation,
    used: UsedCredentials = NO_CREDENTIALS,
    *,
    is_preview: bool = False,
) -> AuthorizedRun:
    """Authorizes a playbook. Raises Forbidden, or NotFound when a permitted directory or file does not exist.

    used: the stored secrets that it names, opened; is_preview: nothing is executed, so prompts need no value; else
    InvalidRequest names those without one.
    """
    sent = request
    request = with_credentials(user, request, used, settings, isolation)
    check_request(user, request, settings)
    if request.update_git_repo:
        grants.check_git(user, "update_git_repo")
    cwd = _directory(user, request.playbook_dir, settings)
    names = [path_rules.playbook(user, name, cwd, settings) for name in request.playbooks]
    permitted, paths = _limit_to_rights(user, request, cwd, settings)
    if not user.is_admin:
        unsandboxed.check_playbook(user, isolation)
    existence.check_playbooks(request, cwd, names, path_rules.is_shown(user, settings, isolation))
    existence.check_inventories(request, paths.inventories, cwd)
    if not is_preview:
        existence.check_prompts(request, cwd, names, path_rules.readable(user, settings, isolation))
    step = ansible_step("ansible-playbook", user, permitted, command_line.playbook(permitted, paths, names), cwd)
    pull = _git_steps(user, command_line.git_pull(), cwd, settings) if request.update_git_repo else ()
    summary = f"{user.name}: playbook {' '.join(map(escape, request.playbooks))} in {escape(str(cwd))}"
    if request.limit:
        summary += f" on {request.limit}"
    about = About(
        playbook=line(" ".join(escape(_below_root(name, cwd, settings)) for name in request.playbooks)),
        hosts=request.limit and line(request.limit),
        inventory=_inventory(request, settings),
    )
    run = authorized("playbook", user, permitted, summary, (*pull, step), settings, about, sent)
    run = credential_rules.with_secrets(run, sent, used)
    return _with_visibility(run, user, request, paths, cwd)


@by_one_entry
def authorize_inventory(user: User, inventory: str, settings: Settings, isolation: Isolation) -> AuthorizedRun:
    """Authorizes listing an inventory, like an ad-hoc command on all its hosts. Raises Forbidden, NotFound."""
    request = AdhocRequest.model_validate({"host_pattern": "all", "module": "ping", "inventory": inventory})
    check_request(user, request, settings)
    cwd = _adhoc_directory(user, None, settings, isolation)
    permitted, paths = _limit_to_rights(user, request, cwd, settings)
    if not user.is_admin:
        unsandboxed.check_adhoc(user, permitted, (), isolation)
    existence.check_inventories(request, paths.inventories, cwd)
    step = ansible_step("ansible", user, permitted, command_line.adhoc(permitted, paths), cwd)
    summary = f"{user.name}: inventory listing {inventory}"
    return authorized("adhoc", user, permitted, summary, (step,), settings, About(), request)


@by_one_entry
def authorize_git(user: User, request: GitRequest, settings: Settings) -> AuthorizedRun:
    """Authorizes a git update. Raises InvalidRequest for names git could misread, Forbidden, NotFound."""
    check_may_act(user)
    grants.check_git(user, "playbook_dir")
    grants.check_queue(user, request.queue, ())
    for field, value in (("remote_name", request.remote_name), ("branch_name", request.branch_name)):
        if value is not None and (not _GIT_NAME.fullmatch(value) or ".." in value):
            message = "must be a plain name of letters, digits and . _ / + -, and not begin with a dash or a dot"
            raise InvalidRequest(f"{field} {message}", errors=[FieldError(field, message)])
    cwd = _directory(user, request.playbook_dir, settings)
    _check_remote(user, request.remote_name, cwd, settings)
    if not os.path.isdir(cwd):
        raise existence.missing("playbook_dir", cwd)
    verb = "reset" if request.reset else "update"
    target = " ".join(filter(None, (request.remote_name, request.branch_name)))
    summary = f"{user.name}: git {verb} {escape(str(cwd))} from {target}"
    steps = _git_steps(user, command_line.git_update(request), cwd, settings)
    return authorized("git", user, request, summary, steps, settings, About(), request)


def authorized(
    kind: Kind,
    user: User,
    request: TaskOptions,
    summary: str,
    steps: tuple[Step, ...],
    settings: Settings,
    about: About,
    sent: TaskOptions,
) -> AuthorizedRun:
    time_limit = grants.time_limit(user, request)
    if request.time_limit is not None and request.time_limit > settings.CELERY_TASK_TIMEOUT:
        message = f"must be at most {settings.CELERY_TASK_TIMEOUT} (CELERY_TASK_TIMEOUT)"
        raise InvalidRequest(f"time_limit {message}", code="invalid_field", errors=[FieldError("time_limit", message)])
    return AuthorizedRun(
        kind=kind,
        user=user.name,
        entry=user.entry,
        summary=line(summary),
        steps=steps,
        about=about,
        request=redaction.as_sent(sent),
        secrets=request.secrets if isinstance(request, RunOptions) else None,
        time_limit=time_limit,
        on_lost=request.on_lost,
        locks=request.locks,
        exclusive=request.exclusive if isinstance(request, RunOptions) else None,
        queue=request.queue or DEFAULT_QUEUE,
        max_running=settings.max_running_per_user if user.max_running is None else user.max_running,
        max_queued=settings.max_queued_per_user if user.max_queued is None else user.max_queued,
        confinement=confinement_of(user),
    )


def _with_visibility(
    run: AuthorizedRun, user: User, request: AdhocRequest | PlaybookRequest, paths: command_line.Paths, cwd: Path
) -> AuthorizedRun:
    return run.model_copy(update={"visibility": visibility.of_run(user, request, paths.inventories, cwd)})


def confinement_of(user: User) -> Confinement | None:
    """Returns the limits of runs by one entry of a user; None for admin."""
    if user.is_admin:
        return None
    return Confinement(
        readable=tuple(map(str, user.readable)),
        hidden=tuple(map(str, user.hidden)),
        inventories=tuple(map(str, user.inventories)),
        writable=tuple(map(str, user.writable)),
        projects=tuple(sorted(grant.name for grant in user.projects)),
        hosts=user.hosts,
        control_node=user.control_node,
        lasting_processes=user.lasting_processes,
    )


def ansible_step(
    program: Literal["ansible", "ansible-playbook"], user: User, request: RunOptions, argv: tuple[str, ...], cwd: Path
) -> Step:
    variables = request.variables
    environment = request.environment or {}
    if user.is_admin:
        argv = command_line.extra_vars(variables) + argv
        return Step(program=program, argv=argv, cwd=str(cwd), environment=environment, strategy=request.strategy)
    return Step(
        program=program,
        argv=argv,
        cwd=str(cwd),
        extra_vars=tuple(variables),
        data_only=True,
        environment=environment,
    )


def _check_strategy(request: RunOptions) -> None:
    if request.strategy is not None and find_spec("ansible_mitogen") is None:
        message = "needs Mitogen, which is not installed: pip install 'flansible[mitogen]'"
        raise InvalidRequest(f"strategy {message}", code="invalid_field", errors=[FieldError("strategy", message)])


def _check_private_key(request: RunOptions) -> None:
    field, message = "private_key_passphrase", ""
    if request.lacks_passphrase:
        message = "is missing: private_key is encrypted"
    elif request.private_key_passphrase is not None and request.private_key is None:
        message = "is for private_key, which is not given"
    if message:
        raise InvalidRequest(f"{field} {message}", code="invalid_field", errors=[FieldError(field, message)])


def _git_steps(user: User, lines: Iterable[tuple[str, ...]], cwd: Path, settings: Settings) -> tuple[Step, ...]:
    if path_rules.is_written(user, cwd):
        # The repository's configuration, which names programs, could be a user's.
        raise forbidden("playbook_dir", "git_forbidden", "lies in a folder that users' runs can write, see rbac.json")
    if path_rules.is_hidden(user, cwd, settings):
        # A branch of the user's choice would become another's inventory. In the same words as what is not there.
        raise existence.missing("playbook_dir", cwd)
    # git searches for the repository in the folders above: for restricted users it must stop at playbook_root, and must
    # not use a pulled folder that looks like a bare repository, whose configuration names programs.
    environment = (
        {}
        if user.is_admin
        else {"GIT_CEILING_DIRECTORIES": str(path_rules.root(settings).parent), **_REFUSE_BARE_REPOSITORIES}
    )
    return tuple(Step(program="git", argv=line, cwd=str(cwd), environment=environment) for line in lines)


def with_credentials(
    user: User, request: RunRequest, used: UsedCredentials, settings: Settings, isolation: Isolation
) -> RunRequest:
    """Returns the request with the stored secrets that it names, if this entry may use them."""
    check_may_act(user)
    credential_rules.check(user, request, used, settings, isolation)
    return credential_rules.merged(request, used)


def check_request(user: User, request: RunOptions, settings: Settings) -> None:
    """Applies the rules that need no path: whether the user may act, with which fields and strings."""
    check_may_act(user)
    if not user.is_admin:
        strings.check(request)
        for field in _ADMIN_FIELDS:
            if getattr(request, field, None) is not None:
                raise forbidden(field, "field_forbidden", "Only admin may use this field")
        grants.check_become(user, request)
        grants.check_environment(user, request, settings)
    _check_strategy(request)
    _check_private_key(request)


def _limit_to_rights(
    user: User, request: RunRequest, cwd: Path, settings: Settings, playbook_dir: Path | None = None
) -> tuple[RunRequest, command_line.Paths]:
    """Returns the request within the user's rights, and every path for Ansible's command line.

    | what                          | admin          | restricted user                                            |
    |-------------------------------|----------------|------------------------------------------------------------|
    | inventories, or the default   | as given       | resolved; each in the user's inventories                   |
    | hosts, limit                  | as given       | literal names checked against `hosts` and these inventories|
    | forks                         | as given       | at most the user's limit; the limit if none is given       |
    | module_path, private_key_file | as given       | resolved; below playbook_root or in the user's paths       |
    | vault ids and password files  | as given       | resolved; below playbook_root or in the user's paths       |
    | playbook_dir                  | resolved       | resolved and checked by the caller                         |

    Restricted users' paths are resolved here, once: Ansible gets the path that was checked. What lies in a folder of
    `writable` is refused to admin as well.
    """
    field = "vault_file" if request.vault_file else "vault_password_file"
    folder = str(playbook_dir) if playbook_dir else None
    if user.is_admin:
        path_rules.check_files_of_admin(user, request, cwd)
        named = request.inventories or ([settings.default_inventory] if settings.default_inventory else [])
        vaults = tuple(request.vault_ids), tuple(request.vault_password_files)
        return request, command_line.Paths(tuple(named), *vaults, folder)
    inventories = path_rules.inventories(user, request, cwd, settings)
    grants.check_queue(user, request.queue, inventories)
    hosts.check(user, request, inventories)
    given = [request.module_path] if isinstance(request.module_path, str) else request.module_path or []
    changes = {
        "forks": grants.forks(user, request),
        "module_path": [path_rules.module_path(user, text, cwd, settings) for text in given] or None,
        "private_key_file": request.private_key_file
        and path_rules.private_key_file(user, request.private_key_file, cwd, settings),
    }
    paths = command_line.Paths(
        inventories=tuple(inventories),
        vault_ids=tuple(path_rules.vault_id(user, text, cwd, settings) for text in request.vault_ids),
        vault_password_files=tuple(
            path_rules.vault_file(user, text, field, cwd, settings) for text in request.vault_password_files
        ),
        playbook_dir=folder,
    )
    return request.model_copy(update=changes), paths


def _check_remote(user: User, name: str, cwd: Path, settings: Settings) -> None:
    # git reads a name that is not a remote as a path to another repository on this machine, relative to the top of the
    # checkout, which is `cwd` or a folder above.
    folders = [folder for folder in (cwd, *cwd.parents) if folder.is_relative_to(path_rules.root(settings))]
    paths = (folder / (name + end) for folder in folders for end in ("", ".git", ".bundle"))
    is_path = "/" in name or any(os.path.lexists(path) for path in paths)
    if is_path and not user.is_admin:
        message = "must be the name of a remote. Only admin may use paths."
        raise forbidden("remote_name", "git_forbidden", message)


def _directory(user: User, given: str, settings: Settings, field: str = "playbook_dir") -> Path:
    name = unescape(given)
    path = resolve(name, settings.playbook_root)
    path_rules.check_folder(user, path, name, settings, field)
    return path


def _adhoc_directory(user: User, chdir: str | None, settings: Settings, isolation: Isolation) -> Path:
    if chdir is None:
        return settings.playbook_root if os.path.isdir(settings.playbook_root) else settings.base_dir
    path = _directory(user, chdir, settings, "chdir")
    existence.check_folder("chdir", path, path_rules.is_shown(user, settings, isolation))
    return path


def _inventory(request: RunOptions, settings: Settings) -> str | None:
    named = request.inventories or ([settings.default_inventory] if settings.default_inventory else [])
    return line(", ".join(named)) or None


def _below_root(name: str, cwd: Path, settings: Settings) -> str:
    """Returns a playbook's name in lists: its path below playbook_root, if it lies there."""
    if path_rules.COLLECTION_PLAYBOOK.fullmatch(name) and not os.path.exists(cwd / name):
        return name
    path = Path(os.path.normpath(cwd / name))
    root = Path(os.path.realpath(settings.playbook_root))
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def line(text: str) -> str:
    """Returns one printable line for Flower, logs and lists, cut at 300 characters."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= 300 else clean[:297] + "..."
