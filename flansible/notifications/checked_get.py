"""Reads a short document from a URL that somebody has written into a definition: under the rules of webhooks.

A checked address is dialled, with a limit on the time and the bytes of all of it; redirects are not followed. Called
by web processes.
"""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from flansible import __version__
from flansible.errors import AddressRefused, DeliveryFailed
from flansible.notifications.webhook_sender import connected, reason_of, target_of
from flansible.system import addresses
from flansible.system.addresses import LookUp


def get(
    url: str, *, allow_private: bool, most_bytes: int, seconds: float, look_up: LookUp = socket.getaddrinfo
) -> bytes:
    """Returns the body of the reply. Raises DeliveryFailed for all but a 200 with a body of at most so many bytes."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"Flansible/{__version__}",
        "Connection": "close",
    }
    try:
        found = addresses.checked_addresses(host, port, allow_private=allow_private, look_up=look_up)
        with connected(found, host, is_tls, seconds) as connection:
            connection.request("GET", target_of(parts.path, parts.query), headers=headers)
            reply = connection.getresponse()
            if 300 <= reply.status < 400:
                raise DeliveryFailed(f"{reply.status}: redirects are not followed")
            if reply.status != 200:
                raise DeliveryFailed(str(reply.status))
            body = reply.read(most_bytes + 1)
    except AddressRefused as error:
        raise DeliveryFailed(f"{error} (choices_private)") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise DeliveryFailed(reason_of(error)) from error
    if len(body) > most_bytes:
        raise DeliveryFailed(f"the reply has more than {most_bytes} bytes")
    return body
