"""How many wrong passwords there may be: a door for each user, address, and both; Redis counts for all processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from flansible.errors import StoreUnavailable
from flansible.store import LoginLimits, Store

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_AWAY_SECONDS = 5.0


class LoginThrottle:
    """Asked only when a password would have to be checked: one that is known, or a token, costs nothing here.

    While Redis is away all doors stand open: passwords are then checked one at a time and no faster than that, and
    nobody has to wait for Redis more often than every five seconds.
    """

    def __init__(self, store: Store, limits: LoginLimits) -> None:
        self._store = store
        self._limits = limits
        self._away_until = 0.0

    def closed_seconds(self, user: str, address: str) -> int:
        """How long until a password of this user may be tried from this address; 0: now."""
        return self._ask(lambda: self._store.login_closed_seconds(user, address, self._limits), 0)

    def failed(self, user: str, address: str) -> bool:
        """A password was wrong; True when this one has closed a door."""
        return self._ask(lambda: self._store.login_failed(user, address, self._limits), False)

    def _ask(self, question: Callable[[], Result], otherwise: Result) -> Result:
        if self._limits.of_both == 0 or time.monotonic() < self._away_until:
            return otherwise
        try:
            return question()
        except StoreUnavailable as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            log.warning("wrong passwords are not counted: %s", error)
            return otherwise
