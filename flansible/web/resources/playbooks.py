"""The playbooks under playbook_root, and the variables that each accepts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from flask import Response, jsonify
from pydantic import Field

from flansible.authorization.rules import paths
from flansible.authorization.rules.paths import may_start
from flansible.config import Settings
from flansible.identity.users import User, resolve
from flansible.models import ListedPlaybook, PathText, ProjectRun
from flansible.models.file_names import escape, unescape
from flansible.playbooks import contents, listing
from flansible.web import playbook_variables, project_lists, serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user, require_run_scope
from flansible.web.parsing import parse_query
from flansible.web.project_lists import ProjectQuery


class PlaybookQuery(ProjectQuery):
    """`?playbook_dir=&playbook=` of the list of playbooks."""

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

    With `project`: those of a project, at the commit of `ref`, which a worker reads.
    """

    def get(self) -> Response:
        """List the playbooks under playbook_root"""
        query = parse_query(PlaybookQuery)
        settings, user = web_context().settings, current_user()
        if query.project is not None:
            return _of_project(user, query)
        within = None if query.playbook_dir is None else unescape(query.playbook_dir)
        name = None if query.playbook is None else unescape(query.playbook)
        if within is not None and name is not None:
            return _reply([playbook_variables.requested_playbook(user, within, name, settings)])
        folder = None if within is None else resolve(within, settings.playbook_root)
        return _reply(
            [
                _entry(path, found)
                for path, found in _listed(user, settings)
                if folder in (None, path.parent) and name in (None, path.name)
            ]
        )


def _of_project(user: User, query: PlaybookQuery) -> Response:
    """Lists the playbooks of a project; paths count from its root."""
    require_run_scope()  # a worker fetches it
    project, opened = project_lists.find(user, query)
    if query.playbook_dir is not None and query.playbook is not None:
        one = project_lists.playbook(user, project, opened, unescape(query.playbook_dir), unescape(query.playbook))
        return _reply_of_project(project, [one])
    found = project_lists.playbooks(user, project, opened)
    folder = None if query.playbook_dir is None else posixpath.normpath(query.playbook_dir)
    return _reply_of_project(
        project,
        [one for one in found if folder in (None, one.playbook_dir) and query.playbook in (None, one.playbook)],
    )


def _reply_of_project(project: ProjectRun, found: list[ListedPlaybook]) -> Response:
    return jsonify(
        {
            "playbook_root": ".",
            "playbooks": [serialization.reply_fields(entry) for entry in found],
            "project": project.name,
            "ref": project.ref,
            "commit": project.commit,
        }
    )


def _reply(found: list[ListedPlaybook]) -> Response:
    root = escape(str(paths.root(web_context().settings)))
    return jsonify({"playbook_root": root, "playbooks": [serialization.reply_fields(entry) for entry in found]})


def _listed(user: User, settings: Settings) -> Iterator[tuple[Path, contents.Summary]]:
    root = paths.root(settings)
    readers = [(entry, playbook_variables.may_read(entry, settings)) for entry in user.entries]
    for path in sorted(listing.candidates(root, re.compile(settings.playbook_filter), user.written)):
        is_allowed = any(may_read(path) and may_start(entry, path, root) for entry, may_read in readers)
        if is_allowed and (found := contents.summary(path)) is not None:
            yield path, found


def _entry(path: Path, found: contents.Summary) -> ListedPlaybook:
    return ListedPlaybook(
        playbook=escape(path.name),
        playbook_dir=escape(str(path.parent)),
        description=found.description,
        plays=list(found.plays),
        encrypted=found.is_encrypted or None,
    )
