"""The resources that start something: `ansiblecommand`, `ansibleplaybook`, `git`.

Check, record, enqueue, answer 202. What cannot be enqueued is forgotten again, so no task waits for ever.
"""

from __future__ import annotations

import uuid

from flask import Response, jsonify, url_for

from flansible import authorization, celery_app
from flansible.errors import BrokerUnavailable
from flansible.models import Accepted, AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest
from flansible.web.auth import PrivateResource, current_user
from flansible.web.bodies import body
from flansible.web.services import services


class AnsibleCommand(PrivateResource):
    """Run one module on the hosts of a pattern, as the `ansible` command does."""

    def post(self) -> Response:
        """Start an ad-hoc command"""
        return _submit(authorization.authorize_adhoc(current_user(), body(AdhocRequest), services().settings))


class AnsiblePlaybook(PrivateResource):
    """Run playbooks of a directory, as the `ansible-playbook` command does there."""

    def post(self) -> Response:
        """Start a playbook"""
        return _submit(authorization.authorize_playbook(current_user(), body(PlaybookRequest), services().settings))


class Git(PrivateResource):
    """Update a checkout to what its remote has."""

    def post(self) -> Response:
        """Update a checkout"""
        return _submit(authorization.authorize_git(current_user(), body(GitRequest), services().settings))


def _submit(run: AuthorizedRun) -> Response:
    task_id = str(uuid.uuid4())
    store = services().store
    # The record first: a worker that gets the message at once must find it.
    store.submit(task_id, run, services().sealer.seal(run.secrets) if run.secrets else b"")
    try:
        celery_app.enqueue(task_id, run.summary)
    except BrokerUnavailable:
        store.discard(task_id)
        raise
    accepted = Accepted(
        task_id=task_id,
        status_url=url_for("ansibletaskstatus", task_id=task_id),
        output_url=url_for("ansibletaskoutput", task_id=task_id),
    )
    response = jsonify(accepted.model_dump())
    response.status_code = 202
    response.headers["Location"] = accepted.status_url
    return response
