"""External stores of secrets: a function that the operator provides, named by the setting `secret_function`.

It gets the `source` of a credential and returns the fields that would otherwise be stored sealed. Its module is
imported when the web server starts, as that of `login_function`; it is called when a request uses the credential.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flansible.config import operator_function
from flansible.errors import SecretUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SecretRequest:
    """What a secret function gets: the credential's name and kind, and its `source` as it was written."""

    name: str
    kind: str
    source: Mapping[str, Any] = field(repr=False)


# Returns the sealed fields of the credential's kind, such as {"password": ...}. Called in several threads at once; the
# function itself limits how long it takes. Raises SecretUnavailable with words for the caller.
SecretFunction = Callable[[SecretRequest], Mapping[str, Any]]


def load(name: str) -> SecretFunction | None:
    """Imports the function that the setting names; None for an empty setting. Raises ConfigurationError."""
    found: SecretFunction | None = operator_function.load("secret_function", name)
    return found


def fetch(function: SecretFunction | None, wanted: SecretRequest) -> dict[str, Any]:
    """Calls the function. Raises SecretUnavailable, whose message has nothing of the secret."""
    if function is None:
        raise SecretUnavailable("it has a source, and this service has no secret_function")
    try:
        found = function(wanted)
    except SecretUnavailable:
        raise
    except Exception as error:  # the operator's function may raise anything, with the secret in its text
        log.error("secret_function failed for credential %s: %s", wanted.name, type(error).__name__)
        raise SecretUnavailable(f"secret_function failed: {type(error).__name__}") from None
    if not isinstance(found, Mapping):
        raise SecretUnavailable(f"secret_function returned {type(found).__name__}, not an object of fields")
    return {name: value for name, value in found.items() if value is not None}
