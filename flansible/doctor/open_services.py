"""Redis and brokers that ask nobody for a password: who reaches one can read every record and start runs as admin.

Told in the log as a part of the service starts, and by doctor. Passwords are never part of what is said.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from urllib.parse import urlsplit

from flansible.config import EMBEDDED, Settings, is_loopback

log = logging.getLogger(__name__)

# RabbitMQ's own account, whose password everybody knows; its URL may as well have none.
_PUBLISHED = ("guest", "guest")


@dataclass(frozen=True)
class Openness:
    """Why a service is open. is_local: to this machine only, the runs of its users included."""

    found: str
    advice: str
    is_local: bool


def openness(url: str) -> Openness | None:
    """How others could use what is at this URL; None when they need a password, or cannot reach it."""
    parts = urlsplit(url)
    is_guest = parts.scheme.startswith("amqp") and (parts.username, parts.password) == _PUBLISHED
    if parts.scheme == "rediss" or (parts.password and not is_guest):
        return None
    if parts.scheme == "redis+socket":
        return _of_socket(parts.path)
    host = parts.hostname or "localhost"
    if is_loopback(host):
        found = "has no password: everybody on this machine can use it, confined runs included"
        return Openness(found, "give it a password, or use a Unix socket in a folder of mode 0700", True)
    advice = "give it a password, and TLS (rediss://, amqps://) where others share the network"
    return Openness(f"has no password, and everybody who reaches {host} can use it", advice, False)


def warn(settings: Settings) -> None:
    """One line in the log for each that is open."""
    for key in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        url = getattr(settings, key)
        found = openness(url) if url != EMBEDDED else None
        if found:
            log.warning("%s %s; %s", key, found.found, found.advice)


def _of_socket(path: str) -> Openness | None:
    try:
        can_enter = os.stat(os.path.dirname(path)).st_mode & stat.S_IXOTH
        can_write = os.stat(path).st_mode & stat.S_IWOTH
    except OSError:
        return None
    if not (can_enter and can_write):
        return None
    return Openness(f"everybody on this machine can use {path}", "set unixsocketperm 700 in redis.conf", True)
