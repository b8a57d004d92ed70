"""A whole service for the acceptance tests: `flansible up` as a user starts it, on a free port, with real Ansible."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import servers
from tests.helpers.services import Service, lay_out, start_service

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


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A folder of the team's own, with a short name: sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="flansible-test-"))
    lay_out(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    running = start_service(root)
    yield running
    assert running.stop() < 10
