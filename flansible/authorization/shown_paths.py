"""Decides whether a path is shown to a confined user; the only place that does.

Web processes call `is_listed` before they read a playbook or a role to a user; the worker calls `is_hidden` to make a
sandbox. Paths are strings, absolute and with links resolved: a path is judged by where it lies. Reads names in folders
and the text of inventories, nothing else. The first row that applies decides:

| path                                                                     | a run sees it | lists have it |
|--------------------------------------------------------------------------|---------------|---------------|
| 1. private: config.ini and the files and folders it names                | no            | no            |
| 2. in an inventory or path that rbac.json gives the user                 | yes           | yes           |
| 3. group_vars, host_vars beside an inventory file: its hosts and groups  | yes           | no            |
| 4. in programs or sandbox_paths, unless row 5 names a longer part of it  | yes           | no            |
| 5. below playbook_root: another user's inventory, the default one, what  | no            | no            |
|    lies beside an inventory or path of the user, what hidden_paths names |               |               |
| 6. below playbook_root                                                   | yes           | yes           |
| 7. anything else                                                         | no            | no            |
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from flansible.config import Settings, comma_list

_VARIABLES = ("group_vars", "host_vars")
_WORD = re.compile(r"[^\s=\[\]:,;#'\"{}]+")
# With text before or after it: [web:children] alone is a heading.
_RANGE = re.compile(r"[\w.-]+\[\w+:[\w:]+\][\w.:\[\]-]*|\[\w+:[\w:]+\][\w.-][\w.:\[\]-]*")
_MAX_INVENTORY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class ShownPaths:
    """The rule for one user, as the settings and rbac.json are now.

    readable: the user's inventories and paths; opened: programs and sandbox_paths; hidden: inventories that are not
    the user's; neighbours: folders below playbook_root in which only what is readable is shown; patterns: hidden_paths.
    """

    root: str
    private: frozenset[str]
    readable: frozenset[str]
    opened: frozenset[str]
    hidden: frozenset[str]
    neighbours: frozenset[str]
    patterns: tuple[str, ...]

    def is_hidden(self, path: str) -> bool:
        """Whether rows 1 to 5 hide a path from the user's runs; for paths in a folder that is shown."""
        if _is_in(path, self.private):
            return True
        if _is_in(path, self.readable) or _is_in(path, self._variables):
            return False
        hidden_at = self._hidden_at(path)
        opened_at = max((len(folder) for folder in _upwards(path) if folder in self.opened), default=0)
        return len(hidden_at) > opened_at

    def is_listed(self, path: str) -> bool:
        """Whether the API may show the path's content to the user: rows 2 and 6."""
        if _is_in(path, self.private):
            return False
        return _is_in(path, self.readable) or (is_below(path, self.root) and not self._hidden_at(path))

    def is_partly_hidden(self, folder: str) -> bool:
        """Whether something in a folder that is shown is hidden, or would be once it exists."""
        names = set(self.private)
        if not (_is_in(folder, self.readable) or _is_in(folder, self._variables)):
            names |= self.hidden | self._matching
            if any(is_below(other, folder) for other in self.neighbours):
                return True
        return any(name != folder and is_below(name, folder) for name in names)

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """The paths of row 3: whole folders where possible, else single files and folders in them."""
        found = (self._variables_beside(path) for path in sorted(self.opened | self.readable))
        return tuple(path for paths in found for path in paths)

    @cached_property
    def _variables(self) -> frozenset[str]:
        return frozenset(self.variables)

    def _hidden_at(self, path: str) -> str:
        """Returns the longest part of a path that row 5 names; empty if it names none."""
        if not is_below(path, self.root):
            return ""
        return next((part for part in _upwards(path) if self._is_named(part)), "")

    def _is_named(self, path: str) -> bool:
        return path in self.hidden or os.path.dirname(path) in self.neighbours or self._is_matching(path)

    def _is_matching(self, path: str) -> bool:
        """Whether a pattern of hidden_paths matches it; they apply one and two levels below playbook_root."""
        if path == self.root or not is_below(path, self.root):
            return False
        name = os.path.relpath(path, self.root)
        return name.count("/") <= 1 and any(fnmatch(name, pattern) for pattern in self.patterns)

    @cached_property
    def _matching(self) -> frozenset[str]:
        """The existing paths that hidden_paths matches."""
        folders = [self.root]
        with os.scandir(self.root) as entries:
            folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        paths = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder))
        return frozenset(path for path in paths if self._is_matching(path))

    def _variables_beside(self, inventory: str) -> Iterator[str]:
        if not os.path.isfile(inventory):
            return
        folder = os.path.dirname(inventory)
        is_alone = all(
            name in _VARIABLES or _is_in(os.path.join(folder, name), self.readable) for name in os.listdir(folder)
        )
        named = None if is_alone else _InventoryNames(inventory)
        for place in (os.path.join(folder, name) for name in _VARIABLES):
            if not os.path.isdir(place) or os.path.islink(place):
                continue
            names = sorted(os.listdir(place))
            known = [name for name in names if named is None or named.has_file(name)]
            # A link leads to what may not be shown; a run cannot follow it either, since it is no file of this folder.
            paths = [path for path in (os.path.join(place, name) for name in known) if not os.path.islink(path)]
            yield from [place] if known == names else paths


