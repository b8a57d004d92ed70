"""Requirements of a project, installed by a real ansible-galaxy from a repository whose branches are not trusted."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flansible.config import Settings
from flansible.errors import ProjectError
from flansible.models import ProjectRun
from flansible.projects import prepare, requirements
from flansible.worker import project_tasks
from tests.helpers import servers
from tests.helpers.receivers import Receiver
from tests.helpers.repositories import REQUIRES_TOOLS, Repository, collection, git_daemon
from tests.helpers.services import write

# A cow can write beside what is installed.
COW = '#!/bin/sh\necho "from a cow" > "$ANSIBLE_ROLES_PATH/mark"\n'
NOWHERE = "[galaxy]\nserver = http://127.0.0.1:1\n"


@pytest.fixture
def repository(open_folder: Path) -> Repository:
    return Repository.make(open_folder / "shop")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def ssh() -> Iterator[servers.SshServer]:
    folder = Path(tempfile.mkdtemp(prefix="fl-ssh-"))
    found = servers.sshd(folder)
    yield found
    found.server.stop()
    servers.remove_users(found.users)
    shutil.rmtree(folder)


def installed(
    settings: Settings, repository: Repository, credential: dict[str, str] | None = None, **changes: Any
) -> Path:
    """Makes the repository's commit ready; the folder of what it requires."""
    fields = {"name": "shop", "url": str(repository.folder), "ref": "main", **changes}
    if "commit" not in fields:
        fields["commit"] = repository.git("rev-parse", "HEAD")
    project = ProjectRun.model_validate(fields)
    order = project_tasks.order_of("prepare", project, settings, 60)
    prepare.make_ready(order, credential or {}, lambda _line: None)
    found = requirements.of(prepare.tree_of(order), "auto", project.is_admins)
    assert found is not None
    return settings.data_dir / "projects/shop/shown/requirements" / found.key


def test_a_program_that_ansible_cfg_names_does_not_run(repository: Repository, settings: Settings) -> None:
    write(repository.folder / "cow.sh", COW)
    (repository.folder / "cow.sh").chmod(0o755)
    repository.commit({"requirements.yml": "[]", "ansible.cfg": "[defaults]\ncowpath = ./cow.sh\n"})
    assert list((installed(settings, repository) / "roles").iterdir()) == []


def test_galaxy_cannot_sign_with_the_projects_key(
    repository: Repository, settings: Settings, ssh: servers.SshServer
) -> None:
    user = ssh.users[0]
    known = f"[127.0.0.1]:{ssh.server.port} {' '.join(ssh.host_key.split()[:2])}\n"
    url = f"ssh://{user}@127.0.0.1:{ssh.server.port}{repository.folder}"
    commit = repository.commit({"requirements.yml": f"- src: git+{url}\n  name: other\n"})
    subprocess.run(["chown", "-R", user, str(repository.folder)], check=True)
    with pytest.raises(ProjectError, match="Permission denied"):
        installed(settings, repository, {"private_key": ssh.private_key}, url=url, known_hosts=known, commit=commit)


@pytest.fixture
def hub() -> Iterator[Receiver]:
    """Stands in for a server of Galaxy, which has nothing."""
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture
def elsewhere() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def archive(path: Path, text: str) -> None:
    """Writes a role's tarball, with this text in its tasks."""
    with tarfile.open(path, "w:gz") as file:
        for name, data in (("role/meta/main.yml", b"galaxy_info: {}\n"), ("role/tasks/main.yml", text.encode())):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            file.addfile(about, io.BytesIO(data))


def test_what_the_tree_itself_has_is_installed_for_its_commit_alone(repository: Repository, settings: Settings) -> None:
    roles = "- include: other.yml\n- src: team.role\n  name: plain\n"
    repository.commit(
        {
            "requirements.yml": roles,
            "other.yml": "- src: ./team.role\n  name: included\n",
            "collections/requirements.yml": "collections:\n- source: ./tools\n  type: dir\n",
            **{f"tools/{name}": text for name, text in collection().items()},
        }
    )
    for text in ("one", "two"):
        archive(repository.folder / "team.role", text)
        repository.commit({"tools/meta/text": text})
        folder = installed(settings, repository)
        found = [folder / f"roles/{name}/tasks/main.yml" for name in ("plain", "included")]
        found.append(folder / "collections/ansible_collections/team/tools/meta/text")
        assert [path.read_text() for path in found] == [text] * 3


