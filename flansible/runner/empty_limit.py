"""Notices that a limit leaves a run no hosts, which Ansible reports as exit code 1, like any other error."""

from __future__ import annotations

from typing import Any

from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager

from flansible.runner.ansible_internals import replace

# Ansible's message for this cause alone; a limit from a file that is missing has another one.
_MESSAGE = "Specified inventory, host pattern and/or --limit leaves us with no hosts to target."


class EmptyLimitMonitor:
    """found: whether it happened in this process."""

    def __init__(self) -> None:
        self.found = False

    def watch(self) -> None:
        """Begins to watch the selection of hosts, for as long as this process lives."""

        def get_host_list(inventory: InventoryManager, subset: str | None, pattern: str = "all") -> list[Any]:
            try:
                return list(select(inventory, subset, pattern))
            except AnsibleError as error:
                self.found = bool(subset) and str(error) == _MESSAGE
                raise

        select = replace(CLI, "get_host_list", staticmethod(get_host_list))
