"""Groups with a real service: half-rights that do not add up, by requests and by code, and groups that are removed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.process_tree import sleeping
from tests.helpers.services import Service, write
from tests.helpers.waiting import eventually, require_program

SHARES_SERVICE = True
MEMBER = ("member", "member secret")
CANCELED_SECONDS, ENDED_SECONDS = 10, 20  # five and ten, and as many for a busy machine
Entry = dict[str, Any]
# The member may do anything on dev, and by the group one playbook on prod.
OWN: Entry = {"inventories": ["inventories/dev"], "lasting_processes": True}
OPS: Entry = {
    "inventories": ["inventories/prod"],
    "playbooks": ["release.yml"],
    "modules": [],
    "lasting_processes": True,
}
RELEASE = """\
- hosts: prod1
  gather_facts: false
  tasks:
    - shell: "cat ~/note /tmp/note; ls {root}/inventories; sleep {{{{ seconds | default(0) }}}}; echo released > ~/note"
      register: said
    - debug: msg="<<{{{{ said.stdout_lines | join(' ') }}}}>>"
"""


class Team:
    def __init__(self, service: Service) -> None:
        self.service = service

    def grant(self, own: Entry, groups: dict[str, Entry]) -> None:
        """Replaces rbac.json, as an editor does."""
        users = json.loads((self.service.root / "rbac.json").read_text())["rbac"]
        users = [item for item in users if item["user"] != MEMBER[0]]
        users.append({"user": MEMBER[0], "password": MEMBER[1], "groups": list(groups), **own})
        named = [{"name": name, **entry} for name, entry in groups.items()]
        new = self.service.root / "new.json"
        write(new, json.dumps({"rbac": users, "groups": named})).chmod(0o600)
        new.replace(self.service.root / "rbac.json")

    def release(self, **fields: Any) -> str:
        """Starts what the group allows."""
        body = {"playbook_dir": ".", "playbook": "release.yml", "inventory": self.inventory("prod"), **fields}
        return self.service.submit("ansibleplaybook", body, MEMBER)

    def shell(self, script: str) -> str:
        """Starts a program of the member's choice, by the own entry."""
        body = {"module": "shell", "module_args": {"cmd": script}, "host_pattern": "dev1"}
        return self.service.submit("ansiblecommand", {**body, "inventory": self.inventory("dev")}, MEMBER)

    def inventory(self, name: str) -> str:
        return str(self.service.root / "inventories" / name)

    def output(self, task_id: str) -> str:
        assert self.service.wait(task_id, MEMBER)["state"] == "succeeded", self.service.output(task_id)
        return self.service.output(task_id, MEMBER)


@pytest.fixture(scope="module", autouse=True)
def playbook(root: Path, service: Service) -> Iterator[None]:
    require_program("bwrap")
    write(root / "playbooks/release.yml", RELEASE.format(root=root))
    before = len(service.log.read_text())
    yield
    assert "Traceback" not in service.log.read_text()[before:]


@pytest.fixture
def team(service: Service) -> Team:
    found = Team(service)
    found.grant(OWN, {"ops": OPS})
    return found


def test_prod_for_one_playbook_and_dev_for_all_are_not_prod_for_all(team: Team) -> None:
    client = team.service.client(MEMBER)
    shell = {"module": "shell", "module_args": "id", "host_pattern": "all", "inventory": team.inventory("prod")}
    reply = client.post("/api/ansiblecommand", json=shell)
    assert (reply.status_code, reply.json()["code"]) == (403, "module_forbidden")
    other = {"playbook_dir": ".", "playbook": "site.yml", "inventory": team.inventory("prod")}
    reply = client.post("/api/ansibleplaybook", json=other)
    assert (reply.status_code, reply.json()["code"]) == (403, "playbook_forbidden")
    assert "your own entry: inventory" in reply.json()["message"] and "group ops: playbook" in reply.json()["message"]
    both = {**other, "playbook": "release.yml", "inventory": [team.inventory("dev"), team.inventory("prod")]}
    assert client.post("/api/ansibleplaybook", json=both).status_code == 403


