"""The preview of a request: whether it is allowed, its command line, hosts and play tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Response, jsonify
from pydantic import ValidationError

from flansible.authorization import describe, entries, existence, isolation, preview_request, redaction
from flansible.authorization.rules.paths import readable
from flansible.errors import Forbidden, InvalidRequest, NotFound, RequestError
from flansible.identity.users import User
from flansible.models import (
    AdhocRequest,
    AuthorizedRun,
    ErrorBody,
    ErrorItem,
    PlannedPlay,
    PlaybookRequest,
    PreviewReply,
    PreviewRequest,
    TaskOptions,
)
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import parse_body, validate
from flansible.web.preview_run import PreviewResult, run_preview
from flansible.web.task_launch import authorize_request

_LISTS_ONLY = ("list_hosts", "list_tasks", "list_tags", "syntax_check")


class Preview(PrivateResource):
    """Shows what a request would do under the caller's rights, without doing it.

    Ansible itself finds the hosts and play tasks: it reads inventory and playbooks as the run would, in the same
    sandbox, and executes nothing. The reply waits at most 15 seconds for a worker; without a result `plays` is null
    and `detail` says why. A request that would be refused gets status 200, with the refusal in `refusal`.
    """

    def post(self) -> Response:
        """Preview a request"""
        body = parse_body(PreviewRequest)
        request: AdhocRequest | PlaybookRequest
        if body.kind == "adhoc":
            request = validate(AdhocRequest, body.request, "request")
        else:
            request = validate(PlaybookRequest, body.request, "request")
        user, settings = current_user(), web_context().settings
        confined = isolation.for_user(user, settings.isolation)
        said = describe.sentences(user, confined)
        try:
            run = authorize_request(web_context(), user, request, is_preview=True)
        except (Forbidden, InvalidRequest, NotFound) as refusal:
            audit_context.note_throttled(
                user.name, audit_context.event("preview", outcome="refused", code=refusal.code)
            )
            return jsonify(refused(refusal, said).model_dump(mode="json"))
        audit_context.note_throttled(user.name, audit_context.event("preview", what=run.summary, outcome="allowed"))
        said += describe.allowed_by(user, run.entry)
        return jsonify(of_run(run, request, user, said).model_dump(mode="json"))


def of_run(run: AuthorizedRun, request: TaskOptions, user: User, said: list[str]) -> PreviewReply:
    """Previews an authorized run. user: by whose rights it was authorized; said: sentences about them."""
    assert isinstance(request, AdhocRequest | PlaybookRequest)
    remarks = _remarks(request)
    if run.project is not None:
        remarks += [f"project {run.project.name} at commit {run.project.commit}"]
        remarks += [run.project.remark] if run.project.remark else []
    entry = entries.entry_of(user, run.entry)
    if isinstance(request, PlaybookRequest) and entry is not None and run.project is None:
        confined = isolation.for_user(user, web_context().settings.isolation)
        remarks += _prompt_remarks(request, run.steps[-1].cwd, readable(entry, web_context().settings, confined))
    return _answer(run, remarks, said, run_preview(preview_request.preview_of(run, "plan")))


def refused(refusal: RequestError, said: list[str]) -> PreviewReply:
    items = [ErrorItem(field=item.field, message=item.message) for item in refusal.errors]
    reason = ErrorBody(message=refusal.message, code=refusal.code, errors=items)
    return PreviewReply(allowed=False, refusal=reason, rights=said, detail="it would be refused")


def _answer(run: AuthorizedRun, remarks: list[str], said: list[str], preview: PreviewResult) -> PreviewReply:
    reply = PreviewReply(
        allowed=True,
        command=redaction.command(run),
        rights=said,
        messages=[*remarks, *preview.messages],
        detail=preview.detail,
    )
    if preview.content is None:
        return reply
    try:
        plays = [PlannedPlay.model_validate(play) for play in preview.content["plays"]]
    except (KeyError, TypeError, ValidationError):
        return reply.model_copy(update={"detail": "the preview run returned invalid data"})
    hosts = sorted({host for play in plays for host in play.hosts})
    more = [f"{preview.content['includes']} play tasks include others, which are known only during the run"]
    nowhere = [] if hosts else ["no hosts matched: the run would do nothing"]
    messages = [*nowhere, *reply.messages, *(more if preview.content.get("includes") else ())]
    return reply.model_copy(update={"plays": plays, "hosts": hosts, "messages": messages})


def _remarks(request: AdhocRequest | PlaybookRequest) -> list[str]:
    """Lists the ways in which the run will differ from its preview."""
    lists_only = any(getattr(request, name, False) for name in _LISTS_ONLY)
    remarks = {
        "update_git_repo: the preview does not pull; what the pull brings may change hosts and play tasks": (
            getattr(request, "update_git_repo", False)
        ),
        "start_at_task: the play tasks before it are listed too": getattr(request, "start_at_task", None),
        "the request is for a list or a syntax check: it will execute none of this": lists_only,
        "secret_vars: passed to the run encrypted, and not on its command line": request.secret_vars,
    }
    return [text for text, holds in remarks.items() if holds]


def _prompt_remarks(request: PlaybookRequest, cwd: str, may_read: Callable[[Path], bool]) -> list[str]:
    """Names the prompts that nobody would answer."""
    refused = "" if request.allow_missing else "; without a value the request is refused"
    return [
        f"{prompt.name} has no value: play {prompt.play} prompts for it, without a default, and a run has no terminal"
        + (refused if prompt.private else "")
        for prompt in existence.unanswered_prompts(request, Path(cwd), request.playbooks, may_read)
    ]
