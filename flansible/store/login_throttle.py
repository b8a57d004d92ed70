"""Login throttling per user, per address and per pair, counted in Redis for all web processes and Flower."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from flansible.errors import StoreUnavailable
from flansible.store.logins import LoginFailures, LoginLimits

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_STORE_RETRY_SECONDS = 5.0


class LoginThrottle:
    """Counts wrong passwords and locks further attempts out.

    Used only before a password has to be verified: a password verified before, or a token, never reaches it. Calls of
    webhooks that were found not genuine are counted likewise, apart from logins.
    Throttling is off while Redis is down. Passwords are then verified one at a time, which is the limit that remains,
    and Redis is tried again every five seconds at most, so that a login rarely waits for its timeout.
    """

    def __init__(self, store: LoginFailures, limits: LoginLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._store_down_until = 0.0

    def locked_seconds(self, user: str, address: str) -> int:
        """Returns how long until a password of this user may be tried from this address; 0: now."""
        return self._query(lambda: self._store.login_blocked_seconds(user, address, self._limits), 0)

    def record_failure(self, user: str, address: str) -> bool:
        """Counts a wrong password; returns True when it reached a limit, and so began a lockout."""
        return self._query(lambda: self._store.count_failed_login(user, address, self._limits), False)

    def _query(self, call: Callable[[], Result], default: Result) -> Result:
        if self._limits.per_pair == 0 or self._clock() < self._store_down_until:
            return default
        try:
            return call()
        except StoreUnavailable as error:
            self._store_down_until = self._clock() + _STORE_RETRY_SECONDS
            log.warning("wrong passwords are not counted: %s", error)
            return default
