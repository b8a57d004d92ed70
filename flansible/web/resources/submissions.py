"""The resources that submit a task: `ansiblecommand`, `ansibleplaybook`, `git`.

Each authorizes, records and enqueues the task, and replies 202. A task that cannot be enqueued is discarded, so that
none waits for ever.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from hashlib import sha256

from flask import Response, jsonify, request, url_for

from flansible.authorization import authorize, isolation, lost_rights, project_runs, visibility
from flansible.broker import app as broker_app
from flansible.errors import (
    BrokerUnavailable,
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    StoreUnavailable,
    TooManyRequests,
)
from flansible.models import (
    Accepted,
    AdhocRequest,
    AuthorizedRun,
    GitRequest,
    PlaybookRequest,
    TaskOptions,
    split_principal,
)
from flansible.store import Idempotency
from flansible.web import project_commit, serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import parse_body

_KEY = "Idempotency-Key"
_KEY_TEXT = re.compile(r"[\x21-\x7e]{1,255}")
_IN_FLIGHT_SECONDS = 1
_QUEUE_FULL_SECONDS = 10


class AnsibleCommand(PrivateResource):
    """Run one module on the hosts of a pattern, as the `ansible` command does."""

    def post(self) -> Response:
        """Start an ad-hoc command"""
        body = parse_body(AdhocRequest)
        user, settings = current_user(), web_context().settings
        confined = isolation.for_user(user, settings.isolation)
        if body.project is not None:
            project, secrets = project_commit.find(user, body.project, body.ref)
            run = project_runs.authorize_adhoc(user, body, project, settings, confined)
            return _submit(project_commit.with_secrets(run, secrets), body)
        return _submit(authorize.authorize_adhoc(user, body, settings, confined), body)


class AnsiblePlaybook(PrivateResource):
    """Run playbooks of a directory, as the `ansible-playbook` command does there."""

    def post(self) -> Response:
        """Start a playbook"""
        body = parse_body(PlaybookRequest)
        user, settings = current_user(), web_context().settings
        confined = isolation.for_user(user, settings.isolation)
        if body.project is not None:
            project, secrets = project_commit.find(user, body.project, body.ref)
            run = project_runs.authorize_playbook(user, body, project, settings, confined)
            return _submit(project_commit.with_secrets(run, secrets), body)
        return _submit(authorize.authorize_playbook(user, body, settings, confined), body)


class Git(PrivateResource):
    """Update a Git checkout from its remote."""

    def post(self) -> Response:
        """Update a checkout"""
        body = parse_body(GitRequest)
        return _submit(authorize.authorize_git(current_user(), body, web_context().settings), body)


def _submit(run: AuthorizedRun, body: TaskOptions) -> Response:
    idempotency = _idempotency(run, body)
    task_id = str(uuid.uuid4())
    store = web_context().store
    run = _seen(run)
    # The record comes before the message: a worker that gets the message at once must find it.
    sealed = web_context().sealer.seal(run.secrets) if run.secrets else b""
    # The audit line comes first: nothing ever runs without one. If the submission then fails, another line with this
    # request's id says so.
    web_context().audit.write(audit_context.event("submission", what=_allowed(run), outcome="allowed", task_id=task_id))
    try:
        submitted = store.submit(task_id, run, sealed, idempotency)
    except StoreUnavailable:
        web_context().failed_submissions.add(task_id)
        raise
    if submitted.outcome == "full":
        message = f"You have {run.max_queued} queued tasks, which is your limit. Try again when some have started."
        raise TooManyRequests(message, code="too_many_queued", retry_after_seconds=_QUEUE_FULL_SECONDS)
    if submitted.outcome == "conflict":
        message = f"This {_KEY} was used for another request within the last 24 hours. Use a new one."
        raise Conflict(message, code="idempotency_key_reused")
    if submitted.outcome == "in_flight":
        message = f"A request with this {_KEY} is being processed. Try again in a moment."
        raise Conflict(message, code="idempotency_key_in_flight", retry_after_seconds=_IN_FLIGHT_SECONDS)
    if submitted.outcome == "submitted":
        try:
            _check_again(run)
            broker_app.enqueue(task_id, run.summary)
        except (BrokerUnavailable, Forbidden):
            web_context().failed_submissions.discard(task_id)
            raise
        with contextlib.suppress(StoreUnavailable):
            store.mark_enqueued(task_id)  # it is on the queue, whether or not this can be recorded
    if submitted.outcome == "known":
        web_context().audit.note(audit_context.event("submission", outcome="known already", task_id=submitted.task_id))
    return _accepted(submitted.task_id, run, is_replay=submitted.outcome == "known")


def _seen(run: AuthorizedRun) -> AuthorizedRun:
    """Records which entries of rbac.json see the task."""
    if run.visibility is None:
        return run
    entries = visibility.entries_that_see(run.visibility, web_context().rbac.users().values())
    return run.model_copy(update={"visibility": run.visibility.model_copy(update={"entries": entries})})


def _allowed(run: AuthorizedRun) -> str:
    group = split_principal(run.principal)[1]
    return f"{run.summary} (by group {group})" if group else run.summary


def _check_again(run: AuthorizedRun) -> None:
    """Raises Forbidden when the user's entry in rbac.json has changed since the login, and refuses the run now.

    Called when the task is recorded: what a change after this refuses is found there (flansible.web.rights_watcher).
    """
    user = web_context().rbac.users().get(run.user)
    if user != current_user():
        lost_rights.check(user, run, web_context().settings)


def _idempotency(run: AuthorizedRun, body: TaskOptions) -> Idempotency | None:
    """Returns the client's key and a digest of the request, which detect a repetition. Raises InvalidRequest."""
    key = request.headers.get(_KEY)
    if key is None:
        return None
    if not _KEY_TEXT.fullmatch(key):
        message = "must be 1 to 255 printable ASCII characters without spaces"
        raise InvalidRequest(f"{_KEY} {message}", code="invalid_header", errors=[FieldError(_KEY, message)])
    canonical = json.dumps([run.kind, body.model_dump(mode="json", exclude_unset=True)], sort_keys=True)
    return Idempotency(sha256(key.encode()).hexdigest(), web_context().sealer.digest(canonical.encode()))


def _accepted(task_id: str, run: AuthorizedRun, is_replay: bool) -> Response:
    commit, warning = (run.project.commit, run.project.remark) if run.project else (None, None)
    if is_replay and commit is not None:
        # The ref may have moved since the first request.
        known = web_context().store.task(task_id)
        commit, warning = known.commit if known else None, None
    accepted = Accepted(
        task_id=task_id,
        status_url=url_for("ansibletaskstatus", task_id=task_id),
        output_url=url_for("ansibletaskoutput", task_id=task_id),
        commit=commit,
        warning=warning,
    )
    response = jsonify(serialization.reply_fields(accepted))
    response.status_code = 202
    response.headers["Location"] = accepted.status_url
    if is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response
