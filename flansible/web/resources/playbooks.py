"""The playbooks under playbook_root, and the variables that each accepts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from flansible.authorization import isolation
from flansible.authorization.entries import by_one_entry
from flansible.authorization.rules import paths
from flansible.authorization.rules.paths import may_start
from flansible.authorization.shown_paths import is_below
from flansible.config import Settings
from flansible.errors import FieldError, NotFound
from flansible.identity.users import User, resolve
from flansible.models import ListedPlaybook, PathText
from flansible.models.file_names import escape, unescape
from flansible.playbooks import contents
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import parse_query

# Folders in which YAML files are not playbooks.
_SKIPPED = frozenset(
    {
        *("roles", "group_vars", "host_vars", "collections", "inventories", "inventory"),
        *("templates", "files", "vars", "molecule"),
    }
)


class PlaybookQuery(BaseModel):
    """`?playbook_dir=&playbook=` of the list of playbooks."""

    model_config = ConfigDict(extra="forbid")

    playbook_dir: PathText | None = Field(None, description="Only those in this folder.")
    playbook: PathText | None = Field(
        None, description="Only those with this name; with `playbook_dir` only that playbook, with its variables."
    )


class ListPlaybooks(PrivateResource):
    """The playbooks that the caller may run; the inventory is checked when a task is submitted.

    With `playbook_dir` and `playbook`, as in `ansibleplaybook`: only that playbook, with its `variables`. These are
    the prompts of its plays (`vars_prompt`), the arguments of their roles (`argument_specs`), and simple values that
    plays set. Roles are looked for in `roles` beside the playbook, on `roles_path` of the folder's ansible.cfg and in
    collections, as far as they lie below playbook_root. The files are read; nothing in them is executed.
    """

    def get(self) -> Response:
        """List the playbooks under playbook_root"""
        query = parse_query(PlaybookQuery)
        settings, user = web_context().settings, current_user()
        within = None if query.playbook_dir is None else unescape(query.playbook_dir)
        name = None if query.playbook is None else unescape(query.playbook)
        if within is not None and name is not None:
            return _reply([_requested_playbook(user, within, name, settings)])
        folder = None if within is None else resolve(within, settings.playbook_root)
        return _reply(
            [
                _entry(path, found)
                for path, found in _listed(user, settings)
                if folder in (None, path.parent) and name in (None, path.name)
            ]
        )


def _reply(found: list[ListedPlaybook]) -> Response:
    root = escape(str(paths.root(web_context().settings)))
    return jsonify({"playbook_root": root, "playbooks": [serialization.reply_fields(entry) for entry in found]})


def _listed(user: User, settings: Settings) -> Iterator[tuple[Path, contents.Summary]]:
    root = paths.root(settings)
    readers = [(entry, _may_read(entry, settings)) for entry in user.entries]
    for path in sorted(_candidates(root, re.compile(settings.playbook_filter), user.written)):
        is_allowed = any(may_read(path) and may_start(entry, path, root) for entry, may_read in readers)
        if is_allowed and (found := contents.summary(path)) is not None:
            yield path, found


def _may_read(user: User, settings: Settings) -> Callable[[Path], bool]:
    return paths.readable(user, settings, isolation.for_user(user, settings.isolation))


def _candidates(root: Path, name_filter: re.Pattern[str], written: tuple[Path, ...]) -> Iterator[Path]:
    """Yields the files below root that the filter selects. Each folder counts once: by its own path, else by a link's.

    Links that lead out are not followed: anyone who can push one could have this walk through the whole disk.
    written: folders that users' runs can write; what lies there is no playbook.
    """
    seen: set[str] = set()
    starts = [str(root)]
    while starts:
        for folder, folders, names in os.walk(starts.pop(0)):
            real = os.path.realpath(folder)
            if real in seen or not is_below(real, str(root)) or Path(real) in written:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
            starts += [link for name in folders if os.path.islink(link := os.path.join(folder, name))]
            for name in names:
                path = Path(folder, name)
                if name_filter.search(str(path.relative_to(root))):
                    yield path


def _entry(path: Path, found: contents.Summary) -> ListedPlaybook:
    return ListedPlaybook(
        playbook=escape(path.name),
        playbook_dir=escape(str(path.parent)),
        description=found.description,
        plays=list(found.plays),
        encrypted=found.is_encrypted or None,
    )


@by_one_entry
def _requested_playbook(user: User, playbook_dir: str, playbook: str, settings: Settings) -> ListedPlaybook:
    """Lists one playbook with its variables. Raises Forbidden as a submission would, NotFound for any other file."""
    root, cwd = paths.root(settings), resolve(playbook_dir, settings.playbook_root)
    paths.check_folder(user, cwd, playbook_dir, settings, "playbook_dir")
    paths.playbook(user, playbook, cwd, settings)
    path, may_read = cwd / playbook, _may_read(user, settings)
    found = contents.read(path) if may_read(path) else None
    if found is None:
        errors = [FieldError("playbook", "is not a playbook")]
        raise NotFound(f"playbook: {escape(str(path))} is not a playbook", errors=errors)
    # Only roles within playbook_root, for admin too: their links may lead anywhere.
    listed = contents.variables(found, path, lambda file: file.is_relative_to(root) and may_read(file), cwd)
    return ListedPlaybook(
        playbook=escape(playbook),
        playbook_dir=escape(str(cwd)),
        description=found.description,
        plays=found.plays,
        encrypted=found.is_encrypted or None,
        variables=listed,
    )
