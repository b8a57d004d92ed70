"""Copies of a project's tree that runs may write, while another run of the same user works against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flansible.projects import order
from flansible.projects.private_copy import private_copy
from tests.helpers.waiting import eventually

# As a playbook of the user could do it, in what all sandboxes of that user can write.
RACE = """
import contextlib, os, sys
shown, outside = sys.argv[1:]
print("racing", flush=True)
while True:
    for name in os.listdir(shown):
        inner = os.path.join(shown, name, "inner")
        with contextlib.suppress(OSError):
            os.rename(inner, inner + "-away")
            os.symlink(outside, inner)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "inner").mkdir(parents=True)
    for number in range(2000):
        (made / "inner" / f"file-{number}").write_text("of the repository")
        (made / "inner" / f"file-{number}").chmod(0o444)
    (made / "site.yml").write_text("[]")
    (made / "inner").chmod(0o555)
    return made


@contextmanager
def racing(shown: Path, outside: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", RACE, str(shown), str(outside)], stdout=subprocess.PIPE) as race:
        try:
            assert race.stdout is not None
            assert race.stdout.readline() == b"racing\n"
            yield
        finally:
            race.kill()


def test_another_run_of_the_user_cannot_have_a_copy_written_or_removed_elsewhere(tree: Path, tmp_path: Path) -> None:
    project, outside = tmp_path / "shop", tmp_path / "home-of-the-service"
    outside.mkdir()
    (outside / "file-0").write_text("of the service")
    (outside / "file-0").chmod(0o400)
    shown = order.copies(project, "dev")
    shown.mkdir(parents=True)
    with racing(shown, outside), private_copy(tree, project, "dev") as copy:
        eventually((copy / "inner").is_symlink)
        assert (copy / "site.yml").exists()
    assert [path.name for path in outside.iterdir()] == ["file-0"]
    assert ((outside / "file-0").read_text(), (outside / "file-0").stat().st_mode & 0o777) == ("of the service", 0o400)
    assert not list(shown.iterdir())


def test_a_copy_can_be_written_and_is_gone_afterwards_with_what_a_killed_worker_left(
    tree: Path, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    left = order.copies(project, "dev") / ".run-abcdefgh" / "inner"
    left.mkdir(parents=True)
    with private_copy(tree, project, "dev") as copy:
        (copy / "inner" / "file-1").write_text("of the run")
        (copy / "inner" / "new").write_text("of the run")
        assert (tree / "inner" / "file-1").read_text() == "of the repository"
        assert list(left.parent.parent.iterdir()) == [copy]
    assert not [path for path in project.rglob("*") if path.is_file() or path.name.startswith(".run-")]


def test_a_link_that_the_run_leaves_in_place_of_its_copy_is_removed_and_not_followed(
    tree: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    with private_copy(tree, tmp_path / "shop", "dev") as copy:
        copy.rename(copy.with_name("away"))
        copy.symlink_to(outside)
    assert (outside / "kept").exists()
    assert not [path for path in (tmp_path / "shop").rglob(".run-*") if path.is_symlink()]
