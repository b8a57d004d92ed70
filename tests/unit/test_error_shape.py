"""One error body for every route and every status, wherever the error arises."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import default_exceptions
from werkzeug.wrappers import Response

from flansible import errors
from flansible.errors import FlansibleError, RequestError
from flansible.web.login import session_cookie
from flansible.web.middleware import error_handlers
from flansible.web.route_types import Route
from flansible.web.routes import ROUTES
from tests.helpers.addresses import at

pytestmark = pytest.mark.usefixtures("cheap_hashes")

SUBMISSIONS = [(route.method, route.path) for route in ROUTES if route.body]
# They ask the history database, and this app has none.
_MODULES = (".definitions", ".projects", ".templates", ".schedules", ".deliveries", ".hooks")
OF_DEFINITIONS = [route for route in ROUTES if route.resource.__module__.endswith(_MODULES)]
PRIVATE = [route for route in ROUTES if not route.public]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "NONSENSE")


def assert_shape(reply: Response, status: int) -> None:
    """Asserts the shape of errors, and that no internals show."""
    text = reply.get_data(as_text=True)
    assert reply.status_code == status, text
    assert reply.mimetype == "application/json"
    body = reply.get_json()
    assert list(body) == ["message", "code", "errors"]
    assert isinstance(body["message"], str) and body["message"]
    assert re.fullmatch(r"[a-z][a-z0-9_]+", body["code"])
    assert all(set(item) == {"field", "message"} for item in body["errors"])
    assert "Traceback" not in text and 'File "' not in text


def right_methods(path: str) -> set[str]:
    return {route.method.upper() for route in ROUTES if route.path == path}


WRONG = [
    (path, method)
    for path in sorted({r.path for r in ROUTES})
    for method in METHODS
    if method not in right_methods(path)
]


@pytest.mark.parametrize(("path", "method"), WRONG)
def test_a_wrong_method_is_405_and_says_which_are_right(anybody: FlaskClient, path: str, method: str) -> None:
    reply = anybody.open(at(path), method=method)
    assert_shape(reply, 405)
    allowed = set(reply.headers["Allow"].split(", "))
    assert right_methods(path) <= allowed <= right_methods(path) | {"HEAD", "OPTIONS"}


def test_a_wrong_method_is_405_on_every_other_address_too(app: Flask, anybody: FlaskClient) -> None:
    """Also the documents' pages and routes to come: none replies in another shape."""
    rules = list(app.url_map.iter_rules())
    deletable = {rule.rule for rule in rules if "DELETE" in (rule.methods or ())}
    assert deletable == {route.path for route in ROUTES if route.method == "delete"}
    for rule in rules:
        if rule.rule not in deletable:
            assert_shape(anybody.delete(at(rule.rule)), 405)
    assert_shape(anybody.put("/api/session"), 405)


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


NO_CREDENTIALS = [
    None,
    "",
    "Basic",
    "Basic ",
    "Basic !!!",
    basic(b"no colon"),
    "Bearer token",
    "Digest username=admin",
    "\xff",
]
# The first is tried at every route, the others at one: what a password is checked against is the same for all.
WRONG_CREDENTIALS = [
    basic(credentials)
    for credentials in (
        b"admin:wrong",
        b"nobody:root",
        b":root",
        b":",
        b"admin:",
        b"admin:root\0",
        b"\xff\xfe:\xff",
        b"admin:" + b"x" * 5000,
    )
]
UNAUTHENTICATED = [
    *((route, header) for route in PRIVATE for header in (*NO_CREDENTIALS, WRONG_CREDENTIALS[0])),
    *((PRIVATE[0], header) for header in WRONG_CREDENTIALS[1:]),
]


@pytest.mark.parametrize(("route", "header"), UNAUTHENTICATED)
def test_without_the_right_password_it_is_401_with_a_challenge(
    anybody: FlaskClient, route: Route, header: str | None
) -> None:
    path, method = route.path, route.method
    headers = {} if header is None else {"Authorization": header}
    reply = anybody.open(at(path), method=method.upper(), headers=headers)
    assert_shape(reply, 401)
    assert reply.get_json()["code"] == "not_authenticated"
    assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")


UNKNOWN = [
    "/api",
    "/api/",
    "/api/nothing",
    "/api/ansibletasks/",
    "/api/ansibletaskstatus/",
    "/api/git/x",
    "/\xff",
    "/%00",
]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_address_that_does_not_exist_is_404(client: FlaskClient, path: str, method: str) -> None:
    if any(at(rule.rule) == path for rule in client.application.url_map.iter_rules()):
        pytest.skip("this address exists")
    assert_shape(client.open(path, method=method), 404)


