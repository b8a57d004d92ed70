"""What every test has: a real Redis, settings in a folder of its own, and leak detectors nobody has to ask for.

The test process is made a child subreaper: a process that outlives its parents becomes our child, and is seen.
HOME and TMPDIR are folders of this process of the test run, so that no user's ~/.ansible.cfg, ~/.gitconfig or
~/.ansible/tmp plays a part, and what is left in them was left by a test of this process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flansible.config import Settings
from tests.helpers.history import KINDS, Databases
from tests.helpers.leaks import fail_on_leaks
from tests.helpers.postgresql import PostgresqlServer
from tests.helpers.redis_server import RedisServer, redis_program

# Their HTTP clients belong to the module's service, and keep connections open from test to test.
KEEP_CONNECTIONS = (Path(__file__).parent / "acceptance", Path(__file__).parent / "console")
# Variables of this user's, and of a container's: without compiled modules `flansible up` computes a tenth longer.
_USERS_OWN = ("ANSIBLE_", "FLANSIBLE_", "GIT_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _home() -> Iterator[Path]:
    """A home directory and an environment without this user's settings, for the whole test run."""
    home = Path(tempfile.mkdtemp(prefix="fl-home-"))
    temp = Path(tempfile.mkdtemp(prefix="fl"))  # short: sockets lie below it, whose paths are limited to 108 bytes
    temp.chmod(0o1777)
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(_USERS_OWN):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(temp))
        patch.setattr(tempfile, "tempdir", str(temp))
        yield home
    shutil.rmtree(home)
    shutil.rmtree(temp)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and every process below inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session", autouse=True)
def _one_tls_context() -> Iterator[None]:
    """Each HTTP client would read the certificates of all authorities, which takes longer than its requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    server = RedisServer(redis_program(), persistent=False)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """The URL of a real, empty Redis."""
    client = shared_redis.client()
    client.flushall()
    client.close()
    return shared_redis.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that keeps what it is told, and that the test may kill, freeze and start again."""
    server = RedisServer(redis_program(), persistent=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """History databases, of SQLite and of a PostgreSQL server of this process of the test run."""
    server = PostgresqlServer()
    server.start()
    yield Databases(server)
    server.remove()


@pytest.fixture(params=KINDS)
def history_url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> str:
    """The URL of a history database of either kind, with its tables and nothing in them."""
    return databases.migrated(request.param, tmp_path)


@pytest.fixture
def settings_folder(tmp_path: Path) -> Path:
    """The folder that `settings` are for; a file whose tests share a tree gives another."""
    return tmp_path


@pytest.fixture
def make_settings(settings_folder: Path) -> Callable[..., Settings]:
    """Settings for one folder; anything can be set otherwise. Nothing answers at its store's URL."""

    def make(**changes: Any) -> Settings:
        nowhere = f"redis+socket://{settings_folder}/nobody-listens"
        values: dict[str, Any] = {
            "CELERY_BROKER_URL": nowhere,
            "CELERY_RESULT_BACKEND": nowhere,
            "playbook_root": settings_folder / "playbooks",
            "rbac_file": settings_folder / "rbac.json",
            "data_dir": settings_folder / "data",
            "secret_key_file": settings_folder / "data/secret.key",
            "token_file": settings_folder / "data/tokens.json",
            "audit_file": settings_folder / "data/audit.log",
            "base_dir": settings_folder,
            **changes,
        }
        return Settings(**values)

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody on this machine may enter, as none below tmp_path is."""
    path = Path(tempfile.mkdtemp(prefix="fl-open-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest, _home: Path, _subreaper: None) -> Iterator[None]:
    """Fails a test after which there is a child process, a descriptor or an Ansible temp directory more than before.

    One tolerance: connections of tests whose HTTP clients belong to their module's service.
    """
    keeps_connections = any(request.node.path.is_relative_to(folder) for folder in KEEP_CONNECTIONS)
    yield from fail_on_leaks(_home, keeps_connections, "test")
