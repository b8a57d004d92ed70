"""Secret files that others can read, write or replace stop the start; what is out of their reach does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.doctor import secret_files
from flansible.errors import ConfigurationError

MakeSettings = Callable[..., Settings]


def faults(settings: Settings) -> list[str]:
    try:
        secret_files.refuse_exposed(settings)
    except ConfigurationError as error:
        return [str(fault) for fault in error.faults]
    return []


def write(path: Path, text: str, mode: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def users(**passwords: str) -> str:
    return json.dumps({"rbac": [{"user": name, "password": password} for name, password in passwords.items()]})


@pytest.fixture
def open_settings(make_settings: MakeSettings, open_folder: Path) -> MakeSettings:
    """Settings whose rbac.json lies where everybody gets."""

    def make(text: str = "", mode: int = 0o644, **changes: object) -> Settings:
        return make_settings(rbac_file=write(open_folder / "rbac.json", text, mode), **changes)

    return make


def test_a_readable_file_of_users_is_named_with_the_command_that_mends_it(open_settings: MakeSettings) -> None:
    settings = open_settings(users(admin="admin", dev="secret"))
    assert faults(settings) == [
        f"{settings.rbac_file}: rbac_file: every user of this machine can read {settings.rbac_file}; "
        f"chmod o-r {settings.rbac_file}"
    ]
    settings.rbac_file.chmod(0o640)
    assert faults(settings) == []


@pytest.mark.parametrize("text", [users(admin="admin", dev="dev"), users(admin="admin")])
def test_the_published_samples_hold_no_secret_but_must_not_be_written_by_others(
    open_settings: MakeSettings, text: str
) -> None:
    settings = open_settings(text)
    assert faults(settings) == []
    settings.rbac_file.chmod(0o646)
    assert len(faults(settings)) == 1 and "chmod o-w" in faults(settings)[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rbac": {}}', '{"rbac": [1]}', '{"rbac": [{}]}', "[" * 100_000])
def test_a_file_that_cannot_be_understood_may_hold_a_secret(open_settings: MakeSettings, text: str) -> None:
    settings = open_settings(text)
    assert bool(faults(settings)) is (text != '{"rbac": {}}')


def test_a_private_folder_anywhere_above_keeps_others_out(open_settings: MakeSettings, open_folder: Path) -> None:
    settings = open_settings("{}", 0o666, secret_key_file=write(open_folder / "deep/key", "x", 0o666))
    assert len(faults(settings)) == 4
    open_folder.chmod(0o750)
    assert faults(settings) == []


def test_a_folder_above_in_which_others_can_put_another_is_told(open_settings: MakeSettings, open_folder: Path) -> None:
    folder = open_folder / "middle"
    settings = open_settings(users(admin="admin"), secret_key_file=write(folder / "key", "x", 0o600))
    folder.chmod(0o755)
    open_folder.chmod(0o777)
    assert [f"chmod o-w {open_folder}" in fault for fault in faults(settings)] == [True, True]
    open_folder.chmod(0o1777)
    assert faults(settings) == []


def test_a_link_is_judged_by_where_it_leads_and_where_it_lies(
    open_settings: MakeSettings, open_folder: Path, tmp_path: Path
) -> None:
    hidden = write(tmp_path / "key", "x", 0o644)
    link = open_folder / "key"
    link.symlink_to(hidden)
    settings = open_settings(users(admin="admin"), secret_key_file=link)
    assert faults(settings) == []  # what it leads to lies in a private folder
    open_folder.chmod(0o777)
    assert any(f"replace {link}" in fault for fault in faults(settings))


def test_a_configuration_with_a_password_in_a_url_is_secret(open_settings: MakeSettings, open_folder: Path) -> None:
    path = write(open_folder / "config.ini", "[Default]\n", 0o644)
    settings = open_settings(users(admin="admin"), config_file=path)
    assert faults(settings) == []
    path.write_text("[Default]\nCELERY_BROKER_URL = redis://:MARKER@localhost/0\n")
    assert f"chmod o-r {path}" in faults(settings)[0] and "MARKER" not in "".join(faults(settings))
    path.write_text("[Default]\n")
    path.chmod(0o666)
    assert f"chmod o-w {path}" in faults(settings)[0]


def test_files_that_are_not_there_are_no_fault(settings: Settings) -> None:
    assert faults(settings) == []


@pytest.mark.parametrize("command", ["up", "web", "worker", "flower"])
def test_no_part_of_the_service_starts_with_an_open_secret(open_folder: Path, command: str) -> None:
    write(open_folder / "config.ini", "[Default]\n", 0o644)
    path = write(open_folder / "rbac.json", users(admin="MARKER"), 0o644)
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "flansible", command],
        cwd=open_folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    assert f"chmod o-r {path}" in ended.stderr and "MARKER" not in ended.stderr
    assert sorted(item.name for item in open_folder.iterdir()) == ["config.ini", "rbac.json"]
