"""A PostgreSQL server of the tests, on a port and with a password, which a test may stop and start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually, missing

PASSWORD = "pass-wörd/@:%"
_OPTIONS = {
    "fsync": "off",  # no machine loses power here
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "logging_collector": "off",
}
_numbers = count(1)


class PostgresqlServer:
    """A cluster in a folder of its own. PostgreSQL does not run as root: then it is started as Debian's `postgres`."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._programs = _programs()
        self.address = address
        self.folder = Path(tempfile.mkdtemp(prefix="fl-pg-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        secret = self.folder / "password"
        secret.write_text(f"{PASSWORD}\n")
        self._own(secret)
        command = [str(self._programs / "initdb"), "--pgdata", str(self.data), "--username", "flansible", "--no-sync"]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "scram-sha-256", "--pwfile", str(secret)]
        subprocess.run(self._as_account(command), check=True, capture_output=True, cwd="/")
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, **options: str) -> None:
        """options: further settings, this time."""
        own = {"listen_addresses": self.address, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        given = {**_OPTIONS, **own, **options}
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += [word for key, value in given.items() for word in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_account(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        eventually(self._answers)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends its sessions first; SIGQUIT is like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        """As DATABASE_URL has it."""
        return f"postgresql+psycopg://flansible:pass-w%C3%B6rd%2F%40%3A%25@{self.address}:{self.port}/{database}"

    def new_database(self, template: str = "template1") -> str:
        """Makes a database; returns its name."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, statement: str, database: str = "postgres") -> None:
        with self._connect(database) as connection:
            connection.execute(statement.encode())

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=self.address, port=self.port, user="flansible", password=PASSWORD, dbname=database, autocommit=True
        )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail((self.folder / "log").read_text(errors="replace")[-4000:])
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _as_account(self, command: list[str]) -> list[str]:
        if self._account is None:
            return command
        return [
            "setpriv",
            f"--reuid={self._account.pw_uid}",
            f"--regid={self._account.pw_gid}",
            "--clear-groups",
            *command,
        ]


def _programs() -> Path:
    """The folder of its programs, which Debian does not put on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        missing("postgresql")
    return found[-1].parent
