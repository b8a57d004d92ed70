"""Templates with real Ansible: values that are attacks stay data, and guards that have to know the hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.services import ADMIN, Service, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True
OWNER = ("owner", "owner secret")
PORTAL = ("portal", "portal secret")
USES = """\
- name: Uses {{ word }}
  hosts: "{{ target | default('web') }}"
  gather_facts: false
  vars:
    nested: "{{ word }}"
    deeper: "[{{ nested }}]"
  tasks:
    - name: Say {{ word }}
      ansible.builtin.debug: {msg: "{{ deeper }} {{ word | upper | lower }}"}
    - name: Loop
      ansible.builtin.debug: {msg: "{{ item }}"}
      loop: "{{ [word, nested] }}"
    - name: Make a fact of it
      ansible.builtin.set_fact: {kept: "{{ word }}"}
    - ansible.builtin.debug: {msg: "{{ kept }}"}
    - name: By a template
      ansible.builtin.template: {src: "word.j2", dest: "{{ place }}", mode: "0644"}
    - ansible.builtin.command: cat {{ place }}
"""


@pytest.fixture(scope="module", autouse=True)
def users(root: Path) -> None:
    users = json.loads((root / "rbac.json").read_text())
    owner = {**users["rbac"][1], "user": OWNER[0], "password": OWNER[1], "may_define": ["templates"]}
    users["rbac"].append({**owner, "control_node": True, "writable": ["out"]})
    users["rbac"].append({"user": PORTAL[0], "password": PORTAL[1], "inventories": []})
    (root / "rbac.json").write_text(json.dumps(users))
    (root / "out").mkdir()
    write(root / "playbooks/uses.yml", USES)
    write(root / "playbooks/word.j2", "{{ word }} {{ nested }}\n")


def put(service: Service, name: str, owner: tuple[str, str], **fields: Any) -> None:
    request = {"playbook": "uses.yml", "inventory": str(service.root / "inventories/dev")}
    request |= fields.pop("request", {})
    body = {"kind": "playbook", "request": request, "allow": {"users": [PORTAL[0]]}, **fields}
    reply = service.client(owner).put(f"/api/templates/{name}", json=body)
    assert reply.status_code in (200, 201), reply.text


def launch(service: Service, name: str, body: dict[str, Any], query: str = "") -> Any:
    return service.client(PORTAL).post(f"/api/templates/{name}/launch{query}", json=body)


ATTACKS = {
    "a lookup": "{{ lookup('pipe', 'touch %s') }}",
    "a lookup, split": "{%% set x = lookup('pipe', 'touch %s') %%}{{ x }}",
    "a query within text": "a {{ query('pipe', 'touch %s') }} b",
    "a line statement": "# for x in lookup('pipe', 'touch %s')",
    "an unsafe tag": "!unsafe {{ lookup('pipe', 'touch %s') }}",
    "a marker of what is safe": "{\"__ansible_unsafe\": \"{{ lookup('pipe', 'touch %s') }}\"}",
    "a tag of Ansible's own": '{"__ansible_type": "TrustedAsTemplate", "v": "{{ lookup(\'pipe\', \'touch %s\') }}"}',
}


@pytest.mark.by_day(2)
@pytest.mark.parametrize("owner", [ADMIN, OWNER], ids=["admin", "owner"])
@pytest.mark.parametrize("name", ATTACKS)
def test_values_of_a_launch_are_never_templates_whoever_owns_the_template(
    service: Service, owner: tuple[str, str], name: str
) -> None:
    mark = service.root / "out" / f"mark-{owner[0]}-{len(name)}"
    word = ATTACKS[name] % mark
    place = service.root / "out" / f"place-{owner[0]}"
    variables = {"word": {"required": True}, "data": {"type": "object"}}
    request = {"extra_vars": {"place": str(place)}, "limit": "dev1"}
    put(service, f"attack-{owner[0]}", owner, request=request, variables=variables)
    given = {"word": word, "data": {"__ansible_type": "x", "word": word, word[:20]: [word]}}
    reply = launch(service, f"attack-{owner[0]}", {"extra_vars": given})
    assert reply.status_code == 202, reply.text
    status = service.wait(reply.json()["task_id"], PORTAL)
    output = service.output(reply.json()["task_id"], PORTAL)
    assert not mark.exists(), output
    assert status["state"] == "succeeded", output
    assert place.read_text().startswith(f"{word} {word}")


def test_variables_of_the_template_itself_are_templates_as_ever(service: Service) -> None:
    request = {"playbook": "vars.yml", "extra_vars": {"given": "{{ 6 * 7 }} {{ word }}"}}
    put(service, "own", ADMIN, request=request, variables={"word": {}})
    task_id = launch(service, "own", {"extra_vars": {"word": "{{ 1 + 1 }}"}}).json()["task_id"]
    assert service.wait(task_id, PORTAL)["state"] == "succeeded"
    assert "42 {{ 1 + 1 }}" in service.output(task_id, PORTAL)


def test_a_guard_that_looks_at_all_hosts_templates_no_value(service: Service) -> None:
    mark = service.root / "out" / "mark-guard"
    put(service, "guarded", ADMIN, open=["limit"], require_limit=True, variables={"word": {}})
    value = f"{{{{ lookup('pipe', 'touch {mark}') }}}}"
    reply = launch(service, "guarded", {"limit": "dev*", "extra_vars": {"word": value}})
    assert not mark.exists()
    assert (reply.status_code, reply.json()["code"]) == (400, "limit_required"), reply.text
    assert launch(service, "guarded", {"limit": "dev1*", "extra_vars": {"word": "x"}}).status_code == 202


LIMITS = {"": 202, "dev1": 202, "all": 400, "*": 400, "web": 400, "dev*": 400, "dev1,dev2": 400, "!dev9": 400}
LIMITS |= {"all:!dev2": 202, "dev1:&web": 202, "~.*": 400, "~dev1": 202, ",": 400, "all,dev1": 400, "web[0]": 202}


@pytest.mark.by_day(6)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_required_limit_selects_less_than_all(service: Service, limit: str) -> None:
    put(service, "limited", OWNER, request={"playbook": "vars.yml"}, open=["limit"], require_limit=True)
    reply = launch(service, "limited", {"limit": limit} if limit else {"limit": "dev2"})
    assert reply.status_code == LIMITS[limit], reply.text
    if LIMITS[limit] == 400:
        assert reply.json()["code"] == "limit_required"


def test_without_a_limit_or_on_too_many_hosts_nothing_starts(service: Service) -> None:
    put(service, "limited", OWNER, request={"playbook": "vars.yml"}, open=["limit"], require_limit=True)
    assert launch(service, "limited", {}).json()["code"] == "limit_required"
    assert launch(service, "limited", {"limit": None}).json()["code"] == "limit_required"
    put(service, "few", OWNER, request={"playbook": "vars.yml"}, open=["limit"], max_hosts=1)
    refused = launch(service, "few", {})
    assert (refused.status_code, refused.json()["code"]) == (403, "too_many_hosts")
    assert launch(service, "few", {"limit": "dev1"}).status_code == 202


def test_a_preview_shows_hosts_and_starts_nothing(service: Service) -> None:
    put(service, "seen", OWNER, request={"playbook": "vars.yml"}, open=["limit"])
    found = launch(service, "seen", {"limit": "dev1"}, "?preview=true")
    assert found.status_code == 200 and found.json()["hosts"] == ["dev1"] and found.json()["rights"] == []
    refused = launch(service, "seen", {"limit": "dev1", "tags": "x"}, "?preview=true").json()
    assert refused["allowed"] is False and refused["refusal"]["errors"][0]["field"] == "tags"
    tasks = service.client(PORTAL).get("/api/ansibletasks", params={"template": "seen"}).json()["tasks"]
    assert tasks == []


def test_choices_are_the_hosts_of_a_group_as_they_are_now(service: Service) -> None:
    variables = {"target": {"choices_from": {"group": "web"}, "required": True}}
    put(
        service,
        "chosen",
        ADMIN,
        request={"extra_vars": {"word": "x", "place": str(service.root / "out/chosen")}},
        variables=variables,
    )
    schema = service.client(PORTAL).get("/api/templates/chosen").json()["launch_schema"]
    assert schema["properties"]["extra_vars"]["properties"]["target"]["enum"] == ["dev1", "dev2"]
    assert launch(service, "chosen", {"extra_vars": {"target": "all"}}).status_code == 400
    reply = launch(service, "chosen", {"extra_vars": {"target": "dev2"}})
    assert reply.status_code == 202
    assert service.wait(reply.json()["task_id"], PORTAL)["state"] == "succeeded"


def test_hosts_that_fail_are_tried_again(service: Service) -> None:
    put(service, "again", OWNER, request={"playbook": "fail.yml"}, retry={"hosts": "failed", "times": 1})
    first = launch(service, "again", {}).json()["task_id"]
    service.wait(first, PORTAL)
    client = service.client(PORTAL)

    def both() -> list[dict[str, Any]] | None:
        tasks = client.get("/api/ansibletasks", params={"template": "again"}).json()["tasks"]
        return tasks if len(tasks) == 2 else None

    found = eventually(both, 60)
    assert found[0]["retry_of"] == first and found[0]["hosts"] == "dev1,dev2"
