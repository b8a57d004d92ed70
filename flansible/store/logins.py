"""Wrong passwords, counted for all web processes together: by user, by address, and by both."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flansible.store.connection import Connection


@dataclass(frozen=True)
class LoginLimits:
    """How many wrong passwords there may be within window_seconds of the first one. 0 is no limit."""

    of_both: int = 10
    of_user: int = 50
    of_address: int = 100
    window_seconds: int = 300


# ARGV: user, address, then the three limits. Answers the seconds until the last closed door opens, 0 when all are open.
_CLOSED = """
local P, longest = 'flansible:logins:', 0
local keys = {P .. 'both:' .. ARGV[1] .. ':' .. ARGV[2], P .. 'user:' .. ARGV[1], P .. 'address:' .. ARGV[2]}
for i, key in ipairs(keys) do
  local limit = tonumber(ARGV[i + 2])
  if limit > 0 and tonumber(redis.call('GET', key) or 0) >= limit then
    longest = math.max(longest, redis.call('TTL', key), 1)
  end
end
return longest
"""

# ARGV: as above, and the window. Answers whether this one has closed a door.
_FAILED = """
local P, closes = 'flansible:logins:', 0
local keys = {P .. 'both:' .. ARGV[1] .. ':' .. ARGV[2], P .. 'user:' .. ARGV[1], P .. 'address:' .. ARGV[2]}
for i, key in ipairs(keys) do
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('EXPIRE', key, ARGV[6]) end
  if count == tonumber(ARGV[i + 2]) then closes = 1 end
end
return closes
"""


class Logins(Connection):
    """Part of Store. The window begins with the first failure and is not made longer by others: the keys expire."""

    def login_closed_seconds(self, user: str, address: str, limits: LoginLimits) -> int:
        """How long no password of this user is to be checked for this address; 0: it may be."""
        return int(self._run(_CLOSED, *_names(user, address), *_numbers(limits)))

    def login_failed(self, user: str, address: str, limits: LoginLimits) -> bool:
        """Count a wrong password; True when it is the one that closes the door."""
        answer: Any = self._run(_FAILED, *_names(user, address), *_numbers(limits), limits.window_seconds)
        return bool(answer)


def _numbers(limits: LoginLimits) -> tuple[int, int, int]:
    return limits.of_both, limits.of_user, limits.of_address


def _names(user: str, address: str) -> tuple[str, str]:
    # A name is whatever a stranger sends, of any length: its digest becomes part of the key.
    return sha256(user.encode(errors="surrogatepass")).hexdigest()[:32], _network(address)


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
