"""Finds the group_vars and host_vars that belong to others' inventories, and what links in a user's inventories mean.

Part of the rule in flansible.authorization.shown_paths, which alone calls this. Variables are hidden when their name
is that of a host or group of an inventory that is not the user's, and of none of the user's. Who knows these names is a
`NamesReader`: in the worker a hidden run of Ansible's own loader. Without one, names are unknown: then what could be
another's is hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flansible.authorization.inventory_files import VARIABLES, is_of_project
from flansible.authorization.path_parts import above, is_below, is_in

if TYPE_CHECKING:
    from flansible.authorization.shown_paths import ShownPaths

# Of each inventory its hosts and groups; None where not all of them could be read.
Names = Mapping[str, frozenset[str] | None]

_EVERYBODYS = frozenset({"all", "ungrouped"})
_ENDINGS = (".yml", ".yaml", ".json")
_MAX_LINK_ENTRIES = 20_000
_MAX_PROJECT_ENTRIES = 5_000
_MAX_PROJECT_DEPTH = 3


class NamesReader(Protocol):
    """Reads the hosts and groups of inventories."""

    def own(self, shown: ShownPaths, inventories: tuple[str, ...]) -> Names:
        """Reads the user's inventories, with what `shown` shows and nothing else."""

    def others(self, shown: ShownPaths, inventories: tuple[str, ...]) -> Names:
        """Reads inventories that are not the user's."""


@dataclass
class Variables:
    """shown: folders of variables of the user's inventory files; hidden: paths of others' variables;
    left_out: how many are hidden in each folder; beside: of each folder of variables those that it stands in, by links
    too; links: those that are to be made; refused: those that are not."""

    shown: list[str] = field(default_factory=list)
    hidden: frozenset[str] = frozenset()
    left_out: dict[str, int] = field(default_factory=dict)
    beside: dict[str, set[str]] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Followed:
    """What links in the user's inventories lead to: shown, or refused.

    Each one refused is with the folder of an inventory, or of its variables; with "" when it was found through a link.
    """

    shown: tuple[str, ...] = ()
    refused: Mapping[str, frozenset[str]] = field(default_factory=dict)


def find(shown: ShownPaths) -> Variables:
    """Returns the variables of the user's inventory files, and which of all variables are others'."""
    found = Variables()
    folders = _folders(shown)
    own_folders = {os.path.dirname(path) for path in shown.inventories if os.path.isfile(path)}
    judged: dict[str, list[str]] = {}
    for folder in sorted(folders.keys() | own_folders):
        for link in (os.path.join(folder, name) for name in VARIABLES):
            place = os.path.realpath(link)
            if not os.path.isdir(place) or is_in(place, shown.readable) or link in shown.of_others:
                continue
            if place != link and not _may_be_led_to(shown, place, folder):
                found.refused.append(link)
                continue
            found.beside.setdefault(place, set()).add(folder)
            if folder in own_folders:
                found.shown.append(place)
                found.links += (link,) if place != link else ()
            if folder in folders:
                judged.setdefault(place, []).extend(folders[folder])
    names = _KnownNames(shown, judged)
    theirs = {place: [path for path in _entries(place) if names.is_others(path, place)] for place in judged}
    found.hidden = frozenset(path for paths in theirs.values() for path in paths)
    found.left_out = {place: len(paths) for place, paths in theirs.items() if paths}
    return found


def _folders(shown: ShownPaths) -> dict[str, list[str]]:
    """Returns the folders whose variables could be those of inventories that are not the user's, with these.

    Ansible reads variables beside an inventory and beside a playbook, so those are all folders around one, and the
    others of its project, which is a folder in playbook_root.
    """
    projects: dict[str, list[str]] = {}
    own_folders = {os.path.dirname(path) for path in shown.inventories}
    found: dict[str, list[str]] = {}
    for inventory in sorted((*shown.others, *shown.default, *shown.beside)):
        if is_in(inventory, shown.inventories) or not os.path.exists(inventory):
            continue
        for folder in above(inventory):
            if folder in own_folders or is_below(folder, shown.root):
                found.setdefault(folder, []).append(inventory)
            if os.path.dirname(folder) == shown.root and folder != shown.root:
                if folder not in projects:
                    projects[folder] = list(_folders_with_variables(shown, folder))
                for inner in projects[folder]:
                    if inner not in own_folders and not is_below(inventory, inner):
                        found.setdefault(inner, []).append(inventory)
    return found


