"""Lists of a project's files, whose reading takes a worker's thread: they are bounded in time and size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flansible.errors import ProjectError
from flansible.playbooks import contents
from flansible.worker import project_files

PLAY = "- hosts: all\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "site.yml").write_text(PLAY + "- import_playbook: other.yml\n")
    (tmp_path / "other.yml").write_text(PLAY + "  vars: {a: 1}\n")
    (tmp_path / "hosts").write_text("localhost\n")
    return tmp_path


def listed(tree: Path, *words: str, seconds: float = 60.0) -> dict[str, Any]:
    return project_files.of_tree(tree, r"\.yml$", words, time.monotonic() + seconds)


def test_a_list_has_playbooks_and_inventories_and_of_one_playbook_the_variables(tree: Path) -> None:
    found = listed(tree)
    assert [one["playbook"] for one in found["playbooks"]] == ["other.yml", "site.yml"]
    assert found["inventories"] == ["hosts"]
    [one] = listed(tree, "site.yml")["playbooks"]
    assert [variable["name"] for variable in one["variables"]] == ["a"]
    assert listed(tree, "no.yml") == {"playbooks": [None]}


@pytest.mark.parametrize("words", ((), ("site.yml",)), ids=("all", "one playbook"))
def test_a_list_ends_with_its_time(tree: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(ProjectError, match="more than can be listed in the time"):
        listed(tree, *words, seconds=0)


def test_a_list_reads_a_bounded_number_of_bytes_also_for_one_playbook(tree: Path) -> None:
    large = "- #" + "x" * (contents.MAX_BYTES - 20) + "\n  hosts: all\n"
    for number in range(33):
        (tree / f"large-{number}.yml").write_text(large)
    (tree / "too-large-to-be-read.yml").write_text(large * 2)
    with pytest.raises(ProjectError, match="the files have over 32 MiB"):
        listed(tree)
    imports = "".join(f"- import_playbook: large-{number}.yml\n" for number in range(33))
    (tree / "site.yml").write_text(imports)
    with pytest.raises(ProjectError, match="the files have over 32 MiB"):
        listed(tree, "site.yml")
    (tree / "large-32.yml").unlink()
    (tree / "large-31.yml").unlink()
    assert len(listed(tree)["playbooks"]) == 33


def test_a_list_has_a_bounded_size_and_so_have_the_plays_of_a_playbook(tree: Path) -> None:
    (tree / "many.yml").write_text(PLAY * 300)
    [many] = [one for one in listed(tree)["playbooks"] if one["playbook"] == "many.yml"]
    assert len(many["plays"]) == 200
    for number in range(6):
        (tree / f"long-{number}.yml").write_text(f"- hosts: {'x' * 900_000}\n")
    with pytest.raises(ProjectError, match="the list has over 4 MiB"):
        listed(tree)
