"""Trusts X-Forwarded-* headers from configured proxies: client address, scheme and host of a proxied request.

X-Forwarded-For, -Proto and -Host count only from the peers in `trusted_proxies`; from all others they are ignored,
because any client can write them. Afterwards `request.remote_addr` is the client.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flansible.config.values import Network

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](?::[0-9]{1,5})?|(?P<four>[0-9.]+):[0-9]{1,5}")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class TrustedProxies:
    """The proxies in `trusted_proxies`; false when there is none."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks

    def __bool__(self) -> bool:
        return bool(self._networks)

    def is_trusted(self, address: str) -> bool:
        peer = _parse_address(address) if self._networks else None
        return peer is not None and self._contain(peer)

    def client(self, peer: str, forwarded: str) -> str:
        """Returns the first address from the right that is not a trusted proxy. forwarded: X-Forwarded-For.

        The proxy next to us appends on the right. Everything left of that address, or of a word that is not an
        address, came with the request and could be forged.
        """
        found = _parse_address(peer)
        for word in reversed(forwarded.split(",")):
            hop = _parse_address(word)
            if hop is None:
                break
            found = hop
            if not self._contain(hop):
                break
        return str(found)

    def _contain(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


class ProxyHeaders:
    """WSGI middleware that applies the headers of trusted proxies to the environ."""

    def __init__(self, app: WSGIApplication, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._proxies = TrustedProxies(trusted)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        if self._proxies.is_trusted(peer):
            environ["REMOTE_ADDR"] = self._proxies.client(peer, environ.get("HTTP_X_FORWARDED_FOR", ""))
            _apply_forwarded(environ)
        return self._app(environ, start_response)


def counted_by(address: str) -> str:
    """Returns that by which a client's limits are counted: its IPv4 address, or its IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    found = _parse_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found or address)


def _apply_forwarded(environ: WSGIEnvironment) -> None:
    """Sets scheme and host from the proxy next to us, when they are valid."""
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    host = environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip()
    if _HOST.fullmatch(host):
        environ["HTTP_HOST"] = host


def _parse_address(text: str) -> _Address | None:
    """Parses one part of X-Forwarded-For; some proxies add a port."""
    word = text.strip()
    found = _WITH_PORT.fullmatch(word)
    if found:
        word = found["six"] or found["four"] or ""
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return None
    # On a dual-stack socket IPv4 clients have an IPv4-mapped address: one client must not count as two.
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
