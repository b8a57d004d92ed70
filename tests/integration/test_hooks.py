"""Calls of webhooks over HTTP: signatures first, then filters, then the launch; forged, replayed and repeated ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from flansible.store import Store
from tests.helpers.history import Databases
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, DEV, WebServer

SECRET = "a secret of the forge alone"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PUSH: dict[str, Any] = {
    "ref": "refs/heads/main",
    "after": "1.2.3",
    "commits": [{"added": ["site.yml"], "modified": [], "removed": []}],
}


@pytest.fixture(scope="module")
def database_url(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> str:
    return databases.migrated("postgresql", tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def server(
    shared_redis: RedisServer, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "hosts").write_text("web1\n")
    (folder / "site.yml").write_text("- hosts: all\n")
    with shared_redis.client() as client:
        client.flushall()
    running = WebServer(folder, shared_redis.url, DATABASE_URL=database_url, inventories=("hosts",), login_failures=10)
    rbac = json.loads((folder / "rbac.json").read_text())
    for entry in rbac["rbac"]:
        if entry["user"] == "dev":
            entry["may_define"] = ["templates", "webhooks"]
    (folder / "rbac.json").write_text(json.dumps(rbac))
    with running.client() as client:
        template = {
            "kind": "playbook",
            "request": {"playbook_dir": str(folder), "playbook": "site.yml", "inventory": "hosts"},
            "variables": {"version": {"type": "string", "pattern": "[0-9.]+"}, "size": {"type": "integer"}},
        }
        eventually(lambda: client.put("/api/templates/deploy", json=template).status_code in (200, 201))
    yield running
    running.stop()


@pytest.fixture
def admin(server: WebServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def anybody(server: WebServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_failures(store: Store) -> None:
    """Wrong signatures of the test before."""
    names = list(store._redis.scan_iter("flansible:logins:*"))
    if names:
        store._redis.delete(*names)


def define(admin: httpx.Client, name: str, **more: Any) -> None:
    spec = {"source": "github", "secret": SECRET, "template": "deploy", "variables": {"version": "/after"}, **more}
    reply = admin.put(f"/api/webhooks/{name}", json=spec)
    assert reply.status_code in (200, 201), reply.text


def pushed(payload: dict[str, Any], secret: str = SECRET, delivery: str = "", event: str = "push") -> dict[str, Any]:
    body = json.dumps(payload).encode()
    return {
        "content": body,
        "headers": {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        },
    }


def unique() -> dict[str, Any]:
    return {**PUSH, "nonce": str(uuid.uuid4())}


def test_a_push_launches_the_template_with_its_value(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "push", events=["push"], refs=["refs/heads/main"], paths=["*.yml"])
    reply = anybody.post("/api/hooks/push", **pushed(unique()))
    assert reply.status_code == 202, reply.text
    task_id = reply.json()["task_id"]
    assert reply.json()["status_url"] == f"/api/ansibletaskstatus/{task_id}"
    task = admin.get(reply.json()["status_url"]).json()
    assert (task["user"], task["template"], task["trigger"], task["playbook"]) == (
        "admin",
        "deploy",
        "hook",
        "site.yml",
    )
    request = admin.get(f"/api/ansibletaskrequest/{task_id}").json()
    assert {"version": "1.2.3"} in request["body"]["extra_vars"]
    [call] = admin.get("/api/hookcalls", params={"webhook": "push", "limit": 1}).json()["items"]
    assert (call["outcome"], call["task_id"], call["event"], call["ref"]) == ("started", task_id, "push", PUSH["ref"])


def test_what_a_filter_excludes_is_200_with_the_reason(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "filters", events=["push"], refs=["refs/heads/main"])
    cases = [
        (pushed({**unique(), "ref": "refs/heads/other"}), "ref does not match"),
        (pushed(unique(), event="release"), "event does not match"),
    ]
    for call, reason in cases:
        reply = anybody.post("/api/hooks/filters", **call)
        assert (reply.status_code, reply.json()) == (200, {"ignored": reason})
    items = admin.get("/api/hookcalls", params={"webhook": "filters"}).json()["items"]
    assert [(one["outcome"], one["reason"], one["task_id"]) for one in items] == [
        ("ignored", reason, None) for _, reason in reversed(cases)
    ]


def test_a_delivery_that_comes_again_is_answered_with_the_same_task(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "again")
    payload = unique()
    first = anybody.post("/api/hooks/again", **pushed(payload, delivery="one"))
    same = anybody.post("/api/hooks/again", **pushed(payload, delivery="one"))
    assert same.status_code == 202 and same.json() == first.json()
    # The sender's id is not signed: a captured call under another id is the same call.
    replayed = anybody.post("/api/hooks/again", **pushed(payload, delivery="another"))
    assert replayed.json() == first.json()
    other = anybody.post("/api/hooks/again", **pushed(unique(), delivery="third"))
    assert other.json()["task_id"] != first.json()["task_id"]


def test_an_unknown_webhook_and_a_wrong_signature_look_the_same(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "known")
    for name in ("known", "unknown", "a b", "x" * 300):
        reply = anybody.post(f"/api/hooks/{name}", **pushed(unique(), secret="another secret of somebody"))
        assert reply.status_code == 401
        assert reply.json() == {
            "message": "There is no such webhook, or the call is not signed with its secret.",
            "code": "hook_refused",
            "errors": [],
        }
    assert admin.get("/api/hookcalls", params={"webhook": "known"}).json()["items"] == []


def test_the_signature_comes_before_all_parsing(admin: httpx.Client, anybody: httpx.Client) -> None:
    """What is no JSON, too deep, or has a key twice is but a wrong signature to those without the secret."""
    define(admin, "raw")
    for body in (b"", b"{", b"[" * 5000, b'{"a": 1, "a": 2}', b"\xff\xfe"):
        call = pushed({})
        reply = anybody.post("/api/hooks/raw", content=body, headers=call["headers"])
        assert reply.json()["code"] == "hook_refused"
        right = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        reply = anybody.post("/api/hooks/raw", content=body, headers={**call["headers"], "X-Hub-Signature-256": right})
        assert reply.status_code == 400
    no_object = pushed({})
    body = b"[1]"
    right = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    reply = anybody.post("/api/hooks/raw", content=body, headers={**no_object["headers"], "X-Hub-Signature-256": right})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_json")


def test_a_value_that_the_template_refuses_is_refused_and_logged(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "values", variables={"version": "/after", "size": "/size"})
    for payload, field in (
        ({**unique(), "after": "{{ lookup('pipe', 'id') }}"}, "extra_vars.version"),
        ({**unique(), "after": 7}, "extra_vars.version"),
        ({**unique(), "size": "7"}, "extra_vars.size"),
    ):
        reply = anybody.post("/api/hooks/values", **pushed(payload))
        assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == field, reply.text
    items = admin.get("/api/hookcalls", params={"webhook": "values"}).json()["items"]
    assert {one["outcome"] for one in items} == {"refused"} and "invalid_field" in items[0]["reason"]


def test_many_wrong_signatures_get_429_and_right_ones_go_on(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "attacked")
    statuses = [
        anybody.post("/api/hooks/attacked", **pushed(unique(), secret="guess" * 5)).status_code for _ in range(12)
    ]
    assert statuses[:9] == [401] * 9 and statuses[-1] == 429
    reply = anybody.post("/api/hooks/attacked", **pushed(unique(), secret="guess" * 5))
    assert reply.status_code == 429 and int(reply.headers["Retry-After"]) > 0
    assert anybody.post("/api/hooks/attacked", **pushed(unique())).status_code == 202


def test_wrong_signatures_lock_no_login_of_their_address_out(anybody: httpx.Client, server: WebServer) -> None:
    for number in range(110):
        anybody.post(f"/api/hooks/none{number}", **pushed(unique()))
    with server.client((DEV[0], "wrong")) as client:
        assert client.get("/api/deliveries").status_code == 401


def test_a_body_has_the_limits_of_requests_without_a_login(
    admin: httpx.Client, anybody: httpx.Client, server: WebServer
) -> None:
    define(admin, "big")
    reply = anybody.post("/api/hooks/big", **pushed({"x": "y" * 600_000}))
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")
    connection = server.connect("/api/hooks/big", "Content-Length: 100", method="POST")
    began = time.monotonic()
    got = connection.recv(65536)
    connection.close()
    assert b" 408 " in got and time.monotonic() - began < 10


def test_standard_webhooks_and_a_generic_token(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "std", source="standard", secret=WHSEC, variables={}, events=["deploy.wanted"])
    body, now, given = json.dumps({"type": "deploy.wanted"}), datetime.now(UTC), f"msg_{uuid.uuid4()}"
    headers = {
        "webhook-id": given,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(WHSEC).sign(given, now, body),
    }
    first = anybody.post("/api/hooks/std", content=body, headers=headers)
    assert first.status_code == 202, first.text
    assert anybody.post("/api/hooks/std", content=body, headers=headers).json() == first.json()
    old = {**headers, "webhook-timestamp": str(int(now.timestamp()) - 3600)}
    assert anybody.post("/api/hooks/std", content=body, headers=old).status_code == 401
    long = {**headers, "webhook-timestamp": f"{int(now.timestamp()):015}{'0' * 5000}"}
    assert anybody.post("/api/hooks/std", content=body, headers=long).status_code == 401
    define(admin, "token", source="generic", header="X-Token", method="token", variables={})
    tasks = {
        anybody.post("/api/hooks/token", content="{}", headers={"X-Token": SECRET}).json()["task_id"] for _ in range(2)
    }
    assert len(tasks) == 2, "without an id each call counts"
    with_id = {"X-Token": SECRET, "webhook-id": "a"}
    tasks = {anybody.post("/api/hooks/token", content="{}", headers=with_id).json()["task_id"] for _ in range(2)}
    assert len(tasks) == 1


def test_who_may_not_launch_the_template_writes_no_webhook(server: WebServer, admin: httpx.Client) -> None:
    spec = {"source": "github", "secret": SECRET, "template": "deploy", "variables": {}}
    with server.client(DEV) as dev:
        reply = dev.put("/api/webhooks/devs", json=spec)
        assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "template"
    wrong = admin.put("/api/webhooks/wrong", json={**spec, "variables": {"undeclared": "/x"}})
    assert wrong.json()["errors"][0]["field"] == "variables.undeclared"
    assert "whsec" not in wrong.text and SECRET not in admin.get("/api/webhooks/push").text


def test_a_call_is_started_again_by_its_owner_alone(
    server: WebServer, admin: httpx.Client, anybody: httpx.Client
) -> None:
    define(admin, "redo")
    first = anybody.post("/api/hooks/redo", **pushed(unique())).json()["task_id"]
    [call] = admin.get("/api/hookcalls", params={"webhook": "redo"}).json()["items"]
    path = f"/api/hookcalls/{call['call_id']}/again"
    with server.client(DEV) as dev:
        assert dev.post(path).json()["code"] == "call_not_found"
        assert dev.get("/api/hookcalls", params={"webhook": "redo"}).json()["items"] == []
    again = admin.post(path, headers={"Idempotency-Key": first})
    assert admin.post(path, headers={"Idempotency-Key": first}).json() == again.json()
    assert again.status_code == 202 and again.json()["task_id"] != first
    assert (
        admin.get("/api/hookcalls", params={"webhook": "redo"}).json()["items"][0]["task_id"] == again.json()["task_id"]
    )
    freeze = {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00", "timezone": "UTC"}
    assert admin.put("/api/freezes/redo", json=freeze).status_code == 201
    assert anybody.post("/api/hooks/redo", **pushed(unique())).json()["code"] == "frozen"
    assert admin.post(path).status_code == 202, "a person, and admin, says so"
    assert admin.post(f"{path}?during_freeze=true").status_code == 202
    assert admin.delete("/api/freezes/redo").status_code == 204
    assert admin.delete("/api/webhooks/redo").status_code == 204
    assert admin.post(path).json()["code"] == "definition_not_found"


def log_of(admin: httpx.Client, webhook: str) -> list[dict[str, Any]]:
    """Returns the calls of a webhook, oldest first."""
    items: list[dict[str, Any]] = admin.get("/api/hookcalls", params={"webhook": webhook}).json()["items"]
    return items[::-1]


def version_of(admin: httpx.Client, task_id: str) -> str:
    request = admin.get(f"/api/ansibletaskrequest/{task_id}").json()
    return str(request["body"]["extra_vars"][-1]["version"])


def test_calls_within_the_debounce_start_one_task_with_the_last_values(
    admin: httpx.Client, anybody: httpx.Client
) -> None:
    define(admin, "calm", debounce=2)
    sent = [anybody.post("/api/hooks/calm", **pushed({**unique(), "after": f"1.{number}"})) for number in range(3)]
    other = anybody.post("/api/hooks/calm", **pushed({**unique(), "ref": "refs/heads/other", "after": "2.0"}))
    assert {reply.status_code for reply in (*sent, other)} == {202}
    first, *merged = [reply.json() for reply in sent]
    assert set(first) == {"call_id", "call_url", "starts_at"} == set(other.json())
    assert first["call_url"] == f"/api/hookcalls/{first['call_id']}"
    assert {one["starts_at"] for one in merged} == {first["starts_at"]} != {other.json()["starts_at"]}
    waiting = admin.get(first["call_url"]).json()
    assert (waiting["outcome"], waiting["starts_at"], waiting["task_id"]) == ("waiting", first["starts_at"], None)
    assert {admin.get(one["call_url"]).json()["merged_into"] for one in merged} == {first["call_id"]}
    eventually(lambda: all(one["task_id"] for one in log_of(admin, "calm")))
    *of_main, of_other = log_of(admin, "calm")
    assert [one["outcome"] for one in of_main] == ["started", "merged", "merged"]
    [task_id] = {one["task_id"] for one in of_main}
    assert version_of(admin, task_id) == "1.2"
    assert of_other["outcome"] == "started" and version_of(admin, of_other["task_id"]) == "2.0"
    assert anybody.post("/api/hooks/calm", **pushed({**unique(), "after": "3.0"})).json()["call_id"] != first["call_id"]


def test_a_repeated_delivery_is_answered_with_the_call_that_waits_and_then_with_its_task(
    admin: httpx.Client, anybody: httpx.Client
) -> None:
    define(admin, "echo", debounce=1)
    payload = unique()
    first = anybody.post("/api/hooks/echo", **pushed(payload)).json()
    # The sender's id is not signed: under another one it is still the same body.
    assert anybody.post("/api/hooks/echo", **pushed(payload)).json() == first
    eventually(lambda: admin.get(first["call_url"]).json()["task_id"])
    task_id = admin.get(first["call_url"]).json()["task_id"]
    assert anybody.post("/api/hooks/echo", **pushed(payload)).json()["task_id"] == task_id
    assert len(log_of(admin, "echo")) == 1


def test_what_the_template_refuses_after_the_wait_is_in_the_log(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "wrong", debounce=1)
    for after in ("1.0", "{{ 1 }}"):
        assert anybody.post("/api/hooks/wrong", **pushed({**unique(), "after": after})).status_code == 202
    eventually(lambda: log_of(admin, "wrong")[0]["outcome"] == "refused")
    first, merged = log_of(admin, "wrong")
    assert first["reason"].startswith("invalid_field") and first["task_id"] is None
    assert (merged["outcome"], merged["reason"]) == ("merged", first["reason"])


def test_a_waiting_call_is_started_at_once_by_hand_and_not_again(admin: httpx.Client, anybody: httpx.Client) -> None:
    define(admin, "hand", debounce=3600)
    first = anybody.post("/api/hooks/hand", **pushed(unique())).json()
    task_id = admin.post(f"{first['call_url']}/again").json()["task_id"]
    call = admin.get(first["call_url"]).json()
    assert (call["outcome"], call["task_id"], call["starts_at"]) == ("started", task_id, None)


def test_a_call_that_one_process_took_is_started_by_another(
    server: WebServer,
    database_url: str,
    admin: httpx.Client,
    anybody: httpx.Client,
    shared_redis: RedisServer,
    tmp_path: Path,
) -> None:
    define(admin, "moved", debounce=2)
    folder = server.log.parent
    same = {"DATABASE_URL": database_url, "base_dir": str(folder), "playbook_root": str(folder)}
    other = WebServer(tmp_path, shared_redis.url, secret_key_file=str(folder / "data/secret.key"), **same)
    try:
        with httpx.Client(base_url=other.url, timeout=20) as client:
            first = client.post("/api/hooks/moved", **pushed({**unique(), "after": "1.0"})).json()
        second = anybody.post("/api/hooks/moved", **pushed({**unique(), "after": "1.1"})).json()
        assert admin.get(second["call_url"]).json()["merged_into"] == first["call_id"]
    finally:
        other.stop()
    eventually(lambda: admin.get(first["call_url"]).json()["task_id"])
    assert version_of(admin, admin.get(second["call_url"]).json()["task_id"]) == "1.1"


def test_a_gone_owner_s_webhook_starts_nothing(server: WebServer, admin: httpx.Client, anybody: httpx.Client) -> None:
    file = server.log.with_name("rbac.json")
    before = file.read_text()
    template = admin.get("/api/templates/deploy").json()
    allowed = {name: template[name] for name in ("kind", "request", "variables")} | {"allow": {"users": ["dev"]}}
    admin.put("/api/templates/deploy", json=allowed).raise_for_status()
    with server.client(DEV) as dev:
        spec = {"source": "github", "secret": SECRET, "template": "deploy", "variables": {"version": "/after"}}
        assert dev.put("/api/webhooks/leaver", json=spec).status_code == 201
    assert anybody.post("/api/hooks/leaver", **pushed(unique())).status_code == 202
    rbac = json.loads(before)
    rbac["rbac"] = [entry for entry in rbac["rbac"] if entry["user"] != "dev"]
    try:
        file.write_text(json.dumps(rbac))

        def refused() -> bool:
            reply = anybody.post("/api/hooks/leaver", **pushed(unique()))
            return reply.status_code == 403 and reply.json()["code"] == "rights_lost"

        eventually(refused)
    finally:
        file.write_text(before)
    assert ADMIN[0] == "admin"
