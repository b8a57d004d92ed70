"""Looks a host's name up and checks its addresses; what was checked is dialled, so that no second look-up decides.

Refused: this machine, link-local and private networks, and addresses that contain one of them, unless the caller allows
it; never dialled: unspecified and multicast addresses. For what users have the service dial: notifications, projects.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

from flansible.errors import AddressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LookUp = Callable[..., list[tuple[Any, ...]]]
_MOST_ADDRESSES = 4  # that are tried one after the other
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")


def checked_addresses(
    host: str, port: int, *, allow_private: bool, look_up: LookUp = socket.getaddrinfo
) -> list[tuple[str, int]]:
    """Returns the addresses to dial, in the order of the look-up. Raises AddressRefused and OSError."""
    try:
        looked_up = look_up(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # Python's, of a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, f"{host[:100]} is no name of a host") from error
    found = []
    for _family, _kind, _protocol, _name, target in looked_up:
        address = ipaddress.ip_address(str(target[0]).partition("%")[0])
        if why := _refusal(address, allow_private):
            raise AddressRefused(f"{host} has the address {address}, which is {why}")
        if (pair := (str(target[0]), int(target[1]))) not in found:
            found.append(pair)
    if not found:
        raise OSError(f"{host} has no address")
    return found[:_MOST_ADDRESSES]


def dial(addresses: list[tuple[str, int]], seconds: float) -> socket.socket:
    """Connects to the first of these addresses that answers. Raises OSError."""
    last = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection(address, seconds)
        except OSError as error:
            last = error
    raise last


def is_internal(host: str) -> bool:
    """Whether a host is seen to be refused without a look-up: an address in any spelling, or a name of this machine."""
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    try:
        address: Address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))  # `0`, `0x7f.1`, `2130706433`
        except OSError:
            return name == "localhost" or name.endswith(".localhost")
    return bool(_refusal(address, False))


def _refusal(address: Address, allow_private: bool) -> str:
    """Returns why an address is not dialled, '' if it is."""
    for one in (address, *_contained(address)):
        if one.is_unspecified or one.is_multicast or (isinstance(one, ipaddress.IPv4Address) and int(one) >> 24 == 0):
            return "no address of a host"
        # What no registry gives out may be translated, or routed, to anything within: ::ffff:0:127.0.0.1. A mapped one
        # is reserved for Python 3.11 and 3.12; the address in it decides.
        is_mapped = getattr(one, "ipv4_mapped", None) is not None
        is_given_out = not one.is_reserved or one in _NAT64 or is_mapped
        is_public = one.is_global and not one.is_private and not getattr(one, "is_site_local", False) and is_given_out
        if not allow_private and not is_public:
            return "not a public one"
    return ""


def _contained(address: Address) -> Iterator[Address]:
    """Yields the IPv4 addresses to which a gateway would translate an IPv6 address."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or address in _NAT64_LOCAL or int(address) >> 32 == 0:  # the last: IPv4-compatible
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
