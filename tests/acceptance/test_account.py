"""One's own password and tokens over HTTP, and what admin sees of all users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.services import ADMIN, DEV, Service, write

SHARES_SERVICE = True
NEW = "another secret"
LOGINS = [(f"user{number}", "user secret") for number in range(6)]


@pytest.fixture(scope="module")
def logins(root: Path) -> Iterator[tuple[str, str]]:
    document = json.loads((root / "rbac.json").read_text())
    document["rbac"] += [{**document["rbac"][1], "user": name, "password": password} for name, password in LOGINS]
    write(root / "rbac.json", json.dumps(document))
    return iter(LOGINS)


@pytest.fixture
def login(logins: Iterator[tuple[str, str]]) -> tuple[str, str]:
    """A user of this test alone, with the rights of dev."""
    return next(logins)


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


def test_a_new_password_ends_the_other_sessions_and_is_stored_as_a_hash(
    service: Service, login: tuple[str, str]
) -> None:
    before = json.loads((service.root / "rbac.json").read_text())["rbac"]
    with session(service, *login) as here, session(service, *login) as elsewhere:
        assert change(here, "wrong", NEW).json()["code"] == "wrong_password"
        short = change(here, login[1], "short")
        assert short.status_code == 400 and short.json()["errors"][0]["field"] == "new_password"
        assert change(here, login[1], NEW).status_code == 204
        assert elsewhere.get("/api/session").status_code == 401
        csrf = here.get("/api/session").json()["csrf_token"]
        here.headers["X-CSRF-Token"] = csrf
        assert here.delete("/api/session").status_code == 204
    assert httpx.get(f"{service.url}/api/session", auth=login).status_code == 401
    assert httpx.get(f"{service.url}/api/session", auth=(login[0], NEW)).status_code == 200
    text = (service.root / "rbac.json").read_text()
    assert NEW not in text
    for item, old in zip(json.loads(text)["rbac"], before, strict=True):
        assert item == old or (item == {**old, "password": item["password"]} and old["user"] == login[0])
    assert [(line["user"], line["what"]) for line in audit(service) if line["event"] == "password_set"] == [
        (login[0], f"of {login[0]}")
    ]
    assert NEW not in (service.root / ".flansible/audit.log").read_text()


def test_guessing_the_password_of_now_is_limited_as_a_login_is(service: Service, login: tuple[str, str]) -> None:
    with session(service, *login) as client:
        statuses = [change(client, f"guess {number}", NEW).status_code for number in range(30)]
    assert 429 in statuses and set(statuses) <= {400, 429}


def test_a_token_is_made_used_listed_and_revoked(service: Service, login: tuple[str, str]) -> None:
    client = service.client(login)
    made = client.post("/api/account/tokens", json={"scope": "read", "expires": "30d"})
    assert made.status_code == 201, made.text
    token = made.json()
    bearer = {"Authorization": f"Bearer {token['token']}"}
    assert httpx.get(f"{service.url}/api/ansibletasks", headers=bearer).status_code == 200
    listed = client.get("/api/account/tokens").json()["tokens"]
    assert [one["id"] for one in listed] == [token["id"]] and "token" not in listed[0]
    assert token["id"] not in service.client(ADMIN).get("/api/account/tokens").text
    assert client.delete(f"/api/account/tokens/{token['id']}").status_code == 204
    assert httpx.get(f"{service.url}/api/ansibletasks", headers=bearer).status_code == 401
    assert client.delete(f"/api/account/tokens/{token['id']}").json()["code"] == "token_not_found"
    events = [(line["event"], line["user"]) for line in audit(service) if line.get("token") == token["id"]]
    assert events == [("token_created", login[0]), ("token_revoked", login[0])]
    assert token["token"].rpartition("_")[2] not in (service.root / ".flansible/audit.log").read_text()


def test_a_token_makes_no_token_and_sets_no_password(service: Service, login: tuple[str, str]) -> None:
    text = service.client(login).post("/api/account/tokens", json={}).json()["token"]
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {text}"}) as thief:
        assert thief.post("/api/account/tokens", json={}).json()["code"] == "token_forbidden"
        assert change(thief, login[1], NEW).json()["code"] == "token_forbidden"
        assert thief.get("/api/users").status_code == 403
    assert len(service.client(login).get("/api/account/tokens").json()["tokens"]) == 1


def test_an_account_has_a_hundred_tokens_at_most(service: Service, login: tuple[str, str]) -> None:
    client = service.client(login)
    there = len(client.get("/api/account/tokens").json()["tokens"])
    made = [client.post("/api/account/tokens", json={}).json()["id"] for _ in range(100 - there)]
    refused = client.post("/api/account/tokens", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tokens")
    for token_id in made:
        assert client.delete(f"/api/account/tokens/{token_id}").status_code == 204


@pytest.mark.parametrize("expires", ["yesterday", "2001-01-01", "0d", "-1d", "30", "", "1d 2h", "99999999999d"])
def test_an_end_that_is_none_is_refused(service: Service, expires: str) -> None:
    before = service.client(DEV).get("/api/account/tokens").json()["tokens"]
    reply = service.client(DEV).post("/api/account/tokens", json={"expires": expires})
    assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "expires"
    assert service.client(DEV).get("/api/account/tokens").json()["tokens"] == before


def test_a_user_revokes_only_their_own_and_admin_all(service: Service, login: tuple[str, str]) -> None:
    mine = service.client(login).post("/api/account/tokens", json={}).json()["id"]
    theirs = service.client(ADMIN).post("/api/account/tokens", json={}).json()["id"]
    refused = service.client(login).delete(f"/api/account/tokens/{theirs}")
    none = service.client(login).delete("/api/account/tokens/0123456789ab")
    assert refused.status_code == none.status_code == 404 and refused.json() == none.json()
    for token_id in (mine, theirs):
        assert service.client(ADMIN).delete(f"/api/account/tokens/{token_id}").status_code == 204


def test_admin_sees_what_each_user_may_reach_and_nobody_else_does(service: Service) -> None:
    assert service.client(DEV).get("/api/users").status_code == 403
    users = service.client(ADMIN).get("/api/users").json()["users"]
    listed = json.loads((service.root / "rbac.json").read_text())["rbac"]
    assert [one["user"] for one in users] == [one["user"] for one in listed]
    assert any("inventories/dev" in text for text in users[1]["rights"])
    assert "secret" not in json.dumps(users)
