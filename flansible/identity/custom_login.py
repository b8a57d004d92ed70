"""Another way to log in: one function of the operator's own, named by `login_function`.

It sees the headers of a request and says whose it is. Its module is imported when the web server starts, from the
environment Flansible is installed in, or from PYTHONPATH.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flansible.errors import ConfigurationError, Fault


class Headers(Mapping[str, str]):
    """The headers of a request, found by name in capitals or not. One that came twice has its values joined by ','."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = f"{self._values[key]},{value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class LoginRequest:
    """What a login function is told. address: who has connected, or whom a trusted proxy speaks for; path: without the
    query string."""

    headers: Headers = field(repr=False)
    address: str
    method: str
    path: str


# The name of a user of rbac.json, or None. Called in several threads at once, for each request without a password or
# token that is known already: what takes long it has to remember itself.
LoginFunction = Callable[[LoginRequest], str | None]


def load(name: str) -> LoginFunction | None:
    """The function of the setting; None for an empty one. Raises ConfigurationError."""
    if not name:
        return None
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # whatever a module of somebody else's raises as it is imported
        raise _fault(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise _fault(f"{module_name} has no function {function_name}")
    found: LoginFunction = function
    return found


def _fault(message: str) -> ConfigurationError:
    return ConfigurationError([Fault("config", "login_function", message)])
