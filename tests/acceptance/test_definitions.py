"""Definitions over HTTP, from files by `flansible apply`, and in the audit log."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.services import ADMIN, DEV, SCRIPTS, Service, write

SHARES_SERVICE = True
OPS = ("ops-member", "ops secret")
EXAMPLE = Path(__file__).parents[2] / "docs/examples/team"
FAILED = {"state": "failed"}


@pytest.fixture(scope="module", autouse=True)
def users(root: Path) -> None:
    document = json.loads((root / "rbac.json").read_text())
    document["groups"] = [{"name": "ops", "inventories": ["inventories/shared"]}]
    for user in document["rbac"]:
        if user["user"] == DEV[0]:
            user["may_define"] = ["searches"]
    document["rbac"].append({"user": OPS[0], "password": OPS[1], "groups": ["ops"]})
    write(root / "rbac.json", json.dumps(document)).chmod(0o600)


@pytest.fixture(autouse=True)
def none_left(service: Service) -> Iterator[None]:
    yield
    for item in service.client().get("/api/searches", params={"limit": 1000}).json()["items"]:
        service.client().delete(f"/api/searches/{item['name']}")


def put(service: Service, name: str, body: Any, user: tuple[str, str] = ADMIN, **headers: str) -> Any:
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    return service.client(user).put(f"/api/searches/{name}", json=body, headers=given)


def flansible(service: Service, *arguments: str, user: tuple[str, str] = ADMIN) -> subprocess.CompletedProcess[str]:
    login = {"FLANSIBLE_URL": service.url, "FLANSIBLE_USER": user[0], "FLANSIBLE_PASSWORD": user[1]}
    return subprocess.run(
        [str(SCRIPTS / "flansible"), *arguments],
        env={**service.environ, **login},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def audit_lines(service: Service) -> list[dict[str, Any]]:
    lines = (service.root / ".flansible/audit.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "definition"]


def test_a_definition_is_made_read_changed_and_deleted(service: Service) -> None:
    made = put(service, "broken", FAILED)
    assert made.status_code == 201, made.text
    assert made.json()["state"] == "failed" and made.json()["owner"] == "admin" and made.json()["sealed"] == []
    read = service.client().get("/api/searches/broken")
    assert read.headers["ETag"] == made.headers["ETag"] == read.json()["etag"]
    changed = put(service, "broken", {"state": "lost"})
    assert changed.status_code == 200 and changed.headers["ETag"] != made.headers["ETag"]
    assert put(service, "broken", {"state": "lost"}).headers["ETag"] == changed.headers["ETag"]
    assert service.client().delete("/api/searches/broken").status_code == 204
    assert service.client().get("/api/searches/broken").status_code == 404
    found = [(line["what"], line["outcome"], line["user"]) for line in audit_lines(service)[-3:]]
    assert found == [("searches/broken", outcome, "admin") for outcome in ("created", "changed", "deleted")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"state": "nonsense"}, "state"),
        ({"stat": "failed"}, "stat"),
        ({"state": ["failed"]}, "state"),
        ({"shared_with": "ops"}, "shared_with"),
        ({"text": ""}, "text"),
        ({"owner": "dev"}, "owner"),
        ({"text": "a\u0000b"}, "text"),
    ],
)
def test_a_faulty_field_is_named_and_nothing_is_made(service: Service, body: dict[str, Any], field: str) -> None:
    reply = put(service, "broken", body)
    assert reply.status_code == 400 and field in [item["field"] for item in reply.json()["errors"]], reply.text
    assert service.client().get("/api/searches/broken").status_code == 404


@pytest.mark.parametrize("name", ["-x", "a b", "%2e%2e", "x" * 101, "a%0ab", "a%00", "ä"])
def test_a_name_is_plain(service: Service, name: str) -> None:
    assert put(service, name, FAILED).status_code in (400, 404)
    assert service.client().get(f"/api/searches/{name}").status_code == 404
    assert service.client().delete(f"/api/searches/{name}").status_code == 404


def test_an_old_version_is_refused_and_of_two_at_once_one(service: Service) -> None:
    old = put(service, "broken", FAILED).headers["ETag"]
    assert put(service, "broken", {"state": "lost"}, If_Match=old).status_code == 200
    assert put(service, "broken", FAILED, If_Match=old).status_code == 412
    assert put(service, "broken", FAILED, If_None_Match="*").status_code == 412
    assert put(service, "none", FAILED, If_Match="*").status_code == 412
    assert put(service, "broken", FAILED, If_Match="nonsense").status_code == 400
    assert service.client().delete("/api/searches/broken", headers={"If-Match": old}).status_code == 412
    now = service.client().get("/api/searches/broken").headers["ETag"]
    replies: list[int] = []

    def write_one(number: int) -> None:
        replies.append(put(service, "broken", {"text": f"x{number}"}, If_Match=now).status_code)

    threads = [threading.Thread(target=write_one, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200, 412]


def test_rights_are_those_of_may_define_and_of_groups(service: Service) -> None:
    assert put(service, "mine", FAILED, DEV).status_code == 201
    assert put(service, "ours", {**FAILED, "shared_with": ["ops"]}, DEV).status_code == 201
    assert put(service, "theirs", FAILED, OPS).status_code == 403
    assert put(service, "ours", {"state": "lost"}, OPS).status_code == 403
    names = [item["name"] for item in service.client(OPS).get("/api/searches").json()["items"]]
    assert names == ["ours"]
    assert service.client(OPS).get("/api/searches/mine").status_code == 404
    kinds = service.client(OPS).get("/api/definitions").json()["kinds"]
    assert kinds[0]["kind"] == "searches" and not any(one["may_define"] for one in kinds)
    assert put(service, "admins", FAILED).status_code == 201
    assert put(service, "admins", {"state": "lost"}, DEV).json()["code"] == "not_owner"


def test_apply_twice_is_one_change_and_a_dry_run_none(service: Service, tmp_path: Path) -> None:
    write(tmp_path / "one.yml", "kind: searches\nname: one\nspec: {state: failed}\n---\nkind: searches\nname: two\n")
    dry = flansible(service, "apply", "-f", str(tmp_path), "--dry-run")
    assert dry.returncode == 0 and dry.stdout.splitlines() == ["searches/one created", "searches/two created"], dry
    assert service.client().get("/api/searches").json()["items"] == []
    assert flansible(service, "apply", "-f", str(tmp_path)).stdout == dry.stdout
    before = len(audit_lines(service))
    again = flansible(service, "apply", "-f", str(tmp_path))
    assert again.stdout == "" and "0 created, 0 changed, 2 unchanged, 0 deleted" in again.stderr
    assert len(audit_lines(service)) == before


def test_prune_of_one_set_leaves_the_other(service: Service, tmp_path: Path) -> None:
    one = write(tmp_path / "one.yml", "kind: searches\nname: one\n---\nkind: searches\nname: two\n")
    other = write(tmp_path / "other.yml", "kind: searches\nname: three\n")
    put(service, "alone", FAILED)
    assert flansible(service, "apply", "-f", str(one), "--set", "a").returncode == 0
    assert flansible(service, "apply", "-f", str(other), "--set", "b").returncode == 0
    one.write_text("kind: searches\nname: one\n")
    assert flansible(service, "apply", "-f", str(one), "--set", "a", "--prune").stdout == "searches/two deleted\n"
    names = [item["name"] for item in service.client().get("/api/searches").json()["items"]]
    assert names == ["alone", "one", "three"]


def test_500_files_take_seconds_and_a_broken_one_among_them_stops_all(service: Service, tmp_path: Path) -> None:
    for number in range(500):
        write(tmp_path / f"{number:03}.yml", f"kind: searches\nname: s{number}\nspec:\n  text: word {number}\n")
    write(tmp_path / "123.yml", "kind: searches\nname: s123\nspec:\n  text: word\n  stat: failed\n")
    write(tmp_path / "321.yml", "kind: search\nname: s321\n")
    refused = flansible(service, "apply", "-f", str(tmp_path))
    assert (
        refused.returncode != 0
        and f"{tmp_path}/321.yml:1: kind: unknown kind; did you mean searches?" in refused.stderr
    )
    write(tmp_path / "321.yml", "kind: searches\nname: s321\nspec: {state: x}\n")
    refused = flansible(service, "apply", "-f", str(tmp_path))
    for place in ("123.yml:5: spec.stat: unknown field; did you mean state?", "321.yml:3: spec.state: "):
        assert f"{tmp_path}/{place}" in refused.stderr, refused.stderr
    assert service.client().get("/api/searches").json()["items"] == []
    write(tmp_path / "123.yml", "kind: searches\nname: s123\n")
    write(tmp_path / "321.yml", "kind: searches\nname: s321\n")
    began = time.monotonic()
    flansible(service, "apply", "-f", str(tmp_path / "000.yml"))
    of_one, began = time.monotonic() - began, time.monotonic()
    applied = flansible(service, "apply", "-f", str(tmp_path))
    seconds = time.monotonic() - began
    assert applied.returncode == 0 and "499 created" in applied.stderr, applied.stderr
    assert seconds < 10 * of_one, f"{seconds:.1f} s, and {of_one:.1f} s for one file"  # about twice as long


def test_what_get_prints_apply_takes(service: Service, tmp_path: Path) -> None:
    put(service, "broken", {"state": "failed", "text": "on: yes # no", "shared_with": ["ops"]})
    put(service, "plain", {})
    shown = flansible(service, "get", "searches", "-o", "yaml")
    documents = list(yaml.safe_load_all(shown.stdout))
    assert [one["name"] for one in documents] == ["broken", "plain"]
    write(tmp_path / "all.yml", shown.stdout)
    again = flansible(service, "apply", "-f", str(tmp_path / "all.yml"))
    assert again.stdout.splitlines() == ["searches/broken changed", "searches/plain changed"], "their set is new"
    assert service.client().get("/api/searches/broken").json()["text"] == "on: yes # no"
    none = flansible(service, "get", "searches", "none")
    assert none.returncode == 5 and "There is no none among searches" in none.stderr


def test_the_example_sets_up_an_empty_installation(service: Service) -> None:
    """Names of hosts in it do not exist: what needs none of them runs."""
    applied = flansible(service, "apply", "-f", str(EXAMPLE), "--set", "team")
    assert applied.returncode == 0, applied.stderr
    kinds = {yaml.safe_load(path.read_text())["kind"] for path in EXAMPLE.glob("*.yml")}
    assert kinds == {"projects", "templates", "schedules", "webhooks", "notifications"}
    again = flansible(service, "apply", "-f", str(EXAMPLE), "--set", "team")
    assert (
        again.returncode == 0
        and "created" not in again.stdout
        and "changed" not in again.stdout.replace("unchanged", "")
    )
    client = service.client()
    assert client.get("/api/schedules/nightly").json()["next"]
    launched = client.post("/api/templates/reachable/launch", json={})
    assert launched.status_code == 202, launched.text
    status = service.wait(launched.json()["task_id"])
    assert (status["template"], status["state"]) == ("reachable", "succeeded")
    left = client.post("/api/apply", json={"set": "team", "definitions": [], "prune": True})
    assert left.status_code == 200, left.text
