"""The inventories that the caller may use, with their groups and hosts."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Response, jsonify
from pydantic import Field, ValidationError

from flansible.authorization import authorize, isolation, preview_request, project_runs
from flansible.config import Settings
from flansible.identity.users import User, resolve
from flansible.models import Inventory, InventoryHosts, ListedInventory
from flansible.web import project_commit, project_lists, serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user, require_run_scope
from flansible.web.middleware import audit_context
from flansible.web.parsing import parse_query
from flansible.web.preview_run import run_preview
from flansible.web.project_lists import ProjectQuery


class InventoryQuery(ProjectQuery):
    """`?inventory=` of the list of inventories."""

    inventory: Inventory | None = Field(
        None, description="Only this inventory, with its groups and hosts; a path as in a request."
    )


class ListInventories(PrivateResource):
    """The inventories that rbac.json grants the caller; for admin those of all users and the default inventory.

    With `inventory`, Ansible reads that one as a run of the caller would, without its variables, in at most 15
    seconds. Without a result, `groups` and `hosts` are null and `detail` says why.

    With `project`: those in a project, at the commit of `ref`; for admin what looks like one.
    """

    def get(self) -> Response:
        """List inventories, or one with its groups and hosts"""
        query = parse_query(InventoryQuery)
        user, settings = current_user(), web_context().settings
        confined = isolation.for_user(user, settings.isolation)
        if query.project is not None:
            require_run_scope()  # a worker fetches it
            project, opened = project_lists.find(user, query)
            known = project_lists.inventories(user, project, opened)
        else:
            known = _listed(user, settings)
        if query.inventory is None:
            return _reply(known)
        require_run_scope()  # an inventory may be a program
        if query.project is not None:
            run = project_runs.authorize_inventory(user, query.inventory, project, settings, confined)
            run = project_commit.with_secrets(run, opened())
        else:
            run = authorize.authorize_inventory(user, query.inventory, settings, confined)
        audit_context.note_throttled(user.name, audit_context.event("inventory", what=run.summary, outcome="allowed"))
        preview = run_preview(preview_request.preview_of(run, "inventory"))
        shown = _requested_inventory(query.inventory, known, settings, query.project).model_copy(
            update={"messages": preview.messages, "detail": preview.detail}
        )
        if preview.content is not None:
            try:
                shown = shown.model_copy(update=InventoryHosts.model_validate(preview.content).model_dump())
            except ValidationError:
                shown = shown.model_copy(update={"detail": "the preview run returned invalid data"})
        return _reply([shown])


def _reply(found: list[ListedInventory]) -> Response:
    return jsonify({"inventories": [serialization.reply_fields(entry) for entry in found]})


def _listed(user: User, settings: Settings) -> list[ListedInventory]:
    default = _default(settings)
    if user.is_admin:
        paths = {str(path) for one in web_context().rbac.users().values() for path in one.inventories}
        paths |= {default} if default else set()
    else:
        paths = {str(path) for entry in user.entries for path in entry.inventories}
    names = _names(sorted(paths))
    return [_entry(path, names[path], default) for path in sorted(paths)]


def _default(settings: Settings) -> str | None:
    """Returns the default inventory as it is listed; a comma list of hosts stays unchanged."""
    given = settings.default_inventory
    return given if not given or "," in given else str(resolve(given, settings.playbook_root))


def _names(paths: list[str]) -> dict[str, str]:
    """Returns a name for each path: its last part, or the last two where several paths share the last."""
    last = [os.path.basename(path) for path in paths]
    return {
        path: name if last.count(name) == 1 else os.path.join(*Path(path).parts[-2:])
        for path, name in zip(paths, last, strict=True)
    }


def _entry(path: str, name: str, default: str | None) -> ListedInventory:
    return ListedInventory(
        inventory=path, name=name, is_default=path == default, exists="," in path or os.path.exists(path)
    )


def _requested_inventory(
    given: str, known: list[ListedInventory], settings: Settings, project: str | None
) -> ListedInventory:
    path = given if "," in given or project is not None else str(resolve(given, settings.playbook_root))
    found = next((entry for entry in known if entry.inventory == path), None)
    return found or _entry(path, os.path.basename(path) or path, _default(settings))
