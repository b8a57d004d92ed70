"""Failed logins, counted for all web processes together: per user, per address, and per pair of both."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flansible.store.connection import Connection
from flansible.store.keys import PREFIX


@dataclass(frozen=True)
class LoginLimits:
    """How many failed logins are allowed within window_seconds of the first one. 0 is no limit."""

    per_pair: int = 10
    per_user: int = 50
    per_address: int = 100
    window_seconds: int = 300

    @classmethod
    def for_pair(cls, most: int) -> LoginLimits:
        """Returns the limits for this `login_failures` of config.ini."""
        return cls(per_pair=most, per_user=5 * most, per_address=10 * most)


class LoginFailures(Connection):
    """The part of Store for failed logins. The window begins with the first failure; later ones do not extend it."""

    def login_blocked_seconds(self, user: str, address: str, limits: LoginLimits) -> int:
        """Returns for how many seconds logins of this user from this address are blocked; 0: they are not."""
        return int(self._run("login_blocked", _keys(user, address), *_numbers(limits)))

    def count_failed_login(self, user: str, address: str, limits: LoginLimits) -> bool:
        """Counts a failed login; returns whether it reached a limit."""
        answer: Any = self._run("login_failed", _keys(user, address), *_numbers(limits), limits.window_seconds)
        return bool(answer)


def _numbers(limits: LoginLimits) -> tuple[int, int, int]:
    return limits.per_pair, limits.per_user, limits.per_address


def _keys(user: str, address: str) -> list[str]:
    # Any client can choose the name and its length, so the key has its digest.
    who, network = sha256(user.encode(errors="surrogatepass")).hexdigest()[:32], _network(address)
    return [f"{PREFIX}logins:{name}" for name in (f"both:{who}:{network}", f"user:{who}", f"address:{network}")]


def _network(address: str) -> str:
    """Returns what counts as one address: an IPv4 address, or an IPv6 /64, all of which one attacker may have."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return sha256(address.encode(errors="surrogatepass")).hexdigest()[:32]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, 64), strict=False).network_address)
