"""Compares the limits of a run with those that its user has now. Pure; called by the web process and by the worker."""

from __future__ import annotations

from collections.abc import Iterable

from flansible.authorization.path_parts import is_below
from flansible.models import Confinement

_ALL_HOSTS = ("all", "*")


def lost(before: Confinement, now: Confinement | None) -> str:
    """Returns what `before` grants and `now` does not, by its key in rbac.json; '' if there is nothing.

    `hidden` is left out: what became another's was no right of this user, and would end runs of all.
    """
    if now is None:
        return "an account that may start tasks"
    was, granted = before.hosts, now.hosts
    for key, paths, folders in (
        ("inventories", before.inventories or (), now.inventories or ()),
        ("inventories or paths", before.readable, now.readable),
        ("writable", before.writable, now.writable),
        ("projects", before.projects, now.projects),
    ):
        if gone := _outside(paths, folders):
            return f"{gone} ({key})"
    if granted is not None and not set(_ALL_HOSTS) & set(granted) and (was is None or not set(was) <= set(granted)):
        return "all of its hosts (hosts)"
    for key in ("control_node", "lasting_processes"):
        if getattr(before, key) and not getattr(now, key):
            return key
    return ""


def _outside(paths: Iterable[str], folders: Iterable[str]) -> str | None:
    """Returns the first of the paths that is in none of the folders."""
    known = list(folders)
    return next((path for path in paths if not any(is_below(path, folder) for folder in known)), None)
