"""Folders that users' runs may write: none from which other runs load code or variables."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flansible.config import Settings, load
from flansible.errors import ConfigurationError, Forbidden
from flansible.identity import users as rbac_users
from tests.helpers.authorizing import Asking

PLAY = "- hosts: all\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    top = Path(os.path.realpath(tmp_path))
    (top / "config.ini").write_text("[Default]\nsandbox_paths = tools\ndefault_inventory = inv/shared\n")
    for folder in (
        "playbooks/shop/roles/web/tasks",
        "playbooks/shop/artifacts",
        "inv/dev",
        "inv/prod",
        "tools",
        "keys",
    ):
        (top / folder).mkdir(parents=True)
    for folder in (".flansible", "out", "playbooks/shop/group_vars", "playbooks/shop/library", "playbooks/other/deep"):
        (top / folder).mkdir(parents=True)
    for file in ("playbooks/shop/site.yml", "playbooks/other/deep/x.yml"):
        (top / file).write_text(PLAY)
    (top / "inv/shared").write_text("web1\n")
    (top / "inv/dev/hosts").write_text("localhost ansible_connection=local\n")
    return top


def parse(place: Path, own: list[str], **others: Any) -> dict[str, rbac_users.User]:
    entries = [
        {"user": "admin", "password": "x"},
        {"user": "dev", "password": "x", "inventories": ["inv/dev"], "writable": own},
        {"user": "ops", "password": "x", "inventories": ["inv/prod"], "paths": ["keys"], **others},
    ]
    settings = load(str(place / "config.ini"), {})
    return rbac_users.parse(json.dumps({"rbac": entries}), place / "rbac.json", settings)


@pytest.mark.parametrize("folder", ["playbooks/shop/artifacts", "playbooks/shop/new/deep", "out", "out/new"])
def test_a_folder_from_which_nothing_is_loaded_may_be_writable(place: Path, folder: str) -> None:
    users = parse(place, [folder])
    assert users["dev"].writable == (place / folder,)
    assert users["ops"].writable == () and users["ops"].written == (place / folder,)


REFUSED = {
    "playbooks": "it is playbook_root",
    ".": "it holds /.*, a folder of this Python|it holds .*",
    "/": "it holds",
    "playbooks/shop": "it holds .*/playbooks/shop/(roles|group_vars|library|site.yml)",
    "playbooks/other": "it holds .*/playbooks/other/deep/x.yml",
    "playbooks/shop/roles": "from a folder roles",
    "playbooks/shop/roles/web/files/out": "from a folder roles",
    "playbooks/shop/group_vars": "from a folder group_vars",
    "playbooks/shop/library/new": "from a folder library",
    "playbooks/shop/filter_plugins": "from a folder filter_plugins",
    "playbooks/shop/.git": "from a folder .git",
    "playbooks/shop/templates/out": "from a folder templates",
    "playbooks/inventories/new": "from a folder inventories",
    "inv": "it holds .*/inv/dev, an inventory of dev",
    "inv/dev": "it is an inventory of dev",
    "inv/dev/artifacts": "it lies in .*/inv/dev, an inventory of dev",
    "inv/prod/artifacts": "it lies in .*/inv/prod, an inventory of ops",
    "keys": "it is a path of ops",
    "keys/out": "it lies in .*/keys, a path of ops",
    "tools/out": "it lies in .*/tools, one of sandbox_paths",
    ".flansible/out": "private to the service",
    "/etc/new": "it lies in /etc, a folder of the system",
    "~/.ansible/plugins": "a part of the service's home",
    "~": "it holds",
    "playbooks/link": "it is an inventory of ops",
}


@pytest.mark.parametrize("folder", REFUSED)
def test_a_folder_that_runs_load_from_is_refused_with_the_reason(place: Path, folder: str) -> None:
    (place / "playbooks/link").symlink_to("../inv/prod")
    with pytest.raises(ConfigurationError, match=f'user "dev": writable.*must not be writable: .*({REFUSED[folder]})'):
        parse(place, [folder])


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("library = ./artifacts", True),
        ("filter_plugins = /nowhere:artifacts/filter", True),
        ("roles_path = roles:..//shop/artifacts", True),
        ("vault_password_file = artifacts/pass", True),
        ("inventory = artifacts/hosts,other", True),
        ("action_plugins = ../shop", True),
        ("fact_caching_connection = artifacts", False),
        ("retry_files_save_path = artifacts", False),
        ("library = ./plugins", False),
    ],
)
def test_a_folder_that_an_ansible_cfg_around_it_names_as_code_is_refused(
    place: Path, line: str, is_refused: bool
) -> None:
    (place / "playbooks/shop/ansible.cfg").write_text(f"[defaults]\n{line}\n")
    if is_refused:
        with pytest.raises(ConfigurationError, match=f"{line.partition(' ')[0]} of .*/playbooks/shop/ansible.cfg is "):
            parse(place, ["playbooks/shop/artifacts"])
    else:
        assert parse(place, ["playbooks/shop/artifacts"])


def test_one_within_another_is_refused_whoever_may_write_it(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="lies in the other"):
        parse(place, ["out", "out/inner"])
    with pytest.raises(ConfigurationError, match="which ops may write, lies in the other"):
        parse(place, ["out"], writable=["out/inner"])
    assert parse(place, ["out"], writable=["out"])["ops"].writable == (place / "out",)


def test_what_a_run_puts_into_a_granted_folder_does_not_break_rbac_json(place: Path) -> None:
    parse(place, ["out"])
    (place / "out/roles").mkdir()
    (place / "out/site.yml").write_text(PLAY)
    assert parse(place, ["out"])["dev"].writable


@pytest.mark.parametrize("change", ["another folder in its place", "granted anew"])
def test_a_folder_that_is_another_or_is_granted_anew_is_looked_at_again(place: Path, change: str) -> None:
    parse(place, ["out"])
    if change == "granted anew":
        parse(place, ["playbooks/shop/artifacts"])
        parse(place, [])
        (place / "out/site.yml").write_text(PLAY)
        parse(place, ["playbooks/shop/artifacts"])
    else:
        (place / "later").mkdir()
        (place / "later/site.yml").write_text(PLAY)
        shutil.move(place / "out", place / "gone")
        shutil.move(place / "later", place / "out")
    with pytest.raises(ConfigurationError, match="it holds .*/out/site.yml"):
        parse(place, ["out"])


def test_admin_has_no_such_key(place: Path) -> None:
    entries = [{"user": "admin", "password": "x", "writable": ["out"]}]
    with pytest.raises(ConfigurationError, match="admin has all rights"):
        rbac_users.parse(json.dumps({"rbac": entries}), place / "rbac.json")


Ask = Callable[[Asking], Any]
NO_CODE: dict[str, Ask] = {
    "a playbook": lambda ask: ask.playbook(playbook="shop/artifacts/site.yml", inventory="{root}/inv/dev"),
    "a folder of playbooks": lambda ask: ask.playbook(playbook_dir="shop/artifacts", inventory="{root}/inv/dev"),
    "a working directory": lambda ask: ask.adhoc(chdir="shop/artifacts", inventory="{root}/inv/dev"),
    "modules": lambda ask: ask.adhoc(module_path="{root}/playbooks/shop/artifacts", inventory="{root}/inv/dev"),
    "modules around it": lambda ask: ask.adhoc(module_path="{root}/playbooks/shop", inventory="{root}/inv/dev"),
    "a vault password": lambda ask: ask.adhoc(
        vault_password_file="{root}/playbooks/shop/artifacts/x", inventory="{root}/inv/dev"
    ),
    "a key": lambda ask: ask.adhoc(private_key_file="{root}/playbooks/shop/artifacts/x", inventory="{root}/inv/dev"),
    "a checkout": lambda ask: ask.git(playbook_dir="shop/artifacts"),
}
WRITTEN = "{root}/playbooks/shop/artifacts/x"
NO_CODE_OF_ADMIN: dict[str, Ask] = {
    "an inventory": lambda ask: ask.adhoc(inventory=WRITTEN),
    "one of two inventories": lambda ask: ask.adhoc(inventory=["web1,", "shop/artifacts"]),
    "an inventory around it": lambda ask: ask.adhoc(inventory="{root}/playbooks/shop"),
    "one of two folders of modules": lambda ask: ask.adhoc(module_path="/opt:{root}/playbooks/shop/artifacts"),
    "a variable in a path": lambda ask: ask.adhoc(inventory="{root}/playbooks/shop/$PLACE"),
    "a link to it": lambda ask: ask.playbook(playbook="link.yml"),
    "a link in it to another place": lambda ask: ask.playbook(playbook="shop/artifacts/up/site.yml"),
    "a vault id": lambda ask: ask.adhoc(vault_id=f"dev@{WRITTEN}"),
    "variables": lambda ask: ask.adhoc(extra_vars=f"@{WRITTEN}"),
    "a file with a password": lambda ask: ask.adhoc(connection_password_file=WRITTEN),
    "a file with another": lambda ask: ask.adhoc(become_password_file=WRITTEN),
}


@pytest.mark.parametrize(
    ("what", "who"),
    [*((what, who) for what in NO_CODE for who in ("dev", "ops", "admin")), *((w, "admin") for w in NO_CODE_OF_ADMIN)],
)
def test_what_lies_in_a_writable_folder_is_no_code_for_anyone(
    place: Path, what: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "artifacts")
    users = parse(place, ["playbooks/shop/artifacts"], inventories=["inv/dev"])
    settings: Settings = load(str(place / "config.ini"), {})
    (place / "playbooks/shop/artifacts/site.yml").write_text(PLAY)
    (place / "playbooks/link.yml").symlink_to("shop/artifacts/site.yml")
    (place / "playbooks/shop/artifacts/up").symlink_to("..")
    with pytest.raises(Forbidden, match="that users' runs can write"):
        {**NO_CODE, **NO_CODE_OF_ADMIN}[what](Asking(place, settings, users[who]))


def test_admin_may_use_what_lies_beside_a_writable_folder(place: Path) -> None:
    users = parse(place, ["playbooks/shop/artifacts"])
    admin = Asking(place, load(str(place / "config.ini"), {}), users["admin"])
    assert admin.playbook(playbook="site.yml", playbook_dir="shop", inventory=["web1,", "{root}/inv/dev"]).steps


def test_git_works_in_no_writable_folder_not_even_for_admin(place: Path) -> None:
    users = parse(place, ["playbooks/shop/artifacts"])
    asking = Asking(place, load(str(place / "config.ini"), {}), users["admin"])
    with pytest.raises(Forbidden, match="that users' runs can write"):
        asking.git(playbook_dir="shop/artifacts")
    assert asking.git(playbook_dir="shop")