@pytest.mark.nightly
def test_a_run_sees_what_its_entry_grants_and_nothing_that_a_run_by_another_has_left(team: Team) -> None:
    """Own runs execute anything. What they plant, in the home or /tmp, no run on prod finds; nor the reverse."""
    own = team.output(team.shell(f"ls {team.service.root}/inventories; echo planted | tee ~/note > /tmp/note"))
    assert "dev" in own and "prod" not in own
    said = team.output(team.release())
    assert "prod" in said and "planted" not in said and "<<prod>>" in said
    assert "planted" in team.output(team.shell("cat ~/note")), "the home of the own entry stays"
    assert "<<released prod>>" in team.output(team.release()), "and so does that of the group"


def test_the_request_and_the_audit_log_name_the_entry(team: Team) -> None:
    by_group, by_own = team.release(), team.shell("true")
    for task_id, entry in ((by_group, "group:ops"), (by_own, "own")):
        assert team.service.client(MEMBER).get(f"/api/ansibletaskrequest/{task_id}").json()["entry"] == entry
    lines = map(json.loads, (team.service.root / ".flansible/audit.log").read_text().splitlines())
    found = {line["task_id"]: line["what"] for line in lines if line["event"] == "submission"}
    assert found[by_group].endswith("(by group ops)") and "(by" not in found[by_own]
    for task_id in (by_group, by_own):
        team.service.wait(task_id, MEMBER)


def test_a_preview_and_the_session_say_which_entry_it_is(team: Team) -> None:
    client = team.service.client(MEMBER)
    request = {"playbook_dir": ".", "playbook": "release.yml", "inventory": team.inventory("prod")}
    reply = client.post("/api/preview", json={"kind": "playbook", "request": request}).json()
    assert reply["allowed"] and reply["hosts"] == ["prod1"]
    assert reply["rights"][-1] == "This request is allowed by group ops, and confined to what that may."
    refused = client.post("/api/preview", json={"kind": "playbook", "request": {**request, "playbook": "site.yml"}})
    assert "group ops: playbook: You may not start playbook site.yml" in refused.json()["refusal"]["message"]
    session = client.get("/api/session").json()
    assert (session["role"], session["groups"]) == ("operator", ["ops"])
    assert any(sentence.startswith("By group ops: you may start these playbooks") for sentence in session["rights"])
    listed = [entry["inventory"] for entry in client.get("/api/listinventories").json()["inventories"]]
    assert listed == [team.inventory("dev"), team.inventory("prod")]


@pytest.mark.by_day(1)
@pytest.mark.parametrize("is_removed", [True, False], ids=["the group is removed", "its member leaves"])
def test_a_group_that_is_lost_ends_what_it_allowed_with_all_that_is_left(team: Team, is_removed: bool) -> None:
    seconds, left = (f"{random.randrange(10**6, 10**7)}.5" for _ in range(2))
    team.service.wait(team.shell(f"setsid nohup sleep {left} >/dev/null 2>&1 &"), MEMBER)
    running = team.release(extra_vars={"seconds": seconds})
    eventually(lambda: sleeping(seconds))
    assert sleeping(left)
    wide = {**OWN, "inventories": ["inventories/dev", "inventories/prod"]}  # would allow it, but confines otherwise
    groups = {} if is_removed else {"web": OPS}
    team.grant(wide, groups)
    eventually(lambda: not sleeping(seconds), CANCELED_SECONDS + ENDED_SECONDS)
    status = team.service.wait(running)
    assert status["state"] == "canceled" and status["description"].startswith("canceled by rbac.json (rights_lost)")
    assert sleeping(left), "what the own entry allows goes on"
    team.grant({**OWN, "inventories": []}, groups)
    eventually(lambda: not sleeping(left), CANCELED_SECONDS + ENDED_SECONDS)
