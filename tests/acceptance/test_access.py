"""What a restricted user may not do, asked of the running service in every way a request can ask it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.services import DEV, Service, write

SHARES_SERVICE = True
PLAYBOOKS = "{root}/playbooks"
DEV_INVENTORY = "{root}/inventories/dev"


def filled(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, root) for item in value]
    return value.replace("{root}", str(root)) if isinstance(value, str) else value


def command(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "ansiblecommand", {"module": "debug", **fields}


def playbook(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "ansibleplaybook", {"playbook_dir": PLAYBOOKS, "playbook": "site.yml", "inventory": DEV_INVENTORY, **fields}


def git(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "git", {"playbook_dir": PLAYBOOKS, **fields}


FORBIDDEN = {
    "another inventory": (command(inventory="{root}/inventories/prod"), "inventory_forbidden"),
    "another inventory that does not exist": (command(inventory="{root}/inventories/none"), "inventory_forbidden"),
    "no inventory named": (command(), "inventory_forbidden"),
    "by dots": (command(inventory="{root}/inventories/shared/../prod"), "inventory_forbidden"),
    "by a longer name": (command(inventory="{root}/inventories/dev-prod"), "inventory_forbidden"),
    "by a symlink": (command(inventory="{root}/inventories/shared/link"), "inventory_forbidden"),
    "the folder above": (command(inventory="{root}/inventories"), "inventory_forbidden"),
    "one of two": (command(inventory=[DEV_INVENTORY, "{root}/inventories/prod"]), "inventory_forbidden"),
    "the whole disk": (command(inventory="/"), "inventory_forbidden"),
    "a home": (command(inventory="~/prod"), "inventory_forbidden"),
    "a variable": (command(inventory="{root}/inventories/shared/$X"), "inventory_forbidden"),
    "a host list": (command(inventory="prod1,"), "host_list_forbidden"),
    "a host list with a path": (command(inventory="{root}/inventories/dev,prod1"), "host_list_forbidden"),
    "playbook with another inventory": (playbook(inventory="{root}/inventories/prod"), "inventory_forbidden"),
    "playbook without inventory": (playbook(inventory=None), "inventory_forbidden"),
    "directory outside the root": (playbook(playbook_dir="{root}/outside"), "playbook_forbidden"),
    "directory that does not exist": (playbook(playbook_dir="{root}/nowhere"), "playbook_forbidden"),
    "directory by dots": (playbook(playbook_dir="{root}/playbooks/../outside"), "playbook_forbidden"),
    "relative directory": (playbook(playbook_dir="../outside"), "playbook_forbidden"),
    "directory by symlink": (playbook(playbook_dir="{root}/playbooks/way-out"), "playbook_forbidden"),
    "playbook by dots": (playbook(playbook="../outside/evil.yml"), "playbook_forbidden"),
    "absolute playbook": (playbook(playbook="{root}/outside/evil.yml"), "playbook_forbidden"),
    "playbook by symlink": (playbook(playbook="link.yml"), "playbook_forbidden"),
    "one playbook of two": (playbook(playbook=["site.yml", "../outside/evil.yml"]), "playbook_forbidden"),
    "vault file outside": (playbook(vault_file="/etc/shadow"), "vault_file_forbidden"),
    "vault file by dots": (playbook(vault_password_file="../rbac.json"), "vault_file_forbidden"),
    "limit from a file": (playbook(limit="@/etc/passwd"), "limit_file_forbidden"),
    "limit from a file among others": (playbook(limit="dev1,@/etc/passwd"), "limit_file_forbidden"),
    "where to connect": (playbook(extra_vars={"ansible_host": "prod1"}), "connection_variable_forbidden"),
    "how to connect": (command(inventory=DEV_INVENTORY, extra_args=[{"ansible_connection": "local"}]),
                       "connection_variable_forbidden"),
    "a template as user": (command(inventory=DEV_INVENTORY, become_user="{{ lookup('pipe', 'id') }}"),
                           "template_forbidden"),
    "a template as pattern": (command(inventory=DEV_INVENTORY, host_pattern="{{ 1 }}"), "template_forbidden"),
    "where to connect, as text": (playbook(extra_vars="a=1 ansible_host=prod1"), "connection_variable_forbidden"),
    "where to connect, as escaped text": (playbook(extra_vars=r"\x61nsible_host=prod1"),
                                          "connection_variable_forbidden"),
    "where to connect, as YAML": (playbook(extra_vars="{<<: {ansible_host: prod1}}"), "connection_variable_forbidden"),
    "the control machine": (command(inventory=DEV_INVENTORY, host_pattern="localhost"), "localhost_forbidden"),
    "the control machine by default": (command(inventory=DEV_INVENTORY), "localhost_forbidden"),
    "the control machine as a limit": (playbook(limit="all:127.0.0.1"), "localhost_forbidden"),
    "another key": (playbook(private_key_file="/etc/ssh/ssh_host_ed25519_key"), "private_key_forbidden"),
    "other modules": (playbook(module_path="/tmp"), "module_path_forbidden"),
    "play tasks from a file": (("ansiblecommand", {"module": "include_tasks", "module_args": "/tmp/x.yml",
                                                   "inventory": DEV_INVENTORY}), "module_forbidden"),
    "a command as a shell": (("ansiblecommand", {"module": "command", "module_args": {"_uses_shell": True, "cmd": "id"},
                                                 "inventory": DEV_INVENTORY}), "argument_forbidden"),
    "a repository by its path": (git(remote_name="outside/x"), "git_forbidden"),
    "git outside": (git(playbook_dir="{root}/outside"), "playbook_forbidden"),
    "git nowhere": (git(playbook_dir="/nowhere"), "playbook_forbidden"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def traps(root: Path) -> None:
    os.symlink("../prod", root / "inventories/shared/link")
    os.symlink("../outside", root / "playbooks/way-out")
    os.symlink("../outside/evil.yml", root / "playbooks/link.yml")


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_restricted_user_is_refused(service: Service, root: Path, name: str) -> None:
    (route, body), code = FORBIDDEN[name]
    before = service.client().get("/api/ansibletasks?limit=1").json()
    reply = service.client(DEV).post(f"/api/{route}", json=filled(body, root))
    assert (reply.status_code, reply.json()["code"]) == (403, code), reply.text
    assert reply.json()["errors"]
    assert service.client().get("/api/ansibletasks?limit=1").json() == before


def test_the_refusal_of_an_inventory_says_which_are_theirs(service: Service, root: Path) -> None:
    reply = service.client(DEV).post("/api/ansiblecommand", json={"module": "debug"})
    assert f"{root}/inventories/dev" in reply.json()["message"]


@pytest.mark.parametrize("inventory", ["dev", "shared", "shared/hosts", "../inventories/./dev"])
def test_a_restricted_user_may_use_what_is_listed_and_what_lies_in_it(
    service: Service, root: Path, inventory: str
) -> None:
    body = {"module": "debug", "host_pattern": "all", "inventory": str(root / "inventories" / inventory)}
    if inventory == "shared":
        (root / "inventories/shared/link").unlink(missing_ok=True)  # the folder as a whole would read it
    status, output = service.run("ansiblecommand", body, DEV)
    assert status["Status"] == "SUCCESS"
    assert "prod" not in output


@pytest.mark.nightly
def test_strings_of_a_restricted_user_are_data_and_never_templates(service: Service, root: Path) -> None:
    mark = root / "templated"
    template = f"{{{{ lookup('pipe', 'touch {mark}') }}}}"
    common = {"inventory": str(root / "inventories/dev"), "extra_vars": {"word": template}}
    _, output = service.run(
        "ansiblecommand", {"module": "debug", "module_args": {"msg": template}, "host_pattern": "dev1", **common}, DEV
    )
    assert "lookup(" in output
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "site.yml", **common}
    status, output = service.run("ansibleplaybook", body, DEV)
    assert status["Status"] == "SUCCESS"
    assert "says {{ lookup(" in output
    for args in (f"msg={template}", f"msg='{template}'"):
        service.run("ansiblecommand", {"module": "debug", "module_args": args, "host_pattern": "dev1", **common}, DEV)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("debug", {"var": "lookup('pipe', 'touch MARK')"}, 403),
        ("debug", "var=lookup('pipe','touch${IFS}MARK')", 403),
        ("assert", {"that": ["lookup('pipe', 'touch MARK') == ''"]}, 403),
        ("assert", {"that": "lookup('pipe', 'touch MARK') == ''"}, 403),
        ("set_fact", {"x": "{{ lookup('pipe', 'touch MARK') }}"}, 202),
    ],
)
def test_expressions_of_a_restricted_user_are_evaluated_nowhere(
    service: Service, root: Path, module: str, arguments: Any, status: int
) -> None:
    mark = root / "evaluated"
    given = json.loads(json.dumps(arguments).replace("MARK", str(mark)))
    body = {"module": module, "module_args": given, "host_pattern": "dev1", "inventory": str(root / "inventories/dev")}
    reply = service.client(DEV).post("/api/ansiblecommand", json=body)
    assert reply.status_code == status, reply.text
    if status == 202:
        service.wait(reply.json()["task_id"], DEV)
    assert not mark.exists()


def test_admins_templates_work_as_on_the_command_line(service: Service) -> None:
    _, output = service.run("ansiblecommand", {"module": "debug", "module_args": {"msg": "{{ 40 + 2 }}"}})
    assert '"msg": 42' in output or '"msg": "42"' in output


def test_the_directorys_ansible_cfg_cannot_bring_in_another_inventory(service: Service, root: Path) -> None:
    directory = root / "playbooks/configured"
    write(directory / "ansible.cfg", f"[defaults]\ninventory = {root}/inventories/prod\n")
    write(directory / "all.yml", "- hosts: all\n  gather_facts: no\n  tasks:\n    - debug: var=inventory_hostname\n")
    body = {"playbook_dir": str(directory), "playbook": "all.yml"}
    assert service.client(DEV).post("/api/ansibleplaybook", json=body).status_code == 403
    status, output = service.run("ansibleplaybook", {**body, "inventory": str(root / "inventories/dev")}, DEV)
    assert status["Status"] == "SUCCESS"
    assert "dev1" in output and "prod1" not in output
    assert "prod1" in service.run("ansibleplaybook", body)[1]  # admin's run obeys the configuration
