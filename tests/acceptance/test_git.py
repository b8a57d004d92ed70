"""`POST /api/git` and `update_git_repo`, with real repositories."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.services import DEV, Service, write

SHARES_SERVICE = True
PLAY = "- hosts: localhost\n  gather_facts: no\n  tasks:\n    - debug: msg={}\n"


def git(cwd: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A clone under playbook_root whose origin is one commit ahead."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    write(origin / "play.yml", PLAY.format("old"))
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    clone = root / "playbooks" / f"clone-{tmp_path.name}"
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    write(origin / "play.yml", PLAY.format("new"))
    write(origin / "added.yml", PLAY.format("added"))
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "two")
    return clone


def test_git_brings_the_checkout_up_to_date_as_a_task(service: Service, checkout: Path) -> None:
    status, output = service.run("git", {"playbook_dir": str(checkout)}, DEV)
    assert (status["Status"], status["kind"], status["returncode"]) == ("SUCCESS", "git", 0)
    assert "Fast-forward" in output
    assert "new" in (checkout / "play.yml").read_text()


def test_local_changes_stop_an_update_and_reset_discards_them(service: Service, checkout: Path) -> None:
    write(checkout / "play.yml", "local edit")
    status, output = service.run("git", {"playbook_dir": str(checkout)})
    assert status["Status"] == "FLANSIBLE_TASK_FAILURE"
    assert "play.yml" in output
    status, _ = service.run("git", {"playbook_dir": str(checkout), "reset": True, "branch_name": "main"})
    assert status["Status"] == "SUCCESS"
    assert "new" in (checkout / "play.yml").read_text()


def test_update_git_repo_pulls_first_in_the_same_task(service: Service, checkout: Path) -> None:
    body = {"playbook_dir": str(checkout), "playbook": "added.yml", "update_git_repo": True}
    status, output = service.run("ansibleplaybook", body)
    assert status["Status"] == "SUCCESS", output
    assert output.index("Fast-forward") < output.index('"msg": "added"')


def test_a_failed_pull_ends_the_task_as_failed_with_gits_output(service: Service, checkout: Path) -> None:
    git(checkout, "remote", "set-url", "origin", "/no/such/repository")
    body = {"playbook_dir": str(checkout), "playbook": "play.yml", "update_git_repo": True}
    status, output = service.run("ansibleplaybook", body)
    assert (status["state"], status["kind"]) == ("failed", "playbook")
    assert status["returncode"] not in (0, None)
    assert "/no/such/repository" in output
    assert "PLAY [" not in output


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("remote_name", "--upload-pack=touch /tmp/x"),
        ("remote_name", "-v"),
        ("remote_name", "ext::sh -c id"),
        ("remote_name", "https://example.org/x"),
        ("remote_name", ""),
        ("branch_name", "--orphan"),
        ("branch_name", "main:refs/heads/other"),
        ("branch_name", "a..b"),
        ("branch_name", "ma in"),
        ("branch_name", "\n"),
    ],
)
def test_names_git_could_take_for_something_else_are_refused(
    service: Service, checkout: Path, field: str, value: str
) -> None:
    reply = service.client().post("/api/git", json={"playbook_dir": str(checkout), field: value})
    assert reply.status_code == 400
    assert [item["field"] for item in reply.json()["errors"]] == [field]


def test_a_directory_that_is_no_checkout_fails_with_gits_words(service: Service, root: Path) -> None:
    status, output = service.run("git", {"playbook_dir": str(root / "outside")})
    assert status["state"] == "failed"
    assert "not a git repository" in output


def test_git_of_a_restricted_user_does_not_reach_a_checkout_around_playbook_root(service: Service, root: Path) -> None:
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "rbac.json")
    git(root, "commit", "-qm", "all of it")
    git(root, "remote", "add", "origin", str(root))
    before = (root / "rbac.json").read_text()
    try:
        (root / "rbac.json").write_text(before + " ")
        status, output = service.run("git", {"playbook_dir": str(root / "playbooks"), "reset": True}, DEV)
        assert status["state"] == "failed"
        assert "not a git repository" in output
        assert (root / "rbac.json").read_text() == before + " "
    finally:
        (root / "rbac.json").write_text(before)
        shutil.rmtree(root / ".git")


def test_a_pulled_folder_that_looks_like_a_bare_repository_starts_no_program(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """Whoever may push playbooks could pull them too, and git runs outside the sandbox."""
    origin = tmp_path / "origin"
    git(origin, "init", "-q", "--bare", "evil")
    for empty in ("objects", "refs"):
        write(origin / "evil" / empty / "kept", "")
    git(origin / "evil", "config", "remote.origin.url", str(origin))
    git(origin / "evil", "config", "remote.origin.uploadpack", f"touch {tmp_path}/pwned; git-upload-pack")
    git(origin, "add", "-A", "--force")
    git(origin, "commit", "-qm", "three")
    assert service.run("git", {"playbook_dir": str(checkout)}, DEV)[0]["Status"] == "SUCCESS"
    pull = {"playbook": "x.yml", "inventory": str(service.root / "inventories/dev"), "update_git_repo": True}
    for kind, fields in (("git", {}), ("git", {"reset": True}), ("ansibleplaybook", pull)):
        status, output = service.run(kind, {"playbook_dir": str(checkout / "evil"), **fields}, DEV)
        assert status["state"] == "failed" and "bare repository" in output, output
    assert not (tmp_path / "pwned").exists()
