"""Rules that only the run can enforce, because they need Ansible's inventory; for users other than admin.

Called in the run process before Ansible starts. Where the web process could refuse the request already, this is a
second barrier; it is the only one where the inventory alone decides what a name means.
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
    """Enforces these rules in this process. rules: made by flansible.worker.sandbox; None: everything is allowed."""
    if rules is None:
        return
    if program == "ansible" and not rules["control_node"]:
        _refuse_implicit_localhost()
    if rules["remote_only"]:
        _refuse_local_connections()
    if rules["hosts"] is not None:
        _restrict_hosts(rules["hosts"])


def _refuse_implicit_localhost() -> None:
    """Stops Ansible from adding the control machine, once a pattern names it, to an inventory that lacks it."""

    def refuse(_inventory: InventoryData, pattern: str) -> None:
        raise AnsibleError(f"{pattern} is not in the inventory. You are not allowed to run on the control machine.")

    replace(InventoryData, "_create_implicit_localhost", refuse)


def _refuse_local_connections() -> None:
    """Refuses connections that execute on this machine, where a confined user's run has no sandbox."""

    def connect_elsewhere(executor: TaskExecutor, *args: Any, **kwargs: Any) -> Any:
        connection = connect(executor, *args, **kwargs)
        if connection._load_name.rpartition(".")[2] not in _REMOTE:
            message = "bubblewrap cannot be used here. Without it your runs may not execute on the control machine."
            raise AnsibleError(f"connection {connection._load_name}: {message}")
        return connection

    connect = replace(TaskExecutor, "_get_connection", connect_elsewhere)


def _restrict_hosts(patterns: list[str]) -> None:
    """Limits host selection to these patterns, and delegation to those hosts and localhost."""

    # Kept for as long as Ansible keeps what it selected: it selects twice for each host of an include.
    selected_in: object = None
    allowed_names: set[str] = set()

    def allowed(inventory: InventoryManager) -> set[str]:
        nonlocal selected_in, allowed_names
        if selected_in is not inventory._hosts_patterns_cache:
            hosts = select(inventory, ":".join(patterns), ignore_limits=True, ignore_restrictions=True)
            selected_in, allowed_names = inventory._hosts_patterns_cache, {host.name for host in hosts}
        return allowed_names

    def select_allowed(inventory: InventoryManager, *args: Any, **kwargs: Any) -> list[Any]:
        names = allowed(inventory)
        return [host for host in select(inventory, *args, **kwargs) if host.name in names]

    def delegate_allowed(manager: VariableManager, *args: Any, **kwargs: Any) -> Any:
        variables, name = delegate(manager, *args, **kwargs)
        if name is not None and name not in constants.LOCALHOST and name not in allowed(manager._inventory):
            raise AnsibleError(f"You are not allowed to reach {name}: it is not one of your hosts.")
        return variables, name

    select = replace(InventoryManager, "get_hosts", select_allowed)
    delegate = replace(VariableManager, "get_delegated_vars_and_hostname", delegate_allowed)
