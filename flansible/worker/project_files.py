"""Lists what a project's tree has: playbooks with their plays, one playbook with its variables, inventories.

The files are read; nothing in them is executed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flansible.models.file_names import escape
from flansible.playbooks import contents, listing

_MOST_LISTED = 5000


def of_tree(tree: Path, playbook_filter: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Returns the lists; words: one playbook's path, of which the variables are listed too, or nothing."""
    root = tree.resolve()
    if words:
        return {"playbooks": [_with_variables(root, words[0])]}
    found = sorted(listing.candidates(root, re.compile(playbook_filter)))[:_MOST_LISTED]
    summaries = ((path, contents.summary(path)) for path in found)
    return {
        "playbooks": [_entry(root, path, summary) for path, summary in summaries if summary is not None],
        "inventories": [escape(str(path.relative_to(root))) for path in listing.inventories(root)],
    }


def _entry(root: Path, path: Path, found: contents.Summary | contents.Playbook) -> dict[str, Any]:
    return {
        "playbook": escape(path.name),
        "playbook_dir": escape(str(path.parent.relative_to(root))),
        "description": found.description,
        "plays": [play.model_dump(mode="json") for play in found.plays],
        "encrypted": found.is_encrypted or None,
    }


def _with_variables(root: Path, name: str) -> dict[str, Any] | None:
    path = Path(root, name)

    def may_read(file: Path) -> bool:
        return file.is_relative_to(root)

    found = contents.read(path) if may_read(path.resolve()) else None
    if found is None:
        return None
    variables = contents.variables(found, path, may_read, path.parent)
    return {**_entry(root, path, found), "variables": [one.model_dump(mode="json") for one in variables]}
