"""Custom login: a function that the operator provides, named by the setting `login_function`.

It reads the headers of a request and returns the name of the user. Its module is imported when the web server starts,
from the environment Flansible is installed in, or from PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flansible.config import operator_function


class Headers(Mapping[str, str]):
    """The headers of a request, by name in any case. The values of a repeated header are joined by ','."""

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
    """What a login function gets. address: the client's, or the one a trusted proxy forwards; path: without the query
    string."""

    headers: Headers = field(repr=False)
    address: str
    method: str
    path: str


# Returns the name of a user of rbac.json, or None. Called in several threads at once, for each request without a known
# password or token: the function itself must cache what takes long.
LoginFunction = Callable[[LoginRequest], str | None]


def load(name: str) -> LoginFunction | None:
    """Imports the function that the setting names; None for an empty setting. Raises ConfigurationError."""
    found: LoginFunction | None = operator_function.load("login_function", name)
    return found
