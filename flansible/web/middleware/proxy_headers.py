"""Requests that come through a proxy: who has sent them, by which scheme and to which name.

X-Forwarded-For, -Proto and -Host are believed of the peers in `trusted_proxies` alone; of all others they are what any
client can write, and nobody reads them. Afterwards `request.remote_addr` is the client.
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


class Proxies:
    """The app as it is behind proxies."""

    def __init__(self, app: WSGIApplication, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._trusted = trusted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = _address(environ.get("REMOTE_ADDR", ""))
        if peer is not None and self._is_trusted(peer):
            environ["REMOTE_ADDR"] = str(self._client(peer, environ.get("HTTP_X_FORWARDED_FOR", "")))
            _take_over(environ)
        return self._app(environ, start_response)

    def _client(self, peer: _Address, forwarded: str) -> _Address:
        """From the right, where the proxy next to us writes: the first that is no proxy of ours. Whatever stands to
        the left of it came with the request, and so does what is no address."""
        for word in reversed(forwarded.split(",")):
            hop = _address(word)
            if hop is None:
                break
            peer = hop
            if not self._is_trusted(hop):
                break
        return peer

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def _take_over(environ: WSGIEnvironment) -> None:
    """The scheme and host that the proxy next to us names, when they are such."""
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    host = environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip()
    if _HOST.fullmatch(host):
        environ["HTTP_HOST"] = host


def _address(text: str) -> _Address | None:
    """The address in one part of such a header; some proxies write a port as well."""
    word = text.strip()
    found = _WITH_PORT.fullmatch(word)
    if found:
        word = found["six"] or found["four"] or ""
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return None
    # One client must not be two: on a socket for both, IPv4 clients have such an address.
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
