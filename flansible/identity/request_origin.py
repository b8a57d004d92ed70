"""Checks for which origin's page a browser sends a request; one rule for the API (web) and for Flower.

A browser sends a saved login along with whatever a page requests from us, so a request that changes something is
refused when the page is from another origin. Programs other than browsers send none of these headers, and no page can
make them send a password. Pure: no framework's request type.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

# Methods that change nothing (RFC 9110).
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def is_cross_origin(
    header: Callable[[str], str | None], host: str, allowed_origins: frozenset[str] = frozenset()
) -> bool:
    """Whether the request's page is from an origin other than `host`'s and the allowed ones.

    header: returns a request header's value by name, or None; host: the request's Host.
    """
    origin = header("Origin")
    if origin in allowed_origins:
        return False
    site = header("Sec-Fetch-Site")
    if site:
        return site not in ("same-origin", "none")  # "none": the user's own doing, such as a bookmark
    source = header("Referer") if origin is None else origin
    return source is not None and _authority(source) != host.lower()


def _authority(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None
