"""Bad bodies: 400, 413 or 415 that names the field, and nothing is queued."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flansible.web import parsing
from tests.helpers.authorizing import MAX_BODY_BYTES
from tests.helpers.counted_names import CountedName

ADHOC = "/api/ansiblecommand"
PLAYBOOK = "/api/ansibleplaybook"
GIT = "/api/git"
SUBMISSIONS = {
    ADHOC: {"module": "ping"},
    PLAYBOOK: {"playbook_dir": ".", "playbook": "site.yml"},
    GIT: {"playbook_dir": "."},
}


def post(client: FlaskClient, path: str, body: bytes, content_type: str | None = "application/json") -> TestResponse:
    headers = {"Content-Type": content_type} if content_type is not None else {}
    return client.post(path, data=body, headers=headers)


def send(client: FlaskClient, path: str = ADHOC, **fields: Any) -> TestResponse:
    return post(client, path, json.dumps({**SUBMISSIONS[path], **fields}).encode())


def faults(reply: TestResponse, status: int = 400) -> dict[str, str]:
    """Returns field -> message of an error reply."""
    assert reply.status_code == status, reply.get_data(as_text=True)
    body = reply.get_json()
    assert set(body) == {"message", "code", "errors"}
    assert body["message"]
    return {item["field"]: item["message"] for item in body["errors"]}


@pytest.mark.parametrize("path", SUBMISSIONS)
def test_a_good_body_reaches_the_store_which_is_away_here(client: FlaskClient, path: str) -> None:
    """Proves that the other tests queue nothing: a request that gets that far is a 503."""
    reply = send(client, path)
    assert faults(reply, 503) == {}
    assert reply.get_json()["code"] == "store_unavailable"
    assert int(reply.headers["Retry-After"]) > 0


NOT_JSON = {
    "nothing": b"",
    "blanks": b"  \n",
    "a word": b"ping",
    "a form": b"module=ping",
    "single quotes": b"{'module': 'ping'}",
    "cut off": b'{"module": "ping"',
    "a comma too many": b'{"module": "ping",}',
    "two objects": b'{"module": "ping"}{"module": "ping"}',
    "a comment": b'{"module": "ping"} // x',
    "NaN": b'{"module": "ping", "extra_vars": {"x": NaN}}',
    "Infinity": b'{"module": "ping", "extra_vars": {"x": Infinity}}',
    "minus Infinity": b'{"module": "ping", "extra_vars": {"x": -Infinity}}',
    "a number beyond all floats": b'{"module": "ping", "extra_vars": {"x": 1e999}}',
    "a number of too many digits": b'{"module": "ping", "forks": ' + b"1" * 5000 + b"}",
    "not UTF-8": b'{"module": "\xff"}',
    "UTF-16": '{"module": "ping"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"module": "ping"}',
    "a raw null byte": b'{"module": "pi\x00ng"}',
    "a raw line break in a string": b'{"module": "pi\nng"}',
    "a key twice": b'{"module": "ping", "module": "shell"}',
    "a key twice, deep inside": b'{"module": "ping", "extra_vars": {"a": [{"b": 1, "b": 1}]}}',
    "an escaped key twice": b'{"module": "ping", "mod\\u0075le": "shell"}',
    "an array": b'[{"module": "ping"}]',
    "a string": b'"ping"',
    "a number": b"1",
    "null": b"null",
    "deep arrays": b"[" * 20_000,
    "deep objects": b'{"a":' * 10_000,
}


@pytest.mark.parametrize("path", SUBMISSIONS)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_a_json_object_is_refused(client: FlaskClient, path: str, body: bytes) -> None:
    reply = post(client, path, body)
    assert reply.status_code == 400
    assert reply.get_json()["code"] == "invalid_json"
    assert list(faults(reply)) in (["body"], [])


def test_no_body_takes_long_to_find_wrong(client: FlaskClient) -> None:
    app = client.application
    before, app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_CONTENT_LENGTH"], 1024 * 1024
    keys = b",".join(b'"%d":1' % number for number in range(60_000))
    try:
        began = time.thread_time()
        assert faults(post(client, ADHOC, b"{%b,%b}" % (keys, keys[:5])))["body"].endswith("has the key '0' twice")
        # pydantic's list of them would take 5 us for each, and nobody is answered meanwhile.
        found = faults(post(client, ADHOC, b"{%b}" % keys))
        assert found == {"body": "has 60001 faults, too many to list them"}
        for item in (b"1", b'"\\u0000"', b'{"x":1}'):
            items = b"[" + (item + b",") * 100_000 + b"1]"
            for field in (b"extra_vars", b"module_args", b"lock"):
                wrong = faults(post(client, ADHOC, b'{"module":"ping","%b":%b}' % (field, items)))
                assert len(wrong) <= 100 and next(iter(wrong)).startswith(field.decode())
        assert time.thread_time() - began < 5
    finally:
        app.config["MAX_CONTENT_LENGTH"] = before


def test_a_key_is_not_copied_for_each_value_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    name = CountedName("x")
    monkeypatch.setattr(parsing, "_parse_json", lambda _data: {name: [0] * 1000 + [{name: 0}] * 1000})
    parsing.parse_json_object(b"")
    assert name.copies == 0


def test_a_huge_key_is_refused_by_its_beginning_also_without_a_login(anybody: FlaskClient) -> None:
    huge = json.dumps({"a": {"\U0001f600" * 10_000: ["\0"] * 100}}, ensure_ascii=False).encode()
    reply = post(anybody, "/api/session", huge)
    [message] = faults(reply).values()
    assert message.startswith("has a key of more than 1000 characters, which begins with '\U0001f600")
    assert len(reply.get_data()) < 2000
    twice = b'{"%b":1,"%b":1}' % (b"x" * 10_000, b"x" * 10_000)
    assert len(post(anybody, "/api/session", twice).get_data()) < 500


def test_long_names_are_cut_in_errors(client: FlaskClient) -> None:
    assert send(client, ADHOC, extra_vars={"x" * 1000: 1}).status_code == 503
    reply = send(client, ADHOC, extra_vars={"x" * 1000: ["\0"] * 200})
    assert len(reply.get_json()["errors"]) == 100 and len(reply.get_data()) < 64 * 1024
    [field] = faults(reply)
    assert field == "extra_vars." + "x" * 288 + "…"


@pytest.mark.parametrize("path", SUBMISSIONS)
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "application/jsonx",
        "json",
        "application/xml",
        ";",
    ],
)
def test_a_body_that_does_not_say_it_is_json_is_refused(
    client: FlaskClient, path: str, content_type: str | None
) -> None:
    reply = post(client, path, json.dumps(SUBMISSIONS[path]).encode(), content_type)
    faults(reply, 415)
    assert reply.get_json()["code"] == "unsupported_media_type"
    assert "application/json" in reply.get_json()["message"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_may_be_said_with_parameters_and_in_any_case(client: FlaskClient, content_type: str) -> None:
    assert post(client, ADHOC, b'{"module": 1}', content_type).status_code == 400


@pytest.mark.parametrize("path", SUBMISSIONS)
def test_a_huge_body_is_refused_with_the_limit(client: FlaskClient, path: str) -> None:
    body = json.dumps({**SUBMISSIONS[path], "extra_vars": {"x": "y" * MAX_BODY_BYTES}}).encode()
    reply = post(client, path, body)
    faults(reply, 413)
    assert reply.get_json()["code"] == "body_too_large"
    assert str(MAX_BODY_BYTES) in reply.get_json()["message"]


def test_a_body_of_just_the_limit_is_read(client: FlaskClient) -> None:
    body = json.dumps({"module": 1, "module_args": ""}).encode()
    assert post(client, ADHOC, body.ljust(MAX_BODY_BYTES)).status_code == 400
    assert post(client, ADHOC, body.ljust(MAX_BODY_BYTES + 1)).status_code == 413


def test_a_body_that_claims_to_be_huge_is_refused_before_it_is_read(client: FlaskClient) -> None:
    claimed = {"CONTENT_LENGTH": str(10**15)}
    reply = client.post(ADHOC, data=b"{}", content_type="application/json", environ_overrides=claimed)
    assert reply.status_code == 413


@pytest.mark.parametrize(
    ("path", "fields", "field", "hint"),
    [
        (ADHOC, {"modul": "x"}, "modul", "did you mean module?"),
        (ADHOC, {"host_patern": "x"}, "host_patern", "did you mean host_pattern?"),
        (ADHOC, {"extra_var": {}}, "extra_var", "did you mean extra_vars?"),
        (PLAYBOOK, {"playbook_directory": "x"}, "playbook_directory", "did you mean playbook_dir?"),
        (PLAYBOOK, {"verbosity_level": 3}, "verbosity_level", "did you mean verbose_level?"),
        (GIT, {"branch": "x"}, "branch", "did you mean branch_name?"),
        (ADHOC, {"HOST_PATTERN": "x"}, "HOST_PATTERN", "did you mean host_pattern?"),
        (
            ADHOC,
            {"module_args": [{"arg_nam": "x", "arg_name": "x", "arg_value": 1}]},
            "module_args[0].arg_nam",
            "did you mean arg_name?",
        ),
        (ADHOC, {"zzz": 1}, "zzz", "unknown field"),
        (ADHOC, {"Module": "x"}, "Module", "did you mean module?"),
        (ADHOC, {"": 1}, "body", "unknown field"),
        (ADHOC, {"__proto__": {}}, "__proto__", "unknown field"),
        (ADHOC, {"user": "admin"}, "user", "unknown field"),
        (ADHOC, {"data_only": False}, "data_only", "unknown field"),
    ],
)
def test_an_unknown_field_is_named_with_a_hint(
    client: FlaskClient, path: str, fields: dict[str, Any], field: str, hint: str
) -> None:
    found = faults(send(client, path, **fields))
    assert list(found) == [field]
    assert hint in found[field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"module": None}, "module"),
        ({"module": 1}, "module"),
        ({"module": ["ping"]}, "module"),
        ({"forks": 0}, "forks"),
        ({"forks": -5}, "forks"),
        ({"forks": "5"}, "forks"),
        ({"forks": 5.0}, "forks"),
        ({"forks": True}, "forks"),
        ({"forks": 1e400}, "body"),
        ({"become": "false"}, "become"),
        ({"become": 0}, "become"),
        ({"become": None}, "become"),
        ({"verbose_level": 7}, "verbose_level"),
        ({"verbose_level": "3"}, "verbose_level"),
        ({"inventory": []}, "inventory"),
        ({"inventory": ["a", ""]}, "inventory[1]"),
        ({"inventory": ["a", 2]}, "inventory[1]"),
        ({"inventory": {"a": 1}}, "inventory"),
        ({"extra_vars": 1}, "extra_vars"),
        ({"environment": {"A B": "x"}}, "environment.A B"),
        ({"vault_password": {"dev": 1}}, "vault_password.dev"),
        ({"vault_password": {"dev@/tmp/program": "x"}}, "vault_password.dev@/tmp/program"),
        ({"extra_vars": [1]}, "extra_vars[0]"),
        ({"extra_args": [{}, 2]}, "extra_args[1]"),
        ({"module_args": 1}, "module_args"),
        ({"module_args": [{"arg_name": "a"}]}, "module_args[0].arg_value"),
        ({"module_args": [{"arg_name": "a", "arg_value": 1}, {"arg_value": 1}]}, "module_args[1].arg_name"),
        ({"module_args": [{"arg_name": 1, "arg_value": 1}]}, "module_args[0].arg_name"),
        ({"module_args": [{"arg_name": "a", "arg_value": 1, "x": 1}]}, "module_args[0].x"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(client: FlaskClient, fields: dict[str, Any], field: str) -> None:
    assert field in faults(send(client, ADHOC, **fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"module": 5}, {"module": "must be a string"}),
        ({"become": "yes"}, {"become": "must be true or false"}),
        ({"forks": "5"}, {"forks": "must be a whole number"}),
        ({"forks": 0}, {"forks": "must be greater than or equal to 1"}),
        ({"on_lost": "retry"}, {"on_lost": "must be 'fail' or 'requeue'"}),
        ({"inventory": ["a", 2]}, {"inventory[1]": "must be a string"}),
        ({"module_args": 1}, {"module_args": "must be an object; or: must be a string; or: must be a list"}),
        ({"module_args": [{"arg_value": 1}]}, {"module_args[0].arg_name": "is required"}),
    ],
    ids=str,
)
def test_a_message_says_what_the_field_must_be(
    client: FlaskClient, fields: dict[str, Any], said: dict[str, str]
) -> None:
    assert faults(send(client, ADHOC, **fields)) == said


def test_all_faulty_fields_are_told_at_once(client: FlaskClient) -> None:
    found = faults(send(client, ADHOC, module=1, forks=0, become="yes", modul="x", inventory=[]))
    assert set(found) == {"module", "forks", "become", "modul", "inventory"}


@pytest.mark.parametrize("path", SUBMISSIONS)
def test_a_missing_field_is_required_by_name(client: FlaskClient, path: str) -> None:
    found = faults(post(client, path, b"{}"))
    needed = {name for name in SUBMISSIONS[path] if (path, name) != (PLAYBOOK, "playbook_dir")}
    assert found == {name: "is required" for name in needed}


@pytest.mark.parametrize(
    ("path", "name", "other", "value"),
    [
        (ADHOC, "host_pattern", "host_filter", "web"),
        (ADHOC, "extra_vars", "extra_args", {"a": 1}),
        (PLAYBOOK, "extra_vars", "extra_args", [{"a": 1}]),
        (PLAYBOOK, "vault_file", "vault_password_file", "v"),
    ],
)
def test_two_fields_that_exclude_each_other_are_named_both(
    client: FlaskClient, path: str, name: str, other: str, value: Any
) -> None:
    reply = send(client, path, **{name: value, other: value})
    faults(reply)
    assert f"{name} and {other} exclude each other" in reply.get_json()["message"]


BAD_TEXT = {"a null byte": "a\0b", "half a surrogate": "a\ud800", "the other half": "\udfff"}


@pytest.mark.parametrize("text", BAD_TEXT.values(), ids=BAD_TEXT)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"module": "@"}, "module"),
        ({"host_pattern": "@"}, "host_pattern"),
        ({"inventory": "@"}, "inventory"),
        ({"inventory": ["a", "@"]}, "inventory[1]"),
        ({"module_args": "@"}, "module_args"),
        ({"module_args": {"a": {"b": ["@"]}}}, "module_args.a.b[0]"),
        ({"module_args": [{"arg_name": "a", "arg_value": "@"}]}, "module_args[0].arg_value"),
        ({"extra_vars": {"a": "@"}}, "extra_vars.a"),
        ({"extra_vars": {"@": 1}}, "extra_vars"),
        ({"extra_vars": [{"a": {"@": 1}}]}, "extra_vars[0].a"),
        ({"become_user": "@"}, "become_user"),
        ({"@": 1}, "body"),
        ({"": "@"}, "body"),
    ],
)
def test_text_that_no_path_or_command_line_can_hold_is_refused_wherever_it_stands(
    client: FlaskClient, text: str, fields: Any, field: str
) -> None:
    filled = json.loads(json.dumps(fields).replace("@", json.dumps(text)[1:-1]))
    assert list(faults(send(client, ADHOC, **filled))) == [field]


def test_a_parameter_without_a_name_is_a_fault_of_the_query(client: FlaskClient) -> None:
    assert list(faults(client.get("/api/ansibletasks?=1&=2"))) == ["query"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [70, 200, 900])
def test_deep_nesting_is_refused_by_its_path(client: FlaskClient, depth: int) -> None:
    [field] = faults(send(client, ADHOC, extra_vars={"x": nested(depth)}))
    assert field.startswith("extra_vars.x[0]")


def test_nesting_as_people_do_is_fine(client: FlaskClient) -> None:
    assert send(client, ADHOC, extra_vars={"x": nested(30)}).status_code == 503


def test_a_body_with_thousands_of_faults_gets_an_answer_of_modest_size(client: FlaskClient) -> None:
    reply = post(client, ADHOC, json.dumps({f"x{n}": 1 for n in range(4000)}).encode())
    assert reply.status_code == 400
    assert len(reply.get_json()["message"]) < 2000


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1.5",
        "before=-1",
        "before=x",
        "state=done",
        "state=",
        "limt=5",
        "limit=1&limit=2",
        "before=" + "9" * 5000,
    ],
)
def test_a_bad_query_is_refused_by_its_name(client: FlaskClient, query: str) -> None:
    name = query.partition("=")[0]
    assert list(faults(client.get(f"/api/ansibletasks?{query}"))) == [name]


@pytest.mark.parametrize("path", ["ansibletaskstatus/x", "ansibletaskoutput/x", "ansibletaskresult/x", "listplaybooks"])
def test_a_query_where_none_is_taken_is_refused(client: FlaskClient, path: str) -> None:
    assert list(faults(client.get(f"/api/{path}?colour=red"))) == ["colour"]


def test_a_password_is_asked_for_before_the_body_is_looked_at(anybody: FlaskClient) -> None:
    for body in (b"not json", b"{}", b"x" * (MAX_BODY_BYTES + 1)):
        assert post(anybody, ADHOC, body).status_code == 401
