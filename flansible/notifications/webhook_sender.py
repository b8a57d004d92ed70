"""Posts a webhook or callback: to a checked address, with a limit on the time and the bytes of all of it.

Redirects are not followed, no proxy of the environment is used, and nothing of the reply's body is kept.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from flansible import __version__
from flansible.errors import AddressRefused, DeliveryFailed, DeliveryRefused
from flansible.notifications import signatures
from flansible.system import addresses
from flansible.system.addresses import LookUp

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 20.0
_MOST_REPLY_BYTES = 64 * 1024
_GONE = 410


@dataclass(frozen=True)
class Post:
    """What is posted. secrets: each signs it; look_up: as socket.getaddrinfo."""

    url: str
    delivery_id: str
    body: bytes
    secrets: tuple[str, ...] = ()
    allow_private: bool = False
    look_up: LookUp = socket.getaddrinfo


def post(request: Post, total_seconds: float = TOTAL_SECONDS) -> str:
    """Sends it once; returns the reply's status. Raises DeliveryFailed, and DeliveryRefused for what would always be
    refused."""
    parts = urlsplit(request.url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    try:
        found = addresses.checked_addresses(host, port, allow_private=request.allow_private, look_up=request.look_up)
        with connected(found, host, is_tls, total_seconds) as connection:
            return _exchange(connection, request, target_of(parts.path, parts.query))
    except AddressRefused as error:
        raise DeliveryRefused(f"{error} (allow_private)") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise DeliveryFailed(reason_of(error)) from error


def _exchange(connection: http.client.HTTPConnection, request: Post, target: str) -> str:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Flansible/{__version__}",
        "Connection": "close",
        **signatures.signed_headers(request.delivery_id, int(time.time()), request.body, request.secrets),
    }
    connection.request("POST", target, request.body, headers)
    reply = connection.getresponse()
    reply.read(_MOST_REPLY_BYTES)  # so that the receiver is not cut off in the middle of a short one
    if reply.status == _GONE:
        raise DeliveryRefused("410: the receiver wants no more")
    if 300 <= reply.status < 400:
        raise DeliveryFailed(f"{reply.status}: redirects are not followed")
    if not 200 <= reply.status < 300:
        raise DeliveryFailed(str(reply.status))
    return str(reply.status)


@contextlib.contextmanager
def connected(
    found: list[tuple[str, int]], host: str, is_tls: bool, total_seconds: float
) -> Iterator[http.client.HTTPConnection]:
    """Yields a connection to one of these addresses that is cut when the time is over, whatever the receiver does."""
    plain = addresses.dial(found, CONNECT_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.callback(plain.close)
        stack.enter_context(cut_after(total_seconds, plain))
        connection = http.client.HTTPConnection(host, found[0][1], timeout=total_seconds)
        connection.sock = plain
        if is_tls:
            # The handshake and the certificate are for the name, not for the address.
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
            stack.callback(connection.sock.close)
            connection.default_port = 443  # the Host header names another port only
        yield connection


@contextlib.contextmanager
def cut_after(seconds: float, connected: socket.socket) -> Iterator[None]:
    """Shuts a connection down when the block takes longer: whoever reads from it gets an end or an error, also where
    it was wrapped for TLS since."""
    twin = connected.dup()

    def cut() -> None:
        with contextlib.suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        twin.close()


def target_of(path: str, query: str) -> str:
    """Returns what the request line asks for."""
    return (path or "/") + (f"?{query}" if query else "")


def reason_of(error: Exception) -> str:
    """Says what was wrong with a connection, for the owner of a definition."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(error, TimeoutError):
        return "no reply in time"
    if isinstance(error, OSError):
        return error.strerror or "the connection ended"
    return "no HTTP, or no reply in time"
