"""A run that executes nothing and tells what it would touch: hosts and play tasks, or an inventory's hosts and groups.

Called in the run process. Inventory, limit, tags and templates are Ansible's own work, done by the classes that would
run it; what they find goes as one `plan` frame to the event pipe, not as text that would have to be read back. What
they print are warnings and errors alone.
"""

from __future__ import annotations

import json
import os
from typing import Any

import ansible.cli.playbook
from ansible import constants, context
from ansible.cli import CLI
from ansible.cli.adhoc import AdHocCLI
from ansible.errors import AnsibleError
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible.inventory.manager import InventoryManager
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.utils.display import Display

from flansible.runner.ansible_internals import replace
from flansible.runner.callback import EventPipe, plain

MAX_PLAN_BYTES = 4 * 1024 * 1024
_ADHOC_PLAY = "Ansible Ad-Hoc"


def instead_of(command: type[CLI], what: str, pipe: EventPipe) -> type[CLI]:
    """The class to use in place of `command`. what: `plan`, or `inventory` (for `ansible`)."""
    if issubclass(command, AdHocCLI):
        return _listing_adhoc(command, what, pipe)
    ListingExecutor.event_pipe = pipe
    replace(ansible.cli.playbook, "PlaybookExecutor", ListingExecutor)
    return command


def _tell(pipe: EventPipe, plan: dict[str, Any]) -> None:
    # A name with bytes that are no UTF-8 is no text: something else stands for them.
    text = json.dumps(plain(plan), ensure_ascii=False).encode(errors="replace")
    is_large = len(text) > MAX_PLAN_BYTES
    pipe.send({"type": "plan", "plan": {} if is_large else json.loads(text), "too_large": is_large})


def _listing_adhoc(command: type[CLI], what: str, pipe: EventPipe) -> type[CLI]:
    class Listing(command):
        def ask_passwords(self) -> tuple[None, None]:
            return None, None

        @staticmethod
        def get_host_list(inventory: InventoryManager, subset: str | None, pattern: str = "all") -> list[Any]:
            if what == "inventory":
                plan = _inventory_preview(inventory)
            else:
                plan = {"plays": [_adhoc_play(_hosts(inventory, subset, pattern), pattern)], "includes": 0}
            _tell(pipe, plan)
            raise SystemExit(0)  # everything that comes after this would execute something

    Listing.__name__ = command.__name__
    return Listing


def _hosts(inventory: InventoryManager, subset: str | None, pattern: str) -> list[Any]:
    """As `ansible` finds them. Raises AnsibleError where it would."""
    try:
        return list(CLI.get_host_list(inventory, subset, pattern))
    except AnsibleError:
        if subset:
            raise
        Display().warning("No hosts matched, nothing to do")
        return []


def _adhoc_play(hosts: list[Any], pattern: str) -> dict[str, Any]:
    module = {"name": context.CLIARGS["module_name"], "tags": []}
    return {"play": _ADHOC_PLAY, "pattern": pattern, "hosts": [_name(host) for host in hosts], "play_tasks": [module]}


def _inventory_preview(inventory: InventoryManager) -> dict[str, Any]:
    """Groups without a host of the user's are not told."""
    hosts = [_name(host) for host in inventory.get_hosts("all")]
    mine = set(hosts)
    groups = {
        str(name): [host.name for host in group.get_hosts() if host.name in mine]
        for name, group in inventory.groups.items()
        if name != "all"
    }
    return {"hosts": hosts, "groups": {name: found for name, found in groups.items() if found}}


def _name(host: Any) -> str:
    return str(getattr(host, "name", host))


class ListingExecutor(PlaybookExecutor):
    """Ansible's, which collects the plays it has been told to list; here they are told, not printed."""

    event_pipe: EventPipe

    def run(self) -> Any:
        found = super().run()
        # It is a list when Ansible has been told to list; anything else is how it failed.
        if not isinstance(found, list):
            return found
        plays, includes = [], 0
        for entry in found:
            for play in entry["plays"]:
                self._work_beside(play, entry["playbook"])
                tasks, count = self._play_tasks(play)
                plays.append(self._play(play, tasks))
                includes += count
        _tell(self.event_pipe, {"plays": plays, "includes": includes})
        return 0

    def _work_beside(self, play: Play, playbook: str) -> None:
        self._loader.set_basedir(play._included_path or os.path.realpath(os.path.dirname(playbook)))

    def _play(self, play: Play, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        pattern = play.hosts if isinstance(play.hosts, str) else ",".join(map(str, play.hosts or []))
        hosts = dict.fromkeys(_name(host) for host in self._inventory.get_hosts(play.hosts))
        return {"play": play.get_name(), "pattern": pattern, "hosts": list(hosts), "play_tasks": tasks}

    def _play_tasks(self, play: Play) -> tuple[list[dict[str, Any]], int]:
        """Those that the tags let through, in order, and how many of them include others as they run."""
        variables = self._variable_manager.get_vars(play=play)
        tasks = [
            task
            for block in play.compile()
            for task in _tasks_of(block.filter_tagged_tasks(variables))
            if not (task.action in constants._ACTION_META and task.implicit)
        ]
        listed = [
            {
                "name": task.get_name() if task.name else task.action,
                "tags": sorted({*map(str, play.tags), *map(str, task.tags)}),
            }
            for task in tasks
        ]
        return listed, sum(task.action in constants._ACTION_ALL_INCLUDES for task in tasks)


def _tasks_of(block: Block) -> list[Any]:
    found: list[Any] = []
    for item in block.block:
        found += _tasks_of(item) if isinstance(item, Block) else [item]
    return found
