"""Requirements of a project, installed by a real ansible-galaxy from a repository whose branches are not trusted."""

from __future__ import annotations

import shutil
import subprocess
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
from tests.helpers.repositories import Repository
from tests.helpers.services import write

# A cow can write beside what is installed.
COW = '#!/bin/sh\necho "from a cow" > "$ANSIBLE_ROLES_PATH/mark"\n'


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
    found = requirements.of(prepare.tree_of(order), "auto")
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
