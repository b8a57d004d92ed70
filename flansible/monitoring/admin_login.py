"""Verifies admin's password for Flower, with the login throttle, counters and audit log of the API.

Called by flansible.monitoring.flower for each request, in the Flower process. A password that is tried here and at the
API is counted once, in Redis: neither is a way round the other's limit.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import replace

from flansible.audit.log import Audit, AuditEvent
from flansible.audit.throttle import AuditThrottle
from flansible.config import Settings
from flansible.errors import TooManyRequests
from flansible.identity.users import ADMIN, RbacFile
from flansible.store import LoginLimits, LoginThrottle, Store

log = logging.getLogger(__name__)

_STANDARD_OUTPUT = 1


class AdminLogin:
    """Whether a request has admin's password. Safe between threads."""

    def __init__(self, users: RbacFile, store: Store, settings: Settings) -> None:
        self._users = users
        self._throttle = LoginThrottle(store, LoginLimits.for_pair(settings.login_failures))
        copy_to = _STANDARD_OUTPUT if settings.audit_stdout else None
        self.audit = Audit(settings.audit_file, settings.secret_key_file, copy_to)
        self._audit_throttle = AuditThrottle()

    def is_admin(self, header: str, address: str, request: str) -> bool:
        """Verifies an Authorization header. request: method and path. Raises TooManyRequests.

        Other users are refused without a check: Flower is no place to try their passwords.
        """
        given = _credentials(header)
        attempt = _Attempt(self, given[0] if given else "", address, request)
        if given is None or given[0] != ADMIN:
            attempt.audit_failure("password" if given else "Authorization")
            return False
        user = self._users.authenticate(*given, attempt)
        return user is not None and user.is_admin

    def locked_seconds(self, name: str, address: str) -> int:
        return self._throttle.locked_seconds(name, address)

    def count_failure(self, name: str, address: str) -> bool:
        return self._throttle.record_failure(name, address)

    def note_throttled(self, event: AuditEvent) -> None:
        """Writes an audit line, rate-limited by address."""
        omitted = self._audit_throttle.admit(event.address, event.event)
        if omitted is not None:
            self.audit.note(replace(event, omitted=omitted))

    def loggable_name(self, name: str) -> str:
        return self.audit.loggable_name(name, self._users.users())


class _Attempt:
    """One attempt, as the PasswordThrottle that identity.users calls."""

    def __init__(self, login: AdminLogin, name: str, address: str, request: str) -> None:
        self._login = login
        self._name = name
        self._address = address
        self._request = request

    def check(self) -> None:
        if seconds := self._login.locked_seconds(self._name, self._address):
            message = f"Too many wrong passwords. Try again in {seconds} seconds."
            raise TooManyRequests(message, code="too_many_logins", retry_after_seconds=seconds)

    def record_failure(self) -> None:
        self.audit_failure("password")
        if self._login.count_failure(self._name, self._address):
            self._login.audit.note(self._event("login_locked", "too_many_logins"))

    def audit_failure(self, what: str) -> None:
        log.warning("refused a login to Flower from %s", self._address)
        self._login.note_throttled(replace(self._event("login_failure", "not_authenticated"), what=what))

    def _event(self, name: str, code: str) -> AuditEvent:
        return AuditEvent(
            name,
            user=self._login.loggable_name(self._name) if self._name else "",
            address=self._address,
            request=self._request,
            outcome="refused",
            code=code,
        )


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon else None
