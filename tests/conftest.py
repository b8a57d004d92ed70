"""What every test has: a real Redis, settings in a folder of its own, and leak detectors nobody has to ask for.

The test process is made a child subreaper: a process that outlives its parents becomes our child, and is seen.
HOME is a folder of the test run, so that no user's ~/.ansible.cfg, ~/.gitconfig or ~/.ansible/tmp plays a part.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from flansible.config import Settings
from flansible.launcher import embedded_redis

# Their HTTP clients belong to the module's service, and keep connections open from test to test.
KEEP_CONNECTIONS = (Path(__file__).parent / "acceptance", Path(__file__).parent / "console")
LEAK_PATIENCE_SECONDS = 15.0  # a module may still be being packed, on a machine that has other things to do
_PR_SET_CHILD_SUBREAPER = 36


def eventually(probe: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `probe` gives once it gives something; fails when it does not in time."""
    give_up_at = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < give_up_at, f"not within {seconds:g} s"
        time.sleep(0.01)
    return found


def missing(what: str) -> None:
    """A service that is not here: a skip that says so on a laptop, a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set: install it", pytrace=False)
    pytest.skip(f"{what} is missing on this machine")


def require_program(name: str) -> str:
    """The path of a program; where it is missing, the test is skipped on a laptop and fails in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        missing(name)
    assert found is not None
    return found


@pytest.fixture(scope="session", autouse=True)
def _home() -> Iterator[Path]:
    """A home directory and an environment without this user's settings, for the whole test run."""
    home = Path(tempfile.mkdtemp(prefix="fl-home-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("ANSIBLE_", "FLANSIBLE_", "GIT_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and every process below inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class RedisServer:
    """A redis-server on a Unix socket in a folder of its own, which a test may stop, freeze and start again."""

    def __init__(self, program: str, persistent: bool) -> None:
        # Not tmp_path: a socket's path is limited to 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="fl-redis-"))
        self.socket = self.folder / "s"
        self.url = f"redis+socket://{self.socket}"
        self._options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes" if persistent else "no",
            "appendfsync": "always",
            "loglevel": "warning",
        }
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._program, *(word for key, value in self._options.items() for word in (f"--{key}", value))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers)

    def kill(self) -> None:
        """As a machine that loses power."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """For looking at what is stored; the caller closes it."""
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=10)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "redis-server ended while starting"
        client = self.client()
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _redis_program() -> str:
    program = embedded_redis.find_program()
    if program is None:
        missing("redis-server")
    assert program is not None
    return program


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    server = RedisServer(_redis_program(), persistent=False)
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
    server = RedisServer(_redis_program(), persistent=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings for a folder of the test's own; anything can be set otherwise. Nothing answers at its store's URL."""

    def make(**changes: Any) -> Settings:
        nowhere = f"redis+socket://{tmp_path}/nobody-listens"
        values: dict[str, Any] = {
            "CELERY_BROKER_URL": nowhere,
            "CELERY_RESULT_BACKEND": nowhere,
            "playbook_root": tmp_path / "playbooks",
            "rbac_file": tmp_path / "rbac.json",
            "data_dir": tmp_path / "data",
            "secret_key_file": tmp_path / "data/secret.key",
            "token_file": tmp_path / "data/tokens.json",
            "audit_file": tmp_path / "data/audit.log",
            "base_dir": tmp_path,
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


@dataclass(frozen=True)
class _Belongings:
    """What this process has at one moment."""

    children: dict[int, str]
    descriptors: dict[int, str]
    temp_dirs: frozenset[Path]

    def left_behind(self, before: _Belongings) -> list[str]:
        found = [f"process {pid}: {line}" for pid, line in self.children.items() if pid not in before.children]
        if len(self.descriptors) > len(before.descriptors):
            new = self.descriptors.items() - before.descriptors.items()
            found += [f"descriptor {number}: {target}" for number, target in sorted(new)]
        return found + [f"directory {path}" for path in sorted(self.temp_dirs - before.temp_dirs)]


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest, _home: Path, _subreaper: None) -> Iterator[None]:
    """Fails a test after which there is a child process, a descriptor or an Ansible temp directory more than before.

    One tolerance: connections of tests whose HTTP clients belong to their module's service.
    """
    keeps_connections = any(request.node.path.is_relative_to(folder) for folder in KEEP_CONNECTIONS)
    before = _belongings(_home, keeps_connections)
    yield
    give_up_at = time.monotonic() + LEAK_PATIENCE_SECONDS
    while left := _belongings(_home, keeps_connections).left_behind(before):
        _reap_orphans(before)
        if time.monotonic() > give_up_at:
            pytest.fail("left behind by this test:\n" + "\n".join(left), pytrace=False)
        gc.collect()
        time.sleep(0.02)


def _belongings(home: Path, keeps_connections: bool) -> _Belongings:
    children = {pid: _line(pid) for pid in _children()}
    descriptors = _descriptors()
    if keeps_connections:
        for connection in psutil.Process().net_connections("tcp"):
            descriptors.pop(connection.fd, None)
    places = (home / ".ansible" / "tmp", Path(tempfile.gettempdir()))
    temp_dirs = frozenset(path for place in places for path in place.glob("ansible-local-*"))
    return _Belongings(children, descriptors, temp_dirs)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def _children() -> list[int]:
    """Our child processes, whichever thread started them. (Asking psutil would read every process of the machine.)"""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            found += Path(f"/proc/self/task/{thread}/children").read_text().split()
        except OSError:
            continue  # this thread has just ended
    return [int(word) for word in found]


def _reap_orphans(before: _Belongings) -> None:
    """What is over and came to us, the subreaper. (A Popen nobody waited for warns by itself, and that is an error.)"""
    for pid in _children():
        if pid not in before.children:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"
