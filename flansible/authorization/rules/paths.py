"""Rules on paths in requests: inventories, playbooks, folders, keys, vault files and modules.

Paths are resolved first, so that `..` and links do not lead outside. A path that is not permitted is refused in the
same words whether it exists or not.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from flansible.authorization import shown_paths
from flansible.authorization.isolation import Isolation
from flansible.authorization.rules.refusal import ASK, forbidden
from flansible.config import Settings
from flansible.identity.users import User, resolve
from flansible.models import RunOptions, file_names
from flansible.models.file_names import escape
from flansible.playbooks import ansible_cfg

# Ansible expands ~ and $NAME in paths after our check, and splits at commas: the path would become another one.
EXPANDED = re.compile(r"[~$,\0\r\n]")
# What ssh expands or unquotes in the path of a key (%r is the remote user), which would be another path then.
_EXPANDED_BY_SSH = re.compile(r"""[%"'\\\x00-\x1f]""")
COLLECTION_PLAYBOOK = re.compile(r"\w+\.\w+\.\w+(\.\w+)*")
_EXTENSIONS = (".yml", ".yaml", ".json")
_PROMPT = "prompt"
_MAX_NAME_LENGTH = 255
_WRITTEN = "must not lie in a folder that users' runs can write (writable in rbac.json)"


def root(settings: Settings) -> Path:
    return Path(os.path.realpath(settings.playbook_root))


def readable(user: User, settings: Settings, isolation: Isolation) -> Callable[[Path], bool]:
    """Returns a test whether a run of the user could read a file; others are shown to no user, wherever links lead."""
    top = root(settings)
    if user.is_admin:
        return lambda path: not is_written(user, Path(os.path.realpath(path)))
    if not isolation.in_force:
        return lambda path: Path(os.path.realpath(path)).is_relative_to(top)
    shown = _shown(user, settings)

    def may_read(path: Path) -> bool:
        real = os.path.realpath(path)
        # A run could replace it while it is read, by a pipe that never ends: the web server does not read it.
        return shown.is_listed(real) and not is_written(user, Path(real))

    return may_read


def is_shown(user: User, settings: Settings, isolation: Isolation) -> Callable[[Path], bool]:
    """Returns a test whether a path below playbook_root is shown to a run of the user; what is not, is not there."""
    if user.is_admin or not isolation.in_force:
        return lambda _path: True
    shown = _shown(user, settings)
    return lambda path: not shown.is_hidden(os.path.realpath(path))


def is_hidden(user: User, path: Path, settings: Settings) -> bool:
    """Whether a path below playbook_root is, or is part of, what belongs to others. Admin is shown everything."""
    return not user.is_admin and _shown(user, settings).is_hidden(os.path.realpath(path))


def _shown(user: User, settings: Settings) -> shown_paths.ShownPaths:
    return shown_paths.of(
        user.readable, user.hidden, settings, inventories=user.inventories, writable=map(str, user.writable)
    )


def inventories(user: User, request: RunOptions, cwd: Path, settings: Settings) -> list[str]:
    """Returns the inventories of the run, resolved: the request's or the default. Each must be one of the user's."""
    listed = ", ".join(str(path) for path in user.inventories) or "none"
    named = request.inventories or _default_inventory(user, cwd, settings, listed)
    return [_inventory(user, text, cwd, listed) for text in named]


def _default_inventory(user: User, cwd: Path, settings: Settings, listed: str) -> list[str]:
    default = settings.default_inventory
    if default and "," not in default and is_within(resolve(default, cwd), user.inventories):
        return [default]
    # What is in a hidden one is for nobody else: a refusal would say that it is there.
    configured = () if is_hidden(user, cwd / "ansible.cfg", settings) else _configured_inventories(cwd)
    if configured and all(is_within(path, user.inventories) for path in configured):
        return list(map(str, configured))
    shown = f", {default}," if default and "," not in default else ""
    advice = f"Name one of yours (inventory, -i): {listed}." if user.inventories else f"Yours: none. {ASK}"
    what = f"the default{shown} is not yours" if default else "there is no default one of yours"
    if configured:
        what += ", nor are all of those that ansible.cfg names"
    message = f"You named no inventory, and {what}. {advice}"
    raise forbidden("inventory", "inventory_forbidden", message)


def _configured_inventories(cwd: Path) -> list[Path]:
    """Returns the inventories that ansible.cfg of the run's directory names; none where Ansible would not read it."""
    try:
        if cwd.stat().st_mode & stat.S_IWOTH:
            return []
    except OSError:
        return []
    named = ansible_cfg.defaults(cwd / "ansible.cfg").get("inventory", "")
    if "{{" in named or EXPANDED.search(named.replace(",", "")):
        return []
    return [resolve(word.strip(), cwd) for word in named.split(",") if word.strip()]


