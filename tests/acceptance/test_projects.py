"""Runs at commits of projects, as users see them: with real repositories behind git's own daemon, and real Ansible."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.receivers import Receiver
from tests.helpers.repositories import INVENTORY, PLAY, REQUIRES_TOOLS, Repository, collection, git_daemon, git_http
from tests.helpers.services import (
    ADMIN,
    DEV,
    FLANSIBLE_WORKER,
    Service,
    lay_out,
    start_service,
    worker_by_hand,
)
from tests.helpers.waiting import eventually

ON_DEV = {"playbook": "site.yml", "inventory": "inventories/dev"}
PROJECTS = ("shop", "vendor", "hostile", "lists", "moving")
MAKER = ("maker", "maker secret")
_GONE = "0" * 40


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(path)
    rbac = json.loads((path / "rbac.json").read_text())
    rbac["rbac"][1]["projects"] = list(PROJECTS)
    rbac["rbac"][1]["inventories"] += [f"{name}:inventories/dev" for name in PROJECTS]
    rbac["rbac"].append({"user": "other", "password": "other secret", "inventories": ["inventories/dev"]})
    maker = {"user": MAKER[0], "password": MAKER[1], "inventories": ["shop:inventories/dev", "mine:inventories/dev"]}
    rbac["rbac"].append({**maker, "projects": ["shop", "mine"], "may_define": ["projects"]})
    (path / "rbac.json").write_text(json.dumps(rbac))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def hub() -> Iterator[Receiver]:
    """The operator's server of Galaxy, which has nothing."""
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def service(root: Path, hub: Receiver) -> Iterator[Service]:
    galaxy = {"LIST": "hub", "HUB_URL": hub.url, "HUB_TOKEN": "operators"}
    variables = {f"ANSIBLE_GALAXY_SERVER_{name}": value for name, value in galaxy.items()}
    running = start_service(root, "archive_after_seconds = 1\nworker_concurrency = 4\n", variables=variables)
    yield running
    assert running.stop() < 10