@pytest.mark.parametrize(
    "task_id", ["x", "..", "*", "00000000-0000-4000-8000-000000000000:output", "a" * 5000, "%00", "%0a", "ü", "{}"]
)
@pytest.mark.parametrize("word", ["status", "output", "events", "result"])
def test_what_cannot_be_a_task_id_is_404_without_asking_the_store(client: FlaskClient, word: str, task_id: str) -> None:
    """The store is down here: a request that reached it would be a 503."""
    assert_shape(client.get(f"/api/ansibletask{word}/{task_id}"), 404)


@pytest.mark.parametrize(
    "query", ["listplaybooks?playbook_dir=%00", "listinventories?inventory=a%00", "projects?after=%00"]
)
def test_a_null_byte_in_a_query_is_400(client: FlaskClient, query: str) -> None:
    reply = client.get(f"/api/{query}")
    assert_shape(reply, 400)
    assert "null bytes" in reply.get_json()["message"]


@pytest.mark.parametrize(("method", "path"), SUBMISSIONS)
def test_a_body_of_another_kind_is_415(client: FlaskClient, method: str, path: str) -> None:
    assert_shape(client.open(at(path), method=method.upper(), data={"module": "ping"}), 415)


@pytest.mark.parametrize(("method", "path"), SUBMISSIONS)
def test_a_bad_body_is_400(client: FlaskClient, method: str, path: str) -> None:
    assert_shape(client.open(at(path), method=method.upper(), data=b"{", content_type="application/json"), 400)


@pytest.mark.parametrize(("method", "path"), SUBMISSIONS)
def test_a_huge_body_is_413(app: Flask, client: FlaskClient, method: str, path: str) -> None:
    body = b" " * (app.config["MAX_CONTENT_LENGTH"] + 1)
    assert_shape(client.open(at(path), method=method.upper(), data=body, content_type="application/json"), 413)


def test_a_refusal_is_403_with_the_field(anybody: FlaskClient, root: Path) -> None:
    for body in ({"module": "ping"}, {"module": "ping", "inventory": str(root / "inv/prod")}):
        reply = anybody.post("/api/ansiblecommand", json=body, auth=("dev", "secret"))
        assert_shape(reply, 403)
        assert reply.get_json()["errors"][0]["field"] == "inventory"


def test_a_missing_playbook_is_404_with_the_path(client: FlaskClient, root: Path) -> None:
    reply = client.post("/api/ansibleplaybook", json={"playbook_dir": ".", "playbook": "missing.yml"})
    assert_shape(reply, 404)
    assert str(root / "playbooks/missing.yml") in reply.get_json()["message"]


# They read and write rbac.json and the file of tokens.
OF_FILES = [route for route in ROUTES if route.resource.__module__.endswith(".own_account")]
OF_THE_DATABASE = [route for route in ROUTES if route.endpoint == "search"]
# They ask the history database as well, and answer nothing without one.
OF_HOSTS = [route for route in ROUTES if route.resource.__module__.endswith(".known_hosts")]
ELSEWHERE = (*OF_DEFINITIONS, *OF_FILES, *OF_THE_DATABASE, *OF_HOSTS)
ASK_THE_STORE = [
    route
    for route in PRIVATE
    if 503 in route.errors and route.path != "/api/session" and route not in ELSEWHERE
    if route.endpoint != "listplaybooks"  # only of a project, which needs the history database first
]


@pytest.mark.parametrize("route", ASK_THE_STORE, ids=lambda route: route.endpoint)
def test_without_the_store_it_is_503_with_retry_after(client: FlaskClient, route: Route) -> None:
    path, method = route.path, route.method
    bodies = {
        "ansiblecommand": {"module": "ping"},
        "ansibleplaybook": {"playbook_dir": ".", "playbook": "site.yml"},
        "preview": {"kind": "adhoc", "request": {"module": "ping"}},
    }
    body = bodies.get(path.split("/")[2], {"playbook_dir": "."})
    # The list alone needs no store.
    queries = {"listinventories": "?inventory=web1,", "compare": "?task=00000000-0000-4000-8000-000000000000"}
    asked = queries.get(route.endpoint, "")
    reply = (
        client.get(at(path) + asked) if method == "get" else client.post(at(path), json=body if route.body else None)
    )
    assert_shape(reply, 503)
    assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("route", OF_DEFINITIONS, ids=lambda route: route.endpoint)
