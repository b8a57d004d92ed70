"""What ssh costs, and what the fast profile and Mitogen save: `python -m benchmarks.ssh`.

Starts a private sshd with its own keys that stands for ten hosts (127.0.0.1 to 127.0.0.10), and two services,
one with `ssh_profile = fast`. All ways of doing the same work take turns in each round; a ratio compares times of one
round. A first run finds no connection, a later one what the run before has kept. Mitogen's rows come where it is
installed (`pip install flansible[mitogen]`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil

from benchmarks.service import BIN, Running, machine, running

Times = dict[tuple[str, str, str], list[float]]

HOSTS = 10
_POLL_SECONDS = 0.01
_START_SECONDS = 10.0
_LISTENS = 16  # addresses that one sshd can listen on
_CONNECTION = "ansible_connection=ssh ansible_port={port} ansible_private_key_file={root}/user_key"
_SSH_OPTIONS = (
    "-o UserKnownHostsFile={root}/known_hosts -o HostKeyAlias=bench -o IdentitiesOnly=yes -o IdentityAgent=none"
)
_TEN_TASKS = "- hosts: h1\n  gather_facts: false\n  tasks:\n" + "    - ping:\n" * HOSTS
_TEN_LOCAL_TASKS = _TEN_TASKS.replace("h1", "here")


@dataclass(frozen=True)
class Work:
    """One thing to do, as a request and as a command line."""

    name: str
    program: str
    operand: str

    def request(self, inventory: Path) -> tuple[str, dict[str, object]]:
        if self.program == "ansible":
            return "ansiblecommand", {"host_pattern": self.operand, "module": "ping", "inventory": str(inventory)}
        directory = str(inventory.parent)
        return "ansibleplaybook", {"playbook_dir": directory, "playbook": self.operand, "inventory": str(inventory)}

    def command(self, inventory: Path) -> list[str]:
        words = [str(BIN / self.program), "-i", str(inventory), self.operand]
        return [*words, "-m", "ping"] if self.program == "ansible" else words


WORKS = (
    Work("10 hosts, one ping each", "ansible", "far"),
    Work("10 pings of one host", "ansible-playbook", "ten.yml"),
    Work("1 ping", "ansible", "h1"),
    Work("localhost: 10 pings", "ansible-playbook", "ten-local.yml"),
    Work("localhost: 1 ping", "ansible", "here"),
)


@dataclass(frozen=True)
class Way:
    """One way of doing it: a name, and what does a work once."""

    name: str
    do: Callable[[Work], None]


@contextmanager
def sshd(hosts: int = HOSTS) -> Iterator[Path]:
    """The folder of a private sshd for this user, with inventory and playbooks; it is gone afterwards.

    hosts: how many addresses it listens on.
    """
    with tempfile.TemporaryDirectory(prefix="flansible-ssh-") as folder:
        root = Path(folder)
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True)
        shutil.copy(root / "user_key.pub", root / "authorized_keys")
        (root / "known_hosts").write_text("bench " + (root / "host_key.pub").read_text())
        port = _free_port()
        firsts = range(1, hosts + 1, _LISTENS)
        configs = [_write_sshd_config(root, port, range(n, min(n + _LISTENS, hosts + 1))) for n in firsts]
        _write_project(root, port, hosts)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # it insists, for a process it would give away its rights in
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit("sshd is not installed")
        processes = []
        try:
            for config in configs:
                processes.append(subprocess.Popen([program, "-D", "-E", str(root / "sshd.log"), "-f", str(config)]))
            for first, process in zip(firsts, processes, strict=True):
                _await((f"127.0.0.{first}", port), process, root)
            yield root
        finally:
            for process in processes:
                _end(process)


def _write_sshd_config(root: Path, port: int, numbers: Sequence[int]) -> Path:
    """Writes the configuration of an sshd that listens on 127.0.0.N for these N; returns its path."""
    addresses = "".join(f"ListenAddress 127.0.0.{number}\n" for number in numbers)
    path = root / f"sshd_config_{numbers[0]}"
    path.write_text(
        f"Port {port}\n{addresses}HostKey {root}/host_key\nAuthorizedKeysFile {root}/authorized_keys\n"
        f"PidFile {path}.pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nMaxSessions 100\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    return path


def _write_project(root: Path, port: int, count: int) -> None:
    hosts = "".join(f"h{number} ansible_host=127.0.0.{number}\n" for number in range(1, count + 1))
    connection = _CONNECTION.format(port=port, root=root)
    options = _SSH_OPTIONS.format(root=root)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    (root / "hosts").write_text(
        f"here ansible_connection=local\n[far]\n{hosts}\n"
        f"[far:vars]\n{connection.replace(' ', chr(10))}\nansible_ssh_common_args='{options}'\n"
        f"[all:vars]\nansible_python_interpreter={python}\n"
    )
    (root / "ten.yml").write_text(_TEN_TASKS)
    (root / "ten-local.yml").write_text(_TEN_LOCAL_TASKS)


def _await(address: tuple[str, int], process: subprocess.Popen[bytes], root: Path) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection(address, 1).close()
        if process.poll() is not None or time.monotonic() > give_up_at:
            sys.exit(f"sshd did not start:\n{(root / 'sshd.log').read_text()}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """sshd, and the sessions it has open."""
    sessions = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait()
    for session in sessions:
        with contextlib.suppress(psutil.NoSuchProcess):
            session.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class CommandLine:
    """`ansible` and `ansible-playbook` in a shell with its own HOME, so that its masters are its own."""

    def __init__(self, root: Path, name: str, **environ: str) -> None:
        home = root / f"home-{name}"
        home.mkdir()
        self._root = root
        self._environ = {**os.environ, "HOME": str(home), **environ}

    def do(self, work: Work) -> None:
        done = subprocess.run(
            work.command(self._root / "hosts"), env=self._environ, cwd=self._root, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{work.name}: {done.stdout}{done.stderr}")


class Service:
    """The API, as a client sees it that polls every 10 ms."""

    def __init__(self, client: httpx.Client, root: Path, **fields: object) -> None:
        self._client = client
        self._root = root
        self._fields = fields

    def do(self, work: Work) -> None:
        route, body = work.request(self._root / "hosts")
        task_id = self._client.post(f"/api/{route}", json={**body, **self._fields}).raise_for_status().json()["task_id"]
        while (status := self._client.get(f"/api/ansibletaskstatus/{task_id}").json())["Status"] == "PROGRESS":
            time.sleep(_POLL_SECONDS)
        if status["Status"] != "SUCCESS":
            sys.exit(f"{work.name}: {status}\n{self._client.get(f'/api/ansibletaskoutput/{task_id}').text}")


def end_masters(root: Path) -> None:
    """So that the next run is a first one. Only those that log in with our key."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            title = " ".join(process.cmdline())
            if title.startswith("ssh: ") and _is_ours(process, root):
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(2)


