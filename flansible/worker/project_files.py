"""Lists what a project's tree has: playbooks with their plays, one playbook with its variables, inventories.

The files are read, in the worker itself and for a bounded time; nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

from flansible.errors import ProjectError
from flansible.models.file_names import escape
from flansible.playbooks import contents, listing

_MOST_LISTED = 5000
_MOST_READ_BYTES = 32 * 1024 * 1024
_MOST_LISTED_BYTES = 4 * 1024 * 1024  # as of a preview


class _Bounds:
    """What one list may take. ends_at: by time.monotonic."""

    def __init__(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._read = self._listed = 0

    def check_time(self) -> None:
        """Raises ProjectError when the time is over."""
        if time.monotonic() >= self._ends_at:
            raise ProjectError("there is more than can be listed in the time that a list has")

    def count_file(self, path: Path) -> None:
        """Counts a file that is to be read. Raises ProjectError."""
        self.check_time()
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            self._read += size if size <= contents.MAX_BYTES else 0  # larger ones are not read
        if self._read > _MOST_READ_BYTES:
            raise ProjectError("there is more than can be listed: the files have over 32 MiB")

    def counted(self, entry: Any) -> Any:
        """Returns an entry of a list, counted. Raises ProjectError."""
        self._listed += len(json.dumps(entry))
        if self._listed > _MOST_LISTED_BYTES:
            raise ProjectError("there is more than can be listed: the list has over 4 MiB")
        return entry


def of_tree(tree: Path, playbook_filter: str, words: tuple[str, ...], ends_at: float) -> dict[str, Any]:
    """Returns the lists. Raises ProjectError for too much.

    words: one playbook's path, of which the variables are listed too, or nothing; ends_at: by time.monotonic, give or
    take a file.
    """
    root, bounds = tree.resolve(), _Bounds(ends_at)
    if words:
        return {"playbooks": [bounds.counted(_with_variables(root, words[0], bounds))]}
    found = []
    for path in listing.candidates(root, re.compile(playbook_filter)):
        bounds.check_time()
        found.append(path)
    playbooks = []
    for path in sorted(found)[:_MOST_LISTED]:
        bounds.count_file(path)
        if (summary := contents.summary(path)) is not None:
            playbooks.append(bounds.counted(_entry(root, path, summary)))
    inventories = [bounds.counted(escape(str(path.relative_to(root)))) for path in listing.inventories(root)]
    return {"playbooks": playbooks, "inventories": inventories}


def _entry(root: Path, path: Path, found: contents.Summary | contents.Playbook) -> dict[str, Any]:
    return {
        "playbook": escape(path.name),
        "playbook_dir": escape(str(path.parent.relative_to(root))),
        "description": found.description,
        "plays": [play.model_dump(mode="json") for play in found.plays],
        "encrypted": found.is_encrypted or None,
    }


def _with_variables(root: Path, name: str, bounds: _Bounds) -> dict[str, Any] | None:
    path = Path(root, name)

    def may_read(file: Path) -> bool:
        bounds.count_file(file)  # it is asked before each file
        return file.is_relative_to(root)

    found = contents.read(path) if may_read(path.resolve()) else None
    if found is None:
        return None
    variables = contents.variables(found, path, may_read, path.parent)
    return {**_entry(root, path, found), "variables": [one.model_dump(mode="json") for one in variables]}