def test_without_a_database_lists_of_definitions_are_empty_and_all_else_is_503(
    client: FlaskClient, route: Route
) -> None:
    body = {"definitions": []} if route.endpoint == "apply" else {}
    reply = client.open(at(route.path), method=route.method.upper(), json=body if route.body else None)
    if route.method == "get" and "<" not in route.path:
        assert reply.status_code == 200, reply.text
        return
    assert_shape(reply, 503)
    assert reply.get_json()["code"] == "no_database"


@pytest.mark.parametrize("route", OF_THE_DATABASE, ids=lambda route: route.endpoint)
def test_without_a_database_what_only_it_has_is_503(client: FlaskClient, route: Route) -> None:
    reply = client.get(f"{at(route.path)}?q=x")
    assert_shape(reply, 503)
    assert reply.get_json()["code"] == "no_database"


@pytest.mark.parametrize("route", OF_HOSTS, ids=lambda route: route.endpoint)
def test_without_a_database_nothing_is_known_of_hosts(client: FlaskClient, route: Route) -> None:
    reply = client.get(at(route.path))
    assert_shape(reply, 503)
    assert reply.get_json()["code"] == "no_database"


def test_without_the_store_a_session_is_503(app: Flask, anybody: FlaskClient) -> None:
    with app.test_request_context():
        name = session_cookie._name(app.extensions["flansible"].settings.secret_key_file)
    anybody.set_cookie(name, "x")
    assert_shape(anybody.get("/api/session"), 503)
    assert_shape(anybody.delete("/api/session"), 503)
    login = {"user": "admin", "password": "root"}
    assert_shape(anybody.post("/api/session", json=login), 503)
    # With a password in each request it is nobody's cookie that is asked about.
    assert anybody.get("/api/session", auth=("admin", "root")).status_code == 200


def test_without_the_store_the_console_is_not_said_to_have_no_session(app: Flask, anybody: FlaskClient) -> None:
    """It would show the login form to somebody who is logged in."""
    assert b'data-session="none"' in anybody.get("/").data
    with app.test_request_context():
        name = session_cookie._name(app.extensions["flansible"].settings.secret_key_file)
    anybody.set_cookie(name, "x")
    reply = anybody.get("/")
    assert reply.status_code == 200 and b"data-session" not in reply.data


def classes(root: type[FlansibleError]) -> list[type[FlansibleError]]:
    return [root, *(found for child in root.__subclasses__() for found in classes(child))]


@pytest.mark.parametrize("kind", classes(RequestError), ids=lambda kind: kind.__name__)
def test_every_request_error_is_answered_in_the_shape(app: Flask, kind: type[RequestError]) -> None:
    with app.test_request_context():
        reply = error_handlers.error_response(
            kind("Why.", errors=[errors.FieldError("a[0]", "bad")], retry_after_seconds=7)
        )
    assert reply.status_code == kind.status
    assert reply.get_json() == {
        "message": "Why.",
        "code": kind.default_code,
        "errors": [{"field": "a[0]", "message": "bad"}],
    }
    assert reply.headers["Retry-After"] == "7"


@pytest.mark.parametrize("status", sorted(status for status in default_exceptions if status >= 400))
def test_every_http_error_of_werkzeug_is_answered_in_the_shape(app: Flask, status: int) -> None:
    with app.test_request_context():
        reply = error_handlers.error_response(default_exceptions[status]())
        assert_shape(reply, status)


def test_a_fault_of_our_own_is_500_without_its_inside(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with app.test_request_context("/api/git", method="POST", headers={"X-Request-ID": "my-request"}):
        try:
            raise ZeroDivisionError("marker-inside")
        except ZeroDivisionError as error:
            reply = error_handlers.error_response(error)
    assert (reply.status_code, reply.get_json()["code"]) == (500, "internal_error")
    assert "marker-inside" not in reply.get_data(as_text=True)
    assert "marker-inside" in caplog.text and "my-request" in caplog.text, "but in the log"


def test_every_exception_of_ours_has_its_place_in_the_tree() -> None:
    """The drawing at the top of errors.py is the table of contents."""
    drawing = errors.__doc__ or ""
    assert [kind.__name__ for kind in classes(FlansibleError) if kind.__name__ not in drawing] == []


def test_a_head_request_has_the_status_and_no_body(anybody: FlaskClient) -> None:
    reply = anybody.head("/api/ansibletasks")
    assert reply.status_code == 401
    assert reply.get_data() == b""
