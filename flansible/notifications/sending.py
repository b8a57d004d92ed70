"""Sends one delivery once, by what its definition says now, and decides what becomes of it."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from flansible.authorization.callbacks import is_host_allowed
from flansible.authorization.notification_rights import needs_admin
from flansible.config import Settings
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import DeliveryFailed, DeliveryRefused, RequestError, SealError, StoreUnavailable, Unavailable
from flansible.history.delivery_rows import DEAD, DELIVERED, PENDING, AttemptOutcome, StoredDelivery
from flansible.identity.users import User
from flansible.models.notification_specs import NotificationSpec
from flansible.notifications import apprise_sender, callback_secret, content, mail_sender, webhook_sender
from flansible.notifications.recipients import CALLBACK, Notifications
from flansible.system.timestamps import from_milliseconds

log = logging.getLogger(__name__)

# Seconds between the attempts: the last one is a day after the first.
PAUSES = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 36000)
_JITTER = 0.1
_UNEXPECTED = "an error inside Flansible; the log of the web server has it"


class Sender:
    """users: of the present rbac.json; credentials: that sign callbacks."""

    def __init__(
        self,
        notifications: Notifications,
        credentials: Credentials,
        users: Callable[[], Mapping[str, User]],
        settings: Settings,
    ) -> None:
        self._notifications = notifications
        self._credentials = credentials
        self._users = users
        self._settings = settings

    def attempt(self, delivery: StoredDelivery) -> AttemptOutcome:
        """Tries it once. Raises HistoryUnavailable."""
        began = time.time()
        state, next_at = DELIVERED, 0
        try:
            detail = self._send(delivery)
        except DeliveryRefused as error:
            state, detail = DEAD, str(error)
        except StoreUnavailable:
            raise
        except Exception as error:
            # Whatever else it is: a delivery whose attempts are not counted would be tried for ever.
            detail = str(error) if isinstance(error, DeliveryFailed) else _UNEXPECTED
            if detail == _UNEXPECTED:
                log.exception("delivery %s failed inside Flansible", delivery.id)
            if delivery.attempt_count < len(PAUSES):
                pause = PAUSES[delivery.attempt_count] * random.uniform(1 - _JITTER, 1 + _JITTER)  # nosec B311
                state, next_at = PENDING, int((time.time() + pause) * 1000)
            else:
                state = DEAD
        attempt = {
            "at": from_milliseconds(int(began * 1000)),
            "seconds": round(time.time() - began, 3),
            "ok": state == DELIVERED,
            "detail": detail[:300],
        }
        return AttemptOutcome(state, next_at, attempt)

    def _send(self, delivery: StoredDelivery) -> str:
        payload = json.loads(delivery.payload)
        body: dict[str, Any] = payload["body"]
        if delivery.kind == CALLBACK:
            return self._call_back(delivery.id, payload)
        found = self._notifications.get(delivery.notification)
        if found is None:
            raise DeliveryRefused("the notification was deleted, or cannot be read")
        if found.owner != delivery.owner:
            raise DeliveryRefused("the notification of this name is another user's now")
        owner = self._users().get(found.owner)
        if owner is None:
            raise DeliveryRefused("its owner is not in rbac.json any more")
        if needs_admin(found.spec) and not owner.is_admin:
            raise DeliveryRefused("its owner is not admin any more, as apprise and allow_private need")
        if found.spec.kind == "webhook":
            return _post(delivery.id, body, found.spec)
        if found.spec.kind == "mail":
            return _mail(delivery.id, body, found.spec)
        return apprise_sender.send(found.spec.apprise_url or "", content.sentence(body), content.text(body))

    def _call_back(self, delivery_id: str, payload: dict[str, Any]) -> str:
        url = payload["url"]
        if not is_host_allowed(urlsplit(url).hostname or "", self._settings.callback_host_list):
            raise DeliveryRefused("its host is not in callback_hosts any more")
        allow = self._settings.callback_private
        secrets = self._callback_secrets(payload)
        return webhook_sender.post(webhook_sender.Post(url, delivery_id, _encoded(payload["body"]), secrets, allow))

    def _callback_secrets(self, payload: dict[str, Any]) -> tuple[str, ...]:
        """Returns what signs a callback, by the rights of now: nothing is sent unsigned that was to be signed."""
        if "credential" not in payload:
            return ()
        user = self._users().get(payload["rights_user"])
        if user is None:
            raise DeliveryRefused(f"{payload['rights_user']}, whose credential signs it, is not in rbac.json any more")
        try:
            return (callback_secret.find(self._credentials, user, payload["credential"]),)
        except Unavailable as error:
            raise DeliveryFailed(error.message) from error
        except RequestError as error:
            raise DeliveryRefused(error.message) from error
        except SealError as error:
            raise DeliveryFailed(str(error)) from error


def _post(delivery_id: str, body: dict[str, Any], spec: NotificationSpec) -> str:
    secrets = tuple(secret for secret in (spec.secret, spec.previous_secret) if secret is not None)
    return webhook_sender.post(
        webhook_sender.Post(spec.url or "", delivery_id, _encoded(body), secrets, spec.allow_private)
    )


def _mail(delivery_id: str, body: dict[str, Any], spec: NotificationSpec) -> str:
    login = (spec.smtp_user, spec.smtp_password) if spec.smtp_user and spec.smtp_password else None
    return mail_sender.send(
        mail_sender.Mail(
            delivery_id=delivery_id,
            sender=spec.sender or "",
            to=tuple(spec.to or ()),
            subject=content.sentence(body),
            text=content.text(body),
            host=spec.smtp_host or "",
            port=spec.smtp_port,
            security=spec.smtp_security,
            login=login,
            allow_private=spec.allow_private,
        )
    )


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
