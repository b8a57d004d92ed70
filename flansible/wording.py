"""Words of validation errors: the nearest known key, and pydantic's messages in the form of our own.

Called where a file or a request is validated: config, identity and web. Standard library only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# As JSON and config.ini name them.
_TYPES = {
    "a valid string": "a string",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid list": "a list",
    "a valid array": "a list",
    "a valid dictionary": "an object",
}
_DETAILS = re.compile(r" or instance of \w+|, unable to (?:parse|interpret) .*")
_SUBJECT = re.compile(r"^(?:Input|String|List|Dictionary|Tuple|Datetime|Value) should ")


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Returns the known word that is most like `given`, whatever its case; None if none is."""
    by_lower = {word.lower(): word for word in known}
    found = difflib.get_close_matches(given.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown_key(given: str, known: Iterable[str]) -> str:
    """Returns `unknown key "pasword", did you mean "password"?`, without the question if no key is near."""
    near = nearest(given, known)
    return f'unknown key "{given}"' + (f', did you mean "{near}"?' if near else "")


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """Returns `there is no group "opps", did you mean "ops"?`, without the question if no name is near."""
    near = nearest(given, known)
    return f'there is no {kind} "{given}"' + (f', did you mean "{near}"?' if near else "")


def plain(message: str) -> str:
    """Returns a message of pydantic's as what must be: "must be a string", "is missing"."""
    if message == "Field required":
        return "is missing"
    message = _DETAILS.sub("", _SUBJECT.sub("must ", message.removeprefix("Value error, ")))
    return next((message.replace(theirs, ours) for theirs, ours in _TYPES.items() if theirs in message), message)
