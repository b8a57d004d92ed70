"""rbac.json: its format, its reloading, its passwords. Who may do what is in test_authorization.py."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.security import generate_password_hash

from flansible.cli import cli
from flansible.errors import ConfigurationError, Fault
from flansible.identity import users as rbac_users
from tests.helpers.passwords import CHEAP_HASHES, CountingThrottle

pytestmark = pytest.mark.usefixtures("cheap_hashes")

HASH = generate_password_hash("secret", CHEAP_HASHES)
ADMIN = {"user": "admin", "password": "root"}
DEV = {"user": "dev", "password": "secret", "inventories": ["inv/dev"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rbac.json"


def write(path: Path, *entries: dict[str, Any]) -> None:
    path.write_text(json.dumps({"rbac": entries}))


def faults_of(text: str) -> list[Fault]:
    with pytest.raises(ConfigurationError) as caught:
        rbac_users.parse(text, Path("/etc/f/rbac.json"))
    return caught.value.faults


def test_a_file_gives_users_with_resolved_inventories(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    users = rbac_users.parse(
        json.dumps({"rbac": [ADMIN, {**DEV, "inventories": ["link/x", "/a/../b"]}]}), tmp_path / "r"
    )
    assert list(users) == ["admin", "dev"]
    assert users["admin"].is_admin and not users["dev"].is_admin
    assert users["admin"].inventories == ()
    assert users["dev"].inventories == (tmp_path / "real/x", Path("/b"))


BROKEN = {
    "nothing": ("", ""),
    "not JSON": ("{'rbac': []}", ""),
    "a list": ("[]", ""),
    "no users": ('{"rbac": []}', "rbac"),
    "another key": ('{"rbac": [{"user": "a", "password": "b"}], "users": []}', ""),
    "no rbac": ("{}", "rbac"),
    "no password": ('{"rbac": [{"user": "a"}]}', 'user "a": password'),
    "an empty password": ('{"rbac": [{"user": "a", "password": ""}]}', 'user "a": password'),
    "a number as password": ('{"rbac": [{"user": "a", "password": 1}]}', 'user "a": password'),
    "an empty name": ('{"rbac": [{"user": "", "password": "b"}]}', "rbac[0]: user"),
    "a colon in a name": ('{"rbac": [{"user": "a:b", "password": "b"}]}', 'user "a:b": user'),
    "a line break in a name": ('{"rbac": [{"user": "a\\n", "password": "b"}]}', "rbac[0]: user"),
    "half a surrogate in a name": ('{"rbac": [{"user": "\\ud800", "password": "b"}]}', "rbac[0]: user"),
    "a misspelt key": ('{"rbac": [{"user": "a", "password": "b", "inventory": []}]}', 'user "a"'),
    "a string of inventories": (
        '{"rbac": [{"user": "a", "password": "b", "inventories": "inv"}]}',
        'user "a": inventories',
    ),
    "a host list": ('{"rbac": [{"user": "a", "password": "b", "inventories": ["a,b"]}]}', 'user "a": inventories'),
    "an empty path": ('{"rbac": [{"user": "a", "password": "b", "inventories": [" "]}]}', 'user "a": inventories'),
    "a null byte in a path": (
        '{"rbac": [{"user": "a", "password": "b", "inventories": ["\\u0000"]}]}',
        'user "a": inventories',
    ),
    "a user twice": (
        '{"rbac": [{"user": "a", "password": "b"}, {"user": "a", "password": "c"}]}',
        'user "a"',
    ),
    "nested too deep": ("[" * 100_000, ""),
    "a number with too many digits": ('{"rbac": ' + "1" * 5000 + "}", ""),
}


@pytest.mark.parametrize(("text", "key"), BROKEN.values(), ids=BROKEN)
def test_a_fault_names_the_file_and_the_key(text: str, key: str) -> None:
    [fault] = faults_of(text)
    assert (fault.source, fault.key) == ("/etc/f/rbac.json", key)
    assert fault.message


def test_all_faults_are_told_at_once() -> None:
    entries = [{"user": "a:b", "password": ""}, {"user": "c"}, {"user": "d", "password": "x", "x": 1}]
    keys = [fault.key for fault in faults_of(json.dumps({"rbac": entries}))]
    assert keys == ['user "a:b": user', 'user "a:b": password', 'user "c": password', 'user "d"']


def test_no_fault_shows_a_password() -> None:
    entries = [{"user": "a:b", "password": "marker-secret", "x": "marker-secret"}, {"password": ["marker-secret"]}]
    assert "marker-secret" not in " ".join(map(str, faults_of(json.dumps({"rbac": entries}))))


def test_no_user_shows_a_password() -> None:
    users = rbac_users.parse(json.dumps({"rbac": [DEV]}), Path("/r"))
    assert "secret" not in repr(users["dev"])


def test_a_missing_file_stops_the_start_with_advice(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="flansible passwd admin"):
        rbac_users.RbacFile(path)


def test_a_broken_file_stops_the_start(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="is not JSON"):
        rbac_users.RbacFile(path)


@pytest.mark.parametrize("stored", ["secret", HASH], ids=["plain", "hashed"])
def test_only_the_right_password_gives_the_user(path: Path, stored: str) -> None:
    write(path, {**DEV, "password": stored}, ADMIN)
    file = rbac_users.RbacFile(path)
    user = file.authenticate("dev", "secret")
    assert user is not None and user.name == "dev"
    for name, password in (("dev", "wrong"), ("dev", ""), ("dev", stored + "\0"), ("DEV", "secret"), ("", "secret")):
        assert file.authenticate(name, password) is None
    assert file.authenticate("admin", "secret") is None
    assert file.authenticate("dev", "root") is None


def test_the_hash_itself_is_no_password(path: Path) -> None:
    write(path, {**DEV, "password": HASH})
    assert rbac_users.RbacFile(path).authenticate("dev", HASH) is None


@pytest.mark.parametrize("odd", ["\0", "secret\0", "ü" * 5000])
def test_an_odd_password_is_just_wrong(path: Path, odd: str) -> None:
    write(path, {**DEV, "password": HASH}, {"user": "plain", "password": "secret"})
    file = rbac_users.RbacFile(path)
    for name in ("dev", "plain", "nobody"):
        assert file.authenticate(name, odd) is None


def test_a_wrong_password_is_never_remembered(path: Path) -> None:
    write(path, {**DEV, "password": HASH})
    file = rbac_users.RbacFile(path)
    assert file.authenticate("dev", "secret") is not None
    assert [file.authenticate("dev", "wrong") for _ in range(3)] == [None] * 3


def test_an_edit_is_in_force_with_the_next_request(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    assert file.authenticate("new", "x") is None
    write(path, DEV, {"user": "new", "password": "x"})
    assert file.authenticate("new", "x") is not None
    write(path, {**DEV, "inventories": ["inv/other"]})
    user = file.authenticate("dev", "secret")
    assert user is not None and user.inventories == (path.parent / "inv/other",)


def test_a_removed_user_is_out_at_once(path: Path) -> None:
    write(path, {**DEV, "password": HASH}, ADMIN)
    file = rbac_users.RbacFile(path)
    assert file.authenticate("dev", "secret") is not None
    write(path, ADMIN)
    assert file.authenticate("dev", "secret") is None


def test_a_broken_edit_keeps_the_last_good_users_and_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    path.write_text('{"rbac": [')
    with caplog.at_level(logging.ERROR):
        assert file.authenticate("dev", "secret") is not None
        assert file.authenticate("dev", "secret") is not None
    assert file.fault is not None and str(path) in file.fault and "not JSON" in file.fault
    assert len(caplog.records) == 1, "once for each edit, not for each request"
    write(path, {**DEV, "password": "other"})
    assert file.authenticate("dev", "secret") is None
    assert file.authenticate("dev", "other") is not None
    assert file.fault is None


def test_no_broken_edit_of_any_kind_gets_through(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    for name, (text, _) in BROKEN.items():
        path.write_text(text)
        assert file.authenticate("dev", "secret") is not None, name
        assert file.fault is not None, name
        write(path, DEV)
        assert file.authenticate("dev", "secret") is not None, name
        assert file.fault is None, name


def test_bytes_that_are_no_text_are_a_broken_edit(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    path.write_bytes(b"\xff\xfe")
    assert file.authenticate("dev", "secret") is not None
    assert file.fault is not None


def test_a_deleted_file_keeps_the_last_good_users_and_is_told(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    path.unlink()
    assert file.authenticate("dev", "secret") is not None
    assert file.fault is not None and "does not exist" in file.fault
    write(path, ADMIN)
    assert file.authenticate("dev", "secret") is None
    assert file.authenticate("admin", "root") is not None
    assert file.fault is None


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read_again(path: Path) -> None:
    write(path, {"user": "dev", "password": "aaaa"})
    file = rbac_users.RbacFile(path)
    status = path.stat()
    other = path.with_name("new")
    write(other, {"user": "dev", "password": "bbbb"})
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert file.authenticate("dev", "aaaa") is None
    assert file.authenticate("dev", "bbbb") is not None


def test_threads_that_ask_while_the_file_changes_get_a_whole_answer(path: Path) -> None:
    write(path, ADMIN, DEV)
    file = rbac_users.RbacFile(path)
    stop = threading.Event()
    faults: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            if file.authenticate("admin", "root") is None or set(file.users()) - {"admin", "dev"}:
                faults.append(file.users())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    temporary = path.with_name("new")
    for number in range(200):
        write(temporary, ADMIN, *([DEV] if number % 2 else []))
        temporary.replace(path)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []


# Hashes that cannot be checked, and the throttle


@pytest.mark.parametrize("broken", ["scrypt:3:8:1$salt$00", "pbkdf2:md9:1$salt$00", "pbkdf2$salt$00"])
def test_a_hash_that_cannot_be_checked_lets_nobody_in_and_nobody_else_out(path: Path, broken: str) -> None:
    write(path, {**DEV, "password": broken}, ADMIN)
    file = rbac_users.RbacFile(path)
    assert file.authenticate("dev", "secret") is None
    assert file.authenticate("admin", "root") is not None


def test_the_throttle_is_asked_for_what_must_be_checked_and_not_for_what_is_known(path: Path) -> None:
    write(path, DEV)
    file, throttle = rbac_users.RbacFile(path), CountingThrottle()
    for password in ("wrong", "secret", "secret", "secret", "wrong"):
        file.authenticate("dev", password, throttle)
    assert (throttle.entered, throttle.wrong) == (3, 2)


def test_a_closed_throttle_leaves_the_password_unchecked_and_lets_in_who_is_known(path: Path) -> None:
    write(path, DEV, {"user": "new", "password": "secret"})
    file, throttle = rbac_users.RbacFile(path), CountingThrottle(most=0)
    assert file.authenticate("dev", "secret") is not None
    assert file.authenticate("dev", "secret", throttle) is not None
    for name, password in (("dev", "wrong"), ("new", "secret"), ("nobody", "x")):
        with pytest.raises(PermissionError):
            file.authenticate(name, password, throttle)


def test_a_home_is_printed_only_of_users_whose_runs_have_one(path: Path) -> None:
    write(path, ADMIN, DEV)
    (path.parent / "config.ini").write_text(f"[Default]\nrbac_file = {path}\n")
    shown = {}
    for name in ("dev", "admin", "nosuch"):
        ended = CliRunner().invoke(cli, ["home", "--config", str(path.parent / "config.ini"), name])
        shown[name] = ended.exit_code, ended.output
    assert shown["dev"][0] == 0 and Path(shown["dev"][1].strip()).is_dir()
    assert shown["admin"] == (2, "Runs of admin are not confined: their home is that of the service's account\n")
    assert shown["nosuch"] == (2, f"nosuch is not a user of {path}; add one with `flansible passwd`\n")