def test_what_a_role_depends_on_is_not_looked_for_in_the_tree(repository: Repository, settings: Settings) -> None:
    """A branch could put there what the commits of all others then get."""
    role = Repository.make(repository.folder.parent / "role")
    role.commit({"meta/main.yml": "galaxy_info: {}\ndependencies:\n- src: ./evil.tar.gz\n  name: evil\n"})
    archive(repository.folder / "evil.tar.gz", "evil")
    with git_daemon(repository.folder.parent) as url:
        repository.commit({"requirements.yml": f"- src: git+{url}/role\n  name: role\n", "ansible.cfg": NOWHERE})
        with pytest.raises(ProjectError, match="evil"):
            installed(settings, repository)


@pytest.mark.parametrize(
    ("text", "is_shared"),
    (
        ("- geerlingguy.docker", True),
        ("collections:\n- name: team.tools\n  source: hub # not site.yml\n", True),
        ("- src: git+https://example.org/role\n  name: inner", True),
        ("- src: 'a role.tar.gz'", False),
        ("- ./role.tar.gz,v1,role", False),
        ("- {src: hg+role, name: role}", False),
        ("roles:\n- include: other.yml", False),
        ("collections:\n- other.yml", False),
        (f"- geerlingguy.docker #{' ' * 70_000}", False),
    ),
)
def test_commits_share_requirements_that_name_nothing_of_the_tree(text: str, is_shared: bool, tmp_path: Path) -> None:
    keys = set()
    for commit in ("a" * 40, "b" * 40):
        for name in ("site.yml", "other.yml", "role.tar.gz", "a role.tar.gz", "role/.hg/hgrc"):
            write(tmp_path / commit / name, commit)
        write(tmp_path / commit / "requirements.yml", text)
        found = requirements.of(tmp_path / commit, "auto", True)
        assert found is not None
        keys.add(found.key)
    assert (len(keys) == 1) is is_shared


@pytest.mark.parametrize("text", ("#" * 1024 * 1024 + "\n", "[galaxy\n", "\udcff"))
def test_an_ansible_cfg_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path / "requirements.yml", "- geerlingguy.docker")
    (tmp_path / "ansible.cfg").write_text(text, errors="surrogateescape")
    with pytest.raises(ProjectError, match="ansible.cfg"):
        requirements.of(tmp_path, "auto", True)


def asked_with(hub: Receiver) -> set[str | None]:
    return {one.headers.get("authorization") for one in hub.received}


@pytest.mark.parametrize("is_admins", (True, False))
def test_the_operators_token_goes_to_the_operators_server_alone_and_for_projects_of_admin_alone(
    is_admins: bool,
    repository: Repository,
    settings: Settings,
    hub: Receiver,
    elsewhere: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANSIBLE_GALAXY_SERVER_LIST", "hub")
    monkeypatch.setenv("ANSIBLE_GALAXY_SERVER_HUB_URL", hub.url)
    monkeypatch.setenv("ANSIBLE_GALAXY_SERVER_HUB_TOKEN", "operators")
    repository.commit({**REQUIRES_TOOLS, "ansible.cfg": f"[galaxy_server.hub]\nauth_url = {elsewhere.url}\n"})
    with pytest.raises(ProjectError, match="ansible-galaxy collection install"):
        installed(settings, repository, is_admins=is_admins)
    assert elsewhere.received == []
    assert asked_with(hub) == {"Token operators" if is_admins else None}


def test_a_repository_names_its_own_server_of_galaxy_where_the_operator_names_none(
    repository: Repository, settings: Settings, hub: Receiver
) -> None:
    servers = f"[galaxy]\nserver_list = own\n[galaxy_server.own]\nurl = {hub.url}\ntoken = own\n"
    repository.commit({**REQUIRES_TOOLS, "ansible.cfg": servers})
    with pytest.raises(ProjectError, match="ansible-galaxy collection install"):
        installed(settings, repository)
    assert asked_with(hub) == {"Token own"}
