"""What a request names must exist: folders, playbooks, inventories, and values for prompts without a default.

Called by flansible.authorization.authorize after the rules, for every user: a path that is not permitted was refused
before, in the same words whether it exists or not. With `allow_missing` a run goes on without an inventory or a value,
and fails for a playbook, as on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flansible.authorization.rules import strings
from flansible.authorization.rules.paths import COLLECTION_PLAYBOOK
from flansible.errors import FieldError, InvalidRequest, NotFound
from flansible.models import ListedVariable, PlaybookRequest, RunOptions
from flansible.models.file_names import escape
from flansible.playbooks import contents

_LISTS_ONLY = ("list_hosts", "list_tasks", "list_tags", "syntax_check")


def missing(field: str, path: Path | str) -> NotFound:
    return NotFound(f"{field} {escape(str(path))} does not exist", errors=[FieldError(field, "does not exist")])


def check_playbooks(
    request: PlaybookRequest, cwd: Path, names: Iterable[str], is_shown: Callable[[Path], bool]
) -> None:
    """Raises NotFound for a folder or playbook that does not exist, or is hidden from the user's runs."""
    check_folder("playbook_dir", cwd, is_shown)
    for name in names if not request.allow_missing else ():
        # A pull may still bring the file; Ansible finds a collection's playbook.
        is_known = request.update_git_repo or COLLECTION_PLAYBOOK.fullmatch(name)
        if not is_known and not (os.path.isfile(cwd / name) and is_shown(cwd / name)):
            raise missing("playbook", cwd / name)


def check_folder(field: str, path: Path, is_shown: Callable[[Path], bool]) -> None:
    """Raises NotFound for a folder that does not exist, or is hidden from the user's runs."""
    if not (os.path.isdir(path) and is_shown(path)):
        raise missing(field, path)


def check_inventories(request: RunOptions, named: Iterable[str], cwd: Path) -> None:
    """Raises NotFound that names every inventory that does not exist. named: the request's, or the default one."""
    if request.allow_missing or getattr(request, "update_git_repo", False):
        return
    absent = [text for text in named if not _is_there(text, cwd, request.environment or {})]
    if not absent:
        return
    errors = [FieldError("inventory", f"{os.path.join(escape(str(cwd)), text)} does not exist") for text in absent]
    message = "; ".join(f"inventory {error.message}" for error in errors)
    if not request.inventories:
        message += " (default_inventory in config.ini)"
    if any("/" not in text for text in absent):
        message += f". Hosts are given as a list with a comma: {absent[0]},"
    raise NotFound(message, errors=errors)


def _is_there(inventory: str, cwd: Path, environment: Mapping[str, str]) -> bool:
    """Whether an inventory is a list of hosts, or a path that exists. What a variable is, only the run knows."""
    if "," in inventory or "$" in inventory:
        return True
    home = environment.get("HOME")
    if home and (inventory == "~" or inventory.startswith("~/")):
        inventory = home + inventory[1:]
    return os.path.exists(os.path.join(cwd, os.path.expanduser(inventory)))


def check_prompts(request: PlaybookRequest, cwd: Path, names: Iterable[str], may_read: Callable[[Path], bool]) -> None:
    """Raises InvalidRequest that names the secrets that plays prompt for, if they have no default and no value."""
    if request.allow_missing:
        return
    errors = [
        FieldError(f"secret_vars.{prompt.name}", f"is required: play {prompt.play} prompts for it and has no default")
        for prompt in unanswered_prompts(request, cwd, names, may_read)
        if prompt.private
    ]
    if errors:
        message = "; ".join(f"{error.field}: {error.message}" for error in errors)
        raise InvalidRequest(message, code="invalid_field", errors=errors)


def unanswered_prompts(
    request: PlaybookRequest, cwd: Path, names: Iterable[str], may_read: Callable[[Path], bool]
) -> list[ListedVariable]:
    """Returns the prompts of the playbooks that have no default and no value in the request: a run has no terminal."""
    is_unknown = any(isinstance(part, str) and part.startswith("@") for part in request.variables)
    if is_unknown or request.update_git_repo or any(getattr(request, option) for option in _LISTS_ONLY):
        return []
    given = set(request.secret_vars or ())
    for part in request.variables:
        given.update(part if isinstance(part, dict) else strings.names_in(part))
    found = contents.prompts((cwd / name for name in names), may_read)
    return list({prompt.name: prompt for prompt in found if prompt.required and prompt.name not in given}.values())
