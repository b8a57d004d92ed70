"""Wrong passwords, counted for all web processes together: by user, by address, and by both."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flansible.store.connection import Connection
from flansible.store.keys import PREFIX


@dataclass(frozen=True)
class LoginLimits:
    """How many wrong passwords there may be within window_seconds of the first one. 0 is no limit."""

    per_pair: int = 10
    per_user: int = 50
    per_address: int = 100
    window_seconds: int = 300


class LoginFailures(Connection):
    """Part of Store. The window begins with the first failure and is not made longer by others: the keys expire."""

    def login_blocked_seconds(self, user: str, address: str, limits: LoginLimits) -> int:
        """How long no password of this user is to be checked for this address; 0: it may be."""
        return int(self._run("login_blocked", _keys(user, address), *_numbers(limits)))

    def count_failed_login(self, user: str, address: str, limits: LoginLimits) -> bool:
        """Count a wrong password; True when it is the one that closes the door."""
        answer: Any = self._run("login_failed", _keys(user, address), *_numbers(limits), limits.window_seconds)
        return bool(answer)


def _numbers(limits: LoginLimits) -> tuple[int, int, int]:
    return limits.per_pair, limits.per_user, limits.per_address


def _keys(user: str, address: str) -> list[str]:
    # Strangers choose the name and its length, so the key has its digest.
    who, network = sha256(user.encode(errors="surrogatepass")).hexdigest()[:32], _network(address)
    return [f"{PREFIX}logins:{name}" for name in (f"both:{who}:{network}", f"user:{who}", f"address:{network}")]


def _network(address: str) -> str:
    """What one attacker has: an IPv4 address, or an IPv6 network of 64 bits, in which anybody has 2^64 addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return sha256(address.encode(errors="surrogatepass")).hexdigest()[:32]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed, 64), strict=False).network_address)
