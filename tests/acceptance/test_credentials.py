"""Credentials in runs: a key that logs in and cannot be read, secrets that are told nowhere, and who may use them."""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import servers
from tests.helpers.repositories import Repository, git_http
from tests.helpers.secrecy import Watch, files, stored
from tests.helpers.services import ADMIN, DEV, SCRIPTS, Service, lay_out, start_service, write
from tests.helpers.waiting import eventually, require_program

WORDS = {name: f"marker-{secrets.token_hex(10)}" for name in ("become", "vault", "token", "env", "phrase", "git")}
OPS = ("ops-member", "ops secret")
# Looks for a private key wherever code in the sandbox can read: in each process, its descriptors, and all files. Tells
# what it has found in hexadecimal backwards, which no masking finds.
SEARCH = """\
import os, re, sys
public = bytes.fromhex(sys.argv[1])
head = b"b3BlbnNzaC1rZXktdjE"
key = re.compile(re.escape(public[-32:]) + b"|" + head + b"[A-Za-z0-9+/=\\\\r\\\\n ]{200,}")
found, looked = set(), {}
def look(place, data):
    kind = place.split("/")[-1] if place.startswith("/proc") else "file"
    looked[kind] = looked.get(kind, 0) + 1
    if public[-32:] not in data and head not in data:
        return  # much sooner than by the expression
    for match in key.finditer(data):
        piece = data[match.start() - 32 : match.start()] if match[0] == public[-32:] else match[0]
        found.add((place, piece.hex()[::-1]))
def read(path, most=1 << 26):
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(most)
    except OSError:
        return b""
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        look(f"/proc/{pid}/{name}", read(f"/proc/{pid}/{name}"))
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            if target.startswith("/") and "(deleted)" in target or "memfd" in target:
                look(f"/proc/{pid}/fd", read(f"/proc/{pid}/fd/{number}"))
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                first, rights = line.split()[:2]
                start, end = (int(word, 16) for word in first.split("-"))
                if "r" in rights and "w" in rights and int(pid) != os.getpid():
                    try:
                        memory.seek(start)
                        look(f"/proc/{pid}/mem", memory.read(end - start))
                    except (OSError, OverflowError, ValueError):
                        pass
    except OSError:
        pass
for top in ("/home", "/tmp", "/dev/shm", "/run", sys.argv[2]):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                look(path, read(path))
print("LOOKED", sorted(looked.items()))
for place, piece in sorted(found):
    print("PIECE", place, piece)
"""
PLAYS = """\
- hosts: dev1
  gather_facts: false
  tasks:
    - ansible.builtin.command: {python} {root}/playbooks/search.py {public} {root}/playbooks
      changed_when: false
    - ansible.builtin.shell: |
        ssh-add -L; ssh-add -D; ssh-add -x < /dev/null
      failed_when: false
    - ansible.builtin.debug: msg="{{{{ lookup('file', lookup('env', 'SSH_AUTH_SOCK')) }}}}"
      ignore_errors: true
- hosts: far
  gather_facts: false
  tasks:
    - ansible.builtin.raw: id -un
"""


@pytest.fixture(scope="module")
def service(root: Path, ssh: servers.SshServer) -> Iterator[Service]:
    document = json.loads((root / "rbac.json").read_text())
    document["rbac"][1] |= {"credentials": ["web-*"], "may_define": ["credentials"], "projects": ["shop"]}
    document["rbac"][1]["inventories"].append("shop:inventories/dev")
    document["rbac"].append({"user": OPS[0], "password": OPS[1], "inventories": ["inventories/shared"]})
    write(root / "rbac.json", json.dumps(document)).chmod(0o600)
    known = write(root / "known_hosts", f"[127.0.0.1]:{ssh.server.port} {ssh.host_key}")
    far = (
        f"far ansible_host=127.0.0.1 ansible_port={ssh.server.port} ansible_ssh_args='-C' "
        f"ansible_ssh_common_args='-o UserKnownHostsFile={known}'\n"
    )
    write(root / "inventories/shared/far", far)
    running = start_service(root, "sandbox_paths = known_hosts\nlog_level = debug\n")
    yield running
    assert running.stop() < 10


