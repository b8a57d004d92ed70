"""Decides whether a path is shown to a confined user; the only place that does.

Web processes call `is_listed` before they read a playbook or a role to a user; the worker calls `is_hidden` to make a
sandbox. Paths are strings, absolute and with links resolved: a path is judged by where it lies. Reads names in folders
and the text of files beside inventories, and executes nothing. docs/architecture/shown-paths.md has the reasons.

| path                                                                       | a run sees it | lists have it |
|----------------------------------------------------------------------------|---------------|---------------|
| 1. private: config.ini and the files and folders it names                  | no            | no            |
| 2. in another user's inventory, unless row 3, 4 or 5 names a longer part   | no            | no            |
| 3. in an inventory or path that rbac.json gives the user                   | yes           | yes           |
| 4. group_vars, host_vars of the user's inventory files; what links in the  | yes           | no            |
|    user's inventories lead to; what the user's inventory scripts name      |               |               |
| 5. in programs or sandbox_paths, unless row 6 names a longer part of it    | yes           | no            |
| 6. the default inventory; an inventory beside one of the user's; variables | no            | no            |
|    in a folder of others' inventory files alone, without playbooks; those  |               |               |
|    of hosts and groups that only others' inventories have; what lies       |               |               |
|    beside a path of the user; what hidden_paths names; the history (.git)  |               |               |
|    of a folder in which something is hidden                                |               |               |
| 7. below playbook_root                                                     | yes           | yes           |
| 8. anything else                                                           | no            | no            |

Rows 2 and 6 hold in every tree that is shown, not only below playbook_root; hidden_paths counts from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path

from flansible.authorization import inventory_files, variable_files
from flansible.authorization.inventory_files import Search, stem
from flansible.authorization.path_parts import above, is_in, longest, upwards
from flansible.authorization.path_parts import is_below as is_below
from flansible.authorization.variable_files import Followed, NamesReader, Variables
from flansible.config import Settings, comma_list

_HISTORY = (*(f"/{name}" for name in inventory_files.HISTORIES), ".bundle")


@dataclass(frozen=True)
class ShownPaths:
    """The rule for one user, as the settings and rbac.json are now.

    readable: the user's inventories and paths; inventories: those of them that are inventories; writable: folders that
    the user's runs may write; opened: programs and sandbox_paths; others: inventories that are not the user's; default:
    config.ini's; closed: folders of the user's paths in which only what is readable is shown; patterns: hidden_paths;
    reader: finds the hosts and groups of inventories, None where no run is made.
    """

    root: str
    private: frozenset[str]
    readable: frozenset[str]
    inventories: frozenset[str]
    writable: frozenset[str]
    opened: frozenset[str]
    others: frozenset[str]
    default: frozenset[str]
    closed: frozenset[str]
    patterns: tuple[str, ...]
    reader: NamesReader | None = None

    def is_hidden(self, path: str) -> bool:
        """Whether rows 1 to 6 hide a path from the user's runs; for paths in a folder that is shown."""
        parts = upwards(path)
        if longest(parts, self.private):
            return True
        others_at = self._others_at(parts)
        if (readable_at := longest(parts, self.readable)) and readable_at >= others_at:
            return False
        hidden_at = max(others_at, self._hidden_at(parts))
        return hidden_at > 0 and hidden_at > max(longest(parts, self.opened), longest(parts, self._shown_beside))

    def is_listed(self, path: str) -> bool:
        """Whether the API may show the path's content to the user: rows 3 and 7."""
        parts = upwards(path)
        if longest(parts, self.private):
            return False
        if (readable_at := longest(parts, self.readable)) and readable_at >= self._others_at(parts):
            return True
        return self.is_ordinary(path) and not longest(parts, self._shown_beside)

    def is_ordinary(self, path: str) -> bool:
        """Whether row 7 shows a path: below playbook_root, and not hidden."""
        parts = upwards(path)
        if not is_below(path, self.root) or longest(parts, self.private):
            return False
        return not self._others_at(parts) and not self._hidden_at(parts)

    def is_partly_hidden(self, folder: str) -> bool:
        """Whether something in a folder that is shown is hidden, or would be once it exists."""
        return folder in self._above_others or (folder in self._above_hidden and not is_in(folder, self.readable))

    @property
    def variables(self) -> tuple[str, ...]:
        """The paths of row 4 that are to be shown as trees of their own."""
        return tuple(sorted(self._shown_beside))

    @property
    def links(self) -> tuple[str, ...]:
        """Links of the name group_vars or host_vars beside the user's inventory files, to be made as they are."""
        return self.judged_variables.links

    # Row 2.

    def _others_at(self, parts: list[str]) -> int:
        """Returns the length of the longest part of a path that is another's inventory, or the history of one."""
        for part in parts:
            if part in self.others or self._is_history(part, self._above_others):
                return len(part)
        return 0

    @cached_property
    def _above_others(self) -> frozenset[str]:
        return frozenset(folder for path in (*self.private, *self.others) for folder in above(path))

    def _is_history(self, path: str, folders: frozenset[str]) -> bool:
        return os.path.dirname(path) in folders and (path.endswith(_HISTORY) or self._is_repository(path))

    @cached_property
    def _is_repository(self) -> Callable[[str], bool]:
        return cache(inventory_files.is_bare_repository)

    # Row 4.

    @cached_property
    def _shown_beside(self) -> frozenset[str]:
        return frozenset((*self.judged_variables.shown, *self.followed_links.shown, *self._named_by_scripts))

    @cached_property
    def judged_variables(self) -> Variables:
        """The variables of inventories. What is beside an inventory is known by then; what links lead to is not."""
        return variable_files.find(self)

    @cached_property
    def followed_links(self) -> Followed:
        places = [path for path in self.inventories if os.path.isdir(path)]
        return variable_files.follow(self, [*places, *self.judged_variables.shown])

    @cached_property
    def _named_by_scripts(self) -> tuple[str, ...]:
        named = (path for one in self.inventories for path in inventory_files.named_by_script(one))
        return tuple(path for path in named if self.may_follow(path, os.path.dirname(path)))

    def may_follow(self, path: str, base: str) -> bool:
        """Whether what a link or script of the user's inventory names may be shown: it lies in `base`, holds no
        inventory and is in none, and is neither private nor another's."""
        if not is_below(path, base) or path == base or self._leads_to_own(path):
            return False
        if (
            is_in(path, self.private)
            or self._others_at(upwards(path))
            or is_in(path, self.default | self.of_others | self.judged_variables.hidden)
        ):
            return False
        if is_in(path, self.beside) or os.path.dirname(path) in self.closed:
            return False
        folders = [path, *(part for part in upwards(path) if is_below(part, base) and part != base)]
        return not any(self._is_of_inventory(folder) for folder in folders if not self._leads_to_own(folder))

    def _is_of_inventory(self, path: str) -> bool:
        if not os.path.isdir(path):
            return inventory_files.is_inventory(path, is_beside=False)
        return next(Search(self._is_own, self._leads_to_own).beside(path, names_count=False), None) is not None

    # Row 6.

    @cached_property
    def beside(self) -> frozenset[str]:
        """The inventories beside the user's and others' that are not the user's, and what belongs to them by name."""
        search = self._search
        found: set[str] = set()
        for folder in self.neighbours:
            own = [path for path in self.inventories if os.path.dirname(path) == folder]
            is_seen = is_below(folder, self.root) or is_in(folder, self.opened | self.readable)
            found.update(search.beside(folder, names_count=any(map(os.path.isdir, own)), only_files=not is_seen))
            found.update(self._named_like_others(folder, found))
        # Among the system's programs, or those of sandbox_paths, many look like inventories.
        for folder in (one for one in self._folders_of_others if not is_in(one, self.opened)):
            files = search.beside(folder, names_count=False, only_files=True)
            found.update(path for path in files if inventory_files.kind_of(path) == "inventory")
            if folder != self.root and not inventory_files.is_project(folder):
                found.update(self._named_like_others(folder, found))
        return frozenset(found)

    def _named_like_others(self, folder: str, found: set[str]) -> list[str]:
        """Returns what in a folder has the name of an inventory of others in its own, and of none of the user's."""
        others = {stem(path) for path in (*found, *self.others) if os.path.dirname(path) == folder}
        others -= {stem(path) for path in self.inventories if os.path.dirname(path) == folder}
        return [path for path in _entries_of(folder, others) if not self._leads_to_own(path)]

    @cached_property
    def _folders_of_others(self) -> frozenset[str]:
        """The folders of others' inventory files in which no inventory of the user's lies."""
        files = (path for path in self.others | self.default if os.path.isfile(path))
        return frozenset({os.path.dirname(path) for path in files} - self.neighbours)

    @cached_property
    def of_others(self) -> frozenset[str]:
        """The variables beside inventory files that are not the user's, in folders where none of the user's could have
        them.

        Their names say nothing: dev and prod have the same groups. Beside playbooks they are everyone's; an ansible.cfg
        or roles alone load none.
        """
        beside = {os.path.dirname(path) for path in self.beside if os.path.isfile(path)} - self.neighbours
        folders = (self._folders_of_others | beside) - {self.root}
        alone = [folder for folder in folders if not inventory_files.has_playbooks(folder)]
        named = [(folder, os.path.join(folder, name)) for folder in alone for name in inventory_files.VARIABLES]
        # A link that stays in the folder means variables of this inventory; one that leaves it may mean everyone's.
        found = {(folder, os.path.realpath(path)) for folder, path in named}
        return frozenset(
            path
            for folder, path in found
            if os.path.isdir(path) and is_below(path, folder) and path not in folders and not self._leads_to_own(path)
        )

    @property
    def undecided(self) -> list[str]:
        """Folders beside the user's inventories that count as inventories since there is too much to be judged."""
        return self._search.undecided if self.beside else []

    @cached_property
    def _search(self) -> Search:
        return Search(lambda path: self._is_own(path) or path in self.others, self._leads_to_own)

    @cached_property
    def neighbours(self) -> frozenset[str]:
        """The folders of the user's inventories. What is added to one must not be seen before it was judged."""
        folders = {os.path.dirname(path) for path in self.inventories}
        return frozenset(folder for folder in folders if os.path.isdir(folder))

    def _is_own(self, path: str) -> bool:
        return path in self.readable or path in self.writable

    def _leads_to_own(self, path: str) -> bool:
        return path in self._above_own

    @cached_property
    def _above_own(self) -> frozenset[str]:
        return frozenset(folder for path in (*self.readable, self.root) for folder in (*above(path), path))

    def _hidden_at(self, parts: list[str]) -> int:
        """Returns the length of the longest part of a path that row 6 names."""
        return next((len(part) for part in parts if self._is_named(part)), 0)

    def _is_named(self, path: str) -> bool:
        if path in self._hidden or path in self._repositories:
            return True
        if os.path.dirname(path) in self.closed or self._is_matching(path):
            return True
        return self._is_history(path, self._above_hidden)

    @cached_property
    def _hidden(self) -> frozenset[str]:
        return self.default | self.beside | self.of_others | self.judged_variables.hidden

    @cached_property
    def _above_hidden(self) -> frozenset[str]:
        """The folders in which something is hidden, or will be as soon as it exists."""
        return self._around_hidden | {folder for path in self._repositories for folder in above(path)}

    @cached_property
    def _around_hidden(self) -> frozenset[str]:
        """The same, but for the repositories."""
        names = (*self.private, *self.others, *self._hidden, *self._matching)
        inside = {folder for path in names for folder in above(path)}
        around = {part for folder in (*self.closed, *self.neighbours) for part in upwards(folder)}
        return frozenset(inside | around)

    @cached_property
    def _repositories(self) -> frozenset[str]:
        """Where git keeps the history of folders in which something is hidden, if not in them."""
        found = {path for folder in self._around_hidden for path in inventory_files.repositories_of(folder)}
        return frozenset(path for path in found if not self._leads_to_own(path))

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

    def without_reader(self) -> ShownPaths:
        """Returns the rule where no inventory was read: variables that could be others' are hidden."""
        return replace(self, reader=None)


