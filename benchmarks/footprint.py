"""Memory: of the idle service, and what a run adds that waits for its host.

The host is this machine and the wait a `sleep`, so what Ansible would start on the host runs here as well: the module's
own Python and its shell. They are listed separately; the command line's runs have them too.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks import works
from benchmarks.service import Running, Usage, running, usage_by_role, usage_of_process
from benchmarks.works import Work

MB = 1024 * 1024
WAITING = 50
_CLI_WAITING = 5
_SETTLE_SECONDS = 3.0
_ALL_WAIT_SECONDS = 300.0
_SLEEP_SECONDS = 900
_SLEEP = Work(
    "sleep",
    "ansiblecommand",
    {"module": "command", "module_args": f"sleep {_SLEEP_SECONDS}", "host_pattern": "one", "inventory": "hosts"},
    ["ansible", "one", "-i", "hosts", "-m", "command", "-a", f"sleep {_SLEEP_SECONDS}"],
)


@dataclass(frozen=True)
class Waiting:
    """Bytes (PSS) a waiting run adds. own: all but the processes that a real host would have."""

    count: int
    seconds: float
    own: float
    with_module: float
    of_cli: float
    of_cli_with_module: float
    processes: float
    descriptors: float  # of the worker process


def total(usage: dict[str, Usage]) -> int:
    return sum(found.pss for found in usage.values())


def idle(service: Running) -> dict[str, Usage]:
    """What each role takes when nothing runs."""
    time.sleep(_SETTLE_SECONDS)
    return usage_by_role(service.process.pid)


def waiting_runs(count: int = WAITING) -> Waiting:
    """Measures a private service with as many slots; its runs end with it."""
    with running(worker_concurrency=count, drain_seconds=0, grace_seconds=1) as service, service.client() as client:
        works.through_the_api(client, works.adhoc("debug"))
        before = idle(service)
        began = time.perf_counter()
        for _ in range(count):
            works.submit(client, _SLEEP)
        _await_sleepers(service.process.pid, count)
        seconds = time.perf_counter() - began
        time.sleep(_SETTLE_SECONDS)
        usage = usage_by_role(service.process.pid)
        there = _on_the_host(service.process.pid)
        added = total(usage) - total(before)
        with _in_shells(service, _CLI_WAITING) as shells:
            cli, cli_there = (sum(found) / _CLI_WAITING for found in zip(*map(_weigh_tree, shells), strict=True))
    processes = usage["run"].processes / count
    descriptors = (usage["worker"].descriptors - before["worker"].descriptors) / count
    own = (added - there) / count
    return Waiting(count, seconds, own, added / count, cli - cli_there, cli, processes, descriptors)


@contextmanager
def _in_shells(service: Running, count: int) -> Iterator[list[int]]:
    """The same from the command line, so many at once, until the block ends."""
    command = [str(service.bin / _SLEEP.argv[0]), *_SLEEP.argv[1:]]
    processes = [
        subprocess.Popen(
            command, cwd=service.playbooks, env=service.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            _await_sleepers(process.pid, 1)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for found in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()
    process.wait()


def _await_sleepers(pid: int, count: int) -> None:
    """Until so many modules below this process sleep."""
    give_up_at = time.monotonic() + _ALL_WAIT_SECONDS
    while sum(1 for process in psutil.Process(pid).children(recursive=True) if _name(process) == "sleep") < count:
        if time.monotonic() > give_up_at:
            sys.exit(f"{count} runs do not all wait after {_ALL_WAIT_SECONDS:g} s")
        time.sleep(0.2)


def _weigh_tree(pid: int) -> tuple[int, int]:
    """All of it, and what of it a real host would have."""
    processes = (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    return sum(_pss(process) for process in processes), _on_the_host(pid)


def _on_the_host(pid: int) -> int:
    """PSS of what Ansible started on the host: a shell, the module's Python, and its command."""
    found: dict[int, bool] = {}
    size = 0
    for process in psutil.Process(pid).children(recursive=True):  # parents come before their children
        with contextlib.suppress(psutil.NoSuchProcess):
            there = found.get(process.ppid(), False) or _name(process) == "sh"
            found[process.pid] = there
            size += _pss(process) if there else 0
    return size


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _pss(process: psutil.Process) -> int:
    try:
        return usage_of_process(process.pid).pss
    except (psutil.NoSuchProcess, OSError):
        return 0