@pytest.fixture(scope="module")
def remotes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repositories, one of them for most tests."""
    folder = tmp_path_factory.mktemp("remotes")
    Repository.make(folder / "shop")
    return folder


@pytest.fixture(scope="module")
def url(remotes: Path) -> Iterator[str]:
    with git_daemon(remotes) as found:
        yield found


@pytest.fixture(scope="module")
def shop(service: Service, remotes: Path, url: str) -> Repository:
    """Project shop, defined."""
    define(service, "shop", url=f"{url}/shop", ref="main")
    return Repository(remotes / "shop")


def define(service: Service, project: str, **spec: Any) -> None:
    reply = service.client().put(f"/api/projects/{project}", json=spec)
    assert reply.status_code in (200, 201), reply.text


def submit(service: Service, body: dict[str, Any], auth: tuple[str, str] = DEV) -> dict[str, Any]:
    reply = service.client(auth).post("/api/ansibleplaybook", json={**ON_DEV, **body})
    assert reply.status_code == 202, reply.text
    return dict(reply.json())


def refused(service: Service, body: dict[str, Any], auth: tuple[str, str] = DEV) -> tuple[int, str, str]:
    reply = service.client(auth).post("/api/ansibleplaybook", json={**ON_DEV, **body})
    return reply.status_code, reply.json()["code"], reply.json()["message"]


def ran(service: Service, body: dict[str, Any], auth: tuple[str, str] = DEV) -> tuple[dict[str, Any], str]:
    task_id = submit(service, body, auth)["task_id"]
    return service.wait(task_id), service.output(task_id)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("auth", (ADMIN, DEV), ids=("admin", "a confined user"))
def test_a_run_is_of_the_commit_that_its_ref_had_whatever_is_pushed_meanwhile(
    auth: tuple[str, str], service: Service, shop: Repository
) -> None:
    commit = shop.commit({"site.yml": PLAY.format(f"before-{auth[0]}")})
    accepted = submit(service, {"project": "shop", "lock": "one"}, auth)
    shop.commit({"site.yml": PLAY.format("after")})
    assert accepted["commit"] == commit
    status = service.wait(accepted["task_id"])
    output = service.output(accepted["task_id"])
    assert status["Status"] == "SUCCESS", output
    assert (status["project"], status["ref"], status["commit"]) == ("shop", "main", commit)
    assert status["playbook"] == "shop:site.yml"
    assert f"before-{auth[0]}" in output and "after" not in output
    listed = service.client(auth).get("/api/ansibletasks?limit=1").json()["tasks"][0]
    assert (listed["task_id"], listed["commit"]) == (accepted["task_id"], commit)


def test_choices_of_a_template_are_tags_of_the_project_and_hosts_of_its_inventory(
    service: Service, shop: Repository
) -> None:
    for tag in ("v1.9", "v1.10"):
        shop.git("tag", tag)
    variables = {"version": {"choices_from": {"tags": "v*"}}, "target": {"choices_from": {"group": "web"}}}
    body = {"kind": "playbook", "request": {**ON_DEV, "project": "shop"}, "variables": variables}
    assert service.client().put("/api/templates/release", json=body).status_code == 201
    schema = service.client().get("/api/templates/release").json()["launch_schema"]["properties"]["extra_vars"]
    assert {name: one["enum"] for name, one in schema["properties"].items()} == {
        "version": ["v1.10", "v1.9"],
        "target": ["one"],
    }
    launch = "/api/templates/release/launch"
    refusal = service.client().post(launch, json={"extra_vars": {"version": "v2"}})
    assert (refusal.status_code, refusal.json()["errors"][0]["field"]) == (400, "extra_vars.version")
    taken = service.client().post(launch, json={"extra_vars": {"version": "v1.10", "target": "one"}})
    assert service.wait(taken.json()["task_id"])["state"] == "succeeded"


def test_history_keeps_project_ref_and_commit(service: Service, shop: Repository) -> None:
    status, _ = ran(service, {"project": "shop"})
    database = service.root / ".flansible" / "history.sqlite3"

    def archived() -> bool:
        with sqlite3.connect(database) as connection:
            found = connection.execute(
                'SELECT project, ref, "commit" FROM tasks WHERE id = ?', (status["task_id"],)
            ).fetchone()
        return found == ("shop", "main", status["commit"])

    eventually(archived, 60)
    assert service.status(status["task_id"])["commit"] == status["commit"]


def test_progress_comes_before_the_play_and_a_commit_at_hand_needs_none(service: Service, shop: Repository) -> None:
    commit = shop.commit({"site.yml": PLAY.format("progress")})
    _, first = ran(service, {"project": "shop"})
    assert first.index("[flansible] fetching shop from git://") < first.index(f"[flansible] shop at {commit[:12]}")
    assert first.index(f"shop at {commit[:12]}") < first.index("PLAY [all]")
    _, second = ran(service, {"project": "shop"})
    assert "fetching" not in second and "[flansible] shop at" not in second


def test_a_project_says_whose_trees_are_on_which_worker(service: Service, shop: Repository) -> None:
    [queue] = service.client().get("/api/health").json()["queues"]
    commit = shop.commit({"site.yml": PLAY.format("x") + "    - wait_for: {path: '{{ go }}', timeout: 60}\n"})
    go = service.root / "go"
    accepted = submit(service, {"project": "shop", "extra_vars": {"go": str(go)}}, ADMIN)

    def found() -> dict[str, Any]:
        listed = service.client(DEV).get("/api/projects/shop").json()["commits"]
        return next((one for one in listed if one["commit"] == commit), {})

    assert eventually(lambda: found() if found().get("in_use") else None)["worker"] == queue["workers"][0]
    go.write_text("")
    service.wait(accepted["task_id"])
    at_hand = eventually(lambda: found() if found().get("in_use") is False else None)
    assert at_hand["bytes"] > 0 and at_hand["since"].endswith("Z") and at_hand["used_at"].endswith("Z")
    [item] = [one for one in service.client().get("/api/projects").json()["items"] if one["name"] == "shop"]
    assert item["commits"] is None


def test_another_ref_and_a_commit_are_run_where_the_inventory_is_ones_own(service: Service, shop: Repository) -> None:
    old = shop.commit({"site.yml": PLAY.format("tagged")})
    shop.git("tag", "v1.2")
    shop.commit({"site.yml": PLAY.format("newer")})
    inventory = str(service.root / "inventories" / "dev")
    for ref in ("v1.2", old):
        status, output = ran(service, {"project": "shop", "ref": ref, "inventory": inventory})
        assert (status["ref"], status["commit"]) == (ref, old)
        assert "tagged" in output
    code = refused(service, {"project": "shop", "ref": "v1.2"})[:2]
    assert code == (403, "inventory_ref_forbidden")
    assert ran(service, {"project": "shop", "ref": "v1.2"}, ADMIN)[0]["Status"] == "SUCCESS"


def test_refs_that_are_not_there_or_not_allowed_are_refused_at_once(
    service: Service, shop: Repository, url: str
) -> None:
    assert refused(service, {"project": "shop", "ref": "mian"}, ADMIN) == (
        404,
        "ref_not_found",
        "Project shop has no branch, tag or commit mian. Did you mean main?",
    )
    assert refused(service, {"project": "shop", "ref": _GONE}, ADMIN)[:2] == (404, "ref_not_found")
    define(service, "shop", url=f"{url}/shop", ref="main", allow_refs=["release/*"])
    try:
        shop.git("checkout", "-q", "-b", "secret")
        hidden = shop.commit({"x": "y"})
        shop.git("checkout", "-q", "main")
        for ref in ("secret", "refs/heads/secret", hidden):
            assert refused(service, {"project": "shop", "ref": ref}, ADMIN)[:2] == (403, "ref_forbidden")
        assert refused(service, {"project": "shop", "ref": "--upload-pack=x"}, ADMIN)[:2] == (400, "invalid_field")
    finally:
        define(service, "shop", url=f"{url}/shop", ref="main")


def test_a_projects_own_tag_is_not_taken_from_a_branch_that_is_pushed_later(
    service: Service, shop: Repository, url: str
) -> None:
    tagged = shop.commit({"site.yml": PLAY.format("tagged")})
    shop.git("tag", "v9")
    define(service, "shop", url=f"{url}/shop", ref="v9")
    try:
        assert submit(service, {"project": "shop"})["commit"] == tagged
        shop.git("checkout", "-q", "-b", "v9")
        shop.commit({"site.yml": PLAY.format("pushed")})
        shop.git("checkout", "-q", "main")
        assert refused(service, {"project": "shop"}) == (
            400,
            "ref_ambiguous",
            "Project shop has a branch and a tag v9. Name refs/heads/v9 or refs/tags/v9, here or as the project's ref.",
        )
        define(service, "shop", url=f"{url}/shop", ref="refs/tags/v9")
        assert submit(service, {"project": "shop"})["commit"] == tagged
    finally:
        define(service, "shop", url=f"{url}/shop", ref="main")


def test_a_project_that_is_not_granted_or_not_there(service: Service, shop: Repository) -> None:
    other = ("other", "other secret")
    for name in ("shop", "nothing"):
        assert refused(service, {"project": name}, other)[:2] == (403, "project_forbidden")
        assert service.client(other).get(f"/api/projects/{name}").status_code == 404
        assert service.client(other).get(f"/api/projects/{name}/remote").status_code == 403
    assert refused(service, {"project": "nothing"}, ADMIN)[:2] == (404, "project_not_found")
    assert service.client(DEV).get("/api/projects/shop").json()["ref"] == "main"
    assert [one["name"] for one in service.client(other).get("/api/projects").json()["items"]] == []
    assert service.client(DEV).put("/api/projects/mine", json={"url": "https://h/x"}).status_code == 403


def test_a_remote_that_is_away_is_502_in_gits_words_and_an_old_commit_runs_where_that_is_allowed(
    service: Service, remotes: Path, url: str
) -> None:
    moving = Repository.make(remotes / "moving")
    define(service, "moving", url=f"{url}/moving", ref="main")
    assert ran(service, {"project": "moving"})[0]["Status"] == "SUCCESS"
    shutil.move(remotes / "moving", remotes / "away")
    status, code, message = refused(service, {"project": "moving"})
    assert (status, code) == (502, "remote_unreachable")
    assert "remote error" in message or "not exported" in message
    define(service, "moving", url=f"{url}/moving", ref="main", refresh={"max_age": 1})
    time.sleep(1.1)  # the age is counted by the service's clock
    accepted = submit(service, {"project": "moving"})
    day = moving_day(remotes / "away")
    assert accepted["warning"] == f"remote not reachable, commit of {day}"
    service.wait(accepted["task_id"])
    assert f"[flansible] remote not reachable, commit of {day}.\n" in service.output(accepted["task_id"])
    state = service.client().get("/api/projects/moving/remote").json()
    assert state["problem"] and state["asked_at"] and state["commit"] == accepted["commit"]
    define(service, "moving", url=f"{url}/moving", ref="main", refresh="manual")
    assert "warning" not in submit(service, {"project": "moving"})  # it is not asked
    assert moving.folder.parent == remotes


def moving_day(folder: Path) -> str:
    return Repository(folder).git("log", "-1", "--format=%cs")


def test_a_push_runs_its_commit_where_its_ref_is_allowed(service: Service, shop: Repository, url: str) -> None:
    define(service, "shop", url=f"{url}/shop", ref="main", allow_refs=["release/*"])
    secret = "a secret of the forge alone"
    request = {**ON_DEV, "project": "shop"}
    hook = {"source": "github", "secret": secret, "template": "pushed", "event_commit": True}
    admin = service.client()
    assert admin.put("/api/templates/pushed", json={"kind": "playbook", "request": request}).status_code == 201
    refused = admin.put("/api/webhooks/pushed", json=hook)
    assert [one["field"] for one in refused.json()["errors"]] == ["event_commit"]
    admin.put("/api/templates/pushed", json={"kind": "playbook", "request": request, "open": ["ref"]})
    assert admin.put("/api/webhooks/pushed", json=hook).status_code == 201

    def push(ref: str, commit: str) -> httpx.Response:
        body = json.dumps({"ref": ref, "head_commit": {"id": commit}, "nonce": str(uuid.uuid4())}).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
        return httpx.post(f"{service.url}/api/hooks/pushed", content=body, headers=headers, timeout=60)

    try:
        old = shop.commit({"site.yml": PLAY.format("pushed")})
        shop.commit({"site.yml": PLAY.format("newer")})
        task_id = push("refs/heads/main", old).json()["task_id"]
        assert service.wait(task_id)["commit"] == old and "pushed" in service.output(task_id)
        # In main, but who may push another branch may not choose which commit of main is run.
        for ref in ("refs/heads/other", "refs/tags/main", f"refs/heads/{'a' * 40}"):
            assert push(ref, old).json()["code"] == "ref_forbidden"
        shop.git("checkout", "-q", "-b", "unmerged")
        hidden = shop.commit({"x": "y"})
        shop.git("checkout", "-q", "main")
        assert push("refs/heads/main", hidden).json()["code"] == "ref_forbidden"
        assert push("refs/heads/main", _GONE).json() == {"ignored": "the event has no commit"}
        *_, call = admin.get("/api/hookcalls", params={"webhook": "pushed"}).json()["items"]
        again = admin.post(f"/api/hookcalls/{call['call_id']}/again").json()["task_id"]
        assert call["commit"] == old == service.wait(again)["commit"]
    finally:
        define(service, "shop", url=f"{url}/shop", ref="main")


def test_a_manual_project_is_asked_by_hand(service: Service, shop: Repository, url: str) -> None:
    define(service, "lists", url=f"{url}/shop", ref="main", refresh="manual")
    first = submit(service, {"project": "lists"})["commit"]
    newer = shop.commit({"site.yml": PLAY.format("by hand")})
    assert submit(service, {"project": "lists"})["commit"] == first
    reply = service.client(DEV).post("/api/projects/lists/remote", json={})
    assert reply.status_code == 200, reply.text
    assert (reply.json()["commit"], reply.json()["problem"]) == (newer, None)
    assert submit(service, {"project": "lists"})["commit"] == newer


def test_an_idempotency_key_names_the_first_requests_commit(service: Service, shop: Repository) -> None:
    client, body = service.client(DEV), {**ON_DEV, "project": "shop"}
    first = client.post("/api/ansibleplaybook", json=body, headers={"Idempotency-Key": "of-a-project"})
    shop.commit({"site.yml": PLAY.format("pushed")})
    again = client.post("/api/ansibleplaybook", json=body, headers={"Idempotency-Key": "of-a-project"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.json()["task_id"], again.json()["commit"]) == (first.json()["task_id"], first.json()["commit"])


def test_adhoc_commands_and_the_projects_own_configuration(service: Service, shop: Repository) -> None:
    shop.commit(
        {
            "ansible.cfg": "[defaults]\nfilter_plugins = filters\n",
            "filters/own.py": "class FilterModule:\n    def filters(self): return {'twice': lambda x: x * 2}\n",
            "site.yml": PLAY.format("\"{{ 'ab' | twice }}\""),
        }
    )
    assert "abab" in ran(service, {"project": "shop"})[1]
    assert "abab" in ran(service, {"project": "shop"}, ADMIN)[1]
    body = {"module": "command", "module_args": "pwd", "host_pattern": "all", "project": "shop"}
    reply = service.client(DEV).post("/api/ansiblecommand", json={**body, "inventory": "inventories/dev"})
    assert service.wait(reply.json()["task_id"])["Status"] == "SUCCESS"
    assert reply.json()["commit"] in service.output(reply.json()["task_id"])
    assert not list(tree_of(service, "shop").rglob("__pycache__"))


def tree_of(service: Service, project: str) -> Path:
    return service.root / ".flansible" / "projects" / project / "shown" / "trees"


LISTED = """\
- name: Listed
  hosts: web
  gather_facts: false
  vars_prompt: [{name: word, default: x}]
  tasks:
    - debug: msg=hi
