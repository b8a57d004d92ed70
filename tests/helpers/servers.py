"""Private servers for the tests: a Redis on TCP with a password, and a RabbitMQ node of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.ports import free_port
from tests.helpers.waiting import require_program

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
START_SECONDS = 60


class Server:
    """A process that listens on a port and can be stopped and started again with its data."""

    def __init__(
        self,
        command: list[str],
        port: int,
        directory: Path,
        environ: dict[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.address, self.port = address, port
        self._command = command
        self._directory = directory
        self.environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self._directory / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                ended = self._process.poll() is not None
                if ended or time.monotonic() > give_up_at:
                    pytest.fail((self._directory / "server.log").read_text(errors="replace")[-4000:])
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


def redis(directory: Path, password: str, address: str = "127.0.0.1") -> Server:
    port = free_port()
    config = directory / "redis.conf"  # the password must not be on the command line
    config.write_text(f"bind {address}\nport {port}\nrequirepass {password}\nappendonly yes\ndir {directory}\n")
    return Server([require_program("redis-server"), str(config)], port, directory, address=address)


def rabbitmq(directory: Path, address: str = "127.0.0.1") -> tuple[Server, Server]:
    """The node and the port mapper it needs, which would outlive it if it started one itself.

    Its user guest may log in from anywhere.
    """
    require_program(RABBITMQ)
    mapper_port, port = free_port(), free_port()
    environ = {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": f"flansible{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": address,
        # One scheduler: a start takes a fifth less of the processor.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit loopback_users [] +S 1:1 +SDcpu 1:1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }
    mapper = Server(
        [require_program("epmd"), "-port", str(mapper_port), "-address", "127.0.0.1"], mapper_port, directory
    )
    return Server([RABBITMQ], port, directory, environ, address), mapper


@dataclass(frozen=True)
class SshServer:
    """An sshd on loopback and two users of its own that it lets in by password, the first by key as well."""

    server: Server
    users: tuple[str, str]
    password: str
    private_key: str
    host_key: str


def sshd(directory: Path, address: str = "127.0.0.1") -> SshServer:
    """Needs root: to make users and to become them. The caller removes them with `remove_users`."""
    program = require_program("/usr/sbin/sshd")
    if os.geteuid() != 0:
        pytest.skip("an sshd with users of its own needs root")
    Path("/run/sshd").mkdir(exist_ok=True)
    users = (f"fl-a-{os.getpid()}", f"fl-b-{os.getpid()}")
    password = f"pass-{os.getpid()}-Wörd"
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True
    ).stdout.strip()
    for user in users:
        command = ["useradd", "--create-home", "--home-dir", str(directory / user), "--shell", "/bin/sh", user]
        subprocess.run(command, check=True)
        subprocess.run(["chpasswd", "-e"], input=f"{user}:{hashed}\n", text=True, check=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    authorized = directory / "authorized_keys"
    shutil.copy(directory / "user.pub", authorized)
    directory.chmod(0o755)
    authorized.chmod(0o644)
    port = free_port()
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {directory}/host\nAuthorizedKeysFile {authorized}\n"
        f"PidFile {directory}/pid\nPasswordAuthentication yes\nUsePAM no\nStrictModes no\n"
        f"AllowUsers {users[0]}\nMaxSessions 100\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    server = Server([program, "-D", "-e", "-f", str(config)], port, directory)
    server.start()
    host_key = (directory / "host.pub").read_text()
    return SshServer(server, users, password, (directory / "user").read_text(), host_key)


def remove_users(users: tuple[str, str]) -> None:
    for user in users:
        subprocess.run(["userdel", "--force", "--remove", user], check=False, capture_output=True)
