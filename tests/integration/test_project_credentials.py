"""A project's credential: it fetches, from its own host alone, and nothing else of the worker ever holds it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flansible.config import Settings
from flansible.errors import ProjectError
from flansible.models import ProjectRun
from flansible.projects import prepare
from flansible.projects.git_command import prepared
from flansible.projects.order import Order
from flansible.worker import project_tasks
from tests.helpers import repositories, servers
from tests.helpers.repositories import Repository, git_http

PASSWORD = "correct horse battery staple"
HTTP = {"user": "deploy", "password": PASSWORD}


@pytest.fixture
def repository(open_folder: Path) -> Repository:
    return Repository.make(open_folder / "shop")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def order_of(what: Any, url: str, settings: Settings, **changes: Any) -> dict[str, Any]:
    project = ProjectRun.model_validate({"name": "shop", "url": url, "ref": "main", **changes})
    return project_tasks.order_of(what, project, settings, 20)


def test_a_password_fetches_over_http(repository: Repository, settings: Settings) -> None:
    with git_http(repository.folder.parent, "deploy", PASSWORD) as url:
        answer = prepare.answer(order_of("resolve", f"{url}/shop/.git", settings), dict(HTTP))
        commit = repository.git("rev-parse", "HEAD")
        assert answer["commit"] == commit, answer
        wanted = order_of("prepare", f"{url}/shop/.git", settings, commit=commit)
        prepare.make_ready(wanted, dict(HTTP), lambda _line: None)
        assert (prepare.tree_of(wanted) / "site.yml").exists()
        for wrong in ({}, {**HTTP, "password": "wrong"}):
            refused = prepare.answer(order_of("resolve", f"{url}/shop/.git", settings), wrong)
            assert refused["error"] == "unreachable"
            assert "wrong" not in refused["message"]


def test_a_password_fetches_files_of_git_lfs(repository: Repository, settings: Settings) -> None:
    commit = repository.commit_lfs({"large.bin": "large" * 1000})
    with git_http(repository.folder.parent, "deploy", PASSWORD) as url:
        wanted = order_of("prepare", f"{url}/shop/.git", settings, commit=commit)
        prepare.make_ready(wanted, dict(HTTP), lambda _line: None)
    assert (prepare.tree_of(wanted) / "large.bin").read_text() == "large" * 1000
    kept = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in kept if PASSWORD.encode() in path.read_bytes()]


def test_a_password_goes_to_the_host_of_the_url_alone(repository: Repository, settings: Settings) -> None:
    with git_http(repository.folder.parent, "deploy", PASSWORD) as url:
        answer = prepare.answer(order_of("resolve", f"{url}/elsewhere/shop/.git", settings), dict(HTTP))
        assert answer["error"] == "unreachable"
        assert [given for host, given in repositories.seen if host.startswith("localhost")] == [None]


def test_no_command_line_and_no_environment_has_the_password(repository: Repository, settings: Settings) -> None:
    order = Order.of(order_of("resolve", "https://h/shop", settings))
    order.own_folder.mkdir(parents=True)
    with prepared(order, dict(HTTP)) as git:
        said = git.execute(["sh", "-c", "cat /proc/*/environ /proc/*/cmdline; find / -xdev -name '*.ssh*'"]).stdout
        assert PASSWORD.encode() not in said
        assert all(PASSWORD not in path.read_text() for path in git.private.rglob("*") if path.is_file())
        filled = git.execute(["sh", "-c", "printf 'protocol=https\\nhost=h\\n\\n' | git credential fill"])
        assert f"password={PASSWORD}" in filled.stdout.decode()
        other = git.execute(["sh", "-c", "printf 'protocol=https\\nhost=other\\n\\n' | git credential fill"])
        assert PASSWORD not in other.stdout.decode()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[servers.SshServer]:
    folder = Path(tempfile.mkdtemp(prefix="fl-ssh-"))
    found = servers.sshd(folder)
    yield found
    found.server.stop()
    servers.remove_users(found.users)
    shutil.rmtree(folder)


def test_a_key_fetches_over_ssh_through_an_agent_that_ends_with_it(
    ssh: servers.SshServer, repository: Repository, settings: Settings
) -> None:
    user, key = ssh.users[0], ssh.private_key
    subprocess.run(["chown", "-R", user, str(repository.folder)], check=True)
    url = f"ssh://{user}@127.0.0.1:{ssh.server.port}{repository.folder}"
    known = f"[127.0.0.1]:{ssh.server.port} {' '.join(ssh.host_key.split()[:2])}\n"
    commit = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(repository.folder), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    answer = prepare.answer(order_of("resolve", url, settings, known_hosts=known), {"private_key": key})
    assert answer.get("commit") == commit, answer
    wanted = order_of("prepare", url, settings, commit=commit, known_hosts=known)
    prepare.make_ready(wanted, {"private_key": key}, lambda _line: None)
    assert (prepare.tree_of(wanted) / "site.yml").exists()
    assert not [one for one in psutil.Process().children(recursive=True) if one.name() == "ssh-agent"]
    for hosts, credential in ((known, {}), ("", {"private_key": key})):
        refused = prepare.answer(order_of("resolve", url, settings, known_hosts=hosts or " "), credential)
        assert refused["error"] == "unreachable"
        assert "Permission denied" in refused["message"] or "Host key verification failed" in refused["message"]


def test_the_key_itself_is_not_within_reach_of_git(tmp_path: Path, settings: Settings, ssh: servers.SshServer) -> None:
    order = Order.of(order_of("resolve", "ssh://git@127.0.0.1/shop", settings))
    order.own_folder.mkdir(parents=True)
    key = ssh.private_key
    with prepared(order, {"private_key": key}) as git:
        assert git.execute(["sh", "-c", f"SSH_AUTH_SOCK={git.private}/agent ssh-add -l"]).returncode == 0
        line = key.splitlines()[1]
        found = git.execute(["sh", "-c", f"grep -r -l '{line}' {git.private} /proc/*/environ /proc/*/cmdline"])
        # The words of grep itself have it.
        assert {path for path in found.stdout.decode().split() if "cmdline" not in path} == set()
        if order.sandbox:
            assert git.execute(["sh", "-c", "ls /proc | grep -c '^[0-9]'"]).stdout.decode().strip() in ("3", "4", "5")


def test_a_key_that_cannot_be_used_is_said(settings: Settings) -> None:
    order = Order.of(order_of("resolve", "ssh://git@127.0.0.1/shop", settings))
    order.own_folder.mkdir(parents=True)
    with pytest.raises(ProjectError, match="cannot be used"), prepared(order, {"private_key": "no key"}):
        pass
