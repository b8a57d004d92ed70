"""Decides who may see and cancel a task of another user.

A task has its `Visibility` from its submission on: its resolved inventories, its hosts as far as they are known, and
the entries of rbac.json that saw it then. It is seen by an entry that saw it then and would see it now: who loses an
inventory loses the tasks on it, and who gets one does not get those of before. Pure; called by flansible.authorization
when a run is authorized, and by flansible.web.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from flansible.authorization.path_parts import is_below
from flansible.authorization.rules import hosts, modules
from flansible.authorization.rules.paths import EXPANDED
from flansible.identity.users import OWN_ENTRY, User
from flansible.models import AdhocRequest, PlaybookRequest, TaskStatus, Visibility

_ALL_HOSTS = frozenset({"all", "*"})


def of_run(
    entry: User, request: AdhocRequest | PlaybookRequest, inventories: Sequence[str], cwd: Path
) -> Visibility | None:
    """Returns what a run can reach; None where that is not known, so that only `sees: all` shows it.

    inventories: as on its command line. They are unknown where Ansible's configuration names them, or where they are
    hosts or have a part that Ansible replaces, as only admin may write.
    """
    if not inventories or any(EXPANDED.search(text) for text in inventories):
        return None
    resolved = tuple(os.path.realpath(os.path.join(cwd, text)) for text in inventories)
    return Visibility(inventories=resolved, hosts=tuple(known_hosts(entry, request)))


def entries_that_see(found: Visibility, users: Iterable[User]) -> tuple[str, ...]:
    """Returns the names of the entries that see a run by its inventories and hosts."""
    entries = {reader(entry): entry for user in users for entry in user.entries if _looks(entry)}
    return tuple(name for name, entry in entries.items() if _covers(entry, found))


def reader(entry: User) -> str:
    """Names an entry as a reader of tasks: `user:` and the name for an own one, `group:` and the name for a group's."""
    return f"user:{entry.name}" if entry.entry == OWN_ENTRY else entry.entry


def readers(user: User) -> tuple[str, ...]:
    """Returns the names of the user's entries that see tasks of others by their inventories."""
    return tuple(reader(entry) for entry in user.entries if entry.sees == "inventories")


def may_see(user: User, task: TaskStatus) -> bool:
    """Whether the user may see all of the task."""
    if user.sees_all or task.user == user.name:
        return True
    return may_see_of_others(user, task.visibility)


def may_see_of_others(user: User, found: Visibility | None) -> bool:
    """Whether one of the user's entries sees a task of another user that has this visibility."""
    return any(entry.sees == "inventories" and _has_in_view(entry, found) for entry in user.entries)


def may_cancel(user: User, task: TaskStatus) -> bool:
    """Whether the user may cancel the task: its own user, admin, and entries with `cancels: inventories`."""
    if user.is_admin or (task.user == user.name and user.may_act):
        return True
    return any(_has_in_view(entry, task.visibility) for entry in cancels_of_others(user))


def cancels_of_others(user: User) -> list[User]:
    """Returns the user's entries by which tasks of others may be canceled."""
    return [entry for entry in user.entries if entry.may_act and entry.cancels == "inventories"]


def _looks(entry: User) -> bool:
    return not entry.is_admin and "inventories" in (entry.sees, entry.cancels)


def _has_in_view(entry: User, found: Visibility | None) -> bool:
    return found is not None and reader(entry) in found.entries and _covers(entry, found)


def _covers(entry: User, found: Visibility) -> bool:
    """Whether the entry has all inventories of the run, and its `hosts` all hosts that the run can reach."""
    own = [*map(str, entry.inventories), *entry.project_inventories]
    if not all(any(is_below(path, folder) for folder in own) for path in found.inventories):
        return False
    if entry.hosts is None or _ALL_HOSTS & set(entry.hosts):
        return True
    granted = entry.hosts
    return any(all(hosts.is_within(pattern, granted) for pattern in patterns) for patterns in found.hosts)


def known_hosts(entry: User, request: AdhocRequest | PlaybookRequest) -> Iterable[tuple[str, ...]]:
    """Yields lists of patterns, each of which has all hosts of the run.

    The hosts of its entry bind a run in all it does. What a request names binds an ad-hoc command alone: a playbook may
    delegate to other hosts, and so may a file that a module such as include_role runs.
    """
    if entry.hosts is not None:
        yield entry.hosts
    if isinstance(request, AdhocRequest) and not modules.runs_a_file(request):
        for pattern in filter(None, (request.pattern, request.limit)):
            # Those with & or ! only take away; without others Ansible begins with all hosts.
            named = tuple(term for term in hosts.terms(pattern) if term[0] not in "&!")
            if named and not _ALL_HOSTS & set(named):
                yield named