def of(
    readable: Iterable[Path | str],
    hidden: Iterable[Path | str],
    settings: Settings,
    programs: Iterable[str] = (),
    *,
    inventories: Iterable[Path | str] | None = None,
    writable: Iterable[str] = (),
    reader: NamesReader | None = None,
) -> ShownPaths:
    """Returns the rule for a user. readable, hidden: resolved; programs: folders that every run needs.

    inventories: those of `readable` that are inventories; by default all of it.
    """
    root = os.path.realpath(settings.playbook_root)
    shown = frozenset(map(str, readable))
    own = shown if inventories is None else frozenset(map(str, inventories))
    default = settings.default_inventory
    defaults = {os.path.realpath(default)} if default and "," not in default else set()
    folders = {os.path.dirname(path) for path in shown - own}
    return ShownPaths(
        root=root,
        private=frozenset(os.path.realpath(path) for path in settings.private_paths),
        readable=shown,
        inventories=own,
        writable=frozenset(writable),
        opened=frozenset((*programs, *(os.path.realpath(path) for path in comma_list(settings.sandbox_paths)))),
        # Another user's inventory that contains playbook_root does not hide it.
        others=frozenset(path for path in map(str, hidden) if not is_below(root, path)),
        default=frozenset(path for path in defaults if not is_below(root, path)),
        closed=frozenset(
            folder
            for folder in folders
            if folder != root and is_below(folder, root) and not inventory_files.is_project(folder)
        ),
        patterns=tuple(comma_list(settings.hidden_paths)),
        reader=reader,
    )


def _entries_of(folder: str, stems: set[str]) -> list[str]:
    """Returns what in a folder has the name of an inventory in its own: `prod.ini`, `vault-prod`; no playbooks."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if not entry.is_symlink()]
    except OSError:
        return []
    named = (path for path in found if inventory_files.is_named_like(os.path.basename(path), stems))
    return [path for path in named if inventory_files.kind_of(path) != "playbook"]
