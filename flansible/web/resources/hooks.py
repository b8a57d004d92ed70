"""Webhooks that start something: the calls of forges and other services, the log of them, and calling again."""

from __future__ import annotations

import re
from functools import partial

from flask import Response, jsonify, request, url_for
from flask_restful import Resource
from pydantic import BaseModel, ConfigDict, Field

from flansible.authorization.rules.grants import check_may_act
from flansible.errors import Forbidden, NotFound
from flansible.history.hook_call_rows import IGNORED, STARTED, HookCallRows, StoredHookCall
from flansible.hooks.callers import Call
from flansible.identity.users import User
from flansible.models.definition_specs import NAME_PATTERN
from flansible.models.hook_specs import HookCall, HookCallList, HookReply
from flansible.system.timestamps import from_milliseconds
from flansible.web import hook_calls, serialization, task_launch
from flansible.web.context import from_database, web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_query, read_public_body, require_no_body
from flansible.web.resources.schedules import RunQuery

_ID = re.compile(r"call_[0-9a-f]{32}")
_SAME_FIELDS = ("webhook", "address", "sender_id", "event", "ref", "commit", "outcome", "reason", "merged_into")


class HookCallQuery(BaseModel):
    """`?limit=&before=&webhook=` of the calls."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Calls per page.")
    before: int | None = Field(None, ge=0, le=2**53 - 1, description="Cursor: `next_before` of the page before.")
    webhook: str | None = Field(None, min_length=1, max_length=100, description="Only those of this webhook.")


class Hook(Resource):  # type: ignore[misc]
    """Call a webhook, as a forge or another service does: no login, but the secret of its definition.

    The signature is over the raw body. 202 with the task that was started, or with the call where it waits for others
    (`debounce`); 200 with the condition that does not hold; a delivery that is repeated within 24 hours is answered
    with the same.
    """

    def post(self, name: str) -> Response:
        """Call a webhook"""
        address = request.remote_addr or ""
        call = Call({name.lower(): value for name, value in request.headers.items()}, read_public_body())
        found, spec = hook_calls.find(web_context(), name if re.fullmatch(NAME_PATTERN, name) else "", call, address)
        audit_context.set_user(found.owner, "")
        event = partial(audit_context.event, user=found.owner)
        taken = hook_calls.HookCalls(web_context(), found, spec).take(call, address, event)
        return _answer(taken)


class HookCallLog(PrivateResource):
    """The calls of the caller's webhooks, newest first; of all users' for admin and auditors. Kept for 30 days."""

    def get(self) -> Response:
        """List calls of webhooks"""
        query, user = parse_query(HookCallQuery), current_user()
        if web_context().hook_calls is None:
            return jsonify({"items": [], "next_before": None})
        owner = None if user.sees_all else user.name
        found = _rows().page(owner, query.before, query.limit + 1, query.webhook)
        shown = found[: query.limit]
        next_before = shown[-1].number if len(found) > query.limit else None
        page = HookCallList(items=[_fields(one) for one in shown], next_before=next_before)
        response = jsonify(page.model_dump(mode="json"))
        if next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=next_before))
        return response


class OneHookCall(PrivateResource):
    """One call of a webhook."""

    def get(self, call_id: str) -> Response:
        """Read a call of a webhook"""
        parse_query(NoFields)
        return jsonify(_fields(_find(call_id, current_user())).model_dump(mode="json"))


class HookCallAgain(PrivateResource):
    """Start the template of a call once more, with the values that were sent then; at once, if it waits."""

    def post(self, call_id: str) -> Response:
        """Call again"""
        query = parse_query(RunQuery)
        require_no_body()
        user = current_user()
        call = _find(call_id, user)
        check_may_act(user)
        webhook = hook_calls.of_call(web_context(), call)
        if not user.is_admin and webhook.owner != user.name:
            raise Forbidden("This webhook belongs to another user now.", code="not_owner")
        key = task_launch.check_key(request.headers.get(task_launch.IDEMPOTENCY_KEY))
        is_meant = query.during_freeze or user.is_admin
        launched = webhook.launch(call, key, audit_context.event, during_freeze=is_meant)
        _rows().settle(call_id, STARTED, launched.task_id)
        return _accepted(_started(launched.task_id))


def _rows() -> HookCallRows:
    return from_database(web_context().hook_calls, "webhooks")


def _find(call_id: str, user: User) -> StoredHookCall:
    rows = _rows()
    found = rows.get(call_id) if _ID.fullmatch(call_id) else None
    if found is None or not (user.sees_all or found.owner == user.name):
        raise NotFound("There is no such call.", code="call_not_found")
    return found


def _answer(taken: StoredHookCall) -> Response:
    if taken.task is not None:
        return _accepted(_started(taken.task))
    if taken.outcome == IGNORED:
        return jsonify(serialization.reply_fields(HookReply(ignored=taken.reason)))
    url = url_for("hook_call", call_id=taken.id)
    return _accepted(HookReply(call_id=taken.id, call_url=url, starts_at=_starts_at(taken)))


def _started(task_id: str) -> HookReply:
    return HookReply(task_id=task_id, status_url=url_for("ansibletaskstatus", task_id=task_id))


def _accepted(reply: HookReply) -> Response:
    response = jsonify(serialization.reply_fields(reply))
    response.status_code = 202
    return response


def _fields(found: StoredHookCall) -> HookCall:
    return HookCall.model_validate(
        {
            **{name: getattr(found, name) for name in _SAME_FIELDS},
            "call_id": found.id,
            "received_at": from_milliseconds(found.received),
            "starts_at": _starts_at(found),
            "task_id": found.task,
        }
    )


def _starts_at(found: StoredHookCall) -> str | None:
    return None if found.due is None else from_milliseconds(found.due)
