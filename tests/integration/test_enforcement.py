"""Rules that the run enforces with Ansible's own objects."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager

from flansible.runner import enforcement


@pytest.fixture
def selections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The patterns that Ansible is asked for, in a process that `enforcement` may change."""
    found: list[str] = []
    get_hosts = InventoryManager.get_hosts

    def get_hosts_counted(inventory: InventoryManager, pattern: Any = "all", *args: Any, **kwargs: Any) -> Any:
        found.append(pattern)
        return get_hosts(inventory, pattern, *args, **kwargs)

    monkeypatch.setattr(InventoryManager, "get_hosts", get_hosts_counted)
    delegated = "get_delegated_vars_and_hostname"
    monkeypatch.setattr(VariableManager, delegated, getattr(VariableManager, delegated))
    return found


def test_a_users_hosts_are_selected_once_until_the_inventory_changes(selections: list[str]) -> None:
    enforcement.apply({"hosts": ["web*", "new"], "control_node": True, "remote_only": False}, "ansible-playbook")
    inventory = InventoryManager(loader=DataLoader(), sources=["web1,web2,db1,"])
    for _ in range(50):
        assert [host.name for host in inventory.get_hosts()] == ["web1", "web2"]
    assert selections.count("web*:new") == 1
    inventory.add_host("new", "all")
    inventory.clear_caches()
    assert [host.name for host in inventory.get_hosts()] == ["new", "web1", "web2"]