class _InventoryNames:
    """The hosts and groups that an inventory file names, as far as its text shows."""

    def __init__(self, inventory: str) -> None:
        with open(inventory, errors="replace") as file:
            text = file.read(_MAX_INVENTORY_BYTES)
        self._words = {*_WORD.findall(text), "all", "ungrouped"}
        ranges = {_range_pattern(word) for word in _RANGE.findall(text)}
        self._ranges = re.compile("|".join(sorted(ranges)) or "(?!)")

    def has_file(self, name: str) -> bool:
        """Whether a file or folder of group_vars or host_vars is named like one of these hosts or groups."""
        return any(
            word in self._words or self._ranges.fullmatch(word)
            for word in (name.partition(".")[0], os.path.splitext(name)[0])
        )


def of(
    readable: Iterable[Path | str], hidden: Iterable[Path | str], settings: Settings, programs: Iterable[str] = ()
) -> ShownPaths:
    """Returns the rule for a user. readable, hidden: resolved; programs: folders that every run needs."""
    root = os.path.realpath(settings.playbook_root)
    shown = frozenset(map(str, readable))
    # Another user's inventory that contains playbook_root does not hide it.
    others = {path for path in map(str, hidden) if path != root and is_below(path, root)}
    default = settings.default_inventory
    if default and "," not in default:
        others.add(os.path.realpath(default))
    folders = (os.path.dirname(path) for path in shown)
    return ShownPaths(
        root=root,
        private=frozenset(os.path.realpath(path) for path in settings.private_paths),
        readable=shown,
        opened=frozenset((*programs, *(os.path.realpath(path) for path in comma_list(settings.sandbox_paths)))),
        hidden=frozenset(others),
        neighbours=frozenset(folder for folder in folders if folder != root and is_below(folder, root)),
        patterns=tuple(comma_list(settings.hidden_paths)),
    )


def is_below(path: str, folder: str) -> bool:
    """Whether a path is the folder, or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_in(path: str, folders: frozenset[str]) -> bool:
    return any(part in folders for part in _upwards(path))


def _upwards(path: str) -> Iterator[str]:
    """Yields the path and the folders around it, from the inside out."""
    while path != (folder := os.path.dirname(path)):
        yield path
        path = folder
    yield path


def _range_pattern(word: str) -> str:
    """Returns a pattern for the hosts of a range such as web[01:50].example.com: numbers, or letters."""
    pieces = re.split(r"(\[[\w:]+\])", word)
    return "".join(
        (r"[0-9]+" if piece[1].isdigit() else r"[A-Za-z]+") if number % 2 else re.escape(piece)
        for number, piece in enumerate(pieces)
    )
