"""Previews with real Ansible: under the user's rights, and without leaving anything behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers.services import ADMIN, DEV, Service, lay_out, start_service, write
from tests.helpers.waiting import eventually

VIEWER = ("viewer", "viewer secret")
FEW = ("few", "few secret")
HUSH = "hush{{ 7*7 }}hush"

ODD = """\
# Shows odd names.
- name: "Odd\\tTAGS: [none] play"
  hosts: web
  gather_facts: false
  tags: [always_on]
  vars_prompt:
    - {name: db_password, prompt: Password}
  tasks:
    - name: "a name\\n  with TAGS: [x] ünd mehr"
      ansible.builtin.debug: {msg: "{{ db_password }}"}
      tags: [say]
    - name: Left out
      ansible.builtin.command: touch {{ touched | default('/nowhere') }}
      tags: [never]
    - ansible.builtin.include_tasks: more.yml
- hosts: nobody_is_here
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=x
"""


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    lay_out(root)
    users = json.loads((root / "rbac.json").read_text())
    users["rbac"][1]["inventories"].append("inventories/script.sh")
    common = {"inventories": ["inventories/dev"]}
    users["rbac"] += [
        {"user": VIEWER[0], "password": VIEWER[1], "role": "viewer", **common},
        {"user": FEW[0], "password": FEW[1], "hosts": ["dev1"], **common},
    ]
    (root / "rbac.json").write_text(json.dumps(users))
    write(root / "playbooks/odd.yml", ODD)
    write(root / "playbooks/more.yml", "- ansible.builtin.debug: msg=more\n")
    script = f"#!/bin/sh\necho ran >> {root}/script-ran || :\nsleep 0.1\n"
    script += """echo '{"web": {"hosts": ["s1"], "vars": {"word": "never told"}}}'\n"""
    write(root / "inventories/script.sh", script).chmod(0o755)
    running = start_service(root, "default_inventory = inventories/dev\n")
    yield running
    assert running.stop() < 10


def ask(service: Service, kind: str, request: dict[str, Any], auth: tuple[str, str] = ADMIN) -> dict[str, Any]:
    reply = service.client(auth).post("/api/preview", json={"kind": kind, "request": request})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def dev_inventory(root: Path) -> str:
    return str(root / "inventories/dev")


def keys(root: Path) -> list[str]:
    with redis.Redis(unix_socket_path=str(root / ".flansible/redis.sock")) as store:
        return sorted(key.decode() for key in store.scan_iter("flansible:*"))


@pytest.mark.parametrize("who", [ADMIN, DEV], ids=lambda who: who[0])
def test_hosts_and_play_tasks_are_as_ansible_finds_them(service: Service, root: Path, who: tuple[str, str]) -> None:
    request = {"playbook_dir": ".", "playbook": ["odd.yml", "site.yml"], "inventory": dev_inventory(root)}
    found = ask(service, "playbook", {**request, "limit": "dev1"}, who)
    assert (found["allowed"], found["refusal"], found["detail"]) == (True, None, None)
    odd, nobody, site = found["plays"]
    assert (odd["play"], odd["pattern"], odd["hosts"]) == ("Odd\tTAGS: [none] play", "web", ["dev1"])
    assert [task["name"] for task in odd["play_tasks"]] == [
        "a name\n  with TAGS: [x] ünd mehr",
        "ansible.builtin.include_tasks",
    ]
    assert [task["tags"] for task in odd["play_tasks"]] == [["always_on", "say"], ["always_on"]]
    assert nobody["hosts"] == []
    assert [task["name"] for task in site["play_tasks"]][-1] == "Say it"
    assert found["hosts"] == ["dev1"]
    assert any("include others" in text for text in found["messages"])
    named = [text for text in found["messages"] if text.startswith("db_password has no value: ")]
    assert len(named) == 1 and named[0].endswith("; without a value the request is refused")
    assert any("nobody_is_here" in text for text in found["messages"])
    assert found["command"].startswith(f"cd {root}/playbooks && ansible-playbook --inventory=")


def test_tags_decide_what_is_told(service: Service, root: Path) -> None:
    request = {"playbook_dir": ".", "playbook": "odd.yml", "inventory": dev_inventory(root)}
    assert len(ask(service, "playbook", {**request, "tags": "never"})["plays"][0]["play_tasks"]) == 1
    assert ask(service, "playbook", {**request, "skip_tags": "always_on"})["plays"][0]["play_tasks"] == []


def test_an_adhoc_command_has_hosts_too(service: Service, root: Path) -> None:
    found = ask(service, "adhoc", {"module": "command", "host_pattern": "web", "inventory": dev_inventory(root)}, DEV)
    [play] = found["plays"]
    assert (play["hosts"], play["play_tasks"]) == (["dev1", "dev2"], [{"name": "command", "tags": []}])
    nobody = ask(service, "adhoc", {"module": "ping", "host_pattern": "none", "inventory": dev_inventory(root)}, DEV)
    assert (nobody["hosts"], len(nobody["plays"])) == ([], 1)
    assert any("No hosts matched" in text for text in nobody["messages"])
    remark = "no hosts matched: the run would do nothing"
    assert remark in nobody["messages"] and remark not in found["messages"]


def test_hosts_that_are_not_the_users_are_not_told(service: Service, root: Path) -> None:
    found = ask(
        service, "playbook", {"playbook_dir": ".", "playbook": "odd.yml", "inventory": dev_inventory(root)}, FEW
    )
    assert found["hosts"] == ["dev1"]
    assert "dev2" not in json.dumps(found)
    reply = service.client(FEW).get("/api/listinventories", params={"inventory": dev_inventory(root)})
    assert reply.json()["inventories"][0]["groups"] == {"web": ["dev1"]}


@pytest.mark.parametrize(
    ("who", "changes", "code", "field"),
    [
        (DEV, {"inventory": "{root}/inventories/prod"}, "inventory_forbidden", "inventory"),
        (DEV, {"playbook_dir": "{root}/outside", "playbook": "evil.yml"}, "playbook_forbidden", "playbook_dir"),
        (DEV, {"playbook": "none.yml"}, "not_found", "playbook"),
        (DEV, {"secret_vars": {"ansible_host": "x"}}, "connection_variable_forbidden", "secret_vars.ansible_host"),
        (ADMIN, {"time_limit": 10_000_000}, "invalid_field", "time_limit"),
        (VIEWER, {}, "role_forbidden", None),
    ],
)
def test_a_refusal_is_told_as_it_would_come(
    service: Service, root: Path, who: tuple[str, str], changes: dict[str, Any], code: str, field: str | None
) -> None:
    request = {"playbook_dir": ".", "playbook": "site.yml", "inventory": dev_inventory(root), **changes}
    request = json.loads(json.dumps(request).replace("{root}", str(root)))
    found = ask(service, "playbook", request, who)
    assert (found["allowed"], found["plays"], found["command"]) == (False, None, None)
    assert found["refusal"]["code"] == code
    assert [item["field"] for item in found["refusal"]["errors"]] == ([field] if field else [])
    sent = service.client(who).post("/api/ansibleplaybook", json=request)
    assert sent.json() == found["refusal"]


def test_a_body_that_is_wrong_is_400_with_its_path(service: Service) -> None:
    client = service.client(DEV)
    for body, field in (
        ({"kind": "git", "request": {}}, "kind"),
        ({"kind": "adhoc", "request": {"module": 1}}, "request.module"),
        ({"kind": "playbook", "request": {"playbook": "x", "playbook_dir": ".", "forks": "2"}}, "request.forks"),
        ({"kind": "adhoc", "request": {"module": "ping", "host_patern": "x"}}, "request.host_patern"),
    ):
        reply = client.post("/api/preview", json=body)
        assert reply.status_code == 400
        assert reply.json()["errors"][0]["field"] == field


def test_a_playbook_that_cannot_be_read_says_why(service: Service, root: Path) -> None:
    write(root / "playbooks/broken.yml", "- hosts: all\n  taskz: []\n")
    request = {"playbook_dir": ".", "playbook": "broken.yml", "inventory": dev_inventory(root)}
    found = ask(service, "playbook", request, DEV)
    assert (found["allowed"], found["plays"]) == (True, None)
    assert "exit code 4" in found["detail"]
    assert any("taskz" in text for text in found["messages"])


def test_a_preview_is_in_no_list_and_goes_by_itself(service: Service, root: Path) -> None:
    before = keys(root)
    seen = service.client(ADMIN).get("/api/ansibletasks").json()
    ask(service, "playbook", {"playbook_dir": ".", "playbook": "site.yml", "inventory": dev_inventory(root)}, DEV)
    service.client(DEV).get("/api/listinventories", params={"inventory": dev_inventory(root)})
    assert service.client(ADMIN).get("/api/ansibletasks").json() == seen
    added = [key for key in keys(root) if key not in before]
    with redis.Redis(unix_socket_path=str(root / ".flansible/redis.sock")) as store:
        for key in added:
            assert key.startswith("flansible:task:"), key
            assert 0 < store.ttl(key) <= 300, key
        assert store.hlen("flansible:locks") == 0
        assert store.zcard("flansible:leases") == 0
    # The audit log is on standard output too.
    told = [json.loads(line) for line in (root / "up.log").read_text().splitlines() if line.startswith('{"time"')]
    assert {"preview", "inventory"} <= {line["event"] for line in told}
    assert "submission" not in {line["event"] for line in told if "site.yml" in line.get("what", "")}


def test_secret_variables_answer_a_prompt_and_are_shown_nowhere(service: Service, root: Path) -> None:
    request = {"playbook_dir": ".", "playbook": "odd.yml", "inventory": dev_inventory(root), "limit": "dev1"}
    request |= {"secret_vars": {"db_password": HUSH}, "extra_vars": {"db_password": "weaker"}}
    assert HUSH not in json.dumps(ask(service, "playbook", request, DEV))
    for who in (DEV, ADMIN):
        task_id = service.submit("ansibleplaybook", request, who)
        assert service.wait(task_id, who)["state"] == "succeeded"
        output = service.output(task_id, who)
        assert "*" * len(HUSH) in output
        for text in (HUSH, "weaker", "hush49hush"):
            assert text not in output
        for route in ("ansibletaskevents", "ansibletaskrequest", "ansibletaskresult"):
            assert HUSH not in service.client(who).get(f"/api/{route}/{task_id}").text
    assert HUSH not in (root / "up.log").read_text()


def test_a_private_prompt_without_a_value_is_a_400_that_names_it(service: Service, root: Path) -> None:
    request = {"playbook": "odd.yml", "inventory": dev_inventory(root), "limit": "dev1"}
    reply = service.client(DEV).post("/api/ansibleplaybook", json=request)
    assert reply.status_code == 400
    assert [item["field"] for item in reply.json()["errors"]] == ["secret_vars.db_password"]
    task_id = service.submit("ansibleplaybook", {**request, "allow_missing": True}, DEV)
    assert service.wait(task_id, DEV)["state"] == "succeeded"


@pytest.mark.parametrize("who", [ADMIN, DEV], ids=lambda who: who[0])
@pytest.mark.parametrize("path", ["ansiblecommand", "ansibleplaybook"])
def test_an_inventory_that_is_missing_is_a_404_that_names_it(
    service: Service, root: Path, path: str, who: tuple[str, str]
) -> None:
    gone = f"{dev_inventory(root)}/gone"
    body = {"module": "ping"} if path == "ansiblecommand" else {"playbook": "site.yml"}
    reply = service.client(who).post(f"/api/{path}", json={**body, "inventory": [dev_inventory(root), gone]})
    assert reply.status_code == 404
    assert reply.json()["errors"] == [{"field": "inventory", "message": f"{gone} does not exist"}]
    kind = "adhoc" if path == "ansiblecommand" else "playbook"
    refused = ask(service, kind, {**body, "inventory": gone}, who)
    assert (refused["allowed"], refused["refusal"]["message"]) == (False, f"inventory {gone} does not exist")


def test_secret_variables_reach_an_adhoc_command(service: Service, root: Path) -> None:
    body = {"module": "debug", "module_args": {"var": "word"}, "host_pattern": "dev1", "inventory": dev_inventory(root)}
    status, output = service.run("ansiblecommand", {**body, "secret_vars": {"word": HUSH}})
    assert status["state"] == "succeeded"
    assert "*" * len(HUSH) in output and HUSH not in output


def test_inventories_are_the_users_own(service: Service, root: Path) -> None:
    client = service.client(DEV)
    listed = client.get("/api/listinventories").json()["inventories"]
    assert [one["name"] for one in listed] == ["dev", "script.sh", "shared"]
    assert [one["is_default"] for one in listed] == [True, False, False]
    assert all(one.keys() == {"inventory", "name", "is_default", "exists"} for one in listed)
    assert len(service.client(ADMIN).get("/api/listinventories").json()["inventories"]) == 3
    refused = client.get("/api/listinventories", params={"inventory": str(root / "inventories/prod")})
    assert (refused.status_code, refused.json()["code"]) == (403, "inventory_forbidden")
    assert service.client(VIEWER).get("/api/listinventories").json()["inventories"][0]["name"] == "dev"
    refused = service.client(VIEWER).get("/api/listinventories", params={"inventory": dev_inventory(root)})
    assert (refused.status_code, refused.json()["code"]) == (403, "role_forbidden")


def test_an_inventory_that_is_a_program_runs_confined_and_tells_no_variable(service: Service, root: Path) -> None:
    path = str(root / "inventories/script.sh")
    [found] = service.client(DEV).get("/api/listinventories", params={"inventory": path}).json()["inventories"]
    assert (found["groups"], found["hosts"]) == ({"web": ["s1"]}, ["s1"])
    assert "never told" not in json.dumps(found)
    assert not (root / "script-ran").exists()
    service.client(ADMIN).get("/api/listinventories", params={"inventory": path})
    assert (root / "script-ran").exists()


def test_what_takes_too_long_is_ended(service: Service, root: Path) -> None:
    path = write(root / "inventories/slow.sh", "#!/bin/sh\nsleep 600\n")
    path.chmod(0o755)
    began = time.monotonic()
    [found] = service.client(ADMIN).get("/api/listinventories", params={"inventory": str(path)}).json()["inventories"]
    assert 14 < time.monotonic() - began < 20
    assert (found["is_default"], found.get("hosts")) == (False, None)
    assert "15 seconds" in found["detail"]
    sleeps = b"sleep\0600"
    eventually(lambda: not any(sleeps in _command_line(one) for one in Path("/proc").glob("[0-9]*/cmdline")), 20)


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_one_playbook_has_its_variables(service: Service, root: Path) -> None:
    client = service.client(DEV)
    [found] = client.get("/api/listplaybooks", params={"playbook_dir": ".", "playbook": "odd.yml"}).json()["playbooks"]
    assert found["description"] == "Shows odd names."
    assert [(one["name"], one["private"]) for one in found["variables"]] == [("db_password", True)]
    outside = {"playbook_dir": str(root / "outside"), "playbook": "evil.yml"}
    for asked, status in ((outside, 403), ({"playbook_dir": ".", "playbook": "more.yml"}, 404)):
        assert client.get("/api/listplaybooks", params=asked).status_code == status
    for asked in ({"playbook": "odd.yml"}, {"playbook_dir": "."}):
        listed = client.get("/api/listplaybooks", params=asked).json()["playbooks"]
        assert "odd.yml" in [one["playbook"] for one in listed]
    assert all("variables" not in one for one in client.get("/api/listplaybooks").json()["playbooks"])


def test_of_what_a_confined_run_cannot_read_nothing_is_told(service: Service, root: Path) -> None:
    told = "- name: Not for dev\n  hosts: all\n  vars: {word: hidden}\n"
    write(root / "playbooks/environments/prod.yml", told)
    write(root / "elsewhere.yml", told)
    (root / "playbooks/linked.yml").symlink_to(root / "elsewhere.yml")
    for name in ("environments/prod.yml", "linked.yml"):
        asked = {"playbook_dir": ".", "playbook": name}
        assert service.client(DEV).get("/api/listplaybooks", params=asked).status_code in (403, 404)
        assert service.client(ADMIN).get("/api/listplaybooks", params=asked).status_code == 200
    assert "Not for dev" not in service.client(DEV).get("/api/listplaybooks").text
    assert "Not for dev" in service.client(ADMIN).get("/api/listplaybooks").text


def test_what_is_encrypted_needs_its_password_as_in_a_run(service: Service, root: Path, tmp_path: Path) -> None:
    path = write(root / "playbooks/group_vars/web.yml", "word: from the vault\n")
    password = write(tmp_path / "password", "vault secret\n")
    vault = Path(sys.executable).parent / "ansible-vault"
    subprocess.run([vault, "encrypt", f"--vault-password-file={password}", path], check=True, capture_output=True)
    request: dict[str, Any] = {"playbook_dir": ".", "playbook": "odd.yml", "inventory": dev_inventory(root)}
    try:
        found = ask(service, "playbook", {**request, "vault_password": "vault secret"}, DEV)
        assert (found["detail"], found["hosts"]) == (None, ["dev1", "dev2"])
        assert "--ask-vault-password" in found["command"] and "vault secret" not in json.dumps(found)
        without = ask(service, "playbook", {**request, "vault_password": "another"}, DEV)
        request["allow_missing"] = True
        told = service.run("ansibleplaybook", {**request, "vault_password": "another"}, DEV)[0]
        assert told["state"] == "failed"
        assert without["plays"] is not None or "exit code" in without["detail"]
        assert "from the vault" not in json.dumps([found, without])
    finally:
        path.unlink()


def test_a_host_whose_name_is_no_text_is_told_all_the_same(service: Service, root: Path) -> None:
    path = root / "inventories/bytes"
    path.write_bytes(b"[odd]\nn\xffme\n<b>x</b>\n")
    [found] = service.client().get("/api/listinventories", params={"inventory": str(path)}).json()["inventories"]
    assert found.get("hosts") is not None or found["messages"], found
    preview = ask(service, "adhoc", {"module": "ping", "host_pattern": "all", "inventory": str(path)})
    assert preview["plays"] is not None, preview
