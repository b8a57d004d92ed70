"""Rules on paths in requests: inventories, playbooks, folders, keys, vault files and modules.

Everything is resolved first, so that `..` and links do not lead out; the answer to a path out of bounds is the same
whether it exists or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from flansible.authorization.rules.refusal import forbidden
from flansible.config import Settings
from flansible.identity.users import User, resolve
from flansible.models import RunOptions

# Ansible expands ~ and $NAME in paths after our check, and splits at commas: such a path is not what it says.
_EXPANDED = re.compile(r"[~$,\0\r\n]")
COLLECTION_PLAYBOOK = re.compile(r"\w+\.\w+\.\w+(\.\w+)*")
_EXTENSIONS = (".yml", ".yaml", ".json")
_PROMPT = "prompt"
_MOST_IN_NAME = 255


def root(settings: Settings) -> Path:
    return Path(os.path.realpath(settings.playbook_root))


def inventories(user: User, request: RunOptions, cwd: Path, settings: Settings) -> list[str]:
    """The inventories the run will use, named or not, resolved; each must be listed for the user."""
    named = request.inventories or ([settings.default_inventory] if settings.default_inventory else [])
    listed = ", ".join(str(path) for path in user.inventories) or "none"
    if not named:
        message = f"name an inventory: the default one is not yours. Yours: {listed}"
        raise forbidden("inventory", "inventory_forbidden", message)
    return [_inventory(user, text, cwd, listed) for text in named]


def _inventory(user: User, given: str, cwd: Path, listed: str) -> str:
    if "," in given:
        raise forbidden("inventory", "host_list_forbidden", "comma lists of hosts are for admin only")
    if not given.isprintable() or _EXPANDED.search(given):
        raise forbidden("inventory", "inventory_forbidden", "must be a plain path, without ~ or $")
    path = resolve(given, cwd)
    # What Ansible would take for hosts or data instead of a path has passed into one here, below `cwd`.
    if not _is_within(path, user.inventories):
        message = f"{given} is not one of your inventories. Yours: {listed}"
        raise forbidden("inventory", "inventory_forbidden", message)
    return str(path)


def vault_id(user: User, given: str, cwd: Path, settings: Settings) -> str:
    # Split where Ansible splits: at the first @.
    label, at, source = given.partition("@") if "@" in given else ("", "", given)
    return given if source == _PROMPT else label + at + vault_file(user, source, "vault_id", cwd, settings)


def vault_file(user: User, given: str, field: str, cwd: Path, settings: Settings) -> str:
    # An executable vault password file is run, any other is read: both only from where playbooks come from.
    return _file(user, given, field, cwd, settings, code="vault_file_forbidden")


def private_key_file(user: User, given: str, cwd: Path, settings: Settings) -> str:
    return _file(user, given, "private_key_file", cwd, settings, code="private_key_forbidden")


def module_path(user: User, given: str, cwd: Path, settings: Settings) -> str:
    if os.pathsep in given:
        message = f"must be a list of folders: {os.pathsep} within one would make it several"
        raise forbidden("module_path", "module_path_forbidden", message)
    if (user.modules_allowed is not None or user.modules_denied) and not _is_in_paths(user, given, cwd):
        # A file of any name in a folder of playbooks would be a module by that name.
        message = "your modules are limited by name, so they come from your paths in rbac.json alone"
        raise forbidden("module_path", "module_path_forbidden", message)
    return _file(user, given, "module_path", cwd, settings, code="module_path_forbidden")


def _is_in_paths(user: User, given: str, cwd: Path) -> bool:
    return not _EXPANDED.search(given) and _is_within(resolve(given, cwd), user.paths)


def _file(user: User, given: str, field: str, cwd: Path, settings: Settings, *, code: str) -> str:
    if _EXPANDED.search(given) or not _is_within(resolve(given, cwd), (root(settings), *user.paths)):
        raise forbidden(field, code, "must lie under playbook_root, or in your paths of rbac.json")
    return str(resolve(given, cwd))


def check_folder(path: Path, given: str, settings: Settings, field: str) -> None:
    if _EXPANDED.search(given) or not path.is_relative_to(root(settings)):
        raise forbidden(field, "playbook_forbidden", "playbooks outside playbook_root are for admin only")


def playbook(user: User, given: str, cwd: Path, settings: Settings) -> str:
    """The playbook as Ansible is told it: as given, so that its text is the command line's, unless that misleads."""
    if _is_granted_collection_playbook(user, given, cwd):
        return given
    if _EXPANDED.search(given) or not resolve(given, cwd).is_relative_to(root(settings)):
        raise forbidden("playbook", "playbook_forbidden", "playbooks outside playbook_root are for admin only")
    path = resolve(given, cwd)
    if not may_start(user, path, root(settings)):
        yours = ", ".join(user.playbooks or ()) or "none"
        raise forbidden("playbook", "playbook_forbidden", f"{given} is not one of your playbooks. Yours: {yours}")
    plain = path == Path(os.path.normpath(cwd / given)) and not COLLECTION_PLAYBOOK.fullmatch(given)
    return given if plain else str(path)


def _is_granted_collection_playbook(user: User, given: str, cwd: Path) -> bool:
    """Whether rbac.json names it as a collection's: those lie outside playbook_root, and a glob of files gives none."""
    if not COLLECTION_PLAYBOOK.fullmatch(given) or given.endswith(_EXTENSIONS) or os.path.exists(cwd / given):
        return False
    names = (pattern for pattern in user.playbooks or () if "/" not in pattern and pattern.count(".") >= 2)
    return any(_glob(pattern).fullmatch(given) for pattern in names)


def may_start(user: User, path: Path, folder: Path) -> bool:
    """Whether the user may start the playbook at `path`, which lies in `folder`, playbook_root resolved."""
    if user.playbooks is None:
        return True
    below = os.path.relpath(os.path.realpath(path), folder)
    if max(map(len, below.split(os.sep))) > _MOST_IN_NAME:
        return False  # it is no file, and to compare it with several stars would take long
    return any(_glob(pattern).fullmatch(below) for pattern in user.playbooks)


@lru_cache(maxsize=1000)
def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder; `**` stands for any number of them."""
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


def _is_within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