"""


def test_lists_and_previews_are_of_the_commit_asked_for(service: Service, shop: Repository) -> None:
    shop.commit(
        {
            "listed.yml": LISTED,
            "inventories/prod": INVENTORY,
        }
    )
    shop.git("tag", "listed")
    commit = shop.git("rev-parse", "HEAD")
    shop.git("rm", "-q", "listed.yml")
    shop.commit({})
    client = service.client(DEV)
    found = client.get("/api/listplaybooks?project=shop&ref=listed").json()
    assert (found["commit"], found["ref"]) == (commit, "listed")
    assert "listed.yml" in [one["playbook"] for one in found["playbooks"]]
    assert "listed.yml" not in [
        one["playbook"] for one in client.get("/api/listplaybooks?project=shop").json()["playbooks"]
    ]
    one = client.get("/api/listplaybooks?project=shop&ref=listed&playbook_dir=.&playbook=listed.yml").json()
    assert [variable["name"] for variable in one["playbooks"][0]["variables"]] == ["word"]
    assert client.get("/api/listplaybooks?project=shop&playbook_dir=.&playbook=listed.yml").status_code == 404
    inventories = [one["inventory"] for one in client.get("/api/listinventories?project=shop").json()["inventories"]]
    assert inventories == ["inventories/dev"]
    of_admin = service.client().get("/api/listinventories?project=shop").json()["inventories"]
    assert [one["inventory"] for one in of_admin] == ["inventories/dev", "inventories/prod"]
    hosts = client.get("/api/listinventories?project=shop&inventory=inventories/dev").json()["inventories"][0]
    assert hosts["hosts"] == ["one"]
    assert client.get("/api/listinventories?project=shop&inventory=inventories/prod").status_code == 403
    body = {**ON_DEV, "project": "shop", "ref": "listed", "playbook": "listed.yml"}
    preview = service.client().post("/api/preview", json={"kind": "playbook", "request": body}).json()
    assert preview["plays"][0]["hosts"] == ["one"], preview
    assert f"git -C shop checkout --detach {commit}" in preview["command"]


def test_a_ref_at_which_one_may_run_nothing_is_not_listed_either(service: Service, shop: Repository) -> None:
    shop.git("branch", "-f", "draft")
    client = service.client(MAKER)
    for route in ("listplaybooks", "listinventories"):
        assert client.get(f"/api/{route}?project=shop").status_code == 200
        reply = client.get(f"/api/{route}?project=shop&ref=draft")
        assert (reply.status_code, reply.json()["code"]) == (403, "ref_forbidden")
    assert refused(service, {"project": "shop", "ref": "draft"}, MAKER)[:2] == (403, "ref_forbidden")
    # With an inventory of one's own it can be run: of the project's none is listed.
    found = service.client(DEV).get("/api/listinventories?project=shop&ref=draft").json()["inventories"]
    assert found == [] and service.client(DEV).get("/api/listplaybooks?project=shop&ref=draft").status_code == 200


def test_a_user_who_may_define_projects_cannot_have_internal_addresses_dialled(service: Service, url: str) -> None:
    client = service.client(MAKER)
    for given in (
        *("git://127.0.0.1/x", "https://2130706433/x", "ssh://git@0x7f.1/x", "https://[::ffff:127.0.0.1]/x"),
        *("git@localhost:x", "https://169.254.169.254/x", "http://git.example.org/x", "/srv/git/x"),
    ):
        reply = client.put("/api/projects/mine", json={"url": given})
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (400, "url"), given
        body = {"definitions": [{"kind": "projects", "name": "mine", "spec": {"url": given}}]}
        assert client.post("/api/apply", json=body).status_code == 400
    assert client.put("/api/projects/mine", json={"url": "git://git.example.org/x", "ref": "main"}).status_code == 201
    # A name, such as this machine's own, is looked up when it is fetched.
    port = url.rpartition(":")[2]
    body = {"url": f"git://{socket.gethostname()}:{port}/shop", "ref": "main"}
    assert client.put("/api/projects/mine", json=body).status_code == 200
    status, code, message = refused(service, {"project": "mine"}, MAKER)
    assert (status, code) == (502, "remote_unreachable")
    assert "is not a public one" in message or "Name or service not known" in message
    # One of before that rule.
    with closing(sqlite3.connect(service.root / ".flansible" / "history.sqlite3")) as connection, connection:
        connection.execute("UPDATE definitions SET spec = replace(spec, 'git://', 'http://') WHERE name = 'mine'")
    assert refused(service, {"project": "mine"}, MAKER)[:2] == (403, "project_url_forbidden")
    define(service, "mine", url=f"{url}/shop", ref="main")
    service.wait(submit(service, {"project": "mine"}, MAKER)["task_id"])


def release(tools: Repository, version: str) -> None:
    """Commits and tags a version of a collection, with a filter that says it."""
    plugin = f"class FilterModule:\n    def filters(self): return {{'version': lambda x: 'tools-{version}'}}\n"
    tools.commit({**collection(version), "plugins/filter/version.py": plugin})
    tools.git("tag", f"v{version}")


def test_requirements_are_installed_once_and_shared_by_commits_with_the_same_file(
    service: Service, remotes: Path, url: str
) -> None:
    vendor, tools = Repository.make(remotes / "vendor"), Repository.make(remotes / "tools")
    define(service, "vendor", url=f"{url}/vendor", ref="main")
    release(tools, "1.0.0")
    required = f"collections:\n  - name: git+{url}/tools\n    type: git\n    version: v{{}}\n"
    vendor.commit(
        {"requirements.yml": required.format("1.0.0"), "site.yml": PLAY.format('"{{ 1 | team.tools.version }}"')}
    )
    for auth in (DEV, ADMIN):
        status, output = ran(service, {"project": "vendor"}, auth)
        assert "tools-1.0.0" in output, output
    vendor.commit({"other": "x"})
    output = ran(service, {"project": "vendor"})[1]
    assert "tools-1.0.0" in output and "installing" not in output
    release(tools, "2.0.0")
    vendor.commit({"requirements.yml": required.format("2.0.0")})
    output = ran(service, {"project": "vendor"})[1]
    assert "[flansible] installing requirements.yml" in output and "tools-2.0.0" in output
    vendor.commit({"requirements.yml": required.format("9.9.9")})
    status, output = ran(service, {"project": "vendor"})
    assert (status["state"], "v9.9.9" in output) == ("failed", True)
    assert "PLAY" not in output
    define(service, "vendor", url=f"{url}/vendor", ref="main", requirements="none")
    assert "installing" not in ran(service, {"project": "vendor"})[1]


def test_the_operators_token_for_galaxy_is_for_projects_of_admin_alone(
    service: Service, remotes: Path, url: str, hub: Receiver
) -> None:
    Repository.make(remotes / "tokens").commit(REQUIRES_TOOLS)
    define(service, "tokens", url=f"{url}/tokens", ref="main", refresh="manual")

    def asked_with() -> set[str | None]:
        hub.received.clear()
        status, output = ran(service, {"project": "tokens"}, ADMIN)
        assert status["state"] == "failed" and "ansible-galaxy collection install" in output, output
        return {one.headers.get("authorization") for one in hub.received}

    assert asked_with() == {"Token operators"}
    with closing(sqlite3.connect(service.root / ".flansible" / "history.sqlite3")) as connection, connection:
        connection.execute("UPDATE definitions SET owner = ? WHERE name = 'tokens'", (MAKER[0],))
    assert asked_with() == {None}


HOSTILE = """\
- hosts: all
  gather_facts: false
  ignore_errors: true
  tasks:
    - ansible.builtin.shell: "{{ item }} && echo got-through-{{ index }} || echo kept-out"
      loop:
        - cat {{ data }}/secret.key
        - ls {{ data }}/projects/shop/mirrors
        - ls {{ data }}/projects/secret
        - touch {{ playbook_dir }}/new
        - echo x >> {{ playbook_dir }}/site.yml
        - rm -rf {{ playbook_dir }}/inventories
        - touch {{ data }}/projects/hostile/shown/locks/new
        - cat {{ data }}/history.sqlite3
        - cat {{ playbook_dir }}/stolen
        - env | grep -i git_
      loop_control: {index_var: index}
