"""A web server as `flansible web` runs it, over a real Redis, and runs that a test records itself, event by event."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import psutil

from flansible.models import AuthorizedRun, State, Step
from flansible.store import Batch, Claim, Progress, Store, StoredEvent
from tests.helpers import certificates
from tests.helpers.certificates import Pair
from tests.helpers.passwords import CHEAP_HASHES
from tests.helpers.waiting import eventually

ADMIN, DEV = ("admin", "admin secret"), ("dev", "dev secret")

_SERVE = """
import json, sys
from pathlib import Path
from flansible.config import Settings
from flansible.identity import users
from flansible.web import gunicorn_server as server
from flansible.web.streaming import feeds, stream_loop
folder, redis_url, broker_url, port, keep_alive_seconds, most, given, users._OUR_METHOD = json.loads(sys.argv[1])
feeds.Feed.keep_alive_seconds = keep_alive_seconds
stream_loop.MAX_FOLLOWERS = most
server.Recovery.start = lambda recovery: None  # no worker renews leases of the runs that a test records
base = Path(folder)
server.serve(Settings(**{
    "CELERY_BROKER_URL": broker_url, "CELERY_RESULT_BACKEND": redis_url, "Flask_tcp_port": port, "web_workers": 1,
    "web_threads": 4, "playbook_root": base, "rbac_file": base / "rbac.json", "data_dir": base / "data",
    "base_dir": base, "secret_key_file": base / "data/secret.key", "token_file": base / "data/tokens.json",
    "audit_file": base / "data/audit.log", "max_connections_per_address": 0, "max_followers_per_user": 0,
    "max_followers_per_address": 0, **given,
}))
"""
_START_SECONDS = 90.0  # 30 were not enough on a machine with a load of 17


class WebServer:
    """One web process of four threads; its stderr is in `log`."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        keep_alive_seconds: float = 0.2,
        most_followers: int = 300,
        inventories: tuple[str, ...] = (),
        before: str = "",
        broker_url: str = "",
        trusted: Pair | None = None,
        **settings: Any,
    ) -> None:
        """inventories: those of the user dev; before: Python to be run in the process before it serves; broker_url:
        where it is not the same Redis; trusted: the authority of its certificate, where it speaks TLS."""
        users = [
            {"user": name, "password": password, "inventories": [] if name == "admin" else list(inventories)}
            for name, password in (ADMIN, DEV)
        ]
        (folder / "rbac.json").write_text(json.dumps({"rbac": users}))
        (folder / "rbac.json").chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"{'https' if trusted else 'http'}://127.0.0.1:{self.port}"
        self.context = ssl.create_default_context(cafile=str(trusted.certificate)) if trusted else None
        if trusted:
            pair = certificates.signed(folder, trusted)
            settings |= {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key)}
        self.log = folder / "web.log"
        places = str(folder), redis_url, broker_url or redis_url, self.port
        given = json.dumps([*places, keep_alive_seconds, most_followers, settings, CHEAP_HASHES])
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", before + _SERVE, given], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            eventually(self._answers, _START_SECONDS)
        except BaseException:
            self._process.kill()  # nobody else would: there is no object to stop
            self._process.wait()
            raise

    def client(self, auth: tuple[str, str] = ADMIN) -> httpx.Client:
        """Returns a client; the caller closes it."""
        return httpx.Client(base_url=self.url, auth=auth, timeout=20, verify=self.context or True)

    def connect(self, path: str, *headers: str, version: str = "HTTP/1.1", method: str = "GET") -> socket.socket:
        """Sends a request on a new connection and reads nothing; the caller closes it."""
        connection = socket.create_connection(("127.0.0.1", self.port), 20)
        if self.context:
            connection = self.context.wrap_socket(connection, server_hostname="127.0.0.1")
        login = base64.b64encode(":".join(ADMIN).encode()).decode()
        lines = [f"{method} {path} {version}", "Host: x", f"Authorization: Basic {login}", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return connection

    def process(self) -> psutil.Process:
        """Returns the web process that serves requests."""
        [worker] = psutil.Process(self._process.pid).children()
        return worker

    def clients(self) -> int:
        """Counts connections."""
        return sum(self.clients_by_process())

    def clients_by_process(self) -> list[int]:
        """Counts the connections of each web process."""
        return [
            sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port for one in found)
            for found in (worker.net_connections("tcp") for worker in psutil.Process(self._process.pid).children())
        ]

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(20) == 0

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            return httpx.get(self.url, timeout=20, verify=self.context or True).status_code == 200
        except httpx.TransportError:
            return False


