"""The one way by which a task is started: authorized, recorded and put on the queue, without a Flask request.

The resources that submit use it, and whatever starts tasks by itself: templates, schedules, hooks. A task that cannot
be enqueued is discarded, so that none waits for ever.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flansible.audit.log import AuditEvent
from flansible.authorization import authorize, callbacks, isolation, lost_rights, project_runs, visibility
from flansible.authorization.rules.credential_rules import NO_CREDENTIALS
from flansible.authorization.rules.grants import check_may_act
from flansible.broker import app as broker_app
from flansible.errors import (
    AuditUnavailable,
    BadGateway,
    BrokerUnavailable,
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    StoreUnavailable,
    TooManyRequests,
    Unavailable,
)
from flansible.identity.users import User
from flansible.models import (
    AdhocRequest,
    AuthorizedRun,
    GitRequest,
    Kind,
    Origin,
    PlaybookRequest,
    ProjectRun,
    RunOptions,
    TaskOptions,
    split_principal,
)
from flansible.notifications import callback_secret
from flansible.store import Idempotency
from flansible.web import project_commit
from flansible.web.context import WebContext, from_database
from flansible.web.credential_use import credentials_of
from flansible.web.parsing import validate

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_TEXT = re.compile(r"[\x21-\x7e]{1,255}")
_IN_FLIGHT_SECONDS = 1
_QUEUE_FULL_SECONDS = 10
_MODELS: dict[Kind, type[AdhocRequest | PlaybookRequest | GitRequest]] = {
    "adhoc": AdhocRequest,
    "playbook": PlaybookRequest,
    "git": GitRequest,
}
BY_REQUEST = Origin()
# What a launch raises that may succeed when it is tried again; of Conflict a key that another process uses.
MAY_SUCCEED_LATER = (StoreUnavailable, BrokerUnavailable, AuditUnavailable, Unavailable, BadGateway, Conflict)
# Makes an audit event of a name and fields; that of a request has its address and id (audit_context.event).
MakeEvent = Callable[..., AuditEvent]


@dataclass(frozen=True)
class Launched:
    """A task that was started. is_replay: by an earlier request with the same idempotency key; project: that of the
    request."""

    task_id: str
    is_replay: bool = False
    project: ProjectRun | None = None


def background_event(user: str, what: str) -> MakeEvent:
    """Returns what makes the audit events of something that no request has caused. what: such as `schedule nightly`."""

    def make(name: str, **fields: Any) -> AuditEvent:
        return AuditEvent(name, **{"user": user, **fields}, request=what)

    return make


def parse_request(kind: Kind, document: dict[str, Any], where: str = "") -> AdhocRequest | PlaybookRequest | GitRequest:
    """Parses the body of a request of this kind. where: its place in a body. Raises InvalidRequest."""
    return validate(_MODELS[kind], document, where)


def authorize_request(context: WebContext, user: User, body: TaskOptions, *, is_preview: bool = False) -> AuthorizedRun:
    """Authorizes a request by the rights of a user. Raises Forbidden, InvalidRequest, NotFound.

    With a project also BadGateway and Unavailable: a worker finds its commit, within an app context.
    """
    settings = context.settings
    if body.callback is not None:
        callbacks.check(body.callback.url, settings.callback_host_list)
        if context.deliveries is None:
            message = "This service has no database, which callbacks need. An operator has to set DATABASE_URL."
            raise Unavailable(message, code="no_database")
        if body.callback.credential is not None:
            check_may_act(user)
            callback_secret.find(from_database(context.credentials, "credentials"), user, body.callback.credential)
    confined = isolation.for_user(user, settings.isolation)
    used = credentials_of(context, user, body) if isinstance(body, RunOptions) else NO_CREDENTIALS
    if isinstance(body, AdhocRequest | PlaybookRequest) and body.project is not None:
        project, opened = project_commit.find(user, body.project, body.ref, body.queue)
        if isinstance(body, AdhocRequest):
            run = project_runs.authorize_adhoc(user, body, project, settings, confined, used)
        else:
            run = project_runs.authorize_playbook(user, body, project, settings, confined, used)
        return project_commit.with_secrets(run, opened())
    if isinstance(body, AdhocRequest):
        return authorize.authorize_adhoc(user, body, settings, confined, used)
    if isinstance(body, PlaybookRequest):
        return authorize.authorize_playbook(user, body, settings, confined, used, is_preview=is_preview)
    assert isinstance(body, GitRequest)
    return authorize.authorize_git(user, body, settings)


def launch_request(
    context: WebContext,
    user: User,
    kind: Kind,
    document: dict[str, Any],
    event: MakeEvent,
    origin: Origin = BY_REQUEST,
    key: str | None = None,
) -> Launched:
    """Starts what a body asks for, exactly as its POST does. user: as rbac.json is now; key: an idempotency key.

    Raises InvalidRequest, Forbidden, NotFound, Conflict, TooManyRequests, StoreUnavailable, BrokerUnavailable,
    AuditUnavailable.
    """
    body = parse_request(kind, document)
    run = authorize_request(context, user, body).model_copy(update={"origin": origin})
    return submit(context, run, user, event, idempotency(context, key, run, body))


def submit(
    context: WebContext, run: AuthorizedRun, judged: User, event: MakeEvent, idempotency: Idempotency | None = None
) -> Launched:
    """Records an authorized run and puts it on the queue. judged: the user by whose rights it was authorized."""
    task_id = str(uuid.uuid4())
    store = context.store
    run = _seen(context, run)
    # The record comes before the message: a worker that gets the message at once must find it.
    sealed = context.sealer.seal(run.secrets) if run.secrets else b""
    # The audit line comes first: nothing ever runs without one. If the submission then fails, another line with this
    # request's id says so.
    context.audit.write(event("submission", what=_allowed(run), outcome="allowed", task_id=task_id))
    try:
        submitted = store.submit(task_id, run, sealed, idempotency)
    except StoreUnavailable:
        context.failed_submissions.add(task_id)
        raise
    if submitted.outcome == "full":
        message = f"You have {run.max_queued} queued tasks, which is your limit. Try again when some have started."
        raise TooManyRequests(message, code="too_many_queued", retry_after_seconds=_QUEUE_FULL_SECONDS)
    if submitted.outcome == "conflict":
        message = f"This {IDEMPOTENCY_KEY} was used for another request within the last 24 hours. Use a new one."
        raise Conflict(message, code="idempotency_key_reused")
    if submitted.outcome == "in_flight":
        message = f"A request with this {IDEMPOTENCY_KEY} is being processed. Try again in a moment."
        raise Conflict(message, code="idempotency_key_in_flight", retry_after_seconds=_IN_FLIGHT_SECONDS)
    if submitted.outcome == "submitted":
        try:
            _check_again(context, run, judged)
            broker_app.enqueue(task_id, run.summary, queue=run.queue)
        except (BrokerUnavailable, Forbidden):
            context.failed_submissions.discard(task_id)
            raise
        context.failed_submissions.note_sent(task_id)
    if submitted.outcome == "unsent":
        broker_app.enqueue(submitted.task_id, run.summary, queue=run.queue)
        context.failed_submissions.note_sent(submitted.task_id)
    if submitted.outcome in ("known", "unsent"):
        context.audit.note(event("submission", outcome="known already", task_id=submitted.task_id))
    return Launched(submitted.task_id, is_replay=submitted.outcome != "submitted", project=run.project)


def check_key(key: str | None) -> str | None:
    """Returns a client's idempotency key. Raises InvalidRequest for one of another form."""
    if key is not None and not _KEY_TEXT.fullmatch(key):
        message = "must be 1 to 255 printable ASCII characters without spaces"
        raise InvalidRequest(
            f"{IDEMPOTENCY_KEY} {message}", code="invalid_header", errors=[FieldError(IDEMPOTENCY_KEY, message)]
        )
    return key


