"""Finds files that may be playbooks or inventories below a folder. For web processes, and for workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_INVENTORIES = frozenset({"inventories", "inventory", "environments"})
# Folders in which YAML files are not playbooks.
_SKIPPED = frozenset(
    {
        *("roles", "group_vars", "host_vars", "collections", "inventories", "inventory"),
        *("templates", "files", "vars", "molecule"),
    }
)
_VARIABLES = frozenset({"group_vars", "host_vars"})
_INVENTORY_FILE = re.compile(r"(hosts|inventory)(\.(ya?ml|ini|toml))?")


def candidates(root: Path, name_filter: re.Pattern[str], written: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yields the files below root that the filter selects. Each folder counts once: by its own path, else by a link's.

    Links that lead out are not followed: anyone who can push one could have this walk through the whole disk.
    written: folders that users' runs can write; what lies there is no playbook.
    """
    seen: set[str] = set()
    starts = [str(root)]
    while starts:
        for folder, folders, names in os.walk(starts.pop(0)):
            real = os.path.realpath(folder)
            if real in seen or not _is_below(real, str(root)) or Path(real) in written:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
            starts += [link for name in folders if os.path.islink(link := os.path.join(folder, name))]
            for name in names:
                path = Path(folder, name)
                if name_filter.search(str(path.relative_to(root))):
                    yield path


def inventories(root: Path) -> Iterator[Path]:
    """Yields what looks like an inventory: what is in a folder of that name, and files of that name at the root."""
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if _INVENTORY_FILE.fullmatch(entry.name) and entry.is_file():
            yield Path(entry.path)
        elif entry.name in _INVENTORIES and entry.is_dir():
            for inner in sorted(os.scandir(entry.path), key=lambda inner: inner.name):
                if inner.name not in _VARIABLES and not inner.name.startswith("."):
                    yield Path(inner.path)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")
