"""The remotes of projects: how the last look at one went, and looking again."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Response, jsonify

from flansible.authorization import project_rights
from flansible.authorization.rules.grants import check_may_act
from flansible.identity.users import User
from flansible.models.project_spec import ProjectRemote
from flansible.store import RemoteState
from flansible.system.timestamps import timestamp
from flansible.web import project_commit
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_query, require_no_body


class ProjectRemoteResource(PrivateResource):
    """The remote of a project, as it was seen last."""

    def get(self, name: str) -> Response:
        """Read how the last look at a project's remote went"""
        parse_query(NoFields)
        _check_readable(current_user(), name)
        return _reply(name, web_context().store.remote_state(name))

    def post(self, name: str) -> Response:
        """Ask a project's remote now

        For the commit of the project's own `ref`. With `refresh: manual` requests run that one from now on.
        """
        parse_query(NoFields)
        require_no_body()
        user = current_user()
        check_may_act(user)
        project_rights.check_use(user, name)
        audit_context.note_throttled(user.name, audit_context.event("project", what=name, outcome="asked"))
        project_commit.refresh(user, name)
        return _reply(name, web_context().store.remote_state(name))


def _check_readable(user: User, name: str) -> None:
    if not user.sees_all:
        project_rights.check_use(user, name)
    project_commit.stored(name)


def _reply(name: str, state: RemoteState | None) -> Response:
    found = state or RemoteState(0.0)
    return jsonify(
        ProjectRemote(
            name=name,
            asked_at=timestamp(datetime.fromtimestamp(found.asked, UTC)) if state else None,
            ref=found.ref or None,
            commit=found.commit or None,
            problem=found.problem or None,
        ).model_dump()
    )
