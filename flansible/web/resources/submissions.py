"""The resources that submit a task: `ansiblecommand`, `ansibleplaybook`, `git`. Each replies 202."""

from __future__ import annotations

from flask import Response, jsonify, request, url_for

from flansible.models import Accepted, AdhocRequest, GitRequest, PlaybookRequest, TaskOptions
from flansible.web import serialization, task_launch
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import parse_body
from flansible.web.task_launch import IDEMPOTENCY_KEY, Launched


class AnsibleCommand(PrivateResource):
    """Run one module on the hosts of a pattern, as the `ansible` command does."""

    def post(self) -> Response:
        """Start an ad-hoc command"""
        return _submit(parse_body(AdhocRequest))


class AnsiblePlaybook(PrivateResource):
    """Run playbooks of a directory, as the `ansible-playbook` command does there."""

    def post(self) -> Response:
        """Start a playbook"""
        return _submit(parse_body(PlaybookRequest))


class Git(PrivateResource):
    """Update a Git checkout from its remote."""

    def post(self) -> Response:
        """Update a checkout"""
        return _submit(parse_body(GitRequest))


def _submit(body: TaskOptions) -> Response:
    context, user = web_context(), current_user()
    run = task_launch.authorize_request(context, user, body)
    key = task_launch.check_key(request.headers.get(IDEMPOTENCY_KEY))
    idempotency = task_launch.idempotency(context, key, run, body)
    return accepted(task_launch.submit(context, run, user, audit_context.event, idempotency))


def accepted(launched: Launched) -> Response:
    """Makes the reply of a submission."""
    commit, warning = (launched.project.commit, launched.project.remark) if launched.project else (None, None)
    if launched.is_replay and commit is not None:
        # The ref may have moved since the first request.
        known = web_context().store.task(launched.task_id)
        commit, warning = known.commit if known else None, None
    found = Accepted(
        task_id=launched.task_id,
        status_url=url_for("ansibletaskstatus", task_id=launched.task_id),
        output_url=url_for("ansibletaskoutput", task_id=launched.task_id),
        commit=commit,
        warning=warning,
    )
    response = jsonify(serialization.reply_fields(found))
    response.status_code = 202
    response.headers["Location"] = found.status_url
    if launched.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response