class RecordedRun:
    """A running task, stored as its worker would."""

    def __init__(self, store: Store, user: str = "admin", summary: str = "a run", **fields: Any) -> None:
        self._store = store
        self.task_id = str(uuid.uuid4())
        step = Step(program="ansible", argv=("--", "localhost"), cwd="/")
        store.submit(self.task_id, _run(user, summary, steps=(step,), **fields))
        claim = store.claim(self.task_id, "worker")
        self.token = claim.token if isinstance(claim, Claim) else 0  # it waits for a lock
        self._progress = Progress()

    def write(self, output: bytes = b"", *events: StoredEvent) -> None:
        """Appends output and its events."""
        end = self._progress.output_bytes + len(output)
        appended = self._store.append(self.task_id, self.token, Batch(self._progress, output, events, events_end=end))
        assert appended.outcome == "running"
        stored = appended.progress
        self._progress = Progress(stored.output_bytes, stored.colours, stored.events, end)

    def end(self, state: State = State.SUCCEEDED, warning: str | None = None, ended: tuple[str, ...] = ()) -> None:
        code = 0 if state is State.SUCCEEDED else 2
        words = f"it ended: {warning}" if warning else "it ended"
        self._store.settle(self.task_id, state, words, code, ended, warning=warning)

    @property
    def events_path(self) -> str:
        return f"/api/ansibletaskevents/{self.task_id}"

    @property
    def output_path(self) -> str:
        return f"/api/ansibletaskoutput/{self.task_id}"


def _run(user: str, summary: str, **fields: Any) -> AuthorizedRun:
    return AuthorizedRun(**{"kind": "adhoc", "user": user, "summary": summary, **fields})


def task_start(task: str, time: str = "2026-01-31T12:00:00.000Z") -> StoredEvent:
    event = {"event": "task_start", "time": time, "play": "all", "task": task, "module": "ping"}
    return StoredEvent(json.dumps({**event, "output_start": 0, "output_end": 0}), play_task=task)


def result(host: str, verdict: str = "ok", task: str = "ping", **of_module: Any) -> StoredEvent:
    event = {
        "event": "host_result",
        "time": "2026-01-31T12:00:00.000Z",
        "play": "all",
        "task": task,
        "module": "ping",
        "host": host,
        "verdict": verdict,
        "duration_seconds": 0.1,
        "result": {"changed": False, **of_module},
        "output_start": 0,
        "output_end": 0,
    }
    return StoredEvent(json.dumps(event), host, failed=verdict in ("failed", "unreachable"), verdict=verdict)


def counts(**by_host: int) -> StoredEvent:
    names = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")
    stats = {host: {name: ok if name == "ok" else 0 for name in names} for host, ok in by_host.items()}
    event = {"event": "stats", "stats": stats, "custom_stats": {"word": 1}, "output_start": 0, "output_end": 0}
    return StoredEvent(json.dumps(event), is_stats=True)


def read_head(connection: socket.socket) -> tuple[str, bytes]:
    """Reads the status line and headers of a reply, and returns them with the start of its body."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = connection.recv(65536)
        assert more, got
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    return head.decode(), body


def read_to_end(connection: socket.socket) -> bytes:
    got = b""
    while more := connection.recv(1 << 20):
        got += more
    return got


def descriptors(process: psutil.Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))
