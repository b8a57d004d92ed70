"""`GET /api/listplaybooks`: which files are playbooks to it, and by which names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

PLAY = b"# Shows it.\n- hosts: all\n"


@pytest.fixture
def playbooks(root: Path) -> Iterator[Path]:
    """An empty playbook_root; that of the app, which other tests share, is back afterwards."""
    folder = root / "playbooks"
    aside = folder.rename(root / "aside")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
    aside.rename(folder)


def written(path: Path, content: bytes = PLAY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(client: FlaskClient, **query: str) -> list[dict[str, Any]]:
    reply = client.get("/api/listplaybooks", query_string=query)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.get_json()["playbooks"]
    return found


def names(client: FlaskClient, playbooks: Path, **query: str) -> list[str]:
    return [str(Path(one["playbook_dir"], one["playbook"]).relative_to(playbooks)) for one in listed(client, **query)]


def test_plays_and_imports_are_listed_and_scenarios_of_molecule_are_not(client: FlaskClient, playbooks: Path) -> None:
    written(playbooks / "project/scripts/play.yml")
    written(playbooks / "project/scripts/upgrade/import.yml", b"- import_playbook: ../play.yml\n")
    written(playbooks / "project/molecule/default/converge.yml")
    assert names(client, playbooks) == ["project/scripts/play.yml", "project/scripts/upgrade/import.yml"]


def test_a_folder_with_two_names_is_listed_by_its_own(client: FlaskClient, playbooks: Path) -> None:
    """As in openstack-ansible, where tools is a link to scripts."""
    written(playbooks / "project/scripts/play.yml")
    (playbooks / "project/a").symlink_to("scripts")
    (playbooks / "project/tools").symlink_to("scripts")
    (playbooks / "project/scripts/round").symlink_to("..")
    assert names(client, playbooks) == ["project/scripts/play.yml"]
    assert names(client, playbooks, playbook_dir="project/tools") == ["project/scripts/play.yml"]


def test_a_folder_that_has_only_a_link_as_its_name_is_listed_by_that(client: FlaskClient, playbooks: Path) -> None:
    written(playbooks / ".releases/5/site.yml")
    (playbooks / "current").symlink_to(".releases/5")
    assert names(client, playbooks) == ["current/site.yml"]


def test_a_link_out_of_the_root_is_not_followed(client: FlaskClient, playbooks: Path, root: Path) -> None:
    written(root / "elsewhere/site.yml")
    (playbooks / "out").symlink_to("../elsewhere")
    (playbooks / "everything").symlink_to("/")
    assert listed(client) == []


def test_a_byte_order_mark_is_no_part_of_the_description(client: FlaskClient, playbooks: Path) -> None:
    written(playbooks / "site.yml", b"\xef\xbb\xbf" + PLAY)
    [found] = listed(client)
    assert (found["description"], found["plays"]) == ("Shows it.", [{"play": "all", "hosts": "all"}])


def test_a_file_that_is_encrypted_as_a_whole_is_listed_as_such(client: FlaskClient, playbooks: Path) -> None:
    written(playbooks / "site.yml", b"$ANSIBLE_VAULT;1.1;AES256\n3364\n")
    written(playbooks / "plain.yml")
    plain, secret = listed(client)
    assert (secret["playbook"], secret["encrypted"], secret["plays"]) == ("site.yml", True, [])
    assert "encrypted" not in plain
    [alone] = listed(client, playbook_dir=".", playbook="site.yml")
    assert (alone["encrypted"], alone["variables"]) == (True, [])


def test_a_name_that_is_no_utf_8_can_be_sent_back(client: FlaskClient, playbooks: Path) -> None:
    folder = playbooks / os.fsdecode(b"caf\xe9")
    written(folder / os.fsdecode(b"\xfc \xc3\xbc.yml"))
    written(folder / r"back\xE9.yml", PLAY + b"  vars_prompt: [{name: who}]\n")
    back, umlauts = listed(client)
    assert (back["playbook"], umlauts["playbook"]) == (r"back\x5CxE9.yml", r"\xFC ü.yml")
    assert umlauts["playbook_dir"] == str(playbooks / r"caf\xE9")
    for one in (umlauts, back):
        name = {"playbook": one["playbook"]}
        for query in (name, {**name, "playbook_dir": one["playbook_dir"]}, {**name, "playbook_dir": r"caf\xe9"}):
            [again] = listed(client, **query)
            assert {**again, "variables": None} == {**one, "variables": None}
    assert len(listed(client, playbook_dir=r"caf\xE9")) == 2
    [alone] = listed(client, playbook_dir=r"caf\xE9", playbook=r"back\x5CxE9.yml")
    assert [variable["name"] for variable in alone["variables"]] == ["who"]


def test_a_name_that_is_no_utf_8_and_no_playbook_is_refused_as_text(client: FlaskClient, playbooks: Path) -> None:
    reply = client.get("/api/listplaybooks", query_string={"playbook_dir": ".", "playbook": r"caf\xE9.yml"})
    assert reply.status_code == 404
    assert reply.get_json()["message"] == rf"playbook: {playbooks}/caf\xE9.yml is not a playbook"
