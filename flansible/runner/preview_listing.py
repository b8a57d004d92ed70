"""A preview run: executes nothing; sends the hosts and play tasks it would touch, or an inventory's hosts and groups.

Called in the run process. Inventory, limit, tags and templates are evaluated by the classes of Ansible that would run
it; the result is one `plan` frame on the event pipe, not text to be parsed. They print only warnings and errors.
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


def preview_class(command: type[CLI], what: str, pipe: EventPipe) -> type[CLI]:
    """Returns the class to use in place of `command`. what: `plan`, or `inventory` (for `ansible`)."""
    if issubclass(command, AdHocCLI):
        return _adhoc_preview_class(command, what, pipe)
    PreviewExecutor.event_pipe = pipe
    replace(ansible.cli.playbook, "PlaybookExecutor", PreviewExecutor)
    return command


def _plan(plays: list[dict[str, Any]], includes: int) -> dict[str, Any]:
    """Returns the plan, with the inventories as Ansible has found them, and the folder in which it did."""
    named = context.CLIARGS["inventory"]
    given = [named] if isinstance(named, str) else named
    sources = [text if "," in text else os.path.realpath(text) for text in given]
    return {"plays": plays, "includes": includes, "inventories": sources, "cwd": os.getcwd()}


def _send_plan(pipe: EventPipe, plan: dict[str, Any]) -> None:
    # Bytes in a name that are not UTF-8 are replaced.
    text = json.dumps(plain(plan), ensure_ascii=False).encode(errors="replace")
    is_large = len(text) > MAX_PLAN_BYTES
    pipe.send({"type": "plan", "plan": {} if is_large else json.loads(text), "too_large": is_large})


def _adhoc_preview_class(command: type[CLI], what: str, pipe: EventPipe) -> type[CLI]:
    class Preview(command):
        def ask_passwords(self) -> tuple[None, None]:
            return None, None

        @staticmethod
        def get_host_list(inventory: InventoryManager, subset: str | None, pattern: str = "all") -> list[Any]:
            if what == "inventory":
                plan = _inventory_preview(inventory)
            else:
                plan = _plan([_adhoc_play(_hosts(inventory, subset, pattern), pattern)], 0)
            _send_plan(pipe, plan)
            raise SystemExit(0)  # what Ansible would do next executes something

    Preview.__name__ = command.__name__
    return Preview


def _hosts(inventory: InventoryManager, subset: str | None, pattern: str) -> list[Any]:
    """Selects hosts as `ansible` does. Raises AnsibleError where it would."""
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
    """Lists hosts and groups; omits groups without a host that the user may reach."""
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


class PreviewExecutor(PlaybookExecutor):
    """Sends the plays that Ansible's executor collects for `--list-tasks`, instead of printing them."""

    event_pipe: EventPipe

    def run(self) -> Any:
        found = super().run()
        # A list of playbooks; anything else is an exit code: Ansible failed.
        if not isinstance(found, list):
            return found
        plays, includes = [], 0
        for entry in found:
            for play in entry["plays"]:
                self._set_basedir(play, entry["playbook"])
                tasks, count = self._play_tasks(play)
                plays.append(self._play(play, tasks))
                includes += count
        _send_plan(self.event_pipe, _plan(plays, includes))
        return 0

    def _set_basedir(self, play: Play, playbook: str) -> None:
        self._loader.set_basedir(play._included_path or os.path.realpath(os.path.dirname(playbook)))

    def _play(self, play: Play, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        pattern = play.hosts if isinstance(play.hosts, str) else ",".join(map(str, play.hosts or []))
        hosts = dict.fromkeys(_name(host) for host in self._inventory.get_hosts(play.hosts))
        return {"play": play.get_name(), "pattern": pattern, "hosts": list(hosts), "play_tasks": tasks}

    def _play_tasks(self, play: Play) -> tuple[list[dict[str, Any]], int]:
        """Returns the play tasks that the tags select, in order, and how many of them include others at run time."""
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