def idempotency(context: WebContext, key: str | None, run: AuthorizedRun, body: TaskOptions) -> Idempotency | None:
    """Returns a key and a digest of the request, which detect a repetition.

    A key of the service's own has a space in it, which no client's has, and stands for the request by itself.
    """
    if key is None:
        return None
    canonical = json.dumps([run.kind, body.model_dump(mode="json", exclude_unset=True)], sort_keys=True)
    if run.origin.template is not None:
        canonical = f"{run.origin.template} {canonical}"
    digest = context.sealer.digest((key if " " in key else canonical).encode())
    return Idempotency(sha256(key.encode()).hexdigest(), digest)


def _seen(context: WebContext, run: AuthorizedRun) -> AuthorizedRun:
    """Records which entries of rbac.json see the task."""
    if run.visibility is None:
        return run
    entries = visibility.entries_that_see(run.visibility, context.rbac.users().values())
    return run.model_copy(update={"visibility": run.visibility.model_copy(update={"entries": entries})})


def _allowed(run: AuthorizedRun) -> str:
    group = split_principal(run.principal)[1]
    by = [f"by group {group}"] if group else []
    if run.origin.template is not None:
        by = [f"from template {run.origin.template} with the rights of {run.rights_user}", *by]
    by += [f"with credentials {', '.join(run.credentials)}"] if run.credentials else []
    return f"{run.summary} ({', '.join(by)})" if by else run.summary


def _check_again(context: WebContext, run: AuthorizedRun, judged: User) -> None:
    """Raises Forbidden when the user's entry in rbac.json has changed since the login, and refuses the run now.

    Called when the task is recorded: what a change after this refuses is found there (flansible.web.rights_watcher).
    """
    user = context.rbac.users().get(run.rights_user)
    if user != judged:
        lost_rights.check(user, run, context.settings)