def _inventory(user: User, given: str, cwd: Path, listed: str) -> str:
    if "," in given:
        raise forbidden(
            "inventory", "host_list_forbidden", "Only admin may give hosts as a comma list. Name an inventory."
        )
    if not given.isprintable() or EXPANDED.search(given):
        raise forbidden("inventory", "inventory_forbidden", "must be a plain path, without ~ or $")
    path = resolve(given, cwd)
    # Text that Ansible would take for hosts or data has become a path below `cwd` here, and is refused.
    if not is_within(path, user.inventories):
        # Not resolved: where links lead is not for those who may not use them.
        shown = given if os.path.isabs(given) else f"{given} ({file_names.escape(os.path.normpath(cwd / given))})"
        message = f"You may not use inventory {shown}. Yours: {listed}. {ASK}"
        raise forbidden("inventory", "inventory_forbidden", message)
    return str(path)


def one_inventory(user: User, given: str) -> str:
    """Returns an inventory that is given by its absolute path, resolved. It must be one of the user's."""
    listed = ", ".join(map(str, (*user.inventories, *user.project_inventories))) or "none"
    return _inventory(user, given, Path("/"), listed)


def vault_id(user: User, given: str, cwd: Path, settings: Settings) -> str:
    # Split where Ansible splits: at the first @.
    label, at, source = given.partition("@") if "@" in given else ("", "", given)
    return given if source == _PROMPT else label + at + vault_file(user, source, "vault_id", cwd, settings)


def vault_file(user: User, given: str, field: str, cwd: Path, settings: Settings) -> str:
    # Ansible executes an executable vault password file and reads any other: both must come from where playbooks do.
    return _file(user, given, field, cwd, settings, code="vault_file_forbidden")


def private_key_file(user: User, given: str, cwd: Path, settings: Settings) -> str:
    check_key_name(str(resolve(given, cwd)))
    return _file(user, given, "private_key_file", cwd, settings, code="private_key_forbidden")


def check_key_name(path: str) -> None:
    if _EXPANDED_BY_SSH.search(path):
        message = "must have no %, quote or backslash, which ssh expands or takes off"
        raise forbidden("private_key_file", "private_key_forbidden", message)


def module_path(user: User, given: str, cwd: Path, settings: Settings) -> str:
    if os.pathsep in given:
        message = f"must not contain {os.pathsep}. Give several folders as a list."
        raise forbidden("module_path", "module_path_forbidden", message)
    if (user.modules_allowed is not None or user.modules_denied) and not _is_in_paths(user, given, cwd):
        # Any file in a folder of playbooks would otherwise be a module of its name.
        message = "You may run only some modules, so this must lie in your paths in rbac.json"
        raise forbidden("module_path", "module_path_forbidden", message)
    found = _file(user, given, "module_path", cwd, settings, code="module_path_forbidden")
    if any(folder.is_relative_to(found) for folder in user.written):
        # Ansible searches the folders in it as well.
        raise forbidden("module_path", "module_path_forbidden", _WRITTEN.replace("lie in", "hold"))
    return found


def _is_in_paths(user: User, given: str, cwd: Path) -> bool:
    return not EXPANDED.search(given) and is_within(resolve(given, cwd), user.paths)


def _file(user: User, given: str, field: str, cwd: Path, settings: Settings, *, code: str) -> str:
    if EXPANDED.search(given) or not is_within(resolve(given, cwd), (root(settings), *user.paths)):
        raise forbidden(field, code, "must lie under playbook_root, or in your paths in rbac.json")
    if is_written(user, resolve(given, cwd)):
        raise forbidden(field, code, _WRITTEN)
    return str(resolve(given, cwd))


def is_written(user: User, path: Path) -> bool:
    """Whether a path lies in a folder that users' runs can write. user: any; all know these folders."""
    return is_within(path, user.written)


def check_unwritten(user: User, given: Iterable[str], cwd: Path, field: str, code: str) -> None:
    """Refuses files, and folders to be searched, that a user's run may have written; admin's runs would execute it."""
    for text in map(os.path.expandvars, given):
        # Ansible opens the path as it is given: a link on the way to it could lead elsewhere by then.
        path, way = resolve(text, cwd), Path(os.path.join(cwd, os.path.expanduser(text)))
        is_on_the_way = any(is_written(user, Path(os.path.realpath(part))) for part in (path, *way.parents))
        if is_on_the_way or any(folder.is_relative_to(path) for folder in user.written):
            raise forbidden(field, code, _WRITTEN)


