"""`flansible user`: the file stays valid and in its order, two commands at once lose nothing, changes are audited."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flansible.cli import cli
from flansible.errors import ConfigurationError
from flansible.identity import rbac_editor, tokens
from flansible.identity import users as rbac_users

pytestmark = pytest.mark.usefixtures("cheap_hashes")
DOCUMENT: dict[str, Any] = {
    "$schema": "./rbac.schema.json",
    "groups": [
        {"name": "ops", "inventories": ["prod"]},
        {"name": "web", "sees": "inventories"},
    ],
    "rbac": [
        {"user": "zoe", "inventories": ["dev"], "password": "z", "groups": ["web"]},
        {"password": "a", "user": "admin"},
        {"user": "lee", "password": "l", "limits": {"forks": 3}, "role": "viewer"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.ini").write_text("[Default]\n")
    (tmp_path / "rbac.json").write_text(json.dumps(DOCUMENT))
    return tmp_path


def command(folder: Path, *words: str, given: str = "") -> str:
    """Runs `flansible user`; what it prints."""
    sub, *rest = words
    done = CliRunner().invoke(cli, ["user", sub, f"--config={folder / 'config.ini'}", *rest], input=given)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "rbac.json").read_text()))


def users(folder: Path) -> dict[str, rbac_users.User]:
    return rbac_users.RbacFile(folder / "rbac.json").users()


def log(folder: Path) -> list[tuple[str, str]]:
    path = folder / ".flansible/audit.log"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [(line["event"], line["what"]) for line in lines]


def test_a_user_is_added_at_the_end_and_all_else_stays_in_its_order(folder: Path) -> None:
    given = ("--inventory", str(folder / "dev"), "--group", "web", "--group", "ops", "--role", "auditor")
    assert "Added kim" in command(folder, "add", "kim", *given, given="marker-secret\n")
    found = document(folder)
    assert json.dumps({**found, "rbac": found["rbac"][:3]}) == json.dumps(DOCUMENT), "also the order of the keys"
    added = found["rbac"][3]
    assert list(added) == ["user", "password", "inventories", "role", "groups"]
    assert added["groups"] == ["web", "ops"] and rbac_users.password_matches(added["password"], "marker-secret")
    assert "marker-secret" not in (folder / "rbac.json").read_text()
    assert log(folder) == [("user_added", "kim, role auditor, groups web, ops")]
    assert users(folder)["kim"].groups == ("web", "ops")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "lee"), "lee: exists already"),
        (("add", "kim", "--group", "opps"), 'there is no group "opps", did you mean "ops"?'),
        (("add", "a:b"), "user"),
        (("remove", "kim"), "kim: is not a user"),
        (("remove", "ops"), "ops: is not a user"),
        (("remove", "admin"), "admin: is the one who may do everything"),
        (("groups", "kim"), "kim: is not a user"),
        (("groups", "lee", "lee"), 'there is no group "lee"'),
        (("groups", "admin", "ops"), "admin has all rights"),
        (("groups", "lee", "ops", "ops"), "is listed twice"),
    ],
)
def test_what_is_refused_changes_nothing_and_is_not_audited(folder: Path, words: tuple[str, ...], message: str) -> None:
    before = (folder / "rbac.json").read_text()
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        command(folder, *words, given="x\n")
    assert (folder / "rbac.json").read_text() == before and log(folder) == []


@pytest.mark.parametrize("words", [("add", "admin"), ("groups", "--none"), ("groups", "lee", "ops", "--none")])
def test_wrong_usage_says_so(folder: Path, words: tuple[str, ...]) -> None:
    sub, *rest = words
    done = CliRunner().invoke(cli, ["user", sub, f"--config={folder / 'config.ini'}", *rest], input="x\n")
    assert done.exit_code == 2 and document(folder) == DOCUMENT


def test_a_removed_user_leaves_no_token_to_a_later_one_of_the_name(folder: Path) -> None:
    for user in ("lee", "lee", "zoe"):
        done = CliRunner().invoke(cli, ["token", "create", f"--config={folder / 'config.ini'}", user])
        assert done.exit_code == 0
    assert command(folder, "remove", "lee").endswith("; tokens revoked: 2\n")
    assert [token.user for token in tokens.read(folder / ".flansible/tokens.json")] == ["zoe"]
    assert [entry["user"] for entry in document(folder)["rbac"]] == ["zoe", "admin"]
    assert [event for event, _ in log(folder)][3:] == ["user_removed", "token_revoked", "token_revoked"]


def test_the_groups_of_a_user_are_listed_replaced_and_taken_away(folder: Path) -> None:
    assert command(folder, "groups", "zoe") == "web\n" and command(folder, "groups", "lee") == ""
    command(folder, "groups", "lee", "web", "ops")
    assert users(folder)["lee"].groups == ("web", "ops")
    assert [line.split() for line in command(folder, "groups").splitlines()] == [
        ["GROUP", "MEMBERS", "INVENTORIES"],
        ["ops", "lee", "prod"],
        ["web", "zoe,", "lee", "-"],
    ]
    command(folder, "groups", "lee", "--none")
    assert document(folder) == DOCUMENT, "as it was before"
    assert log(folder) == [("user_groups_set", "of lee: web, ops"), ("user_groups_set", "of lee: none")]


def test_all_users_are_listed(folder: Path) -> None:
    lines = [line.split() for line in command(folder, "list").splitlines()]
    assert lines == [
        ["USER", "ROLE", "SEES", "GROUPS", "INVENTORIES"],
        ["zoe", "operator", "own", "web", str(folder / "dev")],
        ["admin", "admin", "all", "-", "all"],
        ["lee", "viewer", "own", "-", "-"],
    ]


def test_nothing_changes_when_the_audit_log_cannot_be_written(folder: Path) -> None:
    (folder / ".flansible/audit.log").mkdir(parents=True)
    for words in (("add", "kim"), ("remove", "lee"), ("groups", "lee", "ops")):
        with pytest.raises(Exception, match="cannot be written"):
            command(folder, *words, given="x\n")
    assert document(folder) == DOCUMENT


def test_of_commands_at_once_none_loses_anothers_change(folder: Path) -> None:
    """Processes, as of several operators: each has read the file before the others wrote."""
    code = (
        "import sys; from flansible.cli import cli; "
        "cli(['user', 'groups', '--config', sys.argv[1], sys.argv[2], 'ops'], standalone_mode=True)"
    )
    names = [f"user{number}" for number in range(4)]
    found = document(folder)
    found["rbac"] += [{"user": name, "password": "x"} for name in names]
    (folder / "rbac.json").write_text(json.dumps(found))

    def change(name: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", code, str(folder / "config.ini"), name], capture_output=True, timeout=120
        ).returncode

    with ThreadPoolExecutor(len(names)) as pool:
        assert set(pool.map(change, names)) == {0}
    assert all(users(folder)[name].groups == ("ops",) for name in names)


def test_a_change_waits_for_the_one_before_it(folder: Path) -> None:
    path, is_editing, may_end = folder / "rbac.json", threading.Event(), threading.Event()

    def slow() -> None:
        with rbac_editor.editing(path) as content:
            is_editing.set()
            assert may_end.wait(30)
            rbac_editor.set_groups(content, "lee", ("ops",))

    def quick() -> None:
        with rbac_editor.editing(path) as content:
            rbac_editor.remove(content, "zoe")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow)
        assert is_editing.wait(30)
        second = pool.submit(quick)
        assert not second.done()
        may_end.set()
        first.result(30)
        second.result(30)
    assert set(users(folder)) == {"admin", "lee"} and users(folder)["lee"].groups == ("ops",)
