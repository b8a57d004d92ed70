"""A redis-server of the tests, which a test may stop, freeze and start again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flansible.launcher import embedded_redis
from tests.helpers.waiting import eventually, missing


class RedisServer:
    """A redis-server on a Unix socket in a folder of its own, which a test may stop, freeze and start again."""

    def __init__(self, program: str, persistent: bool, **options: str) -> None:
        """options: further settings of Redis."""
        # Not tmp_path: a socket's path is limited to 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="fl-redis-"))
        self.socket = self.folder / "s"
        self.data = self.folder / "data"
        self.data.mkdir()
        self.url = f"redis+socket://{self.socket}"
        self._options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes" if persistent else "no",
            "appendfsync": "always",
            "loglevel": "warning",
            **options,
        }
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True, **options: str) -> None:
        """wait: until it answers; options: further settings, this time."""
        given = {**self._options, **options}
        command = [self._program, *(word for key, value in given.items() for word in (f"--{key}", value))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if wait:
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
        return client_of(self.socket)

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


def client_of(socket: Path) -> redis.Redis:
    """A client that does not try again: while a server starts, its pauses would be most of a test's time."""
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=10, retry=Retry(NoBackoff(), 0))


def redis_program() -> str:
    program = embedded_redis.find_program()
    if program is None:
        missing("redis-server")
    assert program is not None
    return program
