"""Lists the hosts and groups of inventories, as Ansible's own loader reads them: a program for a hidden run.

Started by flansible.worker.inventory_names in a sandbox without a network, since inventories may be programs, with
`{"inventories": [paths]}` on standard input. Writes `{path: {"names": [...], "complete": bool}}` to standard output:
names of hosts and groups, and whether all of the inventory could be read.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

_CPU_SECONDS = 20
_MEMORY_BYTES = 2 * 1024**3
_FILE_BYTES = 64 * 1024**2


def main() -> int:
    for limit, value in (
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    request = json.load(sys.stdin)
    # What inventories and Ansible print is not the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found = {path: _names(path) for path in request["inventories"]}
    with answer:
        json.dump(found, answer)
    return 0


class _Manager(InventoryManager):
    """Notes each part of a source that no plugin can read."""

    is_complete = True

    def parse_source(self, source: str, cache: bool = False) -> Any:
        is_read = super().parse_source(source, cache=cache)
        self.is_complete = self.is_complete and bool(is_read)
        return is_read


def _names(path: str) -> dict[str, Any]:
    try:
        manager = _Manager(loader=DataLoader(), sources=[path], cache=False)
        names = {*map(str, manager.hosts), *map(str, manager.groups)}
        return {"names": sorted(names), "complete": manager.is_complete}
    except Exception:  # whatever a plugin raises
        return {"names": [], "complete": False}


if __name__ == "__main__":
    sys.exit(main())