"""


def test_a_confined_users_playbook_reads_and_writes_nothing_but_its_projects_tree(
    service: Service, remotes: Path, url: str, shop: Repository
) -> None:
    secret = Repository.make(remotes / "secret")
    secret.commit({"key": "x"})
    define(service, "secret", url=f"{url}/secret", ref="main")
    assert ran(service, {"project": "secret"}, ADMIN)[0]["Status"] == "SUCCESS"
    hostile = Repository.make(remotes / "hostile")
    (hostile.folder / "stolen").symlink_to(service.root / "inventories" / "prod")
    hostile.commit({"site.yml": HOSTILE})
    define(service, "hostile", url=f"{url}/hostile", ref="main")
    body = {"project": "hostile", "extra_vars": {"data": str(service.root / ".flansible")}}
    task_id = submit(service, body)["task_id"]
    assert service.wait(task_id)["commit"] == hostile.git("rev-parse", "HEAD")
    [shell] = service.result(task_id)["contacted"]["one"]
    said = {item["item"]: item["stdout"].splitlines()[-1] for item in shell["result"]["results"]}
    assert len(said) == 10 and set(said.values()) == {"kept-out"}, said


def test_a_tree_that_a_run_of_admin_has_changed_is_not_used_again(service: Service, shop: Repository) -> None:
    play = (
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - shell: chmod -R u+w . && echo more >> inventories/dev\n"
    )
    shop.commit(
        {"change.yml": play.replace("shell: ", "shell: cd {{ playbook_dir }} && "), "site.yml": PLAY.format("x")}
    )
    output = ran(service, {"project": "shop", "playbook": "change.yml"}, ADMIN)[1]
    assert "the run has changed files of the project" in output
    assert "more" not in ran(service, {"project": "shop"}, ADMIN)[1]
    [tree] = [path for path in tree_of(service, "shop").iterdir() if path.name == shop.git("rev-parse", "HEAD")]
    assert (tree / "inventories/dev").read_text() == INVENTORY


WRITES = PLAY.format("x") + (
    "    - copy: {content: new, dest: '{{ playbook_dir }}/written'}\n"
    "    - command: cat {{ playbook_dir }}/written {{ playbook_dir }}/site.yml\n"
)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("auth", (ADMIN, DEV), ids=("admin", "a confined user"))
def test_a_private_copy_may_be_written_and_is_gone_afterwards(
    auth: tuple[str, str], service: Service, shop: Repository, url: str
) -> None:
    shop.commit({"site.yml": WRITES})
    if auth == DEV:
        status = ran(service, {"project": "shop"}, auth)[0]
        assert status["state"] == "failed"
        assert "with `private_copy` in the project each run has a copy" in status["description"]
    define(service, "shop", url=f"{url}/shop", ref="main", private_copy=True)
    try:
        status, output = ran(service, {"project": "shop"}, auth)
        assert status["Status"] == "SUCCESS", output
        assert "have changed" not in output
        copies = service.root / ".flansible" / "projects" / "shop" / "copies"
        eventually(lambda: not [path for path in copies.rglob("*") if path.is_file()])
    finally:
        define(service, "shop", url=f"{url}/shop", ref="main")


def test_a_run_of_a_commit_at_hand_does_not_wait_for_a_fetch_that_goes_on(
    service: Service, remotes: Path, url: str
) -> None:
    still = Repository.make(remotes / "still")
    at_hand = still.commit({"site.yml": PLAY.format("at-hand")})
    still.git("tag", "v1")
    define(service, "still", url=f"{url}/still", ref="main", refresh="manual")
    assert ran(service, {"project": "still", "ref": "v1"}, ADMIN)[0]["Status"] == "SUCCESS"
    newer = still.commit({"site.yml": PLAY.format("newer")})
    assert service.client().post("/api/projects/still/remote", json={}).json()["commit"] == newer
    [lock] = (service.root / ".flansible" / "projects" / "still" / "mirrors").glob("*.lock")
    with lock.open() as held:  # as a process does that fetches for a long time
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = submit(service, {"project": "still"}, ADMIN)["task_id"]
        eventually(lambda: "fetching still" in service.output(waiting))
        status, output = ran(service, {"project": "still", "ref": "v1"}, ADMIN)
        assert (status["Status"], status["commit"]) == ("SUCCESS", at_hand) and "at-hand" in output
        assert service.status(waiting)["state"] == "running"
    assert service.wait(waiting)["Status"] == "SUCCESS" and "newer" in service.output(waiting)


@pytest.mark.parametrize("count", (8, pytest.param(200, marks=pytest.mark.nightly)))
def test_two_workers_that_share_no_files_run_each_the_commit_it_was_given(
    count: int, service: Service, shop: Repository, tmp_path: Path
) -> None:
    """While the project is pushed to all the time."""
    socket_url = f"redis+socket://{service.root / '.flansible' / 'redis.sock'}"
    second = {
        "FLANSIBLE_data_dir": str(tmp_path / "second"),
        "FLANSIBLE_CELERY_BROKER_URL": socket_url,
        "FLANSIBLE_CELERY_RESULT_BACKEND": socket_url,
        "FLANSIBLE_worker_concurrency": "2",
    }
    (tmp_path / "second").mkdir(mode=0o700)
    by_hand = replace(service, environ={**service.environ, **second})
    given = {}
    with worker_by_hand(by_hand, *FLANSIBLE_WORKER):
        eventually(lambda: len(service.client().get("/api/stats").json()["workers"]) == 2, 60)
        for number in range(count):
            # Long enough that one worker alone has no slot left.
            play = PLAY.format(f"number-{number}-") + "    - wait_for: {timeout: 4}\n"
            shop.commit({"site.yml": play})
            accepted = submit(service, {"project": "shop"}, DEV if number % 2 else ADMIN)
            given[accepted["task_id"]] = (number, accepted["commit"])
        for task_id, (number, commit) in given.items():
            status = service.wait(task_id)
            output = service.output(task_id)
            assert (status["Status"], status["commit"]) == ("SUCCESS", commit), output
            assert f"number-{number}-" in output
        assert list((tmp_path / "second" / "projects" / "shop" / "shown" / "trees").glob("*"))


def test_a_remote_that_says_nothing_is_given_up(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        define(service, "silent", url=f"git://127.0.0.1:{silent.getsockname()[1]}/x", ref="main")
        began = time.monotonic()
        reply = service.client().post("/api/ansibleplaybook", json={**ON_DEV, "project": "silent"})
        assert (reply.status_code, reply.json()["code"]) in ((503, "commit_unknown"), (502, "remote_unreachable"))
        assert time.monotonic() - began < 15


def test_a_request_is_queued_at_its_commit_while_all_slots_are_taken(service: Service, shop: Repository) -> None:
    slots = service.client().get("/api/stats").json()["workers"][0]["slots"]
    sleep = {"module": "command", "module_args": "sleep 900"}  # until they are canceled
    busy = [service.submit("ansiblecommand", sleep) for _ in range(slots)]
    # Each of them: what an earlier test has left may be counted among those that run.
    eventually(lambda: all(service.status(task_id)["state"] == "running" for task_id in busy), 60)
    commit = shop.commit({"site.yml": PLAY.format("after-all-others")})
    reply = submit(service, {"project": "shop"})
    assert reply["commit"] == commit
    assert service.status(reply["task_id"])["state"] == "queued"
    for task_id in busy:
        service.client().post(f"/api/ansibletaskcancel/{task_id}")
    assert service.wait(reply["task_id"])["Status"] == "SUCCESS"
    assert "after-all-others" in service.output(reply["task_id"])


def test_a_credential_fetches_a_project_and_is_shown_nowhere(service: Service, remotes: Path, shop: Repository) -> None:
    password = "correct horse battery staple"
    client = service.client()
    with git_http(remotes, "deploy", password) as url:
        define(service, "lists", url=f"{url}/shop/.git", ref="main", credential="shop-key")
        assert refused(service, {"project": "lists"})[:2] == (503, "credential_unavailable")
        body = {"kind": "git", "user": "deploy", "password": password}
        assert client.put("/api/credentials/shop-key", json=body).status_code == 201
        shop.commit({"site.yml": PLAY.format("{{ lookup('env', 'GIT_CONFIG_GLOBAL') }}-fetched")})
        for auth in (DEV, ADMIN):
            status, output = ran(service, {"project": "lists"}, auth)
            assert status["Status"] == "SUCCESS", output
            assert "-fetched" in output and password not in output
            shown = client.get(f"/api/ansibletaskrequest/{status['task_id']}").text
            assert password not in shown + str(status)
        assert len(client.get("/api/listplaybooks?project=lists").json()["playbooks"]) > 0
        assert client.put("/api/credentials/shop-key", json={**body, "password": "another one"}).status_code == 200
        status_code, code, message = refused(service, {"project": "lists"})
        assert (status_code, code) == (502, "remote_unreachable")
        assert "another one" not in message
    for path in (service.root / ".flansible").rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path


def test_a_local_repository_is_for_admin_and_is_at_hand(service: Service, remotes: Path, tmp_path: Path) -> None:
    local = Repository.make(tmp_path / "local")
    define(service, "local", url=str(local.folder), ref="main")
    status, output = ran(service, {"project": "local"}, ADMIN)
    assert status["Status"] == "SUCCESS" and "first" in output
    shutil.rmtree(local.folder)
    assert refused(service, {"project": "local"}, ADMIN)[:2] == (502, "remote_unreachable")
    assert os.path.isdir(tree_of(service, "local"))