@pytest.fixture(scope="module")
def keys(service: Service, ssh: servers.SshServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same key in two credentials, encrypted in one of them."""
    path = tmp_path_factory.mktemp("key") / "key"
    write(path, ssh.private_key).chmod(0o600)
    keygen = [require_program("ssh-keygen"), "-q", "-f", str(path)]
    public = subprocess.run([*keygen, "-y"], check=True, capture_output=True, text=True).stdout.split()[1]
    subprocess.run([*keygen, "-p", "-P", "", "-N", WORDS["phrase"]], check=True)
    put(service, "web-key", {"kind": "ssh", "private_key": ssh.private_key, "user": ssh.users[0]})
    encrypted = {"kind": "ssh", "private_key": path.read_text(), "user": ssh.users[0]}
    put(service, "web-encrypted", {**encrypted, "private_key_passphrase": WORDS["phrase"]})
    put(service, "web-wrong", {**encrypted, "private_key_passphrase": WORDS["phrase"] + "x"})
    return {"public": base64.b64decode(public).hex(), "private": ssh.private_key}


def put(service: Service, name: str, body: dict[str, Any], user: tuple[str, str] = ADMIN) -> None:
    reply = service.client(user).put(f"/api/credentials/{name}", json=body)
    assert reply.status_code in (200, 201), reply.text


def far(root: Path, **fields: Any) -> dict[str, Any]:
    return {"host_pattern": "far", "inventory": str(root / "inventories/shared"), "module": "raw", **fields}


def seed_of(key: str) -> str:
    """The secret half of an ed25519 key, in hexadecimal."""
    body = base64.b64decode("".join(key.splitlines()[1:-1]))
    public = body[body.index(b"\0\0\0\x20") + 4 :][:32]
    at = body.rindex(public)
    return body[at - 32 : at].hex()


@pytest.mark.by_day(2)
@pytest.mark.parametrize("login", [ADMIN, DEV], ids=["admin", "dev"])
@pytest.mark.parametrize("name", ["web-key", "web-encrypted"])
def test_a_stored_key_logs_in(name: str, login: tuple[str, str], service: Service, keys: Any, ssh: Any) -> None:
    status, output = service.run("ansiblecommand", far(service.root, module_args="id -un", credentials=[name]), login)
    assert status["Status"] == "SUCCESS" and ssh.users[0] in output, output
    without, output = service.run(
        "ansiblecommand", far(service.root, module_args="id -un", remote_user=ssh.users[0]), login
    )
    assert without["state"] == "failed", output


def test_a_wrong_passphrase_is_said_without_it(service: Service, keys: Any) -> None:
    status, output = service.run("ansiblecommand", far(service.root, module_args="id", credentials=["web-wrong"]), DEV)
    assert status["state"] == "error" and "private_key_passphrase is not the passphrase" in status["description"]
    assert WORDS["phrase"] not in json.dumps(status) + output


def pieces(output: str) -> str:
    """What the search has found, as it was."""
    return " ".join(piece[::-1] for piece in re.findall(r"PIECE \S+ ([0-9a-f]+)", output))


def search(service: Service, keys: dict[str, str], **fields: Any) -> str:
    write(service.root / "playbooks/search.py", SEARCH)
    names = {"root": service.root, "public": keys["public"], "python": "/usr/bin/python3"}
    write(service.root / "playbooks/search.yml", PLAYS.format(**names))
    inventories = [str(service.root / "inventories" / name) for name in ("dev", "shared")]
    body = {"playbook": "search.yml", "inventory": inventories, "verbose_level": 1, **fields}
    _, output = service.run("ansibleplaybook", body, DEV)
    assert "LOOKED" in output and "('mem', " in output and "('environ', " in output, output
    return output


def test_code_in_the_sandbox_uses_a_stored_key_and_finds_it_nowhere(
    service: Service, keys: dict[str, str], ssh: servers.SshServer
) -> None:
    seed, coded = seed_of(keys["private"]), keys["private"].splitlines()[2]
    own = search(service, keys, private_key=keys["private"], remote_user=ssh.users[0])
    assert coded.encode().hex() in pieces(own), "a key of the request is found: the search finds keys"
    for name in ("web-key", "web-encrypted"):
        output = search(service, keys, credentials=[name])
        assert f'"{ssh.users[0]}' in output or ssh.users[0] in output.partition("PLAY [far]")[2], output
        assert seed not in pieces(output) and coded.encode().hex() not in pieces(output), output
        assert seed not in output and coded not in output


def test_another_run_in_the_same_sandbox_does_not_reach_the_agent(
    service: Service, keys: Any, ssh: servers.SshServer
) -> None:
    play = "- hosts: dev1\n  gather_facts: false\n  tasks:\n    - ansible.builtin.shell: {}\n"
    own = "ssh-add -L > /tmp/mine; echo $SSH_AUTH_SOCK > /tmp/socket"
    own += "; for n in $(seq 600); do [ -e /tmp/over ] || sleep 0.1; done; ssh-add -L; cat /tmp/mine"
    other = "for n in $(seq 300); do [ -s /tmp/socket ] || sleep 0.1; done"
    other += "; ls -l $(cat /tmp/socket); SSH_AUTH_SOCK=$(cat /tmp/socket) ssh-add -L"
    other += "; echo ended: $?; touch /tmp/over"
    write(service.root / "playbooks/own.yml", play.format(json.dumps(own)))
    write(service.root / "playbooks/other.yml", play.format(json.dumps(other)))
    body = {"inventory": str(service.root / "inventories/dev"), "verbose_level": 1}
    holder = service.submit("ansibleplaybook", {**body, "playbook": "own.yml", "credentials": ["web-key"]}, DEV)
    eventually(lambda: service.status(holder, DEV)["state"] == "running")
    status, output = service.run("ansibleplaybook", {**body, "playbook": "other.yml"}, DEV)
    assert status["Status"] == "SUCCESS" and "/agent" in output and "ended: 1" in output, output
    assert "ssh-ed25519" not in output
    service.wait(holder, DEV)
    assert service.output(holder, DEV).count("ssh-ed25519") >= 2


USE = """\
- hosts: dev1
  gather_facts: false
  tasks:
    - ansible.builtin.shell: echo "$MARKED_ENV $(cat)"; env  # not an argument: that would be seen, if only for a moment
      args:
        stdin: "{{ api_token }}"
    - ansible.builtin.debug: msg="{{ lookup('env', 'MARKED_ENV') }} {{ api_token }} {{ vaulted }}"
    - ansible.builtin.fail: msg="{{ api_token }}"
      ignore_errors: true
"""


@pytest.mark.parametrize("login", [ADMIN, DEV], ids=["admin", "dev"])
def test_no_secret_of_a_credential_is_told_logged_stored_or_shown(
    login: tuple[str, str], service: Service, tmp_path: Path
) -> None:
    root = service.root
    put(service, "web-env", {"kind": "environment", "variables": {"MARKED_ENV": WORDS["env"]}})
    put(service, "web-token", {"kind": "http", "token": WORDS["token"], "variable": "api_token"})
    put(service, "web-become", {"kind": "become", "password": WORDS["become"]})
    put(service, "web-vault", {"kind": "vault", "password": WORDS["vault"], "vault_id": "team"})
    write(tmp_path / "password", WORDS["vault"])
    encrypt = [str(SCRIPTS / "ansible-vault"), "encrypt_string", "--vault-id", f"team@{tmp_path}/password", "opened"]
    done = subprocess.run([*encrypt, "--name", "vaulted"], capture_output=True, text=True, check=True)
    play = USE.replace(
        "  tasks:", "  vars:\n" + "".join(f"    {line}\n" for line in done.stdout.splitlines()) + "  tasks:"
    )
    write(root / "playbooks/use.yml", play)
    names = ["web-env", "web-token", "web-become", "web-vault"]
    body = {"playbook": "use.yml", "inventory": str(root / "inventories/dev"), "verbose_level": 4, "credentials": names}
    watch = Watch()
    looking = threading.Thread(target=watch.look)
    looking.start()
    try:
        task_id = service.submit("ansibleplaybook", body, login)
        status = service.wait(task_id, login)
    finally:
        watch.over.set()
        looking.join()
    output = service.output(task_id, login)
    assert status["Status"] == "SUCCESS" and "opened" in output and "MARKED_ENV=****" in output, output
    client = service.client(login)
    request = client.get(f"/api/ansibletaskrequest/{task_id}")
    assert request.json()["body"]["credentials"] == names
    shown = [client.get(f"/api/ansibletask{what}/{task_id}").text for what in ("result", "events", "status")]
    lists = [client.get(f"/api/credentials{path}").text for path in ("", *(f"/{name}" for name in names))]
    # Of the processes' environments only those outside of the run: inside it the variable is the run's own.
    command_lines = "\n".join(line for line in watch.seen if not line.startswith("{"))
    others = "\n".join(line for line in watch.seen if line.startswith("{") and "MARKED_ENV" not in line)
    places = {"output": output, "request": request.text, "replies": "\n".join(shown + lists)}
    places |= {"log": service.log.read_text(), "command lines": command_lines, "environments": others}
    places |= {"Redis": stored(service), "files": "\n".join(files(root / ".flansible"))}
    for place, text in places.items():
        assert [name for name, word in WORDS.items() if word in text] == [], place
    audit = (root / ".flansible/audit.log").read_text()
    assert "with credentials web-env, web-token, web-become, web-vault" in audit


def test_a_project_is_fetched_with_its_credential_which_its_users_never_have(
    service: Service, open_folder: Path
) -> None:
    repository = Repository.make(open_folder / "shop")
    put(service, "robot", {"kind": "git", "user": "robot", "token": WORDS["git"]})
    put(service, "web-token", {"kind": "http", "token": WORDS["token"], "variable": "api_token"})
    body = {"project": "shop", "playbook": "site.yml", "inventory": "inventories/dev"}
    refused = service.client(DEV).post("/api/ansibleplaybook", json={**body, "credentials": ["robot"]})
    assert refused.json()["code"] == "credential_forbidden"
    with git_http(open_folder, "robot", WORDS["git"]) as url:
        project = {"url": f"{url}/shop/.git", "ref": "main", "credential": "robot"}
        assert service.client(DEV).put("/api/projects/shop", json=project).status_code == 403
        service.client().put("/api/projects/shop", json=project).raise_for_status()
        reply = service.client(DEV).post("/api/ansibleplaybook", json={**body, "credentials": ["web-token"]})
        assert reply.status_code == 202 and reply.json()["commit"] == repository.git("rev-parse", "HEAD"), reply.text
        status = service.wait(reply.json()["task_id"], DEV)
        output = service.output(reply.json()["task_id"], DEV)
        assert status["Status"] == "SUCCESS", output
        for name, code in (("none", "credential_unavailable"), ("web-token", "credential_unavailable")):
            service.client().put("/api/projects/shop", json={**project, "credential": name}).raise_for_status()
            reply = service.client(DEV).post("/api/ansibleplaybook", json=body)
            assert (reply.status_code, reply.json()["code"]) == (503, code), reply.text
    places = {"output": output, "log": service.log.read_text(), "Redis": stored(service)}
    places["files"] = "\n".join(files(service.root / ".flansible"))
    for place, text in places.items():
        assert WORDS["git"] not in text and WORDS["token"] not in text, place


def test_rights_are_those_of_rbac_json(service: Service, keys: Any) -> None:
    def code(user: tuple[str, str], *names: str) -> tuple[int, str, str]:
        body = {"module": "ping", "host_pattern": "tool1", "credentials": list(names)}
        body["inventory"] = str(service.root / "inventories/shared")
        reply = service.client(user).post("/api/ansiblecommand", json=body)
        error = reply.json() if reply.status_code != 202 else {"code": "", "errors": [{"field": ""}]}
        return reply.status_code, error["code"], error["errors"][0]["field"]

    put(service, "web-env", {"kind": "environment", "variables": {"MARKED_ENV": WORDS["env"]}})
    put(service, "own", {"kind": "vault", "password": WORDS["vault"]}, DEV)
    assert code(DEV, "web-env", "own") == (202, "", "")
    assert code(OPS, "web-env") == (403, "credential_forbidden", "credentials[0]")
    assert code(OPS, "none") == (403, "credential_forbidden", "credentials[0]")
    assert code(DEV, "own", "web-none") == (404, "credential_not_found", "credentials[1]")
    assert code(ADMIN, "own", "own") == (400, "invalid_field", "credentials")
    assert service.client(OPS).get("/api/credentials/web-env").status_code == 404
    shown = service.client(DEV).get("/api/credentials/web-env").json()
    assert (shown["names"], shown["sealed"]) == (["MARKED_ENV"], ["variables"])
    body = {"kind": "adhoc", "request": {"module": "ping", "credentials": ["web-env"]}}
    assert service.client(OPS).post("/api/preview", json=body).json()["refusal"]["code"] == "credential_forbidden"


def test_a_right_that_is_lost_ends_the_task(service: Service, keys: Any) -> None:
    body = far(service.root, module_args="sleep 60", credentials=["web-key"])
    task_id = service.submit("ansiblecommand", body, DEV)
    eventually(lambda: service.status(task_id, DEV)["state"] == "running")
    before = (service.root / "rbac.json").read_text()
    try:
        (service.root / "rbac.json").write_text(before.replace('"web-*"', '"db-*"'))
        status = service.wait(task_id, DEV)
        assert status["state"] == "canceled" and "credential_forbidden" in status["description"], status
    finally:
        (service.root / "rbac.json").write_text(before)


def test_the_client_names_credentials(service: Service, keys: Any, ssh: servers.SshServer) -> None:
    login = {"FLANSIBLE_URL": service.url, "FLANSIBLE_USER": DEV[0], "FLANSIBLE_PASSWORD": DEV[1]}
    command = [str(SCRIPTS / "flansible"), "adhoc", "far", "-i", str(service.root / "inventories/shared"), "-m", "raw"]
    command += ["-a", "id -un", "--credential", "web-key", "--chdir", "."]
    done = subprocess.run(command, env={**service.environ, **login}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and ssh.users[0] in done.stdout, done


@pytest.mark.nightly
def test_without_isolation_users_may_use_none(service: Service, tmp_path: Path) -> None:
    lay_out(tmp_path)
    document = json.loads((tmp_path / "rbac.json").read_text())
    document["rbac"][1]["credentials"] = ["*"]
    write(tmp_path / "rbac.json", json.dumps(document)).chmod(0o600)
    unconfined = start_service(tmp_path, "isolation = none\n")
    try:
        put(unconfined, "web-vault", {"kind": "vault", "password": WORDS["vault"]})
        body = {"module": "ping", "host_pattern": "dev1", "credentials": ["web-vault"]}
        body["inventory"] = str(tmp_path / "inventories/dev")
        reply = unconfined.client(DEV).post("/api/ansiblecommand", json=body)
        assert (reply.status_code, reply.json()["code"]) == (403, "credential_unconfined")
        status, output = unconfined.run("ansiblecommand", body)
        assert status["Status"] == "SUCCESS", output
    finally:
        assert unconfined.stop() < 10
