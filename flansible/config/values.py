"""What the values of settings may be: each check returns the value, or raises ValueError with what it must be.

Used by flansible.config, whose Settings names them; no message quotes a URL, which may hold a password.
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


def store_url(value: str) -> str:
    """Of the records: always a Redis."""
    if value != EMBEDDED and not value.startswith(_REDIS_SCHEMES):
        raise ValueError("must be 'embedded' or a redis://, rediss:// or redis+socket:// URL")
    return _with_a_port_that_is_one(value)


def broker_url(value: str) -> str:
    """Of Celery's broker."""
    if value != EMBEDDED and not value.startswith((*_REDIS_SCHEMES, *_AMQP_SCHEMES)):
        raise ValueError("must be 'embedded' or a redis://, rediss://, redis+socket:// or amqp:// URL")
    return _with_a_port_that_is_one(value)


def _with_a_port_that_is_one(url: str) -> str:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # Not in its words: they quote what was taken for a port, which may be part of a password.
        raise ValueError("has a port that is no number up to 65535; is a / or @ in its password escaped?") from None
    return url


def regular_expression(value: str) -> str:
    """One that Python can compile."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def address(value: str) -> str:
    """An IP address or host name to listen on."""
    if not value or re.search(r"[\s/]", value):
        raise ValueError("must be an IP address or a host name to listen on")
    return value


def function(value: str) -> str:
    """`package.module:function`, or nothing."""
    if value and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", value):
        raise ValueError("must be package.module:function")
    return value


def origins(value: str) -> str:
    """Web origins, separated by commas."""
    for origin in comma_list(value):
        if origin == "*":
            raise ValueError("must name each origin; `*` would let every page of the web in")
        if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", origin):
            raise ValueError(
                f"{origin!r} is no origin; one is https://console.example.org, without a path, in small letters"
            )
    return value


def networks(value: str) -> str:
    """IP addresses and networks, separated by commas."""
    for word in comma_list(value):
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(f"{word!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return value


def comma_list(value: str) -> list[str]:
    """Splits a setting that is a list; blanks around items and empty items are dropped."""
    return [item for item in (part.strip() for part in value.split(",")) if item]


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ListenAddress = Annotated[str, AfterValidator(address)]
Port = Annotated[int, Field(ge=1, le=65535)]
