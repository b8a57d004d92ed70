"""Sessions: what the cookie permits, when it expires, and what other pages cannot do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from flansible.store import Store
from tests.helpers.redis_server import RedisServer
from tests.helpers.webserver import ADMIN, DEV, WebServer


@pytest.fixture
def browser(server: WebServer, store: Store) -> Iterator[httpx.Client]:
    """Not logged in: with a cookie jar, and no password."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def login(browser: httpx.Client, user: tuple[str, str] = DEV) -> str:
    reply = browser.post("/api/session", json={"user": user[0], "password": user[1]})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["csrf_token"])


def as_header(browser: httpx.Client) -> dict[str, str]:
    """Copies the jar's cookies to a header, as a thief would send them."""
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


def test_a_login_gives_a_cookie_that_stands_for_the_password(browser: httpx.Client) -> None:
    assert browser.get("/api/ansibletasks").status_code == 401
    reply = browser.post("/api/session", json={"user": "dev", "password": "dev secret"})
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Expires" not in cookie
    assert reply.json()["user"] == "dev" and not reply.json()["is_admin"] and not reply.json()["sees_all"]
    assert browser.get("/api/ansibletasks").status_code == 200
    assert browser.get("/api/session").json() == reply.json()


@pytest.mark.parametrize("login", [("dev", "wrong"), ("nobody", "dev secret"), ("", "x"), ("dev", "x" * 5000)])
def test_a_wrong_login_gives_none(browser: httpx.Client, login: tuple[str, str]) -> None:
    reply = browser.post("/api/session", json={"user": login[0], "password": login[1]})
    assert reply.status_code == (401 if login[0] else 400)
    assert "Set-Cookie" not in reply.headers and browser.get("/api/session").status_code == 401


def test_passwords_cannot_be_tried_here_more_often_than_elsewhere(browser: httpx.Client) -> None:
    guesses = [browser.post("/api/session", json={"user": "a guess", "password": str(n)}) for n in range(12)]
    assert [reply.status_code for reply in guesses] == [401] * 10 + [429] * 2
    assert guesses[-1].json()["code"] == "too_many_logins" and int(guesses[-1].headers["Retry-After"]) > 0
    assert browser.get("/api/session", auth=("a guess", "x")).status_code == 429


def test_what_changes_something_needs_the_token_that_only_the_page_knows(browser: httpx.Client) -> None:
    token = login(browser)
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": token + "x"}):
        for reply in (
            browser.post("/api/ansiblecommand", json={"module": "ping"}, headers=headers),
            browser.delete("/api/session", headers=headers),
        ):
            assert (reply.status_code, reply.json()["code"]) == (403, "csrf")
    # It passes: what refuses now is a rule.
    reply = browser.post("/api/ansiblecommand", json={"module": "ping"}, headers={"X-CSRF-Token": token})
    assert reply.json()["code"] == "inventory_forbidden"


def test_a_token_of_another_session_does_not_do(server: WebServer, browser: httpx.Client) -> None:
    login(browser)
    with httpx.Client(base_url=server.url, timeout=20) as other:
        foreign = login(other, ADMIN)
    reply = browser.post("/api/ansiblecommand", json={"module": "ping"}, headers={"X-CSRF-Token": foreign})
    assert reply.json()["code"] == "csrf"


def test_a_page_of_another_site_is_refused_even_with_cookie_and_token(browser: httpx.Client) -> None:
    token = login(browser)
    for origin in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        headers = {"X-CSRF-Token": token, **origin}
        assert (
            browser.post("/api/ansiblecommand", json={"module": "ping"}, headers=headers).json()["code"] == "cross_site"
        )
        reply = browser.post("/api/session", json={"user": "dev", "password": "dev secret"}, headers=origin)
        assert reply.json()["code"] == "cross_site"


def test_a_password_in_the_request_counts_before_the_cookie(browser: httpx.Client) -> None:
    login(browser, ADMIN)
    assert browser.get("/api/session", auth=DEV).json()["user"] == "dev"
    assert browser.get("/api/session", auth=("dev", "wrong")).status_code == 401
    assert browser.get("/api/session", headers={"Authorization": "Bearer x"}).status_code == 401
    # No cookie is used, so no token is needed.
    assert (
        browser.post("/api/ansiblecommand", json={"module": "ping"}, auth=DEV).json()["code"] == "inventory_forbidden"
    )


def test_after_the_logout_a_copy_of_the_cookie_is_worth_nothing(browser: httpx.Client) -> None:
    token = login(browser)
    copy = as_header(browser)
    reply = browser.delete("/api/session", headers={"X-CSRF-Token": token})
    assert (reply.status_code, reply.content) == (204, b"")
    assert not browser.cookies
    assert browser.get("/api/session", headers=copy).status_code == 401


def test_a_second_login_ends_the_first_session_of_that_browser(browser: httpx.Client) -> None:
    login(browser)
    first = as_header(browser)
    login(browser, ADMIN)
    assert browser.get("/api/session").json()["user"] == "admin"
    browser.cookies.clear()
    refused = browser.get("/api/session", headers=first)
    # A request of the first session that is answered late leaves the browser the cookie of the second.
    assert refused.status_code == 401 and "Set-Cookie" not in refused.headers


def test_no_cookie_can_be_found_in_redis_nor_a_key_be_reached_by_one(
    browser: httpx.Client, shared_redis: RedisServer
) -> None:
    login(browser)
    [value] = browser.cookies.values()
    client = shared_redis.client()
    try:
        dump = b"".join(key + (client.dump(key) or b"") for key in client.keys("*"))
    finally:
        client.close()
    assert value.encode() not in dump and b"dev secret" not in dump
    [name] = browser.cookies.keys()
    for odd in ("", "x", "*", "a" * 4000, '"', "\\udc80"):
        assert browser.get("/api/session", headers={"Cookie": f"{name}={odd}"}).status_code == 401


def test_the_console_is_not_asked_for_a_password_by_the_browser_itself(browser: httpx.Client) -> None:
    asked = browser.get("/api/session", headers={"X-Requested-With": "flansible"})
    assert asked.headers.get_list("WWW-Authenticate") == ['Bearer realm="flansible"']
    assert any("Basic" in one for one in browser.get("/api/session").headers.get_list("WWW-Authenticate"))


def test_a_session_ends_with_the_password_and_with_the_user(server: WebServer, browser: httpx.Client) -> None:
    rbac = server.log.parent / "rbac.json"
    before = rbac.read_text()

    def change(**passwords: str) -> None:
        users = [{"user": name, "password": word, "inventories": []} for name, word in passwords.items()]
        rbac.write_text(json.dumps({"rbac": users}))

    try:
        login(browser)
        change(admin="admin secret", dev="another secret")
        assert browser.get("/api/session").status_code == 401
        login(browser, ("dev", "another secret"))
        assert browser.get("/api/session").status_code == 200
        change(admin="admin secret")
        assert browser.get("/api/session").status_code == 401
    finally:
        rbac.write_text(before)
