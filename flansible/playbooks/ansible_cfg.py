"""Reads the section `defaults` of a project's ansible.cfg: text that users push, so with bounds and without templates.

Called by flansible.playbooks.roles and by the rule on default inventories.
"""

from __future__ import annotations

import configparser
from pathlib import Path

_MAX_BYTES = 256 * 1024


def defaults(path: Path) -> dict[str, str]:
    """Returns the options of the section; nothing for what is no such file."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        if not path.is_file() or not 0 < path.stat().st_size <= _MAX_BYTES:
            return {}
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, configparser.Error):
        return {}
    return dict(parser.items("defaults")) if parser.has_section("defaults") else {}
