"""Who may do what: a user's request to an authorized run with its paths resolved, or the rule that refused.

Pure: no Flask, no Redis; called by flansible.web.submissions. The rest of the system accepts nothing but the
AuthorizedRun made here, so that leaving the check out is a type error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from flansible import command
from flansible.config import Settings
from flansible.errors import FieldError, Forbidden, InvalidRequest, NotFound
from flansible.models import (
    AdhocRequest,
    AuthorizedRun,
    Confinement,
    GitRequest,
    Kind,
    PlaybookRequest,
    RunOptions,
    Secrets,
    Step,
    TaskOptions,
)
from flansible.rbac import User, resolve
from flansible.variables import CONNECTION_VARIABLE

_TEMPLATE = re.compile(r"\{[{%#]")
# Ansible expands ~ and $NAME in inventory paths after our check, and splits at commas: such a path is not what it says.
_EXPANDED = re.compile(r"[~$,\r\n]")
_GIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_COLLECTION_PLAYBOOK = re.compile(r"\w+\.\w+\.\w+(\.\w+)*")
_PROMPT = "prompt"
# Text that the run is told to take as data, whatever it says (the variables and arguments), or that Ansible never
# looks into (secrets). In every other field a user's template is refused.
_DATA_FIELDS = frozenset(
    {
        "module_args",
        "extra_vars",
        "extra_args",
        "environment",
        "private_key",
        "connection_password",
        "become_password",
        "vault_password",
    }
)
_ADMIN_FIELDS = (
    "connection",
    "private_key_file",
    "ssh_common_args",
    "ssh_extra_args",
    "sftp_extra_args",
    "scp_extra_args",
    "connection_password_file",
    "become_password_file",
    "module_path",
    "tree",
    # With it, variables of its own name beginning with mitogen_ say how to connect and which programs to start.
    "strategy",
)


def authorize_adhoc(user: User, request: AdhocRequest, settings: Settings) -> AuthorizedRun:
    """Raises Forbidden with the rule that refused, NotFound when a permitted `chdir` does not exist."""
    _check_strings(user, request)
    cwd = _adhoc_directory(user, request.chdir, settings)
    argv = command.adhoc(request, _paths(user, request, cwd, settings, request.playbook_dir))
    summary = f"{user.name}: adhoc {request.module} on {request.pattern}"
    step = _ansible_step("ansible", user, request, argv, cwd)
    return _authorized("adhoc", user, request, summary, (step,), settings, request.secrets)


def authorize_playbook(user: User, request: PlaybookRequest, settings: Settings) -> AuthorizedRun:
    """Raises Forbidden with the rule that refused, NotFound when a permitted directory or file does not exist."""
    _check_strings(user, request)
    cwd = _directory(user, request.playbook_dir, settings)
    files = [_playbook(user, name, cwd, settings) for name in request.playbooks]
    paths = _paths(user, request, cwd, settings)
    if not os.path.isdir(cwd):
        raise NotFound(f"playbook_dir {cwd} does not exist", errors=[FieldError("playbook_dir", "does not exist")])
    for name in files:
        # What a pull is about to bring need not be there yet; a collection's playbook is found by Ansible.
        if not os.path.isfile(cwd / name) and not request.update_git_repo and not _COLLECTION_PLAYBOOK.fullmatch(name):
            raise NotFound(f"playbook {cwd / name} does not exist", errors=[FieldError("playbook", "does not exist")])
    argv = command.playbook(request, paths, files)
    summary = f"{user.name}: playbook {' '.join(request.playbooks)} in {cwd}"
    if request.limit:
        summary += f" on {request.limit}"
    pull = _git_steps(user, command.git_pull(), cwd, settings) if request.update_git_repo else ()
    step = _ansible_step("ansible-playbook", user, request, argv, cwd)
    return _authorized("playbook", user, request, summary, (*pull, step), settings, request.secrets)


def authorize_git(user: User, request: GitRequest, settings: Settings) -> AuthorizedRun:
    """Raises InvalidRequest for names git could take for options or URLs, Forbidden, NotFound."""
    for field, value in (("remote_name", request.remote_name), ("branch_name", request.branch_name)):
        if value is not None and (not _GIT_NAME.fullmatch(value) or ".." in value):
            message = "must be a plain name: letters, digits, . _ / + -, not beginning with a dash or a dot"
            raise InvalidRequest(f"{field} {message}", errors=[FieldError(field, message)])
    cwd = _directory(user, request.playbook_dir, settings)
    if not os.path.isdir(cwd):
        raise NotFound(f"playbook_dir {cwd} does not exist", errors=[FieldError("playbook_dir", "does not exist")])
    verb = "reset" if request.reset else "update"
    target = " ".join(filter(None, (request.remote_name, request.branch_name)))
    summary = f"{user.name}: git {verb} {cwd} from {target}"
    steps = _git_steps(user, command.git_update(request), cwd, settings)
    return _authorized("git", user, request, summary, steps, settings)


def _authorized(
    kind: Kind,
    user: User,
    request: TaskOptions,
    summary: str,
    steps: tuple[Step, ...],
    settings: Settings,
    secrets: Secrets | None = None,
) -> AuthorizedRun:
    if request.time_limit is not None and request.time_limit > settings.CELERY_TASK_TIMEOUT:
        message = f"must be at most {settings.CELERY_TASK_TIMEOUT} (CELERY_TASK_TIMEOUT)"
        raise InvalidRequest(f"time_limit {message}", code="invalid_field", errors=[FieldError("time_limit", message)])
    return AuthorizedRun(
        kind=kind,
        user=user.name,
        summary=_line(summary),
        steps=steps,
        secrets=secrets,
        time_limit=request.time_limit,
        on_lost=request.on_lost,
        locks=request.locks,
        confinement=None
        if user.is_admin
        else Confinement(readable=tuple(map(str, user.inventories)), hidden=(), control_node=False),
        max_running=settings.max_running_per_user if user.max_running is None else user.max_running,
        max_queued=settings.max_queued_per_user if user.max_queued is None else user.max_queued,
    )


def _ansible_step(
    program: Literal["ansible", "ansible-playbook"], user: User, request: RunOptions, argv: tuple[str, ...], cwd: Path
) -> Step:
    _check_strategy(request)
    variables = request.variables
    environment = request.environment or {}
    if user.is_admin:
        argv = command.extra_vars(variables) + argv
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


def _git_steps(user: User, lines: Iterable[tuple[str, ...]], cwd: Path, settings: Settings) -> tuple[Step, ...]:
    # git works on the repository around a directory: for others than admin it must not look above playbook_root.
    environment = {} if user.is_admin else {"GIT_CEILING_DIRECTORIES": str(_root(settings).parent)}
    return tuple(Step(program="git", argv=line, cwd=str(cwd), environment=environment) for line in lines)


def _check_strings(user: User, request: RunOptions) -> None:
    """The rules on strings that Ansible would give a meaning of its own."""
    if user.is_admin:
        return
    for field in sorted(set(type(request).model_fields) - _DATA_FIELDS):
        value = getattr(request, field)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _TEMPLATE.search(text):
                raise _forbidden(field, "template_forbidden", "templates in request fields are for admin only")
    if request.limit and "@" in request.limit:
        raise _forbidden("limit", "limit_file_forbidden", "a limit read from a file (@) is for admin only")
    variables = "extra_vars" if request.extra_vars is not None else "extra_args"
    for part in request.variables:
        if isinstance(part, str) and part.lstrip().startswith(("@", "/", ".")):
            raise _forbidden(variables, "variables_file_forbidden", "variables read from a file (@) are for admin only")
    for name in (name for part in request.variables if isinstance(part, dict) for name in part):
        if CONNECTION_VARIABLE.match(name):
            message = f"{name} is one of the variables that decide where and how Ansible connects; for admin only"
            raise _forbidden(f"{variables}.{name}", "connection_variable_forbidden", message)


def _check_fields(user: User, request: RunOptions, settings: Settings) -> None:
    """Fields that reach beyond the inventory: files of the worker, programs it starts, what it connects with."""
    if user.is_admin:
        return
    for field in _ADMIN_FIELDS:
        if getattr(request, field, None) is not None:
            raise _forbidden(field, "field_forbidden", "is for admin only")
    permitted = {name.strip() for name in settings.environment_names.split(",")}
    for name in request.environment or {}:
        if name not in permitted:
            raise _forbidden(f"environment.{name}", "environment_forbidden", "is not among environment_names")


def _inventories(user: User, request: RunOptions, cwd: Path, settings: Settings) -> list[str]:
    """The inventories the run will use, named or not. Admin's go as given; others' are resolved and must be listed."""
    named = request.inventories or ([settings.default_inventory] if settings.default_inventory else [])
    if user.is_admin:
        return named
    listed = ", ".join(str(path) for path in user.inventories) or "none"
    if not named:
        message = f"name an inventory: the default one is not yours. Yours: {listed}"
        raise _forbidden("inventory", "inventory_forbidden", message)
    resolved = []
    for text in named:
        if "," in text:
            raise _forbidden("inventory", "host_list_forbidden", "comma lists of hosts are for admin only")
        if not text.isprintable() or _EXPANDED.search(text):
            raise _forbidden("inventory", "inventory_forbidden", "must be a plain path, without ~ or $")
        path = resolve(text, cwd)
        if not any(path.is_relative_to(allowed) for allowed in user.inventories):
            raise _forbidden(
                "inventory", "inventory_forbidden", f"{text} is not one of your inventories. Yours: {listed}"
            )
        resolved.append(str(path))
    return resolved


def _paths(
    user: User, request: RunOptions, cwd: Path, settings: Settings, playbook_dir: str | None = None
) -> command.Paths:
    """Every path of the request, for Ansible: admin's as given, others' resolved and within their rights."""
    _check_fields(user, request, settings)
    field = "vault_file" if request.vault_file else "vault_password_file"
    return command.Paths(
        inventories=tuple(_inventories(user, request, cwd, settings)),
        vault_ids=tuple(_vault_id(user, text, cwd, settings) for text in request.vault_ids),
        vault_password_files=tuple(
            _vault_file(user, text, field, cwd, settings) for text in request.vault_password_files
        ),
        playbook_dir=str(_directory(user, playbook_dir, settings)) if playbook_dir else None,
    )


def _vault_id(user: User, given: str, cwd: Path, settings: Settings) -> str:
    # Split where Ansible splits: at the first @.
    label, at, source = given.partition("@") if "@" in given else ("", "", given)
    return given if source == _PROMPT else label + at + _vault_file(user, source, "vault_id", cwd, settings)


def _vault_file(user: User, given: str, field: str, cwd: Path, settings: Settings) -> str:
    if user.is_admin:
        return given
    # An executable vault password file is run, any other is read: both only from where playbooks come from.
    path = resolve(given, cwd)
    if _EXPANDED.search(given) or not path.is_relative_to(_root(settings)):
        raise _forbidden(field, "vault_file_forbidden", "must lie under playbook_root")
    return str(path)


def _directory(user: User, given: str, settings: Settings, field: str = "playbook_dir") -> Path:
    path = resolve(given, settings.playbook_root)
    if not user.is_admin and (_EXPANDED.search(given) or not path.is_relative_to(_root(settings))):
        raise _forbidden(field, "playbook_forbidden", "playbooks outside playbook_root are for admin only")
    return path


def _adhoc_directory(user: User, chdir: str | None, settings: Settings) -> Path:
    if chdir is None:
        return settings.playbook_root if os.path.isdir(settings.playbook_root) else settings.base_dir
    path = _directory(user, chdir, settings, "chdir")
    if not os.path.isdir(path):
        raise NotFound(f"chdir {path} does not exist", errors=[FieldError("chdir", "does not exist")])
    return path


def _playbook(user: User, given: str, cwd: Path, settings: Settings) -> str:
    """The playbook as Ansible is told it: as given, so that its text is the command line's, unless that misleads."""
    if user.is_admin:
        return given
    path = resolve(given, cwd)
    if _EXPANDED.search(given) or not path.is_relative_to(_root(settings)):
        raise _forbidden("playbook", "playbook_forbidden", "playbooks outside playbook_root are for admin only")
    plain = path == Path(os.path.normpath(cwd / given)) and not _COLLECTION_PLAYBOOK.fullmatch(given)
    return given if plain else str(path)


def _root(settings: Settings) -> Path:
    return Path(os.path.realpath(settings.playbook_root))


def _forbidden(field: str, code: str, message: str) -> Forbidden:
    return Forbidden(f"{field}: {message}", code=code, errors=[FieldError(field, message)])


def _line(text: str) -> str:
    """One printable line for Flower, logs and lists, cut where a hostile value would flood them."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= 300 else clean[:297] + "..."
