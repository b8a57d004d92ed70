"""Security headers on every reply, and cross-origin requests that are refused."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flansible import config
from flansible.config import Settings
from flansible.errors import ConfigurationError
from flansible.web import create_app
from flansible.web.middleware import security_headers
from flansible.web.resources import output
from flansible.web.routes import ROUTES
from tests.helpers.addresses import at

TASK = "/api/ansibletaskcancel/00000000-0000-4000-8000-000000000000"
CONSOLE = "https://console.example.org"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """An app whose replies one other origin may read."""
    root = tmp_path_factory.mktemp("cors")
    (root / "rbac.json").write_text(json.dumps({"rbac": [{"user": "admin", "password": "root"}]}))
    nowhere = f"redis+socket://{root}/nobody-listens"
    urls: dict[str, Any] = {"CELERY_BROKER_URL": nowhere, "CELERY_RESULT_BACKEND": nowhere}
    origins = f"{CONSOLE}, http://localhost:8080"
    return create_app(Settings(**urls, rbac_file=root / "rbac.json", base_dir=root, cors_origins=origins))


def assert_safe(reply: TestResponse) -> None:
    for name, value in security_headers.DEFAULT_HEADERS:
        if name not in ("Content-Security-Policy", "Cache-Control"):
            assert reply.headers.getlist(name) == [value], name
    policy = reply.headers["Content-Security-Policy"]
    for part in security_headers.DEFAULT_HEADERS[1][1].split("; "):
        assert part in policy.split("; ")
    assert reply.headers["Cache-Control"]
    assert not [name for name in reply.headers.keys() if name.startswith("Access-Control")]


def test_every_address_and_every_error_has_the_headers(app: Flask, client: FlaskClient, anybody: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE"):
            for asking in (client, anybody):
                assert_safe(asking.open(at(rule.rule), method=method, buffered=True))
    for path in ("/", "/nothing", "//api//health", "/api/docs/"):
        assert_safe(anybody.get(path))
    assert_safe(client.post("/api/git", data=b"{", content_type="application/json"))
    assert_safe(client.post("/api/git", data=b" " * 100_000, content_type="application/json"))


def test_a_fault_of_our_own_has_them_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("marker-inside")

    monkeypatch.setitem(app.view_functions, "api_spec", broken)
    reply = app.test_client().get("/api/spec")
    assert reply.status_code == 500 and "marker-inside" not in reply.text and "Traceback" not in reply.text
    assert_safe(reply)


def test_hsts_is_said_by_a_server_that_speaks_tls_itself() -> None:
    assert [
        name for name, _ in set(security_headers.default_headers(True)) - set(security_headers.default_headers(False))
    ] == ["Strict-Transport-Security"]


def test_a_page_of_output_may_use_its_own_style_sheet_and_nothing_else(app: Flask) -> None:
    hostile = "</pre></style><style>body{}</style><script>alert(1)</script>\x1b[31mred\x1b[0m"
    with app.test_request_context():
        reply = output._page(hostile, "00000000-0000-4000-8000-000000000000", 8, 7)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", reply.get_data(as_text=True), re.DOTALL)
    assert len(styles) == 1
    digest = b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in reply.headers["Content-Security-Policy"].split("; ")
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert not re.search(r"<[^>]* (style|on\w+)=|<script", reply.get_data(as_text=True))


# Pages of other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Referer": "https://evil.example/page"},
    ],
)
@pytest.mark.parametrize("path", [TASK, "/api/git", "/api/ansiblecommand", "/nothing"])
def test_a_page_of_another_site_changes_nothing(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    reply = client.post(path, json={}, headers=headers)
    assert (reply.status_code, reply.get_json()["code"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://rewritten.example"},
        {"Origin": "http://localhost"},
        {"Origin": "https://LOCALHOST"},
    ],
)
def test_our_own_pages_and_programs_do(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.post(TASK, headers=headers).status_code == 503  # the store is away here


def test_without_cors_origins_no_other_site_reads_anything(client: FlaskClient) -> None:
    preflight = {"Origin": CONSOLE, "Access-Control-Request-Method": "POST"}
    assert_safe(client.options("/api/git", headers=preflight))
    assert_safe(client.get("/api/openapi.json", headers={"Origin": CONSOLE}))


def test_a_listed_origin_reads_replies_and_sends_what_the_api_takes(shared: Flask) -> None:
    client = shared.test_client()
    asked = {"Origin": CONSOLE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    preflight = client.options("/api/git", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "x" not in preflight.headers["Access-Control-Allow-Headers"].split(", ")
    for reply in (
        preflight,
        client.get("/api/listplaybooks", headers={"Origin": CONSOLE}),
        client.post("/api/git", json={}, headers={"Origin": CONSOLE, "Sec-Fetch-Site": "cross-site"}),
    ):
        assert reply.headers["Access-Control-Allow-Origin"] == CONSOLE
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", f"{CONSOLE}.evil.example", f"{CONSOLE}:444", "null", "*"])
def test_an_origin_that_is_not_listed_is_told_nothing(shared: Flask, origin: str) -> None:
    reply = shared.test_client().get("/api/openapi.json", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert "Origin" in reply.headers["Vary"], "a cache must not give the one the other's reply"
    assert shared.test_client().post("/api/git", json={}, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    "value",
    ["*", "https://a.example, *", "a.example", "https://a.example/", "https://A.example", "ftp://a.example", "null"]
    + ["https://*.example", "https://u@a.example", "https://a.example b.example"],
)
def test_what_is_no_origin_stops_the_start(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.ini"
    path.write_text(f"[Default]\ncors_origins = {value}\n")
    with pytest.raises(ConfigurationError, match="cors_origins"):
        config.load(str(path), {})


# Bodies where there is none to be


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None]
)
def test_a_cancel_takes_no_form(client: FlaskClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    reply = client.post(TASK, data=b"wait=0", headers=headers)
    assert (reply.status_code, reply.get_json()["code"]) == (415, "unsupported_media_type")


def test_a_cancel_takes_an_empty_object_and_no_field(client: FlaskClient) -> None:
    assert client.post(TASK, json={}).status_code == 503
    reply = client.post(TASK, json={"wait": 0})
    assert (reply.status_code, reply.get_json()["errors"][0]["field"]) == (400, "wait")
    assert client.post(TASK, data=b"[]", content_type="application/json").status_code == 400


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
def test_a_coded_body_is_refused(client: FlaskClient, coding: str) -> None:
    for route in (route for route in ROUTES if route.body):
        reply = client.open(
            at(route.path),
            method=route.method.upper(),
            data=b"{}",
            content_type="application/json",
            headers={"Content-Encoding": coding},
        )
        assert (reply.status_code, reply.get_json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("host", ["evil.example", "a b", "[", '"><script>', "x:99999999", "\xff", "a" * 300, "@", ""])
def test_the_name_a_request_calls_us_by_leads_nobody_elsewhere(anybody: FlaskClient, host: str) -> None:
    for path in ("/api/docs/", "/api/docs", "//api/health", "/api//docs", "/api/spec", "/api/ansibletasks"):
        reply = anybody.get(path, headers={"Host": host, "X-Forwarded-Host": host})
        assert reply.status_code in (200, 308, 400, 401, 404), path
        assert reply.headers.get("Location", "../docs") == "../docs"
