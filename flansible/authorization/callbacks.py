"""Decides whether a request's `callback` may be called: its host has to be in the setting callback_hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from flansible.errors import FieldError, Forbidden

_ANY_BELOW = "*."


def check(url: str, allowed: Iterable[str]) -> None:
    """Raises Forbidden for a host that the setting does not have."""
    if not is_host_allowed(urlsplit(url).hostname or "", allowed):
        message = "this host is not in callback_hosts; an operator can add it"
        raise Forbidden(f"callback: {message}", code="callback_forbidden", errors=[FieldError("callback.url", message)])


def is_host_allowed(host: str, allowed: Iterable[str]) -> bool:
    """allowed: host names; `*.example.org` is all names below it."""
    name = host.lower().rstrip(".")
    for one in (item.lower() for item in allowed):
        if name == one or (one.startswith(_ANY_BELOW) and name.endswith(one[1:])):
            return True
    return False
