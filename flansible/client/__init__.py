"""The HTTP client and the commands built on it, on the user's machine; no server dependency, starts fast.

May import `errors` and `states`. `Client` is loaded at its first use: option parsing needs no httpx.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flansible.client.api import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name == "Client":
        return import_module("flansible.client.api").Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
