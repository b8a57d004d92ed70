"""Tasks of earlier, authorized again under another rbac.json: each right that can be lost, and what is none."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as generated
from hypothesis import strategies as st

from flansible.authorization import authorize, confinement, lost_rights
from flansible.config import Settings
from flansible.errors import Forbidden, RequestError
from flansible.identity import users as rbac_users
from flansible.identity.rbac_schema import UserEntry
from flansible.identity.users import User
from flansible.models import AuthorizedRun, Confinement, Secrets
from tests.helpers.authorizing import OWN, Asking

BOTH = {"inventories": ["inv/dev", "inv/shared"]}


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


def user_of(root: Path, entry: dict[str, Any], *others: dict[str, Any]) -> User:
    entries = [{"user": "dev", "password": "x", **BOTH, **entry}, *others]
    return rbac_users.parse(json.dumps({"rbac": entries}), root / "rbac.json")["dev"]


def run_of(root: Path, settings: Settings, entry: dict[str, Any], kind: str, **fields: Any) -> AuthorizedRun:
    """The run as the store has it: without its secrets."""
    given = {} if kind == "git" else {"inventory": OWN, **fields}
    run: AuthorizedRun = getattr(Asking(root, settings, user_of(root, entry)), kind)(**given)
    return AuthorizedRun.model_validate(run.model_dump(mode="json"))


def refusal(user: User | None, run: AuthorizedRun, settings: Settings) -> str | None:
    try:
        lost_rights.check(user, run, settings)
    except Forbidden as refused:
        return refused.code
    return None


# (request, entry before, entry after, code)
LOST: dict[str, tuple[tuple[str, dict[str, Any]], dict[str, Any], dict[str, Any], str]] = {
    "the inventory": (("adhoc", {}), {}, {"inventories": ["inv/shared"]}, "inventory_forbidden"),
    "the inventory, named relatively": (
        *(("playbook", {"inventory": "../../inv/dev", "playbook_dir": "team"}), {}),
        *({"inventories": ["inv/shared"]}, "inventory_forbidden"),
    ),
    "the whole of an inventory": (("adhoc", {}), {}, {"inventories": ["inv/dev/sub"]}, "inventory_forbidden"),
    "another inventory, which the sandbox shows": (("adhoc", {}), {}, {"inventories": ["inv/dev"]}, "rights_lost"),
    "the playbook": (("playbook", {}), {}, {"playbooks": ["team/**"]}, "playbook_forbidden"),
    "the module": (("adhoc", {}), {"modules": ["ping"]}, {"modules": ["setup"]}, "module_forbidden"),
    "the module, denied": (("adhoc", {}), {}, {"modules": {"deny": ["ping"]}}, "module_forbidden"),
    "the host": (("adhoc", {"host_pattern": "host1"}), {}, {"hosts": ["host2"]}, "host_forbidden"),
    "some of all hosts": (("adhoc", {"host_pattern": "all"}), {}, {"hosts": ["host1"]}, "rights_lost"),
    "some of its hosts": (
        *(("playbook", {}), {"hosts": ["host1", "host2"]}),
        *({"hosts": ["host1"]}, "rights_lost"),
    ),
    "become": (("adhoc", {"become": True}), {}, {"become": False}, "become_forbidden"),
    "a become password, which is sealed": (
        *(("adhoc", {"become_password": "sealed"}), {}),
        *({"become": False}, "become_forbidden"),
    ),
    "the role": (("adhoc", {}), {}, {"role": "viewer"}, "role_forbidden"),
    "git": (("git", {}), {}, {"git": False}, "git_forbidden"),
    "a pull": (("playbook", {"update_git_repo": True}), {}, {"git": False}, "git_forbidden"),
    "the control machine": (
        *(("adhoc", {"host_pattern": "localhost", "inventory": "{root}/inv/none"}),),
        *({"inventories": ["inv/none"], "control_node": True}, {"inventories": ["inv/none"]}, "localhost_forbidden"),
    ),
    "the control machine, not named": (("adhoc", {}), {"control_node": True}, {}, "rights_lost"),
    "processes that may last": (("adhoc", {}), {"lasting_processes": True}, {}, "rights_lost"),
    "a vault file": (
        *(("playbook", {"vault_file": "{root}/outside/vault"}), {"paths": ["outside"]}, {}, "vault_file_forbidden"),
    ),
    "a vault id": (
        *(("playbook", {"vault_id": "a@{root}/outside/vault"}), {"paths": ["outside"]}, {}, "vault_file_forbidden"),
    ),
    "a key file": (
        *(("adhoc", {"private_key_file": "{root}/outside/vault"}),),
        *({"paths": ["outside"]}, {}, "private_key_forbidden"),
    ),
    "modules": (
        *(("adhoc", {"module_path": "{root}/outside"}), {"paths": ["outside"]}, {}, "module_path_forbidden"),
    ),
    "files beside": (("adhoc", {}), {"paths": ["outside"]}, {}, "rights_lost"),
    "a writable folder": (("adhoc", {}), {"writable": ["playbooks/team/out"]}, {}, "rights_lost"),
    "a project": (("adhoc", {}), {"projects": ["shop"]}, {}, "rights_lost"),
    "an environment variable": (
        *(("adhoc", {"environment": {"TOKEN_NAME": "x"}}),),
        *({"environment": ["TOKEN_NAME"]}, {}, "environment_forbidden"),
    ),
    "a queue": (
        *(("adhoc", {"queue": "dmz"}), {"queues": {"dmz": ["inv/dev"]}}),
        *({"queues": {"lan": ["inv/dev"]}}, "queue_forbidden"),
    ),
    "an inventory on a queue": (
        *(("adhoc", {"queue": "dmz"}), {"queues": {"dmz": ["inv"]}}),
        *({"queues": {"dmz": ["inv/shared"]}}, "queue_forbidden"),
    ),
    "an inventory on the default queue": (
        *(("adhoc", {}), {}, {"queues": {"default": ["inv/shared"]}}, "queue_forbidden"),
    ),
    "a stored secret": (
        *(("adhoc", {"credentials": ["web-1"]}), {"credentials": ["web-*"]}),
        *({"credentials": ["db-*"]}, "credential_forbidden"),
    ),
    "so many forks": (("adhoc", {"forks": 9}), {}, {"limits": {"forks": 5}}, "limit_exceeded"),
    "so much time": (("adhoc", {"time_limit": 9}), {}, {"limits": {"time_limit": 5}}, "limit_exceeded"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_task_that_a_lost_right_would_refuse_now_is_refused(name: str, root: Path, settings: Settings) -> None:
    (kind, given), before, after, code = LOST[name]
    (root / "inv/none").write_text("host1\n")
    (root / "playbooks/team/out").mkdir()
    run = run_of(root, settings, before, kind, **given)
    assert refusal(user_of(root, before), run, settings) is None
    assert refusal(user_of(root, after), run, settings) == code


def test_each_key_of_an_entry_that_grants_something_is_tried_above() -> None:
    """What grants nothing that a run has: names, passwords, and what counts when a task is submitted or claimed.

    Of groups: tests/unit/test_groups.py; of what is seen: test_visibility.py.
    """
    tried = {key for _, before, after, _ in LOST.values() for key in (*before, *after)}
    keys = set(UserEntry.model_fields) - {"user", "password", "groups", "may_define", "sees", "cancels"}
    assert keys == tried


UNTOUCHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "the password": ({}, {"password": "another"}),
    "more inventories": ({}, {"inventories": ["inv"]}),
    "more paths": ({}, {"paths": ["outside"]}),
    "more hosts": ({"hosts": ["host1"]}, {"hosts": ["host1", "web*"]}),
    "all hosts": ({"hosts": ["host1"]}, {"hosts": ["all"]}),
    "hosts without a limit": ({"hosts": ["host1"]}, {}),
    "more modules": ({"modules": ["ping"]}, {"modules": ["p*"]}),
    "another module is denied": ({}, {"modules": {"deny": ["shell"]}}),
    "become, which it does not use": ({}, {"become": False}),
    "other limits": ({}, {"limits": {"running": 1, "queued": 1, "forks": 5, "time_limit": 5}}),
    "the control machine": ({}, {"control_node": True, "lasting_processes": True}),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_change_that_takes_nothing_from_a_task_leaves_it_alone(name: str, root: Path, settings: Settings) -> None:
    before, after = UNTOUCHED[name]
    run = run_of(root, settings, before, "adhoc", host_pattern="host1")
    assert refusal(user_of(root, after), run, settings) is None


def test_a_new_password_changes_no_rights(root: Path) -> None:
    one, other, less = (
        lost_rights.rights_of([user_of(root, entry)]) for entry in ({}, {"password": "y"}, {"become": False})
    )
    assert one == other != less


def test_another_users_new_inventory_takes_nothing(root: Path, settings: Settings) -> None:
    run = run_of(root, settings, {}, "adhoc")
    ops = {"user": "ops", "password": "x", "inventories": ["inv/prod", "playbooks/team"]}
    assert refusal(user_of(root, {}, ops), run, settings) is None


def test_what_has_become_another_users_inventory_is_refused_and_what_is_gone_is_not(
    root: Path, settings: Settings
) -> None:
    run = run_of(root, settings, {}, "playbook", playbook_dir="team")
    ops = {"user": "ops", "password": "x", "inventories": ["playbooks/team"]}
    assert refusal(user_of(root, {}, ops), run, settings) == "rights_lost"
    shutil.rmtree(root / "playbooks/team")
    assert refusal(user_of(root, {}), run, settings) is None
    assert refusal(user_of(root, {}, ops), run, settings) is None


@pytest.mark.parametrize("gone", ["playbooks/site.yml", "inv/dev"])
def test_a_file_that_is_gone_is_no_lost_right(gone: str, root: Path, settings: Settings) -> None:
    run = run_of(root, settings, {}, "playbook")
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert refusal(user_of(root, {}), run, settings) is None


def test_a_link_that_leads_elsewhere_now_does_not_keep_what_it_led_to(root: Path, settings: Settings) -> None:
    """The command has the inventory of before; the request names one that is granted."""
    link = root / "inv/current"
    link.symlink_to("dev")
    entry = {"inventories": ["inv/current"]}
    run = run_of(root, settings, entry, "adhoc", inventory=str(link))
    link.unlink()
    link.symlink_to("prod")
    assert refusal(user_of(root, entry), run, settings) == "rights_lost"


def test_a_user_who_is_gone_has_lost_all_and_admin_has_no_limits_to_lose(root: Path, settings: Settings) -> None:
    assert refusal(None, run_of(root, settings, {}, "adhoc"), settings) == "rights_lost"
    admin = rbac_users.parse('{"rbac": [{"user": "admin", "password": "x"}]}', root / "rbac.json")["admin"]
    run = Asking(root, settings, admin).adhoc(connection="local", inventory="host1,")
    assert refusal(admin, run, settings) is None
    assert refusal(None, run, settings) == "rights_lost"


@pytest.mark.parametrize(
    ("kind", "given", "code"),
    [
        ("playbook", {"playbook_dir": "team/out", "inventory": "host1,"}, "playbook_forbidden"),
        ("adhoc", {"inventory": "{root}/playbooks/team/out/site.yml"}, "inventory_forbidden"),
        ("adhoc", {"extra_vars": ["token=1", "@{root}/playbooks/team/out/site.yml"]}, "variables_file_forbidden"),
    ],
)
def test_admins_tasks_are_refused_where_a_folder_may_be_written_by_users_now(
    kind: str, given: dict[str, Any], code: str, root: Path, settings: Settings
) -> None:
    (root / "playbooks/team/out").mkdir()
    entries: list[dict[str, Any]] = [{"user": "admin", "password": "x"}, {"user": "dev", "password": "x"}]
    before, after = (
        rbac_users.parse(json.dumps({"rbac": [entries[0], entries[1] | more]}), root / "rbac.json")["admin"]
        for more in ({}, {"writable": ["playbooks/team/out"]})
    )
    (root / "playbooks/team/out/site.yml").write_text("- hosts: all\n")
    run = getattr(Asking(root, settings, before), kind)(**given)
    assert refusal(before, run, settings) is None
    assert refusal(after, run, settings) == code


def test_a_record_without_its_request_is_judged_by_its_limits(root: Path, settings: Settings) -> None:
    """Those of the first versions, and previews."""
    run = run_of(root, settings, {}, "adhoc").model_copy(update={"request": {}})
    assert refusal(user_of(root, {"modules": ["setup"]}), run, settings) is None
    assert refusal(user_of(root, {"inventories": ["inv/dev"]}), run, settings) == "rights_lost"


@pytest.mark.parametrize(
    "text",
    [
        '{note: "groups and vars, token=abc"}',
        '{a: "token=b", note: "hostvars, inventory_dir"}',
        '{"password": "vars: a"}',
    ],
)
def test_masks_in_the_record_make_no_names_that_were_not_sent(text: str, root: Path, settings: Settings) -> None:
    for body in ({"extra_vars": text}, {"extra_args": [{"a": 1}, text]}, {"module": "debug", "module_args": text}):
        run = run_of(root, settings, {}, "adhoc", **body)
        assert refusal(user_of(root, {"become": False}), run, settings) is None, body


# Requests put together at random come back from their record as they were sent, but for what is sealed.

_text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
_words = st.sampled_from(
    ["a", "token", "db_password", "note", "x=1", "password = 'b c'", "{q: token=1}", '{"secret": 2}']
)
_values = st.one_of(_text, _words, st.booleans(), st.integers(0, 9), st.none(), st.lists(_words, max_size=2))
_objects = st.dictionaries(st.one_of(_words, _text), _values, max_size=3)
_variables = st.one_of(_words, _objects, st.lists(st.one_of(_words, _objects), max_size=3))
_shared = {
    "extra_vars": _variables,
    "extra_args": _variables,
    "secret_vars": st.dictionaries(st.sampled_from(["a", "token"]), st.text("xyz", min_size=1, max_size=3), max_size=2),
    "become_password": st.just("sealed"),
    "vault_password": st.one_of(st.just("sealed"), st.just({"a": "sealed"})),
    "private_key": st.just("sealed"),
    "environment": st.dictionaries(st.sampled_from(["API_TOKEN", "PLAIN"]), _text, max_size=2),
    "limit": st.just("host1"),
    "forks": st.integers(1, 5),
    "become": st.booleans(),
    "verbose_level": st.integers(0, 6),
    "lock": st.one_of(st.just("a"), st.just(["b", "a"])),
    "exclusive": st.just("hosts"),
    "on_lost": st.sampled_from(["fail", "requeue"]),
}
_adhoc = st.fixed_dictionaries(
    {"module": st.sampled_from(["ping", "setup", "command"])},
    optional={
        **_shared,
        "module_args": st.one_of(
            _words,
            _objects,
            st.lists(st.fixed_dictionaries({"arg_name": _words, "arg_value": _values}), max_size=3),
        ),
    },
)
_playbook = st.fixed_dictionaries(
    {"playbook": st.sampled_from(["site.yml", ["site.yml", "team/site.yml"]])},
    optional={**_shared, "tags": st.sampled_from(["a", ["a", "b"]]), "check": st.booleans()},
)


@pytest.mark.generates
@generated(max_examples=int(os.environ.get("FUZZ", "150")), deadline=None, derandomize=True, database=None)
@given(st.one_of(st.tuples(st.just("adhoc"), _adhoc), st.tuples(st.just("playbook"), _playbook)))
def test_a_request_is_restored_from_its_record(case: tuple[str, dict[str, Any]]) -> None:
    kind, body = case
    root, settings = _generated_tree()
    entry = {"environment": ["API_TOKEN", "PLAIN"]}
    try:
        run = run_of(root, settings, entry, kind, **body)
    except (RequestError, ValueError):
        return  # refused, so there is no record
    found = lost_rights.request_of(run)
    sent = type(found).model_validate(Asking(root, settings, user_of(root, entry))._filled({"inventory": OWN, **body}))
    sealed = set(Secrets.model_fields) | {"vault_password", "secret_vars"}
    plain = {name: value for name, value in dict(found).items() if name not in {*sealed, *_EQUAL}}
    assert plain == {name: value for name, value in dict(sent).items() if name in plain}
    assert found.variables == sent.variables and found.locks == sent.locks  # type: ignore[union-attr]
    assert getattr(found, "arguments", None) == getattr(sent, "arguments", None)
    assert set(found.secret_vars or ()) == set(sent.secret_vars or ())  # type: ignore[union-attr]
    assert refusal(user_of(root, entry), run, settings) is None


_EQUAL = ("extra_vars", "extra_args", "module_args")  # in one of several forms, of which the properties make one


_trees: list[tuple[Path, Settings]] = []


@pytest.fixture(autouse=True)
def _tree_for_generated(root: Path, settings: Settings) -> None:
    _trees[:] = [(root, settings)]


def _generated_tree() -> tuple[Path, Settings]:
    return _trees[0]


# Limits of runs


WIDE = Confinement(
    readable=("/a", "/b"),
    hidden=("/h",),
    inventories=("/a",),
    writable=("/w",),
    hosts=("web1", "web*"),
    control_node=True,
    lasting_processes=True,
    projects=("shop",),
)
NARROWER: dict[str, dict[str, Any]] = {
    "readable": {"readable": ("/a",)},
    "inventories": {"inventories": ()},
    "writable": {"writable": ()},
    "hosts": {"hosts": ("web1",)},
    "control_node": {"control_node": False},
    "lasting_processes": {"lasting_processes": False},
    "projects": {"projects": ()},
}


@pytest.mark.parametrize("key", NARROWER)
def test_each_limit_that_is_narrower_now_is_lost(key: str) -> None:
    narrow = WIDE.model_copy(update=NARROWER[key])
    assert confinement.lost(WIDE, narrow) and not confinement.lost(narrow, WIDE)
    assert not confinement.lost(WIDE, WIDE)
    assert confinement.lost(WIDE, None)


def test_all_limits_are_compared_but_what_is_hidden() -> None:
    assert set(Confinement.model_fields) == {*NARROWER, "hidden"}
    assert not confinement.lost(WIDE, WIDE.model_copy(update={"hidden": ("/h", "/i")}))


@pytest.mark.parametrize(
    ("before", "now", "is_lost"),
    [("/a", "/", False), ("/a/b", "/a", False), ("/ab", "/a", True), ("/a", "/a/b", True), ("/a", "/A", True)],
)
def test_a_folder_grants_what_lies_in_it(before: str, now: str, is_lost: bool) -> None:
    assert bool(confinement.lost(Confinement(readable=(before,)), Confinement(readable=(now,)))) == is_lost


def test_the_rights_of_each_field_of_a_user_are_in_their_digest(root: Path) -> None:
    """A field that no digest covers would be lost without anybody's noticing."""
    user = user_of(root, {"role": "viewer"})
    before = lost_rights.rights_of([user])
    values = {one.name: getattr(user, one.name) for one in fields(User)}
    for field in fields(User):
        other = (replace(user, entry="group:x"),) if field.name == "as_member" else "changed"
        after = lost_rights.rights_of([User(**{**values, field.name: other})])
        assert (after == before) == (field.name == "password"), field.name


def test_who_may_start_nothing_has_no_limits_published(root: Path) -> None:
    assert lost_rights.rights_of([user_of(root, {"role": "viewer"})])["dev"].confinement is None
    full = user_of(root, {})
    assert lost_rights.rights_of([full])["dev"].confinement == authorize.confinement_of(full)