def _folders_with_variables(shown: ShownPaths, project: str) -> Iterator[str]:
    """Yields the folders of a project, as deep as playbooks lie, that have variables and are in no inventory."""
    passed_over = shown.readable | shown.others | shown.default | shown.beside
    left, waiting = _MAX_PROJECT_ENTRIES, [(project, 0)]
    while waiting and left > 0:
        folder, depth = waiting.pop()
        entries = [entry for entry in _scan(folder) if entry.is_dir(follow_symlinks=False)]
        left -= len(entries)
        if any(entry.name in VARIABLES for entry in entries):
            yield folder
        if depth < _MAX_PROJECT_DEPTH:
            inner = (entry.path for entry in entries if not is_of_project(entry.name))
            waiting += [(path, depth + 1) for path in inner if not is_in(path, passed_over)]


def _may_be_led_to(shown: ShownPaths, place: str, folder: str) -> bool:
    """Whether a link group_vars or host_vars may lead there: below its folder or playbook_root, to nothing hidden."""
    if not (is_below(place, folder) or is_below(place, shown.root)) or is_below(folder, place):
        return False
    hidden = shown.private | shown.others | shown.default | shown.beside | shown.of_others
    return place != shown.root and not is_in(place, hidden)


class _KnownNames:
    """Hosts and groups of inventories, read once when they are first needed. judged: folders of variables, each with
    the inventories whose they could be."""

    def __init__(self, shown: ShownPaths, judged: Mapping[str, list[str]]) -> None:
        self._shown = shown
        self._judged = judged
        self._read: tuple[frozenset[str], Names] | None = None

    def is_others(self, path: str, place: str) -> bool:
        """Whether variables in `place` have the name of a host or group of others' inventories, and of none of the
        user's."""
        entry = os.path.basename(path)
        exact = {entry, *(entry.removesuffix(ending) for ending in _ENDINGS)}
        if exact & _EVERYBODYS:
            return False
        own, others = self._names()
        theirs = [others.get(inventory) for inventory in self._judged[place]]
        known = frozenset().union(*(names or () for names in theirs)) - _EVERYBODYS
        # A copy such as prod.yml.bak belongs to the longest name that it begins with.
        of_theirs = max((len(part) for part in _beginnings(entry) if part in known), default=0)
        of_own = max((len(part) for part in _beginnings(entry) if part in own | _EVERYBODYS), default=0)
        if of_theirs or None not in theirs:
            return of_theirs > of_own
        return not of_own

    def _names(self) -> tuple[frozenset[str], Names]:
        if self._read is None:
            reader, shown = self._shown.reader, self._shown.without_reader()
            if reader is None:
                return frozenset(), {}
            others = tuple(sorted({path for paths in self._judged.values() for path in paths}))
            own = reader.own(shown, tuple(sorted(filter(os.path.exists, shown.inventories))))
            self._read = frozenset().union(*(names or () for names in own.values())), reader.others(shown, others)
        return self._read


def follow(shown: ShownPaths, places: Iterable[str]) -> Followed:
    """Returns what links in these folders of the user's inventories lead to, as far as it is not shown anyway."""
    bases = [shown.root, *sorted({os.path.dirname(path) for path in shown.inventories})]
    found: set[str] = set()
    refused: dict[str, frozenset[str]] = {}
    seen: set[str] = set()
    left, waiting = _MAX_LINK_ENTRIES, [(place, place) for place in places]
    while waiting and left > 0:
        folder, place = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        for entry in _scan(folder):
            left -= 1
            if not entry.is_symlink():
                waiting += [(entry.path, place)] if entry.is_dir() else []
                continue
            target = os.path.realpath(entry.path)
            if not os.path.exists(target) or is_in(target, found):
                continue
            if shown.is_ordinary(target) or is_in(target, shown.readable):
                waiting += [(target, "")] if os.path.isdir(target) else []
            elif any(shown.may_follow(target, base) for base in bases):
                found.add(target)
                waiting += [(target, "")] if os.path.isdir(target) else []
            else:
                refused[place] = refused.get(place, frozenset()) | {target}
    return Followed(tuple(sorted(found)), refused)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _entries(folder: str) -> list[str]:
    return sorted(entry.path for entry in _scan(folder))


def _beginnings(name: str) -> Iterator[str]:
    """Yields prod.yml.bak, prod.yml and prod; of prod.yml~ the same without the sign."""
    name = name.rstrip("~").lstrip(".#")
    yield name
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
