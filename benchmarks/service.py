"""A private service for a benchmark, and what its processes use. Shared by all benchmarks.

`flansible up` in a new folder, on a free port, with HOME and TMPDIR in that folder, so that whatever is left in
them was left by this service.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

BIN = Path(sys.executable).parent
ADMIN = ("admin", "admin")
INVENTORY = 'one ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"\n'
_FORK_SERVER = "flansible.runner.forkserver"
_STOP_SECONDS = 30
_KEPT_SECONDS = 86400


def machine() -> str:
    """One line for the head of a table."""
    versions = f"Python {platform.python_version()}, ansible-core {version('ansible-core')}"
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {versions}"


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    root: Path
    url: str
    environ: dict[str, str]
    process: subprocess.Popen[str]
    ready_seconds: float = 0.0
    bin: Path = BIN

    @property
    def playbooks(self) -> Path:
        return self.root / "playbooks"

    @property
    def redis_socket(self) -> Path:
        return self.root / ".flansible/redis.sock"

    def client(self, user: tuple[str, str] = ADMIN) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=user, timeout=120)


@contextmanager
def running(bin: Path = BIN, users: Sequence[dict[str, object]] = (), **settings: object) -> Iterator[Running]:
    """`flansible up` with these settings, those among them that this version knows. Tasks stay in Redis, where what is
    measured is looked for, unless the settings say otherwise.

    bin: whose `flansible` it is, and so whose Ansible; users: entries of rbac.json beside admin's.
    """
    if threading.current_thread() is threading.main_thread():
        # Python's own end at a TERM would leave the service running.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("ended by SIGTERM"))
    with tempfile.TemporaryDirectory(prefix="flansible-bench-") as folder:
        root = Path(folder)
        for name in ("home", "tmp", "playbooks"):
            (root / name).mkdir()
        (root / "playbooks/hosts").write_text(INVENTORY)
        keys = _known_keys(bin)
        given = {"archive_after_seconds": _KEPT_SECONDS, **settings}
        known = {key: value for key, value in given.items() if key in keys}
        port = _free_port()
        lines = [f"{key} = {value}\n" for key, value in {"Flask_tcp_port": port, **known}.items()]
        (root / "config.ini").write_text("[Default]\n" + "".join(lines))
        _write_users(root / "rbac.json", users)
        scripts = f"{bin}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, "PATH": scripts, "HOME": str(root / "home"), "TMPDIR": str(root / "tmp")}
        began = time.perf_counter()
        with (root / "up.log").open("w") as log:
            process = subprocess.Popen(
                [str(bin / "flansible"), "up"], cwd=root, env=environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            if process.stdout is None or not process.stdout.readline().startswith("Flansible is ready"):
                sys.exit(f"the service did not start:\n{(root / 'up.log').read_text()}")
            ready_seconds = time.perf_counter() - began
            yield Running(root, f"http://127.0.0.1:{port}", environ, process, ready_seconds, bin)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)


def _known_keys(bin: Path) -> frozenset[str]:
    """Asked of that version itself: another commit has other keys."""
    script = "import json; from flansible.config import KEYS; print(json.dumps(KEYS))"
    asked = subprocess.run([str(bin / "python"), "-P", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return frozenset(json.loads(asked.stdout))


def _write_users(file: Path, users: Sequence[dict[str, object]]) -> None:
    admin = {"user": ADMIN[0], "password": ADMIN[1], "inventories": []}
    file.write_text(json.dumps({"rbac": [admin, *users]}))
    file.chmod(0o600)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Usage:
    """What the processes of one role take together; bytes. PSS shares out what forked processes have in common."""

    processes: int = 0
    pss: int = 0
    rss: int = 0
    threads: int = 0
    descriptors: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(
            self.processes + other.processes,
            self.pss + other.pss,
            self.rss + other.rss,
            self.threads + other.threads,
            self.descriptors + other.descriptors,
        )


def usage_of_tree(pid: int) -> Usage:
    """What a process and everything below it takes."""
    found = Usage()
    with contextlib.suppress(psutil.NoSuchProcess, OSError):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                found = found.plus(usage_of_process(process.pid))
    return found


def usage_by_role(up: int) -> dict[str, Usage]:
    """up, redis, web, worker, fork server, and run: keepers, runs, Ansible's workers and what they have started."""
    found: dict[str, Usage] = {}
    for process, role in roles_of(up):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            found[role] = found.get(role, Usage()).plus(usage_of_process(process.pid))
    return found


def roles_of(up: int) -> Iterator[tuple[psutil.Process, str]]:
    """Every process of a service with its role."""
    roles = {up: "up"}
    with contextlib.suppress(psutil.NoSuchProcess):
        yield psutil.Process(up), "up"
        for process in psutil.Process(up).children(recursive=True):  # parents come before their children
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                roles[process.pid] = _role(process, roles.get(process.ppid(), ""))
                # The zygote is one of them: it holds what they share.
                yield process, roles[process.pid].replace("zygote", "fork server")


def _role(process: psutil.Process, parent: str) -> str:
    words = process.cmdline()
    if parent in ("fork server", "run"):
        return "run"
    if parent == "zygote":  # a child that packs a module leads no session
        return "fork server" if os.getsid(process.pid) == process.pid else "run"
    if _FORK_SERVER in words:
        return "zygote" if "zygote" in words else "fork server"
    if parent == "up":
        return next((name for name in ("web", "worker", "flower") if name in words), "redis")
    return parent


def usage_of_process(pid: int) -> Usage:
    """Raises OSError when the process is gone."""
    sizes = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    threads, descriptors = (len(os.listdir(f"/proc/{pid}/{name}")) for name in ("task", "fd"))
    return Usage(1, int(sizes["Pss:"]) * 1024, int(sizes["Rss:"]) * 1024, threads, descriptors)


@dataclass
class Sampler:
    """Looks again and again, in a thread; keeps the most each role has taken. Looking at large processes slows them."""

    look: Callable[[], dict[str, Usage]]
    interval_seconds: float = 0.25
    peak: dict[str, Usage] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(self.interval_seconds):
                for role, now in self.look().items():
                    pairs = zip(vars(self.peak.get(role, Usage())).values(), vars(now).values(), strict=True)
                    self.peak[role] = Usage(*(max(pair) for pair in pairs))

        thread = threading.Thread(target=watch, name="sampler")
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def megabytes(size: float) -> str:
    return f"{size / 1024 / 1024:.0f}"
