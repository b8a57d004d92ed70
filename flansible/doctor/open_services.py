"""Finds what others can use or overhear: a Redis or broker without a password, and HTTP that is not encrypted.

A client that can connect to such a Redis can read every record and run as admin.

Logged when a part of the service starts, and reported by doctor. Messages never contain passwords.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from urllib.parse import urlsplit

from flansible.config import EMBEDDED, Settings, is_loopback

log = logging.getLogger(__name__)

# RabbitMQ's default account, whose password is public: as good as no password.
_PUBLISHED = ("guest", "guest")


@dataclass(frozen=True)
class OpenService:
    """Why a service is open. is_local: only users of this machine, including their runs, can connect."""

    found: str
    advice: str
    is_local: bool


def find_open(url: str) -> OpenService | None:
    """Returns why other users can use the service at this URL; None if they need a password or cannot connect."""
    parts = urlsplit(url)
    is_guest = parts.scheme.startswith("amqp") and (parts.username, parts.password) == _PUBLISHED
    if parts.scheme == "rediss" or (parts.password and not is_guest):
        return None
    if parts.scheme == "redis+socket":
        return _of_socket(parts.path)
    host = parts.hostname or "localhost"
    if is_loopback(host):
        found = "has no password: every user of this machine can use it, and so can confined runs"
        return OpenService(found, "give it a password, or use a Unix socket in a folder of mode 0700", True)
    advice = "give it a password, and TLS (rediss://, amqps://) where others share the network"
    return OpenService(f"has no password: anyone who can connect to {host} can use it", advice, False)


def find_plain_http(settings: Settings) -> OpenService | None:
    """Returns what others could read on the way to the web server; None with TLS, or where only this machine can reach
    it."""
    if settings.is_tls or settings.listens_on_loopback:
        return None
    found = f"passwords and tokens are sent to {settings.Flask_tcp_ip} port {settings.Flask_tcp_port} unencrypted"
    advice = "set tls_certificate and tls_key, or listen on 127.0.0.1 behind a proxy that speaks TLS"
    return OpenService(found, advice, False)


def warn_of_plain_http(settings: Settings) -> None:
    if found := find_plain_http(settings):
        log.warning("%s; %s", found.found, found.advice)


def warn(settings: Settings) -> None:
    """Logs a warning for each open service."""
    for key in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        url = getattr(settings, key)
        found = find_open(url) if url != EMBEDDED else None
        if found:
            log.warning("%s %s; %s", key, found.found, found.advice)


def _of_socket(path: str) -> OpenService | None:
    try:
        can_enter = os.stat(os.path.dirname(path)).st_mode & stat.S_IXOTH
        can_write = os.stat(path).st_mode & stat.S_IWOTH
    except OSError:
        return None
    if not (can_enter and can_write):
        return None
    return OpenService(f"every user of this machine can use {path}", "set unixsocketperm 700 in redis.conf", True)