def _is_ours(process: psutil.Process, root: Path) -> bool:
    port = int((root / "sshd_config").read_text().split()[1])
    return any(connection.raddr and connection.raddr.port == port for connection in process.net_connections())


def measure(ways: list[Way], works: list[Work], rounds: int, root: Path) -> Times:
    """Seconds by work, way and `first` or `later`; one of each in every round, in turns. Reports on standard error."""
    times: Times = {}
    for number in range(rounds):
        for work in works:
            for way in ways if number % 2 else reversed(ways):
                end_masters(root)
                for which in ("first", "later"):
                    began = time.perf_counter()
                    way.do(work)
                    seconds = time.perf_counter() - began
                    times.setdefault((work.name, way.name, which), []).append(seconds)
                    print(f"{number + 1}: {work.name}, {way.name}, {which}: {seconds:.2f} s", file=sys.stderr)
    return times


def print_table(times: Times, ways: list[Way], works: list[Work]) -> None:
    print("| work | way | first run, s | ratio | later run, s | ratio |\n|---|---|---|---|---|---|")
    for work in works:
        for way in ways:
            cells = []
            for which in ("first", "later"):
                seconds, base = times[work.name, way.name, which], times[work.name, ways[0].name, which]
                ratio = statistics.median(one / other for one, other in zip(seconds, base, strict=True))
                cells += [f"{statistics.median(seconds):.2f}", f"{ratio:.2f}"]
            print(f"| {work.name} | {way.name} | {' | '.join(cells)} |")


def _mitogen() -> dict[str, str] | None:
    """The variables that turn it on."""
    found = find_spec("ansible_mitogen")
    if found is None or found.origin is None:
        return None
    plugins = Path(found.origin).parent / "plugins/strategy"
    return {"ANSIBLE_STRATEGY": "mitogen_linear", "ANSIBLE_STRATEGY_PLUGINS": str(plugins)}


def _ways(root: Path, plain: Running, fast: Running, stack: ExitStack) -> list[Way]:
    default, quick = (stack.enter_context(service.client()) for service in (plain, fast))
    ways = [
        Way("CLI", CommandLine(root, "plain").do),
        Way("CLI, pipelining", CommandLine(root, "pipelining", ANSIBLE_PIPELINING="1").do),
        Way("API", Service(default, root).do),
        Way("API, `ssh_profile = fast`", Service(quick, root).do),
    ]
    if (variables := _mitogen()) is not None:
        ways.append(Way("CLI, Mitogen", CommandLine(root, "mitogen", **variables).do))
        ways.append(Way("API, Mitogen", Service(default, root, environment=variables).do))
    return ways


def _mitogen_version() -> str:
    try:
        return f", Mitogen {version('mitogen')}"
    except PackageNotFoundError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", action="append", help="only works whose name contains this")
    parser.add_argument("--way", action="append", help="only ways whose name contains this; CLI is always there")
    given = parser.parse_args()
    works = [work for work in WORKS if not given.work or any(part in work.name for part in given.work)]
    with ExitStack() as stack:
        root = stack.enter_context(sshd())
        stack.callback(end_masters, root)
        plain, fast = stack.enter_context(running()), stack.enter_context(running(ssh_profile="fast"))
        ways = _ways(root, plain, fast, stack)
        if given.way:
            ways = [ways[0], *(way for way in ways[1:] if any(part in way.name for part in given.way))]
        for way in ways:
            way.do(works[-1])  # caches, and the fork server for this way
        times = measure(ways, works, given.rounds, root)
        print(f"{machine()}{_mitogen_version()}; {given.rounds} rounds, medians; ratios to the CLI of the same round\n")
        print_table(times, ways, works)


if __name__ == "__main__":
    main()