def check_files_of_admin(user: User, request: RunOptions, cwd: Path) -> None:
    """Refuses each file of admin's request that Ansible executes or that decides what it does: see check_unwritten."""
    vault_file = "vault_file" if request.vault_file else "vault_password_file"
    modules = [request.module_path] if isinstance(request.module_path, str) else request.module_path or []
    variables = [text.lstrip()[1:] for text in request.variables if isinstance(text, str) and text.lstrip()[:1] == "@"]
    sources = [text.partition("@")[2] or text for text in request.vault_ids]
    passwords = {name: getattr(request, name) for name in ("connection_password_file", "become_password_file")}
    named = [
        ("inventory", "inventory_forbidden", [text for text in request.inventories if "," not in text]),
        ("module_path", "module_path_forbidden", [part for text in modules for part in text.split(os.pathsep)]),
        ("private_key_file", "private_key_forbidden", filter(None, [request.private_key_file])),
        ("vault_id", "vault_file_forbidden", sources),
        (vault_file, "vault_file_forbidden", request.vault_password_files),
        ("extra_vars", "variables_file_forbidden", variables),
        *((name, "field_forbidden", filter(None, [path])) for name, path in passwords.items()),
    ]
    for field, code, given in named:
        check_unwritten(user, given, cwd, field, code)


def check_folder(user: User, path: Path, given: str, settings: Settings, field: str) -> None:
    if is_written(user, path):
        raise forbidden(field, "playbook_forbidden", _WRITTEN)
    if user.is_admin:
        return
    if EXPANDED.search(given) or not path.is_relative_to(root(settings)):
        raise forbidden(field, "playbook_forbidden", "Only admin may use playbooks outside playbook_root")


def playbook(user: User, given: str, cwd: Path, settings: Settings) -> str:
    """Returns the playbook for Ansible's command line: as given, or resolved where that could mislead."""
    if user.is_admin:
        check_unwritten(user, [given], cwd, "playbook", "playbook_forbidden")
        return given
    if _is_granted_collection_playbook(user, given, cwd):
        return given
    if EXPANDED.search(given) or not resolve(given, cwd).is_relative_to(root(settings)):
        raise forbidden("playbook", "playbook_forbidden", "Only admin may use playbooks outside playbook_root")
    path = resolve(given, cwd)
    if is_written(user, path):
        raise forbidden("playbook", "playbook_forbidden", _WRITTEN)
    if COLLECTION_PLAYBOOK.fullmatch(given) and not given.endswith(_EXTENSIONS) and not os.path.exists(cwd / given):
        message = f"{given} is a collection's playbook. You may start one that `playbooks` in rbac.json names. {ASK}"
        raise forbidden("playbook", "playbook_forbidden", message)
    if not may_start(user, path, root(settings)):
        yours = ", ".join(user.playbooks or ()) or "none"
        message = f"You may not start playbook {escape(given)}. Yours: {yours}. {ASK}"
        raise forbidden("playbook", "playbook_forbidden", message)
    plain = path == Path(os.path.normpath(cwd / given)) and not COLLECTION_PLAYBOOK.fullmatch(given)
    return given if plain else str(path)


def _is_granted_collection_playbook(user: User, given: str, cwd: Path) -> bool:
    """Whether rbac.json names it as a collection's playbook. No glob of files grants those: they lie elsewhere."""
    if not COLLECTION_PLAYBOOK.fullmatch(given) or given.endswith(_EXTENSIONS) or os.path.exists(cwd / given):
        return False
    names = (pattern for pattern in user.playbooks or () if "/" not in pattern and pattern.count(".") >= 2)
    return any(_glob(pattern).fullmatch(given) for pattern in names)


def may_start(user: User, path: Path, folder: Path) -> bool:
    """Whether the user may start the playbook at `path`. folder: playbook_root, resolved."""
    if user.playbooks is None:
        return True
    below = os.path.relpath(os.path.realpath(path), folder)
    if max(map(len, below.split(os.sep))) > _MAX_NAME_LENGTH:
        return False  # no file has such a name, and matching it against several stars would take long
    return any(_glob(pattern).fullmatch(below) for pattern in user.playbooks)


def matches_glob(pattern: str, path: str) -> bool:
    """Whether a glob of `playbooks` matches a path below playbook_root, or below a project's root."""
    return max(map(len, path.split("/"))) <= _MAX_NAME_LENGTH and _glob(pattern).fullmatch(path) is not None


@lru_cache(maxsize=1000)
def _glob(pattern: str) -> re.Pattern[str]:
    """Compiles a glob: `*` and `?` match within a folder, `**` any number of folders."""
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]/]+\])", pattern):
        if part == "**/":
            expression += "(?:.*/)?"
        elif part in _WILDCARDS:
            expression += _WILDCARDS[part]
        elif part.startswith("[") and part.endswith("]"):
            inner = re.escape(part[1:-1].removeprefix("!")).replace(r"\-", "-")
            expression += f"(?!/)[{'^' if part[1] == '!' else ''}{inner}]"
        else:
            expression += re.escape(part)
    return re.compile(expression, re.DOTALL)


_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
