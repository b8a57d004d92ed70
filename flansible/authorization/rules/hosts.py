"""Rules on `host_pattern` and `limit`: hosts that rbac.json does not grant, and the localhost that Ansible adds itself.

Only literal names are checked here, so that the request is refused at once and the message has the name. What
wildcards, regular expressions and `all` select is known only within the run, which removes the same hosts there.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from flansible.authorization.inventory_files import COMPUTED
from flansible.authorization.rules.refusal import ASK, forbidden
from flansible.identity.users import User
from flansible.models import AdhocRequest, PlaybookRequest

# Ansible adds these hosts itself, with a local connection, when the inventory has none of that name.
IMPLICIT = frozenset({"localhost", "127.0.0.1", "::1"})
_ALL_HOSTS = frozenset({"all"})
_WILDCARD = re.compile(r"[*?\[\]]")
_TERM = re.compile(r"(?:[^\s:;,\[\]]|\[[^\]]{0,200}\])+")
_MAX_FILES = 200
_MAX_BYTES = 4 * 1024 * 1024
# Folders from which Ansible loads variables or plugins, not hosts.
_VARIABLES = frozenset({"group_vars", "host_vars", "vars_plugins"})
_COMMENT = re.compile(rb"^[ \t]*[#;].*$", re.MULTILINE)


def check(user: User, request: AdhocRequest | PlaybookRequest, inventories: Iterable[str] | None) -> None:
    """Raises Forbidden. inventories: None where only the run knows them, which then refuses the same."""
    named = {field: list(terms(text)) for field, text in _patterns(request)}
    for field, found in named.items():
        for term in found:
            _check_granted(user, field, term.lstrip("!&"))
    if user.control_node or inventories is None:
        return
    requested = {_without_index(term.lstrip("&")): field for field, found in named.items() for term in found}
    for name in sorted(IMPLICIT & requested.keys()):
        if not _may_contain(inventories, name):
            message = (
                f"{name} is not in the inventory, so Ansible would run on the control machine. You may not run on the "
                "control machine. Name a host of the inventory, or ask an admin for control_node in rbac.json."
            )
            raise forbidden(requested[name], "localhost_forbidden", message)


def _patterns(request: AdhocRequest | PlaybookRequest) -> Iterator[tuple[str, str]]:
    if isinstance(request, AdhocRequest):
        yield "host_filter" if request.host_filter else "host_pattern", request.pattern
    if request.limit:
        yield "limit", request.limit


def terms(pattern: str) -> Iterator[str]:
    """Yields the parts of a host pattern with their ! or &, split where Ansible splits it now or did in the past."""
    if "," in pattern or ";" in pattern:
        pieces = re.split(r"[,;]", pattern)
    elif _is_address(pattern.strip()):
        pieces = [pattern]
    else:
        pieces = _TERM.findall(pattern)
    for piece in (piece.strip() for piece in pieces):
        if piece:
            yield piece


def _is_address(text: str) -> bool:
    """Whether the colons in `text` belong to an IPv6 address: `::1`, `[::1]` or `[::1]:22`."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d+)?", text)
    try:
        ipaddress.ip_address(bracketed[1] if bracketed else text)
    except ValueError:
        return False
    return True


def _check_granted(user: User, field: str, name: str) -> None:
    if user.hosts is None or name in _ALL_HOSTS or name.startswith("~") or _is_wild(name):
        return
    if not any(_matches(name, pattern) for pattern in user.hosts):
        yours = ", ".join(user.hosts) or "none"
        raise forbidden(field, "host_forbidden", f"You may not use host {name}. Yours: {yours}. {ASK}")


def is_within(pattern: str, granted: Iterable[str]) -> bool:
    """Whether all hosts of a pattern are among those of the granted ones, whatever the inventory has.

    A name is when a granted pattern matches it, also where it is a group's: Ansible matches groups by it too. Of other
    patterns that is known only where the same one is granted.
    """
    if pattern in granted:
        return True
    is_name = pattern not in _ALL_HOSTS and pattern[0] not in "~@" and not _is_wild(pattern)
    return is_name and any(_matches(pattern, one) for one in granted)


def _without_index(name: str) -> str:
    """Returns `localhost` for `localhost[0]`, which is the same host."""
    return name if name.startswith("[") else name.partition("[")[0]


def _is_wild(name: str) -> bool:
    return _WILDCARD.search(name) is not None and not _is_address(name)


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("~"):
        return re.match(pattern[1:], name) is not None
    return name == pattern or pattern in _ALL_HOSTS or fnmatchcase(name, pattern)


def _may_contain(inventories: Iterable[str], name: str) -> bool:
    """Whether an inventory may contain the name: it has it as a word, or only the run can tell."""
    word = re.compile(rb"(?<![\w.:-])" + re.escape(name.encode()) + rb"(?![\w.-])")
    bytes_left = _MAX_BYTES
    for count, path in enumerate(_files(inventories)):
        try:
            # Reading a pipe or a device could block for ever.
            if count >= _MAX_FILES or bytes_left <= 0 or not os.path.isfile(path) or os.access(path, os.X_OK):
                return True
            with open(path, "rb") as file:
                content = file.read(bytes_left)
        except OSError:
            return True
        bytes_left -= len(content)
        if COMPUTED.search(content) or word.search(_COMMENT.sub(b"", content)):
            return True
    return False


def _files(inventories: Iterable[str]) -> Iterator[str]:
    """Yields every file of the inventories, and folders that are links, which are not followed."""
    for inventory in inventories:
        if not os.path.isdir(inventory):
            yield inventory
        for folder, folders, names in os.walk(inventory):
            folders[:] = [name for name in folders if name not in _VARIABLES]
            yield from (path for name in folders if os.path.islink(path := os.path.join(folder, name)))
            yield from (os.path.join(folder, name) for name in sorted(names))
