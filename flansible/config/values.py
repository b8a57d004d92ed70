"""Validates the values of settings: each function returns the value, or raises ValueError with what it must be.

Used by the fields of Settings; no message quotes a URL, which may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

EMBEDDED = "embedded"
_REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")
_AMQP_SCHEMES = ("amqp://", "amqps://")
_POSTGRESQL_SCHEME = "postgresql+psycopg://"


def store_url(value: str) -> str:
    """Validates the URL of the store, which is always a Redis."""
    if value != EMBEDDED and not value.startswith(_REDIS_SCHEMES):
        raise ValueError("must be 'embedded' or a redis://, rediss:// or redis+socket:// URL")
    return _require_valid_port(value)


def broker_url(value: str) -> str:
    """Validates the URL of Celery's broker."""
    if value != EMBEDDED and not value.startswith((*_REDIS_SCHEMES, *_AMQP_SCHEMES)):
        raise ValueError("must be 'embedded' or a redis://, rediss://, redis+socket:// or amqp:// URL")
    return _require_valid_port(value)


def database_url(value: str) -> str:
    """Validates the URL of the history database."""
    if value != EMBEDDED and not value.startswith(_POSTGRESQL_SCHEME):
        raise ValueError(f"must be 'embedded' or a {_POSTGRESQL_SCHEME} URL")
    return _require_valid_port(value)


def _require_valid_port(url: str) -> str:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # Not Python's message: it quotes the invalid port, which may be part of a password.
        raise ValueError("has a port that is not a number up to 65535; is a / or @ in its password escaped?") from None
    return url


def regular_expression(value: str) -> str:
    """Validates that Python can compile it."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def address(value: str) -> str:
    """Validates an IP address or host name to listen on."""
    if not value or re.search(r"[\s/]", value):
        raise ValueError("must be an IP address or a host name to listen on")
    return value


def function(value: str) -> str:
    """Validates `package.module:function` or an empty value."""
    if value and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", value):
        raise ValueError("must be package.module:function")
    return value


def origins(value: str) -> str:
    """Validates web origins, separated by commas."""
    for origin in comma_list(value):
        if origin == "*":
            raise ValueError("must name each origin; `*` would allow every page of the web")
        if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", origin):
            raise ValueError(
                f"{origin!r} is not an origin; an example is https://console.example.org, without a path, in lower case"
            )
    return value


def base_url(value: str) -> str:
    """Validates an http(s) URL that others are appended to, or an empty value."""
    if value and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", value):
        raise ValueError("must be a URL such as https://ansible.example.org, without a query")
    return value


def networks(value: str) -> str:
    """Validates IP addresses and networks, separated by commas."""
    for word in comma_list(value):
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(f"{word!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return value


def queue_names(value: str) -> str:
    """Validates names of queues, separated by commas; at least one."""
    names = comma_list(value)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
            raise ValueError(f"{name!r} is no name of a queue: up to 63 letters, digits, dashes and underscores")
    if not names or len(set(names)) < len(names):
        raise ValueError("must name at least one queue, each once")
    return ",".join(names)


def comma_list(value: str) -> list[str]:
    """Splits a setting that is a list; blanks around items and empty items are dropped."""
    return [item for item in (part.strip() for part in value.split(",")) if item]


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ListenAddress = Annotated[str, AfterValidator(address)]
Port = Annotated[int, Field(ge=1, le=65535)]
