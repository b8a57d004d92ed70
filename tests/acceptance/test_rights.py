"""Users to whom rbac.json gives less, asking a running service: those who look only, and one who may do one thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.services import DEV, Service, write

SHARES_SERVICE = True
VIEWER = ("viewer", "viewer secret")
AUDITOR = ("auditor", "auditor secret")
DEPLOY = ("deploy", "deploy secret")


@pytest.fixture(scope="module", autouse=True)
def users(root: Path) -> None:
    path = root / "rbac.json"
    document = json.loads(path.read_text())
    common = {"inventories": ["inventories/dev"]}
    document["$schema"] = "docs/rbac.schema.json"
    document["rbac"] += [
        {"user": VIEWER[0], "password": VIEWER[1], "role": "viewer", **common},
        {"user": AUDITOR[0], "password": AUDITOR[1], "role": "auditor", **common},
        {
            **{"user": DEPLOY[0], "password": DEPLOY[1], "playbooks": ["team/**"], "modules": ["ping", "debug"]},
            **{"hosts": ["dev1"], "become": False, "limits": {"forks": 1, "time_limit": 60}, **common},
        },
    ]
    path.write_text(json.dumps(document))
    write(root / "playbooks/team/go.yml", "- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: msg=gone\n")


@pytest.fixture(scope="module")
def devs(service: Service, root: Path) -> str:
    body = {"module": "debug", "module_args": {"msg": "for the auditor"}, "host_pattern": "dev1"}
    task_id = service.submit("ansiblecommand", {**body, "inventory": str(root / "inventories/dev")}, DEV)
    service.wait(task_id, DEV)
    return task_id


@pytest.mark.parametrize("who", [VIEWER, AUDITOR], ids=lambda who: who[0])
def test_those_who_look_start_and_cancel_nothing(service: Service, root: Path, devs: str, who: tuple[str, str]) -> None:
    client = service.client(who)
    bodies: dict[str, dict[str, Any]] = {
        "ansiblecommand": {"module": "ping", "host_pattern": "dev1", "inventory": str(root / "inventories/dev")},
        "ansibleplaybook": {"playbook_dir": ".", "playbook": "site.yml", "inventory": str(root / "inventories/dev")},
        "git": {"playbook_dir": "."},
    }
    for route, body in bodies.items():
        reply = client.post(f"/api/{route}", json=body)
        assert (reply.status_code, reply.json()["code"]) == (403, "role_forbidden"), reply.text
    for task_id in (devs, "00000000-0000-0000-0000-000000000000"):
        reply = client.post(f"/api/ansibletaskcancel/{task_id}")
        assert (reply.status_code, reply.json()["code"]) == (403, "role_forbidden"), reply.text
    assert client.get("/api/listplaybooks").json()["playbooks"]
    assert client.get("/api/health").status_code == 200


def test_an_auditor_reads_what_a_viewer_does_not_see(service: Service, devs: str) -> None:
    auditor, viewer = service.client(AUDITOR), service.client(VIEWER)
    for path in ("ansibletaskstatus", "ansibletaskoutput", "ansibletaskevents", "ansibletaskresult"):
        assert auditor.get(f"/api/{path}/{devs}").status_code == 200
        assert viewer.get(f"/api/{path}/{devs}").status_code == 404
    assert "for the auditor" in service.output(devs, AUDITOR)
    assert devs in [task["task_id"] for task in auditor.get("/api/ansibletasks?user=dev").json()["tasks"]]
    assert viewer.get("/api/ansibletasks").json()["tasks"] == []
    assert viewer.get("/api/ansibletasks?user=dev").status_code == 403
    # What is for admin stays so.
    assert auditor.get("/api/health").json()["parts"]["rbac"]["detail"] == "answers"


def test_one_who_may_do_one_thing_does_it_and_sees_no_other(service: Service, root: Path) -> None:
    play = {"playbook_dir": "team", "playbook": "go.yml", "inventory": str(root / "inventories/dev"), "limit": "dev1"}
    status, output = service.run("ansibleplaybook", play, DEPLOY)
    assert status["Status"] == "SUCCESS", output
    assert "gone" in output
    listed = service.client(DEPLOY).get("/api/listplaybooks").json()["playbooks"]
    assert [item["playbook"] for item in listed] == ["go.yml"]
    assert len(service.client(DEV).get("/api/listplaybooks").json()["playbooks"]) > 3


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another playbook": ("ansibleplaybook", {"playbook_dir": ".", "playbook": "site.yml"}, "playbook_forbidden"),
    "by dots": ("ansibleplaybook", {"playbook_dir": "team", "playbook": "../site.yml"}, "playbook_forbidden"),
    "another module": ("ansiblecommand", {"module": "ansible.legacy.command", "module_args": "id"}, "module_forbidden"),
    "another host": ("ansiblecommand", {"module": "ping", "host_pattern": "dev1:dev2"}, "host_forbidden"),
    "another limit": ("ansiblecommand", {"module": "ping", "limit": "web"}, "host_forbidden"),
    "become": ("ansiblecommand", {"module": "ping", "become": True}, "become_forbidden"),
    "more forks": ("ansiblecommand", {"module": "ping", "forks": 2}, "limit_exceeded"),
    "more time": ("ansiblecommand", {"module": "ping", "time_limit": 61}, "limit_exceeded"),
    "a pull": ("ansibleplaybook", {"playbook_dir": "team", "playbook": "go.yml", "update_git_repo": True},
               "git_forbidden"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_and_nothing_else(service: Service, root: Path, name: str) -> None:
    route, fields, code = REFUSED[name]
    body = {"inventory": str(root / "inventories/dev"), **fields}
    if route == "ansiblecommand":
        body.setdefault("host_pattern", "dev1")
    reply = service.client(DEPLOY).post(f"/api/{route}", json=body)
    assert (reply.status_code, reply.json()["code"]) == (403, code), reply.text
