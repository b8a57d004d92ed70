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
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from flansible.authorization import inventory_files
from flansible.authorization.inventory_files import VARIABLES, is_of_project
from flansible.authorization.path_parts import above, is_below, is_in

if TYPE_CHECKING:
    from flansible.authorization.shown_paths import ShownPaths

# Of each inventory its hosts and groups; None where not all of them could be read.
Names = Mapping[str, frozenset[str] | None]

_EVERYBODYS = frozenset({"all", "ungrouped"})
_ENDINGS = (".yml", ".yaml", ".json")
_MAX_LINK_ENTRIES = 20_000
_MAX_PROJECT_ENTRIES = 20_000
_MAX_PROJECT_DEPTH = 6
_WITH_PLAYBOOKS = frozenset({"roles", "collections", "ansible_collections", "molecule", "docs"})


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
    is_whole: whether all could be looked at.
    """

    shown: tuple[str, ...] = ()
    refused: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_whole: bool = True


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
    names = _KnownNames(shown, judged, found.beside)
    theirs = {place: [path for path in _entries(place) if names.is_others(path, place)] for place in judged}
    found.hidden = frozenset(path for paths in theirs.values() for path in paths)
    found.left_out = {place: len(paths) for place, paths in theirs.items() if paths}
    return found


def _folders(shown: ShownPaths) -> dict[str, list[str]]:
    """Returns the folders whose variables could be those of inventories that are not the user's, with these.

    Ansible reads variables beside an inventory and beside a playbook, so those are all folders around one, and the
    others of its project, which is a folder in playbook_root; of one that is in no project, all of playbook_root.
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
        project = next((part for part in above(inventory) if _is_project(part, shown.root)), shown.root)
        if project not in projects:
            projects[project] = list(_folders_with_variables(shown, project))
        for inner in projects[project]:
            # Those beside an inventory of the user's are its own, unless playbooks lie there too.
            if not is_below(inventory, inner) and (inner not in own_folders or inventory_files.is_project(inner)):
                found.setdefault(inner, []).append(inventory)
    return found


def _is_project(folder: str, root: str) -> bool:
    return folder != root and os.path.dirname(folder) == root


def _folders_with_variables(shown: ShownPaths, project: str) -> Iterator[str]:
    """Yields the folders of a project, as deep as playbooks lie, that have variables and are in no inventory.

    Also those of roles and collections: collections have playbooks, and people keep such folders in roles.
    """
    passed_over = shown.readable | shown.others | shown.default | shown.beside
    left, waiting = _MAX_PROJECT_ENTRIES, [(project, 0)]
    while waiting and left > 0:
        folder, depth = waiting.pop()
        entries = [entry for entry in _scan(folder) if entry.is_dir(follow_symlinks=False)]
        left -= len(entries)
        if any(entry.name in VARIABLES for entry in entries):
            yield folder
        if depth < _MAX_PROJECT_DEPTH:
            inner = (entry.path for entry in entries if entry.name in _WITH_PLAYBOOKS or not is_of_project(entry.name))
            waiting += [(path, depth + 1) for path in inner if not is_in(path, passed_over)]


def _may_be_led_to(shown: ShownPaths, place: str, folder: str) -> bool:
    """Whether a link group_vars or host_vars may lead there: below its folder or playbook_root, to nothing hidden."""
    if not (is_below(place, folder) or is_below(place, shown.root)) or is_below(folder, place):
        return False
    hidden = shown.private | shown.others | shown.default | shown.beside | shown.of_others
    return place != shown.root and not is_in(place, hidden)


class _KnownNames:
    """Hosts and groups of inventories, read once when they are first needed. judged: folders of variables, each with
    the inventories whose they could be; beside: with the folders that they stand in."""

    def __init__(self, shown: ShownPaths, judged: Mapping[str, list[str]], beside: Mapping[str, set[str]]) -> None:
        self._shown = shown
        self._judged = judged
        self._beside = beside

    def is_others(self, path: str, place: str) -> bool:
        """Whether variables in `place` have the name of a host or group of others' inventories, and of none of the
        user's."""
        entry = os.path.basename(path)
        exact = {entry, *(entry.removesuffix(ending) for ending in _ENDINGS)}
        if exact & _EVERYBODYS or exact & self._own:
            return False
        theirs = [self._others.get(inventory) for inventory in self._judged[place]]
        known = frozenset().union(*(names or () for names in theirs)) - _EVERYBODYS
        # A copy such as prod.yml.bak belongs to the longest name that it begins with.
        of_theirs = max((len(part) for part in _beginnings(entry) if part in known), default=0)
        of_own = max((len(part) for part in _beginnings(entry) if part in self._own | _EVERYBODYS), default=0)
        return of_theirs > of_own or (not of_theirs and not of_own and self._is_doubtful(place))

    def _is_doubtful(self, place: str) -> bool:
        """Whether of an inventory near these variables not all names are known."""
        unknown = [path for path in self._judged[place] if self._others.get(path) is None]
        return any(self._shown.reader is None or self._is_near(path) for path in unknown)

    def _is_near(self, inventory: str) -> bool:
        """Whether an inventory lies in playbook_root, or beside variables. Others tell what they have without programs:
        without their names nothing is hidden, or it would be the variables of groups that plays make, in each project.
        """
        around = {folder for folders in self._beside.values() for folder in folders}
        return is_below(inventory, self._shown.root) or os.path.dirname(inventory) in around

    @cached_property
    def _own(self) -> frozenset[str]:
        if self._shown.reader is None:
            return frozenset()
        inventories = tuple(sorted(filter(os.path.exists, self._shown.inventories)))
        names = self._shown.reader.own(self._shown.without_reader(), inventories)
        return frozenset().union(*(found or () for found in names.values()))

    @cached_property
    def _others(self) -> Names:
        if self._shown.reader is None:
            return {}
        inventories = {path for paths in self._judged.values() for path in paths}
        near = set(filter(self._is_near, inventories))
        far = set(filter(inventory_files.is_static, inventories - near))
        found: dict[str, frozenset[str] | None] = {}
        # Not all at once: the near ones should be known whatever is in the others.
        for paths in filter(None, (near, far)):
            found |= self._shown.reader.others(self._shown.without_reader(), tuple(sorted(paths)))
        return found


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
    return Followed(tuple(sorted(found)), refused, is_whole=not waiting)


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
