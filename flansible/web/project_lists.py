"""Playbooks and inventories of a project's commit, for users: a worker reads them, for the web machine has none."""

from __future__ import annotations

import posixpath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flansible.authorization import project_runs
from flansible.errors import BadGateway, FieldError, NotFound, Unavailable
from flansible.identity.users import User
from flansible.models import ListedInventory, ListedPlaybook, ProjectName, ProjectRef, ProjectRun
from flansible.models.file_names import escape
from flansible.web import project_commit
from flansible.web.context import web_context
from flansible.web.preview_run import WAIT_SECONDS, run_preview
from flansible.web.project_commit import OpenSecrets


class ProjectQuery(BaseModel):
    """`?project=&ref=` of a list."""

    model_config = ConfigDict(extra="forbid")

    project: ProjectName | None = Field(None, description="Those of this project.")
    ref: ProjectRef | None = Field(None, description="At this branch, tag or commit. Default: the project's own.")


def find(user: User, query: ProjectQuery) -> tuple[ProjectRun, OpenSecrets]:
    """Returns the project of a query, at its commit, and what opens its credential. Raises as project_commit.find."""
    assert query.project is not None
    return project_commit.find(user, query.project, query.ref)


def playbooks(user: User, project: ProjectRun, opened: OpenSecrets) -> list[ListedPlaybook]:
    """Lists the playbooks that the user may start. Raises Unavailable."""
    found = [_playbook(item) for item in _listed(user, project, opened, ())["playbooks"]]
    return [item for item in found if _may_start(user, project, posixpath.join(item.playbook_dir, item.playbook))]


def playbook(user: User, project: ProjectRun, opened: OpenSecrets, folder: str, name: str) -> ListedPlaybook:
    """Lists one playbook with its variables. Raises Forbidden, NotFound, Unavailable."""
    path = project_runs.check_playbook(user, posixpath.join(folder, name), project)
    [found] = _listed(user, project, opened, (path,))["playbooks"]
    if found is None:
        raise NotFound(
            f"playbook: {escape(path)} is not a playbook", errors=[FieldError("playbook", "is not a playbook")]
        )
    # As it was asked for: from the folder of the run.
    return _playbook(found).model_copy(update={"playbook": escape(name), "playbook_dir": escape(folder)})


def inventories(user: User, project: ProjectRun, opened: OpenSecrets) -> list[ListedInventory]:
    """Lists the inventories in the project that the user may use; for admin those that look like some."""
    prefix = f"{project.name}:"
    if not user.is_admin:
        granted = {
            text
            for entry in user.entries
            if project_runs.may_use_inventories(entry, project)
            for text in entry.project_inventories
            if text.startswith(prefix)
        }
        return [_inventory(text.removeprefix(prefix)) for text in sorted(granted)]
    return [_inventory(str(path)) for path in _listed(user, project, opened, ()).get("inventories", [])]


def tags(user: User, name: str, glob: str, queue: str | None) -> list[str]:
    """Lists the tags of a project's repository that match, the highest version first, as its remote says now.

    queue: whose workers ask it; None: the project's own. Raises Forbidden, NotFound, BadGateway, Unavailable.
    """
    project, opened = project_commit.described(user, name)
    project_commit.check_queue(user, project, queue)
    asked = project.model_copy(update={"ref": glob})
    hidden = project_runs.hidden_run(user, asked, web_context().settings, "tags", int(project_commit.WAIT_SECONDS))
    step = hidden.steps[0].model_copy(update={"listing": "tags"})
    run = hidden.model_copy(update={"steps": (step,), "secrets": opened(), "queue": queue or hidden.queue})
    result = run_preview(run, project_commit.WAIT_SECONDS)
    if result.content is None:
        raise Unavailable(f"The tags of project {name} cannot be listed: {result.detail}", code="list_unavailable")
    if result.content.get("error") is not None:
        raise BadGateway(f"The remote of project {name} cannot be read: {project_commit.words_of(result.content)}")
    return [str(tag) for tag in result.content.get("tags") or ()]


def _inventory(path: str) -> ListedInventory:
    return ListedInventory(inventory=path, name=posixpath.basename(path), is_default=False, exists=True)


def _playbook(item: dict[str, Any]) -> ListedPlaybook:
    try:
        return ListedPlaybook.model_validate(item)
    except ValidationError:
        raise Unavailable("The worker's answer cannot be read", code="list_unavailable") from None


def _may_start(user: User, project: ProjectRun, path: str) -> bool:
    return any(project_runs.may_start(entry, posixpath.normpath(path), project) for entry in user.entries)


def _listed(user: User, project: ProjectRun, opened: OpenSecrets, words: tuple[str, ...]) -> dict[str, Any]:
    run = project_runs.listing_run(user, project, web_context().settings, words, int(WAIT_SECONDS))
    result = run_preview(run.model_copy(update={"secrets": opened()}))
    if result.content is None:
        message = "; ".join(filter(None, (result.detail, *result.messages)))
        raise Unavailable(f"The files of project {project.name} cannot be listed: {message}", code="list_unavailable")
    return result.content
