"""The rules that only the run can keep, because they need Ansible's inventory; for users other than admin.

Called in the run process before Ansible starts. What is said here is a second wall where the web process could refuse
the request, and the only one where what a name means is known to the inventory alone.
"""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.inventory.data import InventoryData
from ansible.inventory.manager import InventoryManager
from ansible.vars.manager import VariableManager

from flansible.runner.ansible_internals import replace

# Connections that execute nothing on this machine.
_REMOTE = frozenset({"ssh", "paramiko_ssh", "paramiko", "smart", "winrm", "psrp", "network_cli", "netconf", "httpapi"})


def apply(rules: dict[str, Any] | None, program: str) -> None:
    """From now on, in this process. rules: as flansible.worker.sandbox says them; None: everything is allowed."""
    if rules is None:
        return
    if program == "ansible" and not rules["control_node"]:
        _refuse_implicit_localhost()
    if rules["remote_only"]:
        _refuse_local_connections()
    if rules["hosts"] is not None:
        _only(rules["hosts"])


def _refuse_implicit_localhost() -> None:
    """Ansible adds the machine it runs on to every inventory that does not name it, once it is asked for."""

    def refuse(_inventory: InventoryData, pattern: str) -> None:
        raise AnsibleError(f"{pattern} is not in the inventory; to run on the control machine is not your right")

    replace(InventoryData, "_create_implicit_localhost", refuse)


def _refuse_local_connections() -> None:
    def connect_elsewhere(executor: TaskExecutor, *args: Any, **kwargs: Any) -> Any:
        connection = connect(executor, *args, **kwargs)
        if connection._load_name.rpartition(".")[2] not in _REMOTE:
            message = "bubblewrap cannot be used, and without it nothing of yours is executed on the control machine"
            raise AnsibleError(f"connection {connection._load_name}: {message}")
        return connection

    connect = replace(TaskExecutor, "_get_connection", connect_elsewhere)


def _only(patterns: list[str]) -> None:
    """Whatever selects hosts, selects among these; a task is delegated to one of them, or to localhost."""

    def allowed(inventory: InventoryManager) -> set[str]:
        hosts = select(inventory, ":".join(patterns), ignore_limits=True, ignore_restrictions=True)
        return {host.name for host in hosts}

    def select_allowed(inventory: InventoryManager, *args: Any, **kwargs: Any) -> list[Any]:
        names = allowed(inventory)
        return [host for host in select(inventory, *args, **kwargs) if host.name in names]

    def delegate_allowed(manager: VariableManager, *args: Any, **kwargs: Any) -> Any:
        variables, name = delegate(manager, *args, **kwargs)
        if name is not None and name not in constants.LOCALHOST and name not in allowed(manager._inventory):
            raise AnsibleError(f"{name} is not one of the hosts you may reach")
        return variables, name

    select = replace(InventoryManager, "get_hosts", select_allowed)
    delegate = replace(VariableManager, "get_delegated_vars_and_hostname", delegate_allowed)
