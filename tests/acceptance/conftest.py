"""A whole service for the acceptance tests: `flansible up` as a user starts it, on a free port, with real Ansible."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import servers
from tests.helpers.services import Service, lay_out, start_service, started
from tests.helpers.waiting import eventually

pytest.register_assert_rewrite("tests.helpers.comparing")


@pytest.fixture(scope="module")
def ssh() -> Iterator[servers.SshServer]:
    """A host that is reached by ssh alone."""
    directory = Path(tempfile.mkdtemp(prefix="fl-ssh-"))  # the users' homes: others must be able to enter it
    found = servers.sshd(directory)
    yield found
    found.server.stop()
    servers.remove_users(found.users)
    shutil.rmtree(directory)


@pytest.fixture(scope="package")
def shared_service() -> Iterator[Service]:
    """For the files that say SHARES_SERVICE: they leave its processes alone, and add users of their own at most."""
    with started("") as service:
        yield service


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of the team's own, with a short name: sockets lie in it."""
    if shares_service(request):
        service: Service = request.getfixturevalue("shared_service")
        yield service.root
        reset(service)
        return
    path = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, root: Path) -> Iterator[Service]:
    if shares_service(request):
        yield request.getfixturevalue("shared_service")
        return
    running = start_service(root)
    yield running
    assert running.stop() < 10


def shares_service(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request.module, "SHARES_SERVICE", False))


def reset(service: Service) -> None:
    """As it was before this file: no task goes on, and definitions, users and folders are those of the team."""
    delete_definitions(service)
    for state in ("running", "queued"):
        eventually(lambda state=state: not service.client().get(f"/api/ansibletasks?state={state}").json()["tasks"])
    for path in service.root.iterdir():
        if path.name not in (".flansible", "config.ini", "rbac.json", "up.log"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    lay_out(service.root)


def delete_definitions(service: Service) -> None:
    client = service.client()
    for kind in client.get("/api/definitions").json()["kinds"]:
        for item in client.get(f"/api/{kind['kind']}", params={"limit": 1000}).json()["items"]:
            assert client.delete(f"/api/{kind['kind']}/{item['name']}").status_code == 204
