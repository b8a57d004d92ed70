"""The notifications and callbacks that an entry of the outbox is for, and the deliveries that are made of it."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from flansible.authorization import visibility
from flansible.errors import RecordUnreadable, SealError
from flansible.history.definition_rows import DefinitionRows, StoredDefinition
from flansible.history.delivery_rows import NewDelivery
from flansible.history.merged_records import Records
from flansible.identity.users import User
from flansible.models import TaskStatus
from flansible.models.event_names import ENDS, EventName
from flansible.models.notification_specs import NotificationSpec
from flansible.notifications import content, matching
from flansible.sealing import Sealer
from flansible.store import LateSchedule, OutboxEntry

log = logging.getLogger(__name__)

KIND = "notifications"
CALLBACK = "callback"
LATE_PREFIX = "schedule:"  # in place of a task
_LATE: EventName = "schedule_late"
_PAGE = 200


@dataclass(frozen=True)
class Notification:
    """A definition as it is used: with its sealed fields."""

    name: str
    owner: str
    spec: NotificationSpec


class Notifications:
    """Reads the definitions. Every method raises HistoryUnavailable."""

    def __init__(self, rows: DefinitionRows, sealer: Sealer) -> None:
        self._rows = rows
        self._sealer = sealer

    def all(self) -> list[Notification]:
        found: list[Notification] = []
        after = ""
        while page := self._rows.page(KIND, after, _PAGE):
            found += [one for row in page if (one := self._opened(row)) is not None]
            after = page[-1].name
        return found

    def get(self, name: str) -> Notification | None:
        row = self._rows.get(KIND, name)
        return None if row is None else self._opened(row)

    def _opened(self, row: StoredDefinition) -> Notification | None:
        try:
            sealed = json.loads(self._sealer.decrypt(row.sealed)) if row.sealed else {}
            return Notification(row.name, row.owner, NotificationSpec.model_validate({**row.spec, **sealed}))
        except (SealError, ValidationError) as error:
            log.error("notifications/%s cannot be used: %s", row.name, type(error).__name__)
            return None


class Recipients:
    """Makes deliveries. users: of the present rbac.json; base_url: the service's, for links."""

    def __init__(self, store: Records, users: Callable[[], Mapping[str, User]], base_url: str) -> None:
        self._store = store
        self._users = users
        self._base_url = base_url

    def deliveries(self, entry: OutboxEntry, notifications: list[Notification]) -> list[NewDelivery]:
        """Returns what is to be sent because of an entry. Raises StoreUnavailable."""
        if entry.schedule is not None:
            return list(self._of_late(entry, entry.schedule, notifications))
        try:
            task = self._store.task(entry.task_id)
            if task is None:
                log.info("nobody is notified of task %s: its record is gone", entry.task_id)
                return []
            return [*self._of_notifications(entry, task, notifications), *self._of_callback(entry, task)]
        except RecordUnreadable as error:
            log.warning("nobody is notified of it: %s", error)
            return []

    def _of_notifications(
        self, entry: OutboxEntry, task: TaskStatus, notifications: list[Notification]
    ) -> Iterator[NewDelivery]:
        events, users = _events(entry, task), self._users()
        for one in notifications:
            owner = users.get(one.owner)
            # By the rights of now: who may not see a task any more is told nothing of it.
            if owner is None or not visibility.may_see(owner, task) or not matching.matches(one.spec.match, task):
                continue
            quiet = matching.end_of_quiet(one.spec.quiet_hours, datetime.now(UTC))
            for event in (event for event in events if event in one.spec.on):
                body = self._body(task, event, entry.at, tuple(one.spec.include))
                due = int(quiet.timestamp() * 1000) if quiet else entry.at
                names = (one.name, one.spec.kind, one.owner, f"{KIND}/{one.name}")
                yield _delivery(entry, event, names, {"body": body}, due)

    def _of_late(
        self, entry: OutboxEntry, late: LateSchedule, notifications: list[Notification]
    ) -> Iterator[NewDelivery]:
        body = content.of_late_schedule(late, entry.at, self._base_url)
        for one in notifications:
            owner = self._users().get(one.owner)
            if owner is None or not (owner.sees_all or owner.name == late.owner) or _LATE not in one.spec.on:
                continue
            if matching.matches_late(one.spec.match, late.template):
                names = (one.name, one.spec.kind, one.owner, f"{KIND}/{one.name}")
                found = replace(entry, task_id=f"{LATE_PREFIX}{late.name}:{late.due}")
                yield _delivery(found, _LATE, names, {"body": body}, entry.at)

    def _of_callback(self, entry: OutboxEntry, task: TaskStatus) -> Iterator[NewDelivery]:
        run = self._store.authorized_run(entry.task_id) if entry.has_callback else None
        callback: Any = run.request.get(CALLBACK) if run is not None else None
        if run is None or not callback:
            return
        for event in (event for event in _events(entry, task) if event in callback.get("on", ENDS)):
            body = self._body(task, event, entry.at, ())
            receiver = f"{CALLBACK}/{urlsplit(callback['url']).netloc}"
            payload = {"body": body, "url": callback["url"]}
            if name := callback.get("credential"):
                payload |= {"credential": name, "rights_user": run.rights_user}
            yield _delivery(entry, event, ("", CALLBACK, task.user, receiver), payload, entry.at)

    def _body(self, task: TaskStatus, event: EventName, at: int, include: tuple[str, ...]) -> dict[str, Any]:
        return content.payload(self._store, task, event, at, self._base_url, include)


def _events(entry: OutboxEntry, task: TaskStatus) -> list[EventName]:
    if entry.event == "started":
        return ["started"]
    return list(matching.events_of_end(task, entry.state, entry.previous))


def _delivery(
    entry: OutboxEntry, event: EventName, names: tuple[str, str, str, str], payload: dict[str, Any], due: int
) -> NewDelivery:
    """names: of the notification, its kind, its owner and the receiver."""
    notification, kind, owner, receiver = names
    return NewDelivery(
        id=f"msg_{uuid.uuid4().hex}",
        task_id=entry.task_id,
        notification=notification,
        event=event,
        kind=kind,
        owner=owner,
        receiver=receiver,
        payload=json.dumps(payload),
        next=due,
        created=entry.at,
    )
