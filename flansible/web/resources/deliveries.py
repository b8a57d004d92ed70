"""Deliveries of notifications: what was sent to whom, what is tried again, and sending it once more."""

from __future__ import annotations

import re
import time
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from flansible.authorization.rules.grants import check_may_act
from flansible.errors import NotFound
from flansible.history.delivery_rows import PENDING, DeliveryRows, StoredDelivery
from flansible.identity.users import User
from flansible.models.notification_specs import DeliveryFields, DeliveryList, DeliveryState
from flansible.notifications.recipients import CALLBACK, KIND, LATE_PREFIX
from flansible.system.timestamps import from_milliseconds
from flansible.web import serialization
from flansible.web.context import definitions_of, from_database, web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_query, require_no_body

_ID = re.compile(r"msg_[0-9a-f]{32}")


class DeliveryQuery(BaseModel):
    """`?limit=&before=&notification=&state=` of the deliveries."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Deliveries per page.")
    before: int | None = Field(None, ge=0, le=2**53 - 1, description="Cursor: `next_before` of the page before.")
    notification: str | None = Field(None, min_length=1, max_length=100, description="Only those of this notification.")
    state: DeliveryState | None = Field(None, description="Only those in this state.")


class Deliveries(PrivateResource):
    """The deliveries of the caller's notifications and callbacks, newest first; of all users' for admin and auditors.

    They are kept for 30 days.
    """

    def get(self) -> Response:
        """List deliveries"""
        query, user = parse_query(DeliveryQuery), current_user()
        if web_context().deliveries is None:
            return jsonify({"items": [], "next_before": None})
        owner = None if user.sees_all else user.name
        found = _rows().page(owner, query.before, query.limit + 1, query.notification, query.state)
        shown = found[: query.limit]
        next_before = shown[-1].number if len(found) > query.limit else None
        page = DeliveryList(items=[_fields(one) for one in shown], next_before=next_before)
        response = jsonify(page.model_dump(mode="json"))
        if next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=next_before))
        return response


class Delivery(PrivateResource):
    """One delivery, with its attempts."""

    def get(self, delivery_id: str) -> Response:
        """Read a delivery"""
        parse_query(NoFields)
        return jsonify(_fields(_find(delivery_id, current_user())).model_dump(mode="json"))


class Redeliver(PrivateResource):
    """Send a delivery once more, with the same id, and try it for a day again if need be."""

    def post(self, delivery_id: str) -> Response:
        """Deliver again"""
        parse_query(NoFields)
        require_no_body()
        user = current_user()
        found = _find(delivery_id, user)
        check_may_act(user)
        _check_notification(found)
        what = f"{found.notification or found.kind} {found.event}"
        event = audit_context.event("redelivery", what=what, outcome="allowed", task_id=found.task_id)
        web_context().audit.write(event)
        _rows().redeliver(delivery_id, time.time_ns() // 1_000_000)
        web_context().store.wake_dispatcher()
        shown = _fields(found).model_copy(update={"state": PENDING})
        response = jsonify(shown.model_dump(mode="json"))
        response.status_code = 202
        return response


def _rows() -> DeliveryRows:
    return from_database(web_context().deliveries, "deliveries")


def _find(delivery_id: str, user: User) -> StoredDelivery:
    """Raises the same NotFound for another user's delivery and for none."""
    rows = _rows()
    found = rows.get(delivery_id) if _ID.fullmatch(delivery_id) else None
    if found is None or not (user.sees_all or found.owner == user.name):
        raise NotFound("There is no such delivery.", code="delivery_not_found")
    return found


def _check_notification(found: StoredDelivery) -> None:
    """Raises NotFound where its notification is gone: one of the same name may be another user's."""
    if found.kind == CALLBACK:
        return
    notification = definitions_of(web_context()).find(KIND, found.notification)
    if notification is None or notification.owner != found.owner:
        message = "The notification of this delivery was deleted, or is another user's now."
        raise NotFound(message, code="definition_not_found")


def _fields(found: StoredDelivery) -> DeliveryFields:
    attempts: list[dict[str, Any]] = found.attempts
    return DeliveryFields.model_validate(
        {
            "delivery_id": found.id,
            "notification": found.notification or None,
            "kind": found.kind,
            "task_id": "" if found.task_id.startswith(LATE_PREFIX) else found.task_id,
            "event": found.event,
            "state": found.state,
            "created_at": from_milliseconds(found.created),
            "next_at": from_milliseconds(found.next) if found.state == PENDING else None,
            "attempts": attempts,
        }
    )
