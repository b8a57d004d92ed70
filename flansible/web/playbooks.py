"""The list of playbooks under playbook_root."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from flask import Response, jsonify

from flansible import outline
from flansible.models import ListedPlaybook, PlaybookList
from flansible.rules.files import may_start
from flansible.web.auth import PrivateResource, current_user
from flansible.web.bodies import NoFields, query
from flansible.web.services import services

# Folders in which YAML files are not playbooks.
_SKIPPED = frozenset(
    {"roles", "group_vars", "host_vars", "collections", "inventories", "inventory", "templates", "files", "vars"}
)
_MAX_BYTES = 1024 * 1024
_PLAY_KEYS = ("hosts", "import_playbook", "ansible.builtin.import_playbook")


class ListPlaybooks(PrivateResource):
    """Playbooks that the caller may run, if their inventory allows."""

    def get(self) -> Response:
        """List the playbooks under playbook_root"""
        query(NoFields)
        settings, user = services().settings, current_user()
        root = Path(os.path.realpath(settings.playbook_root))
        found = [
            path
            for path in sorted(_playbooks(root, re.compile(settings.playbook_filter)))
            if may_start(user, path, root)
        ]
        listed = [ListedPlaybook(playbook=path.name, playbook_dir=str(path.parent)) for path in found]
        return jsonify(PlaybookList(playbooks=listed).model_dump())


def _playbooks(root: Path, name_filter: re.Pattern[str]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if name_filter.search(str(path.relative_to(root))) and _is_playbook(path):
                yield path


def _is_playbook(path: Path) -> bool:
    """A YAML list whose first item is a play. Read for its outline only: tags such as !vault construct nothing."""
    try:
        # A pipe would keep this thread waiting for ever.
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return False
        document = outline.compose(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(document, yaml.SequenceNode) or not document.value:
        return False
    first = document.value[0]
    return isinstance(first, yaml.MappingNode) and any(key.value in _PLAY_KEYS for key, _ in first.value)
