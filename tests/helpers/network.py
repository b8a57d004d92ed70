"""Machines for a test: network namespaces on one bridge, links that are cut or lossy, machines that are frozen.

Needs root, `ip` (Debian: iproute2) and `nft` (nftables). Nothing leaves the namespaces: the bridge is in a namespace
without a way to the machine's network. Delays need netem, which not every kernel has: see `can_delay`.

    with Network() as network:
        web, worker = network.machine(), network.machine()
        server = web.popen(["redis-server", "--bind", web.address])
        with worker.inside():
            socket.create_connection((web.address, 6379))  # the test itself is on the worker's machine
        worker.cut("out")       # its packets are dropped without a word, as by a pulled cable
        worker.heal()
        worker.freeze()         # SIGSTOP to every process on it, as a paused virtual machine
        worker.thaw()

The processes of a machine share this machine's files, process ids and clocks: only the network is apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.helpers.waiting import eventually, missing

Direction = Literal["in", "out", "both"]

_NETWORKS = itertools.count(1)
_DEVICE = "eth0"
_TABLE = "inet link"  # ours in each namespace; all rules of a machine's link are in it
_HOOKS = {"in": "input", "out": "output"}
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def require_network() -> None:
    """Skips the test (fails it in CI) where namespaces cannot be made: not root, or a program is missing."""
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            missing(program)
    if os.geteuid() != 0:
        missing("root, who may make network namespaces,")


class Machine:
    """One network namespace with one address. Made by `Network.machine`."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` on this machine; the process is exec'd, not a child of `ip`."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(words), text=True, capture_output=True, timeout=60, **options)

    def popen(self, words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(words), **{"stdin": subprocess.DEVNULL, **options})

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Puts the calling thread on this machine: sockets that it makes, threads and processes that it starts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(os.open(_NAMESPACES / self.name, os.O_RDONLY | os.O_CLOEXEC))
            yield
        finally:
            _enter(before)

    def cut(self, direction: Direction = "both") -> None:
        """Drops packets in this direction, loopback excepted. Replaces an earlier `cut` or `lose`."""
        self._filter(direction, "drop")

    def lose(self, percent: int, direction: Direction = "both") -> None:
        """Drops this share of packets. Replaces an earlier `cut` or `lose`."""
        self._filter(direction, f"numgen random mod 100 < {percent} drop")

    def delay(self, milliseconds: int) -> None:
        """Delays what this machine sends; where `can_delay()` is false it fails."""
        _ip("exec", self.name, "tc", "qdisc", "replace", "dev", _DEVICE, "root", "netem", "delay", f"{milliseconds}ms")

    def heal(self) -> None:
        """Takes back `cut`, `lose` and `delay`."""
        self._nft(f"add table {_TABLE}\ndelete table {_TABLE}\n")
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("exec", self.name, "tc", "qdisc", "del", "dev", _DEVICE, "root")

    def processes(self) -> list[int]:
        """Ids of the processes on this machine, zombies and the test itself (`inside`) excepted."""
        pids = [int(word) for word in _ip("pids", self.name).split()]
        return [pid for pid in pids if pid != os.getpid() and _state(pid) not in ("Z", "")]

    def freeze(self) -> None:
        """Stops every process on this machine, those started meanwhile too; returns when all are stopped."""
        eventually(lambda: not self._signalled(signal.SIGSTOP, lambda state: state in "Tt"))

    def thaw(self) -> None:
        eventually(lambda: not self._signalled(signal.SIGCONT, lambda state: state not in "Tt"))

    def kill(self) -> None:
        """Kills every process on this machine, as a loss of power does; returns when none is left.

        A child of the test itself stays a zombie until its Popen is waited for.
        """
        eventually(lambda: not self._signalled(signal.SIGKILL, lambda state: False))

    def _signalled(self, number: signal.Signals, is_done: Any) -> list[int]:
        """Signals each process that is not done yet; their ids."""
        left = [pid for pid in self.processes() if not is_done(_state(pid))]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return left

    def _filter(self, direction: Direction, verdict: str) -> None:
        hooks = [_HOOKS[direction]] if direction != "both" else list(_HOOKS.values())
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; {'iif' if hook == 'input' else 'oif'} lo accept; "
            f"{verdict}; }}\n"
            for hook in hooks
        )
        self._nft(f"add table {_TABLE}\ndelete table {_TABLE}\ntable {_TABLE} {{\n{chains}}}\n")

    def _nft(self, script: str) -> None:
        subprocess.run(self.command(["nft", "-f", "-"]), input=script, text=True, check=True, capture_output=True)


class Network:
    """Machines on one bridge. Leaving the context kills what runs on them and removes everything."""

    def __init__(self) -> None:
        require_network()
        # Names are of the whole machine: other test processes make networks as well.
        self._prefix = f"fl{os.getpid()}-{next(_NETWORKS)}"
        self._machines: list[Machine] = []
        self._switch = f"{self._prefix}-switch"
        _ip("add", self._switch)
        try:
            for words in (("link", "add", "bridge", "type", "bridge"), ("link", "set", "bridge", "up")):
                _ip_in(self._switch, *words)
        except BaseException:
            self.close()
            raise

    def machine(self) -> Machine:
        """Another machine, with an address of 10.77.0.0/16 that all machines of this network reach."""
        number = len(self._machines) + 1
        machine = Machine(f"{self._prefix}-{number}", f"10.77.{number // 250}.{number % 250 + 1}")
        _ip("add", machine.name)
        self._machines.append(machine)
        port = f"port{number}"
        _ip_in(self._switch, "link", "add", port, "type", "veth", "peer", "name", _DEVICE, "netns", machine.name)
        _ip_in(self._switch, "link", "set", port, "master", "bridge", "up")
        for words in (
            ("addr", "add", f"{machine.address}/16", "dev", _DEVICE),
            ("link", "set", _DEVICE, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip_in(machine.name, *words)
        return machine

    def close(self) -> None:
        for machine in self._machines:
            machine.kill()
            _ip("del", machine.name)
        self._machines.clear()
        _ip("del", self._switch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def can_delay() -> bool:
    """Whether this kernel has netem."""
    with Network() as network:
        try:
            network.machine().delay(1)
        except subprocess.CalledProcessError:
            return False
        return True


def _ip(*words: str) -> str:
    return subprocess.run(["ip", "netns", *words], text=True, check=True, capture_output=True).stdout


def _ip_in(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], text=True, check=True, capture_output=True)


def _enter(namespace: int) -> None:
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(namespace)


def _state(pid: int) -> str:
    """The letter of /proc/<pid>/stat; "" when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
