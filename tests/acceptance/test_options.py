"""Options that need something real on the other side: ssh with key and password, become, vaults, environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import servers
from tests.helpers.services import DEV, Service, write
from tests.helpers.waiting import require_program

SHARES_SERVICE = True
MARKER = "MaRkErWoRd"


@pytest.fixture
def far(root: Path, ssh: servers.SshServer) -> dict[str, Any]:
    """A request for a host that is reached by ssh alone."""
    known = write(root / "known_hosts", f"[127.0.0.1]:{ssh.server.port} {ssh.host_key}")
    inventory = write(
        root / "inventories/ssh",
        f"far ansible_host=127.0.0.1 ansible_port={ssh.server.port} ansible_user={ssh.users[0]} "
        # No ControlPersist: its master would outlive the test.
        "ansible_python_interpreter=/usr/bin/python3 ansible_ssh_args='-C' "
        f"ansible_ssh_common_args='-o UserKnownHostsFile={known}'\n",
    )
    return {"host_pattern": "far", "inventory": str(inventory), "module": "command", "module_args": "id -un"}


def test_ssh_with_a_private_key_in_the_request(service: Service, far: dict[str, Any], ssh: servers.SshServer) -> None:
    status, output = service.run("ansiblecommand", {**far, "private_key": ssh.private_key})
    assert status["Status"] == "SUCCESS", output
    assert ssh.users[0] in output


def test_ssh_with_an_encrypted_private_key_and_its_passphrase(
    service: Service, far: dict[str, Any], ssh: servers.SshServer, tmp_path: Path
) -> None:
    key = write(tmp_path / "key", ssh.private_key)
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", f"{MARKER} ü", "-f", str(key)], check=True)
    body = {**far, "private_key": key.read_text().replace("\n", "\r\n").rstrip()}
    status, output = service.run("ansiblecommand", {**body, "private_key_passphrase": f"{MARKER} ü"})
    assert status["Status"] == "SUCCESS" and ssh.users[0] in output, output
    reply = service.client().post("/api/ansiblecommand", json=body)
    assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "private_key_passphrase"
    status, output = service.run("ansiblecommand", {**body, "private_key_passphrase": "wrong"})
    assert (status["state"], status["returncode"]) == ("failed", 5)
    assert output == "ERROR: private_key_passphrase is not the passphrase of private_key\n"
    status, output = service.run("ansiblecommand", {**far, "private_key": "no key", "private_key_passphrase": MARKER})
    assert (status["state"], status["returncode"], MARKER in output) == ("failed", 5, False)
    assert output.startswith("ERROR: private_key cannot be decrypted: ")


@pytest.mark.nightly
def test_ssh_with_a_private_key_with_windows_line_ends(
    service: Service, far: dict[str, Any], ssh: servers.SshServer
) -> None:
    status, output = service.run("ansiblecommand", {**far, "private_key": ssh.private_key.replace("\n", "\r\n")})
    assert status["Status"] == "SUCCESS" and ssh.users[0] in output, output


def test_ssh_with_a_private_key_file_of_the_worker(
    service: Service, far: dict[str, Any], ssh: servers.SshServer, root: Path
) -> None:
    key = write(root / "key", ssh.private_key)
    key.chmod(0o600)
    status, output = service.run("ansiblecommand", {**far, "private_key_file": str(key)})
    assert status["Status"] == "SUCCESS", output


def test_ssh_with_a_password(service: Service, far: dict[str, Any], ssh: servers.SshServer) -> None:
    require_program("sshpass")
    status, output = service.run("ansiblecommand", {**far, "connection_password": ssh.password})
    assert status["Status"] == "SUCCESS", output
    assert ssh.password not in output


def test_a_wrong_password_is_unreachable(service: Service, far: dict[str, Any]) -> None:
    require_program("sshpass")
    status, output = service.run("ansiblecommand", {**far, "connection_password": MARKER})
    assert (status["state"], status["returncode"]) == ("failed", 4)
    assert MARKER not in output


def test_become_with_a_password(service: Service, far: dict[str, Any], ssh: servers.SshServer) -> None:
    require_program("sshpass")
    become = {"become": True, "become_method": "su", "become_user": ssh.users[1], "become_password": ssh.password}
    body = {**far, **become, "connection_password": ssh.password, "module": "raw"}
    status, output = service.run("ansiblecommand", body)
    assert status["Status"] == "SUCCESS", output
    assert ssh.users[1] in output


@pytest.fixture(scope="module")
def vaults(root: Path, service: Service) -> Path:
    """A playbook whose variables are encrypted under two vault ids."""
    directory = root / "playbooks/vaulted"
    files = {}
    for label in ("dev", "ops"):
        password = write(directory / f".{label}", f"{label} vault password\n")
        command = ["ansible-vault", "encrypt_string", f"{label} text", "--name", label]
        command += ["--encrypt-vault-id", label, "--vault-id", f"{label}@{password}"]
        done = subprocess.run(command, env=service.environ, capture_output=True, text=True, check=True)
        files[label] = done.stdout
    write(directory / "group_vars/all.yml", "\n".join(files.values()))
    show = "".join(f"    - debug: msg='{{{{ {label} }}}}'\n" for label in files)
    write(directory / "show.yml", f"- hosts: localhost\n  gather_facts: no\n  tasks:\n{show}")
    write(directory / "inventory", "localhost ansible_connection=local\n")
    return directory


def test_vaults_open_by_id_by_file_and_by_password(service: Service, vaults: Path) -> None:
    body = {"playbook_dir": str(vaults), "playbook": "show.yml", "inventory": "inventory"}
    ways = (
        {"vault_id": ["dev@.dev", "ops@.ops"]},
        {"vault_password": {"dev": "dev vault password", "ops": "ops vault password"}},
        {"vault_id": ["dev@.dev", "ops@prompt"], "vault_password": {"ops": "ops vault password"}},
        {"vault_password_file": [".dev", ".ops"]},
    )
    for way in ways:
        status, output = service.run("ansibleplaybook", {**body, **way})
        assert status["Status"] == "SUCCESS", output
        assert "dev text" in output and "ops text" in output


def test_a_wrong_vault_password_fails_and_is_not_shown(service: Service, vaults: Path) -> None:
    body = {"playbook_dir": str(vaults), "playbook": "show.yml", "inventory": "inventory", "vault_password": MARKER}
    status, output = service.run("ansibleplaybook", body)
    assert status["state"] == "failed"
    assert MARKER not in output


def test_environment_reaches_ansible_and_its_modules(service: Service) -> None:
    body = {
        "module": "command",
        "module_args": "printenv FL_WORD",
        "environment": {"FL_WORD": "for the module", "ANSIBLE_VERBOSITY": "1", "ANSIBLE_NOCOLOR": "1"},
    }
    status, output = service.run("ansiblecommand", body)
    assert status["Status"] == "SUCCESS"
    assert "for the module" in output
    assert "No config file found" in output  # what verbosity 1 prints first
    _, output = service.run("ansiblecommand", {"module": "command", "module_args": "printenv FL_WORD"})
    assert "for the module" not in output


def test_environment_of_a_restricted_user_is_refused(service: Service, root: Path) -> None:
    body = {"module": "debug", "inventory": str(root / "inventories/dev"), "environment": {"ANSIBLE_CONFIG": "/x"}}
    reply = service.client(DEV).post("/api/ansiblecommand", json=body)
    assert (reply.status_code, reply.json()["code"]) == (403, "environment_forbidden")


@pytest.mark.parametrize(
    "fields",
    [
        {"connection": "local"},
        {"private_key_file": "/root/.ssh/id_ed25519"},
        {"ssh_common_args": "-o ProxyCommand=id"},
        {"ssh_extra_args": "-o ProxyCommand=id"},
        {"sftp_extra_args": "x"},
        {"scp_extra_args": "x"},
        {"module_path": "/tmp"},
        {"connection_password_file": "/etc/shadow"},
        {"become_password_file": "/etc/shadow"},
        {"tree": "/tmp/x"},
        {"vault_id": "dev@/etc/shadow"},
        {"vault_id": ["/etc/shadow"]},
        {"playbook_dir": "../outside"},
        {"extra_vars": "@/etc/passwd"},
        {"extra_vars": [{"a": 1}, " @/etc/passwd"]},
    ],
)
def test_fields_that_reach_beyond_the_inventory_are_for_admin(
    service: Service, root: Path, fields: dict[str, Any]
) -> None:
    body = {"module": "debug", "inventory": str(root / "inventories/dev"), **fields}
    reply = service.client(DEV).post("/api/ansiblecommand", json=body)
    assert reply.status_code == 403, reply.text


def test_variables_of_a_restricted_user_as_text_are_data_too(service: Service, root: Path) -> None:
    body = {"module": "debug", "module_args": "var=word", "host_pattern": "dev1"}
    body |= {"inventory": str(root / "inventories/dev")}
    play = {"playbook_dir": str(root / "playbooks"), "playbook": "vars.yml", "inventory": body["inventory"]}
    _, output = service.run("ansibleplaybook", {**play, "extra_vars": "given='{{ 6 * 7 }}' other=x"}, DEV)
    assert "{{ 6 * 7 }}" in output
    reply = service.client(DEV).post("/api/ansiblecommand", json={**body, "extra_vars": ["ansible_host=prod1"]})
    assert (reply.status_code, reply.json()["code"]) == (403, "connection_variable_forbidden")


def test_a_listed_name_that_is_no_utf_8_can_be_run_as_it_is_listed(service: Service, root: Path) -> None:
    folder, client = root / "playbooks" / os.fsdecode(b"caf\xe9"), service.client(DEV)
    write(folder / "ansible.cfg", "[defaults]\nretry_files_enabled = false\n")
    write(
        folder / os.fsdecode(b"\xfc.yml"), "- hosts: dev1\n  gather_facts: false\n  tasks: [{debug: {msg: it ran}}]\n"
    )
    [listed] = client.get("/api/listplaybooks", params={"playbook": r"\xFC.yml"}).json()["playbooks"]
    request = {name: listed[name] for name in ("playbook", "playbook_dir")}
    request["inventory"] = str(root / "inventories/dev")
    preview = client.post("/api/preview", json={"kind": "playbook", "request": request}).json()
    assert preview["hosts"] == ["dev1"], preview
    task_id = service.submit("ansibleplaybook", request, DEV)
    status, output = service.wait(task_id, DEV), service.output(task_id, DEV)
    assert status["Status"] == "SUCCESS" and "it ran" in output, output
    assert status["playbook"] == r"caf\xE9/\xFC.yml"
    [found] = client.get("/api/ansibletasks", params={"playbook": status["playbook"]}).json()["tasks"]
    assert found["task_id"] == task_id
    sent = client.get(f"/api/ansibletaskrequest/{task_id}")
    assert (sent.json()["body"], sent.json()["command"].split(" && ")[0]) == (
        request,
        f"cd $'{root}/playbooks/caf\\xe9'",
    )


def test_secrets_are_in_no_record_once_the_run_has_them(service: Service, root: Path) -> None:
    import redis

    body = {"module": "debug", "become_password": MARKER, "vault_password": MARKER + "2"}
    service.run("ansiblecommand", body)
    with redis.Redis(unix_socket_path=str(root / ".flansible/redis.sock")) as store:
        for key in store.scan_iter("*"):
            assert not key.endswith(b":secrets")
            assert MARKER.encode() not in store.dump(key)
    assert MARKER not in service.log.read_text()
