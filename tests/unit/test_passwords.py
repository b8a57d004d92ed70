"""`flansible passwd`: the file stays valid, private and whole."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from flansible.errors import ConfigurationError
from flansible.identity import passwords
from flansible.identity import users as rbac_users

pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rbac.json"


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def users(path: Path) -> dict[str, rbac_users.User]:
    return rbac_users.RbacFile(path).users()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_password_makes_the_file_readable_by_its_owner_alone(path: Path) -> None:
    assert passwords.set_password(path, "admin", "s3cret") is True
    assert mode(path) == 0o600
    assert rbac_users.RbacFile(path).authenticate("admin", "s3cret") is not None


def test_a_password_is_stored_as_a_scrypt_hash_alone(path: Path) -> None:
    passwords.set_password(path, "admin", "s3cret")
    text = path.read_text()
    assert "s3cret" not in text
    assert document(path)["rbac"][0]["password"].startswith("scrypt:")


def test_a_new_password_replaces_the_old_and_leaves_the_rest(path: Path) -> None:
    entries = [
        {"user": "admin", "password": "old", "inventories": []},
        {"user": "dev", "password": "plain", "inventories": ["inv/dev"]},
    ]
    path.write_text(json.dumps({"rbac": entries}))
    assert passwords.set_password(path, "admin", "new") is False
    file = rbac_users.RbacFile(path)
    assert file.authenticate("admin", "old") is None
    assert file.authenticate("admin", "new") is not None
    assert document(path)["rbac"][1] == entries[1]


def test_a_new_user_gets_the_inventories_named_as_absolute_paths(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    passwords.set_password(path, "dev", "x", ("inv/dev", "/inv/shared"))
    assert document(path)["rbac"][0]["inventories"] == [str(path.parent / "inv/dev"), "/inv/shared"]


def test_a_password_alone_keeps_the_inventories(path: Path) -> None:
    path.write_text(json.dumps({"rbac": [{"user": "dev", "password": "x", "inventories": ["inv/dev"]}]}))
    passwords.set_password(path, "dev", "new")
    assert document(path)["rbac"][0]["inventories"] == ["inv/dev"]


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o666, 0o660)])
def test_the_file_keeps_its_mode_less_the_rights_of_others(path: Path, before: int, after: int) -> None:
    path.write_text(json.dumps({"rbac": [{"user": "admin", "password": "x"}]}))
    path.chmod(before)
    passwords.set_password(path, "admin", "new")
    assert mode(path) == after


@pytest.mark.parametrize("name", ["with:colon", "", "line\nbreak", "\x00"])
def test_a_name_that_cannot_log_in_is_refused_and_nothing_changes(path: Path, name: str) -> None:
    passwords.create_default(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError):
        passwords.set_password(path, name, "x")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["rbac.json"]


def test_an_inventory_that_is_no_path_is_refused_and_nothing_is_made(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="without commas"):
        passwords.set_password(path, "dev", "x", ("web1,web2",))
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rbac": []}', '{"rbac": [{"user": "a"}]}', "\xff"])
def test_a_broken_file_is_refused_and_left_as_it_is(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        passwords.set_password(path, "admin", "new")
    assert all(fault.source == str(path) for fault in caught.value.faults)
    assert path.read_bytes() == text.encode("latin-1")
    assert os.listdir(path.parent) == ["rbac.json"]


def test_a_folder_that_is_not_there_is_a_fault_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "rbac.json"
    with pytest.raises(ConfigurationError) as caught:
        passwords.set_password(path, "admin", "new")
    assert str(path) in str(caught.value)


def test_the_default_file_lets_admin_in_and_is_known_as_the_default(path: Path) -> None:
    passwords.create_default(path)
    assert mode(path) == 0o600
    assert passwords.has_default_admin(users(path))
    assert rbac_users.RbacFile(path).authenticate("admin", "admin") is not None


def test_a_default_password_is_known_even_when_it_is_hashed(path: Path) -> None:
    passwords.set_password(path, "admin", "admin")
    assert passwords.has_default_admin(users(path))
    passwords.set_password(path, "admin", "other")
    assert not passwords.has_default_admin(users(path))


def test_without_an_admin_there_is_no_default_admin(path: Path) -> None:
    passwords.set_password(path, "dev", "admin")
    assert not passwords.has_default_admin(users(path))


def test_a_password_may_be_any_text(path: Path) -> None:
    odd = "päss wörd 🎉:$\"'\\ "
    passwords.set_password(path, "ünï cöde", odd)
    assert rbac_users.RbacFile(path).authenticate("ünï cöde", odd) is not None
