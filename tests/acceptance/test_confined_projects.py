"""Projects of confined users against a running service: what is left out is said, and the operator's settings count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.services import DEV, LOCAL, Service, lay_out, start_service, write
from tests.helpers.waiting import require_program

OPS = ("ops", "ops secret")
PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n"
NAMES = ("DEFAULT_FORKS", "DEFAULT_REMOTE_USER", "DEFAULT_TIMEOUT")
IN_FORCE = " ".join(f"{name}={{{{ lookup('config', '{name}') }}}}" for name in NAMES)
SETTINGS = PLAY + f'    - debug: msg="in force {IN_FORCE}"\n'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    require_program("bwrap")
    root = tmp_path_factory.mktemp("confined")
    home = tmp_path_factory.mktemp("home")
    lay_out(root)
    shop = root / "playbooks/shop"
    write(shop / "hosts", f"[web]\ndev1 {LOCAL}\n")
    write(shop / "hosts-prod", f"[prod]\nprod1 {LOCAL}\n")
    write(shop / "site.yml", PLAY + "    - debug: msg={{ which }}\n")
    write(shop / "group_vars/web.yml", "which: of the web\n")
    write(shop / "group_vars/prod.yml", "which: of-production\n")
    write(shop / "settings.yml", SETTINGS)
    password = "{{ lookup('password', 'credentials/web length=12') }}"
    write(shop / "password.yml", PLAY + f"    - debug: msg={password}\n")
    write(root / "playbooks/plain/settings.yml", SETTINGS)
    write(shop / "ansible.cfg", "[defaults]\ntimeout = 17\ninventory = hosts\n")
    write(home / ".ansible.cfg", "[defaults]\nremote_user = deploy\nvault_password_file = ~/.vault\ntimeout = 33\n")
    write(home / ".vault", "s3cret\n")
    document = json.loads((root / "rbac.json").read_text())
    for user in document["rbac"]:
        if user["user"] == DEV[0]:
            user["inventories"] += ["playbooks/shop/hosts"]
            user["writable"] = ["playbooks/shop/credentials"]
    write(shop / "credentials/kept", "kept\n")
    ops = {"user": OPS[0], "password": OPS[1], "inventories": ["playbooks/shop/hosts-prod"]}
    document["rbac"].append(ops)
    write(root / "rbac.json", json.dumps(document)).chmod(0o600)
    variables = {"HOME": str(home), "ANSIBLE_FORKS": "44", "ANSIBLE_PRIVATE_KEY_FILE": "/etc/key"}
    started = start_service(root, variables=variables)
    yield started
    started.stop()


def play(playbook: str, folder: str = "shop", **fields: Any) -> dict[str, Any]:
    return {"playbook_dir": folder, "playbook": playbook, **fields}


def test_a_project_with_its_inventory_in_the_top_folder_runs_and_says_what_is_left_out(service: Service) -> None:
    status, output = service.run("ansibleplaybook", play("site.yml"), DEV)
    assert status["Status"] == "SUCCESS" and '"of the web"' in output
    note = "[flansible] 1 of the entries of shop/group_vars not shown, since they are named like hosts or groups of "
    assert output.splitlines().count(note + "inventories that are not yours.") == 1
    assert "of-production" not in output
    listed = service.client(DEV).get("/api/listplaybooks?playbook_dir=shop").json()["playbooks"]
    assert "site.yml" in [entry["playbook"] for entry in listed]


def test_a_preview_says_it_too(service: Service) -> None:
    body = {"kind": "playbook", "request": play("site.yml")}
    reply = service.client(DEV).post("/api/preview", json=body).json()
    assert any(text.startswith("[flansible] 1 of the entries of shop/group_vars") for text in reply["messages"])
    assert reply["plays"] and reply["allowed"]


def test_a_run_in_another_project_and_its_preview_do_not_say_it(service: Service) -> None:
    request = play("settings.yml", "plain", inventory=str(service.root / "inventories/dev"))
    status, output = service.run("ansibleplaybook", request, DEV)
    reply = service.client(DEV).post("/api/preview", json={"kind": "playbook", "request": request}).json()
    assert status["Status"] == "SUCCESS" and reply["plays"]
    assert "shop" not in output + "".join(reply["messages"])


def test_events_know_their_bytes_of_an_output_that_begins_with_a_note(service: Service) -> None:
    task_id = service.submit("ansibleplaybook", play("site.yml"), DEV)
    service.wait(task_id, DEV)
    output = service.output(task_id, DEV).encode()
    events = service.client(DEV).get(f"/api/ansibletaskevents/{task_id}").json()["events"]
    start = next(event for event in events if event["event"] == "play_start")
    assert output[: start["output_end"]].endswith(b"\nPLAY [all] " + b"*" * 69 + b"\n")


def test_the_operators_files_and_variables_are_in_force_without_secrets_and_unseen_files(service: Service) -> None:
    inventory = str(service.root / "inventories/dev")
    status, output = service.run("ansibleplaybook", play("settings.yml", "plain", inventory=inventory), DEV)
    assert status["Status"] == "SUCCESS", output
    assert "in force DEFAULT_FORKS=44 DEFAULT_REMOTE_USER=deploy DEFAULT_TIMEOUT=33" in output
    home = next(line for line in output.splitlines() if ".ansible.cfg" in line)
    assert home.startswith("[flansible] vault_password_file of /") and "left out, since what this names" in home
    assert "[flansible] ANSIBLE_PRIVATE_KEY_FILE of the service's environment left out" in output
    assert "s3cret" not in output


def test_a_projects_own_configuration_comes_before_the_operators_file(service: Service) -> None:
    status, output = service.run("ansibleplaybook", play("settings.yml"), DEV)
    assert status["Status"] == "SUCCESS", output
    assert "in force DEFAULT_FORKS=44 DEFAULT_REMOTE_USER= DEFAULT_TIMEOUT=17" in output
    assert ".ansible.cfg" not in output


def test_a_writable_folder_of_a_project_keeps_what_a_run_writes_and_nothing_else_is_writable(service: Service) -> None:
    status, first = service.run("ansibleplaybook", play("password.yml"), DEV)
    assert status["Status"] == "SUCCESS", first
    assert (service.root / "playbooks/shop/credentials/web").read_text().strip() in first
    assert service.run("ansibleplaybook", play("password.yml"), DEV)[1] == first
    touch = {
        "module": "command",
        "module_args": f"touch {service.root}/playbooks/shop/site.yml",
        "host_pattern": "dev1",
    }
    status, output = service.run("ansiblecommand", {**touch, "inventory": str(service.root / "inventories/dev")}, DEV)
    assert status["Status"] != "SUCCESS" and "Read-only file system" in output


def test_another_user_cannot_write_there(service: Service) -> None:
    inventory = str(service.root / "playbooks/shop/hosts-prod")
    path = service.root / "playbooks/shop/credentials/kept"
    body = {"module": "command", "module_args": f"touch {path}", "host_pattern": "prod1", "inventory": inventory}
    status, output = service.run("ansiblecommand", body, OPS)
    assert status["Status"] != "SUCCESS" and "Read-only file system" in output


def test_a_playbook_that_a_run_has_written_is_in_no_list_and_is_not_started(service: Service) -> None:
    written: Path = write(service.root / "playbooks/shop/credentials/site.yml", PLAY)
    for who in (DEV, OPS):
        listed = service.client(who).get("/api/listplaybooks").json()["playbooks"]
        assert not [entry for entry in listed if entry["playbook_dir"] == str(written.parent)]
        body = play("site.yml", "shop/credentials", inventory=str(service.root / "playbooks/shop/hosts"))
        reply = service.client(who).post("/api/ansibleplaybook", json=body)
        assert reply.status_code == 403 and "users' runs can write" in reply.json()["message"]
