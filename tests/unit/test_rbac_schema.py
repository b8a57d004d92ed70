"""The keys of rbac.json: what a file may say, what is wrong with one, and the JSON Schema made from the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from flansible.doctor import rbac_check
from flansible.errors import ConfigurationError
from flansible.identity import rbac_schema, users

TOP = Path(__file__).parents[2]
SOURCE = Path("/etc/f/rbac.json")


def text_of(**keys: Any) -> str:
    return json.dumps({"rbac": [{"user": "dev", "password": "marker-secret", **keys}]})


GOOD: list[dict[str, Any]] = [
    {},
    {"inventories": ["inv"], "limits": {"running": 1, "queued": 0}},
    {"role": "viewer"},
    {"role": "auditor"},
    {"playbooks": ["**/*.yml", "a/b.yml", "ns.coll.*"]},
    {"playbooks": []},
    {"modules": ["ping", "community.general.*"]},
    {"modules": {"allow": ["ping"]}},
    {"modules": {"deny": ["shell"]}},
    {"hosts": ["web1", "web*", "~web[0-9]+:x", "2001:db8::1", "web[1:3]", "all"]},
    {"become": False, "control_node": True, "git": False, "lasting_processes": True},
    {"paths": ["/srv/keys"], "environment": ["REGION", "_x"]},
    {"limits": {"forks": 10, "time_limit": 60}},
    {"credentials": ["web-*", "db-[0-9]"]},
    {"queues": {"dmz": ["inv"], "default": []}},
]
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"role": "root"}, "role"),
    ({"role": ["viewer"]}, "role"),
    ({"playbooks": "a.yml"}, "playbooks"),
    ({"playbooks": ["/etc/x.yml"]}, "playbooks"),
    ({"playbooks": ["../x.yml"]}, "playbooks"),
    ({"playbooks": [""]}, "playbooks"),
    ({"modules": "ping"}, "modules"),
    ({"modules": {}}, "modules"),
    ({"modules": {"allow": ["a"], "deny": ["b"]}}, "modules"),
    ({"modules": {"permit": ["a"]}}, "modules"),
    ({"modules": ["ping x"]}, "modules.allow"),
    ({"hosts": ["a,b"]}, "hosts"),
    ({"hosts": ["a:b"]}, "hosts"),
    ({"hosts": ["!a"]}, "hosts"),
    ({"hosts": ["@file"]}, "hosts"),
    ({"hosts": ["~("]}, "hosts"),
    ({"hosts": ["{{ x }}"]}, "hosts"),
    ({"hosts": [""]}, "hosts"),
    ({"hosts": "all"}, "hosts"),
    ({"become": "no"}, "become"),
    ({"control_node": 1}, "control_node"),
    ({"git": "yes"}, "git"),
    ({"paths": ["a,b"]}, "paths"),
    ({"environment": ["A-B"]}, "environment[0]"),
    ({"credentials": ["a b"]}, "credentials"),
    ({"queues": {"d.m": ["inv"]}}, "queues.d.m.[key]"),
    ({"queues": {"dmz": "inv"}}, "queues.dmz"),
    ({"queues": ["dmz"]}, "queues"),
    ({"credentials": "web"}, "credentials"),
    ({"limits": {"forks": 0}}, "limits.forks"),
    ({"limits": {"time_limit": 0}}, "limits.time_limit"),
    ({"limits": {"time": 1}}, "limits"),
    ({"Role": "viewer"}, ""),
]
# What no schema can say: a glob's or a path's inside, and what must not stand together.
BEYOND_A_SCHEMA = ("playbooks", "hosts", "paths", "modules", "credentials", "queues")


@pytest.mark.parametrize("keys", GOOD, ids=str)
def test_a_good_entry_is_taken_by_the_model_and_by_the_schema(keys: dict[str, Any]) -> None:
    assert set(users.parse(text_of(**keys), SOURCE)) == {"dev"}
    Draft202012Validator(rbac_schema.schema()).validate(json.loads(text_of(**keys)))


@pytest.mark.parametrize(("keys", "key"), BROKEN, ids=str)
def test_a_faulty_key_is_named(keys: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        users.parse(text_of(**keys), SOURCE)
    place = f'user "dev": {key}'.removesuffix(": ")
    assert [fault.key for fault in caught.value.faults] == [place]
    assert "marker-secret" not in str(caught.value)
    path = tmp_path / "rbac.json"
    path.write_text(text_of(**keys))
    violations = rbac_check.violations(path)
    assert violations or next(iter(keys)) in BEYOND_A_SCHEMA
    assert all(place.startswith(fault.key) for fault in violations)
    assert "marker-secret" not in " ".join(map(str, violations))


def test_without_new_keys_nothing_is_taken_away_or_added() -> None:
    user = users.parse(text_of(inventories=["inv"]), SOURCE)["dev"]
    expected = users.User("dev", "marker-secret", (Path("/etc/f/inv"),))
    assert user == expected


def test_all_faults_of_all_kinds_are_told_at_once() -> None:
    entries = [
        {"user": "a", "password": "x", "role": "king", "hosts": ["a b"]},
        {"user": "a", "password": "x"},
        {"user": "admin", "password": "x", "role": "viewer", "limits": {"forks": 1, "running": 1}},
    ]
    with pytest.raises(ConfigurationError) as caught:
        users.parse(json.dumps({"rbac": entries}), SOURCE)
    keys = [fault.key for fault in caught.value.faults]
    assert keys == [
        *('user "a": role', 'user "a": hosts', 'user "a"'),
        *('user "admin": role', 'user "admin": limits.forks'),
    ]


@pytest.mark.parametrize("key", sorted(rbac_schema.UserEntry.model_fields))
def test_admin_is_never_limited_and_a_file_that_says_so_is_faulty(key: str) -> None:
    values: dict[str, Any] = {
        **{"inventories": ["inv"], "limits": {"running": 1, "queued": 1}, "role": "operator", "playbooks": ["**"]},
        **{"modules": ["*"], "hosts": ["all"], "become": True, "control_node": True, "git": True, "paths": ["p"]},
        **{"environment": ["X"], "writable": ["out"], "lasting_processes": True},
        **{"groups": ["ops"], "may_define": ["searches"], "projects": ["shop"], "credentials": ["*"]},
        **{"queues": {"dmz": []}},
        **{"sees": "all", "cancels": "inventories"},
    }
    entry = {"user": "admin", "password": "x"} | ({key: values[key]} if key in values else {})
    if key in ("user", "password", "inventories", "limits"):
        assert users.parse(json.dumps({"rbac": [entry]}), SOURCE)["admin"].is_admin
        return
    with pytest.raises(ConfigurationError, match="admin has all rights") as caught:
        users.parse(json.dumps({"rbac": [entry]}), SOURCE)
    assert [fault.key for fault in caught.value.faults] == [f'user "admin": {key}']


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"pasword": "x"}, 'user "dev": unknown key "pasword", did you mean "password"?'),
    ({"Inventory": []}, 'user "dev": unknown key "Inventory", did you mean "inventories"?'),
    ({"limits": {"fork": 1}}, 'user "dev": limits: unknown key "fork", did you mean "forks"?'),
    ({"modules": {"alow": ["ping"]}}, 'user "dev": modules: unknown key "alow", did you mean "allow"?'),
    ({"zzz": 1}, 'user "dev": unknown key "zzz"'),
]


@pytest.mark.parametrize(("keys", "words"), UNKNOWN, ids=str)
def test_an_unknown_key_is_told_with_its_user_and_the_nearest_key(
    keys: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        users.parse(text_of(**keys), SOURCE)
    assert f"{SOURCE}: {words}" in str(caught.value).splitlines()
    path = tmp_path / "rbac.json"
    path.write_text(text_of(**keys))
    assert f"{path}: {words}" in map(str, rbac_check.violations(path)) or "modules" in keys


def test_a_key_beside_the_users_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        users.parse(json.dumps({**json.loads(text_of()), "Rbac": []}), SOURCE)
    assert str(caught.value) == f'{SOURCE}: unknown key "Rbac", did you mean "rbac"?'


def test_an_entry_without_a_name_is_told_by_its_number() -> None:
    entries = [{"user": "a", "password": "x"}, {"usr": "b", "password": 5}, "c"]
    with pytest.raises(ConfigurationError) as caught:
        users.parse(json.dumps({"rbac": entries}), SOURCE)
    assert str(caught.value).splitlines() == [
        f"{SOURCE}: rbac[1]: user: is missing",
        f"{SOURCE}: rbac[1]: password: must be a string",
        f'{SOURCE}: rbac[1]: unknown key "usr", did you mean "user"?',
        f"{SOURCE}: rbac[2]: must be an object",
    ]


def test_a_file_may_name_its_schema() -> None:
    document = {"$schema": "docs/rbac.schema.json", **json.loads(text_of())}
    assert "dev" in users.parse(json.dumps(document), SOURCE)
    with pytest.raises(ConfigurationError):
        users.parse(json.dumps(document | {"schema": "x"}), SOURCE)


def test_the_published_schema_is_the_models() -> None:
    published = json.loads((TOP / "docs/rbac.schema.json").read_text(encoding="utf-8"))
    how = "renew it: python -m flansible.identity.rbac_schema > docs/rbac.schema.json"
    assert published == rbac_schema.schema(), how


def test_the_schema_is_one_and_describes_each_key() -> None:
    made = rbac_schema.schema()
    Draft202012Validator.check_schema(made)
    for model in (made, *made["$defs"].values()):
        for name, key in model.get("properties", {}).items():
            assert key.get("description"), name
    sample = json.loads((TOP / "rbac.json").read_text(encoding="utf-8"))
    Draft202012Validator(made).validate(sample)
    assert (TOP / sample["$schema"]).is_file()


def test_the_schema_is_served_to_everybody(anybody: FlaskClient) -> None:
    reply = anybody.get("/api/rbac.schema.json")
    assert (reply.status_code, reply.mimetype) == (200, "application/schema+json")
    assert json.loads(reply.get_data()) == rbac_schema.schema()
