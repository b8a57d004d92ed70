"""What checking a password costs, and that this shows nothing. Most with an eighth of production's work."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from flansible.identity import passwords
from flansible.identity import users as rbac_users
from tests.helpers.passwords import CountingThrottle

METHOD = "scrypt:4096:8:1"
HASH = generate_password_hash("secret", METHOD)
ADMIN = {"user": "admin", "password": "root"}
DEV = {"user": "dev", "password": HASH}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rbac_users, "_OUR_METHOD", METHOD)
    return tmp_path / "rbac.json"


def write(path: Path, *entries: dict[str, Any]) -> None:
    path.write_text(json.dumps({"rbac": entries}))


def seconds(file: rbac_users.RbacFile, name: str, password: str) -> float:
    began = time.thread_time()
    file.authenticate(name, password)
    return time.thread_time() - began


def test_a_verified_hash_is_remembered_so_that_polling_stays_cheap(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    first = seconds(file, "dev", "secret")
    assert min(seconds(file, "dev", "secret") for _ in range(5)) < first / 10


def test_a_password_that_many_send_at_once_is_checked_once(path: Path) -> None:
    """Each check takes a core for a while: sixteen connections of one client must not take sixteen times as long."""
    # With all the work, which takes longer than starting the threads.
    write(path, {**DEV, "password": generate_password_hash("secret")})
    file = rbac_users.RbacFile(path)
    began = time.process_time()
    assert file.authenticate("dev", "wrong") is None
    one_check = time.process_time() - began
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(file.authenticate("dev", "secret"))) for _ in range(16)]
    began = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.process_time() - began < 6 * one_check
    assert [user.name for user in found] == ["dev"] * 16


def test_an_unknown_name_costs_as_much_as_a_wrong_password(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    wrong = min(seconds(file, "dev", f"wrong{n}") for n in range(5))
    unknown = min(seconds(file, f"nobody{n}", "x") for n in range(5))
    assert 0.5 < unknown / wrong < 2


def test_the_cache_of_verified_passwords_is_dropped_when_the_file_changes(path: Path) -> None:
    write(path, DEV)
    file = rbac_users.RbacFile(path)
    assert file.authenticate("dev", "secret") is not None
    write(path, {**DEV, "password": generate_password_hash("other", METHOD)})
    assert file.authenticate("dev", "secret") is None
    assert file.authenticate("dev", "other") is not None
    write(path, DEV, ADMIN)
    slow = seconds(file, "dev", "secret")
    assert seconds(file, "dev", "secret") < slow / 10


def test_passwords_are_stored_as_what_an_unknown_name_is_checked_against(tmp_path: Path) -> None:
    passwords.set_password(tmp_path / "rbac.json", "admin", "secret")
    [entry] = json.loads((tmp_path / "rbac.json").read_text())["rbac"]
    assert entry["password"].startswith("scrypt:32768:8:1$")
    assert rbac_users._OUR_METHOD == "scrypt:32768:8:1"


@pytest.mark.parametrize("stored", ["secret", METHOD, "pbkdf2:sha256:7500"])
def test_however_a_password_is_stored_its_user_cannot_be_told_by_the_time_a_wrong_one_takes(
    path: Path, stored: str
) -> None:
    password = generate_password_hash("secret", stored) if ":" in stored else stored
    write(path, {**DEV, "password": password}, {"user": "other", "password": HASH})
    file = rbac_users.RbacFile(path)
    took = [
        (
            seconds(file, "dev", f"wrong{n}"),
            seconds(file, "other", f"wrong{n}"),
            seconds(file, f"nobody{n}", "x"),
            seconds(file, "dev", f"nul\0{n}"),
        )
        for n in range(8)
    ]
    shortest = [min(times) for times in zip(*took, strict=True)]
    assert max(shortest) / min(shortest) < 1.6


def test_tries_at_the_same_time_are_no_more_than_the_throttle_allows(path: Path) -> None:
    write(path, DEV)
    file, throttle = rbac_users.RbacFile(path), CountingThrottle(most=3)
    refused: list[int] = []

    def guess(number: int) -> None:
        try:
            file.authenticate("dev", f"wrong{number}", throttle)
        except PermissionError:
            refused.append(number)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (throttle.entered, throttle.wrong, len(refused)) == (3, 3, 7)
