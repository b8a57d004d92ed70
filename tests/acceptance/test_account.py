"""One's own password and tokens over HTTP, and what admin sees of all users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.services import ADMIN, DEV, Service, lay_out, start_service

NEW = "another secret"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    lay_out(tmp_path)
    started = start_service(tmp_path)
    yield started
    started.stop()


@contextmanager
def session(service: Service, user: str, password: str) -> Iterator[httpx.Client]:
    """A browser that has logged in."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        reply = client.post("/api/session", json={"user": user, "password": password})
        client.headers["X-CSRF-Token"] = reply.json()["csrf_token"]
        yield client


def change(client: httpx.Client, current: str, new: str) -> httpx.Response:
    return client.put("/api/account/password", json={"current_password": current, "new_password": new})


def audit(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (service.root / ".flansible/audit.log").read_text().splitlines()]


def test_a_new_password_ends_the_other_sessions_and_is_stored_as_a_hash(service: Service) -> None:
    with session(service, *DEV) as here, session(service, *DEV) as elsewhere:
        assert change(here, "wrong", NEW).json()["code"] == "wrong_password"
        short = change(here, DEV[1], "short")
        assert short.status_code == 400 and short.json()["errors"][0]["field"] == "new_password"
        assert change(here, DEV[1], NEW).status_code == 204
        assert elsewhere.get("/api/session").status_code == 401
        csrf = here.get("/api/session").json()["csrf_token"]
        here.headers["X-CSRF-Token"] = csrf
        assert here.delete("/api/session").status_code == 204
    assert httpx.get(f"{service.url}/api/session", auth=DEV).status_code == 401
    assert httpx.get(f"{service.url}/api/session", auth=(DEV[0], NEW)).status_code == 200
    text = (service.root / "rbac.json").read_text()
    assert NEW not in text and [item["user"] for item in json.loads(text)["rbac"]] == ["admin", "dev"]
    assert json.loads(text)["rbac"][1]["inventories"] == ["inventories/dev", "inventories/shared"]
    assert [(line["user"], line["what"]) for line in audit(service) if line["event"] == "password_set"] == [
        ("dev", "of dev")
    ]
    assert NEW not in (service.root / ".flansible/audit.log").read_text()


def test_guessing_the_password_of_now_is_limited_as_a_login_is(service: Service) -> None:
    with session(service, *DEV) as client:
        statuses = [change(client, f"guess {number}", NEW).status_code for number in range(30)]
    assert 429 in statuses and set(statuses) <= {400, 429}


def test_a_token_is_made_used_listed_and_revoked(service: Service) -> None:
    client = service.client(DEV)
    made = client.post("/api/account/tokens", json={"scope": "read", "expires": "30d"})
    assert made.status_code == 201, made.text
    token = made.json()
    bearer = {"Authorization": f"Bearer {token['token']}"}
    assert httpx.get(f"{service.url}/api/ansibletasks", headers=bearer).status_code == 200
    listed = client.get("/api/account/tokens").json()["tokens"]
    assert [one["id"] for one in listed] == [token["id"]] and "token" not in listed[0]
    assert service.client(ADMIN).get("/api/account/tokens").json()["tokens"] == []
    assert client.delete(f"/api/account/tokens/{token['id']}").status_code == 204
    assert httpx.get(f"{service.url}/api/ansibletasks", headers=bearer).status_code == 401
    assert client.delete(f"/api/account/tokens/{token['id']}").json()["code"] == "token_not_found"
    events = [(line["event"], line["user"], line["token"]) for line in audit(service) if "token" in line["event"]]
    assert events == [("token_created", "dev", token["id"]), ("token_revoked", "dev", token["id"])]
    assert token["token"].rpartition("_")[2] not in (service.root / ".flansible/audit.log").read_text()


def test_a_token_makes_no_token_and_sets_no_password(service: Service) -> None:
    text = service.client(DEV).post("/api/account/tokens", json={}).json()["token"]
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {text}"}) as thief:
        assert thief.post("/api/account/tokens", json={}).json()["code"] == "token_forbidden"
        assert change(thief, DEV[1], NEW).json()["code"] == "token_forbidden"
        assert thief.get("/api/users").status_code == 403
    assert len(service.client(DEV).get("/api/account/tokens").json()["tokens"]) == 1


def test_an_account_has_a_hundred_tokens_at_most(service: Service) -> None:
    client = service.client(DEV)
    there = len(client.get("/api/account/tokens").json()["tokens"])
    made = [client.post("/api/account/tokens", json={}).json()["id"] for _ in range(100 - there)]
    refused = client.post("/api/account/tokens", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tokens")
    for token_id in made:
        assert client.delete(f"/api/account/tokens/{token_id}").status_code == 204


@pytest.mark.parametrize("expires", ["yesterday", "2001-01-01", "0d", "-1d", "30", "", "1d 2h", "99999999999d"])
def test_an_end_that_is_none_is_refused(service_for_reading: Service, expires: str) -> None:
    reply = service_for_reading.client(DEV).post("/api/account/tokens", json={"expires": expires})
    assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "expires"
    assert service_for_reading.client(DEV).get("/api/account/tokens").json()["tokens"] == []


def test_a_user_revokes_only_their_own_and_admin_all(service: Service) -> None:
    mine = service.client(DEV).post("/api/account/tokens", json={}).json()["id"]
    theirs = service.client(ADMIN).post("/api/account/tokens", json={}).json()["id"]
    refused = service.client(DEV).delete(f"/api/account/tokens/{theirs}")
    none = service.client(DEV).delete("/api/account/tokens/0123456789ab")
    assert refused.status_code == none.status_code == 404 and refused.json() == none.json()
    assert service.client(ADMIN).delete(f"/api/account/tokens/{mine}").status_code == 204


def test_admin_sees_what_each_user_may_reach_and_nobody_else_does(service_for_reading: Service) -> None:
    assert service_for_reading.client(DEV).get("/api/users").status_code == 403
    users = service_for_reading.client(ADMIN).get("/api/users").json()["users"]
    assert [one["user"] for one in users] == ["admin", "dev"]
    assert any("inventories/dev" in text for text in users[1]["rights"])
    assert "secret" not in json.dumps(users)


@pytest.fixture(scope="module")
def service_for_reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("account")
    lay_out(root)
    started = start_service(root)
    yield started
    started.stop()
