"""Several workers on one machine: runs that wait grow with the slots, runs that compute with the cores: `make scale`.

Starts a service, and beside its worker up to two more that share its Redis, each with its own fork server. Then
works out, from what one run costs, what larger nodes carry. Writes docs/scaling.md's tables with `--write`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil

from benchmarks import costs, footprint, works
from benchmarks.capacity import NODES, RunCosts, carried, runs_in_memory_of_redis, runs_per_second_of_redis
from benchmarks.costs import cpu_by_role
from benchmarks.service import Running, machine, running
from benchmarks.tables import TOP, number, put, table
from benchmarks.works import Work

NAME = "make scale"
# So long that the start of a run, which takes CPU, is a small part of it.
WAVES = 2
SLEEP_SECONDS = 20
_FORK_SERVER = "flansible.runner.forkserver"
_START_SECONDS = 60.0
_SETTLE_SECONDS = 2.0
_STOP_SECONDS = 30
_WAITING_RUNS = 12
_BUSY_RUNS = {"debug": 60, "ping": 20}
_WAIT = Work(
    f"`command: sleep {SLEEP_SECONDS}`",
    "ansiblecommand",
    {"module": "command", "module_args": f"sleep {SLEEP_SECONDS}", "host_pattern": "one", "inventory": "hosts"},
    (),
)


@dataclass(frozen=True)
class Setup:
    workers: int
    slots: int  # of each worker

    @property
    def total(self) -> int:
        return self.workers * self.slots


WAITING = (Setup(1, 4), Setup(2, 4), Setup(3, 4), Setup(1, 12))
BUSY = (Setup(1, 1), Setup(1, 2), Setup(1, 4), Setup(2, 4), Setup(3, 4))


@dataclass(frozen=True)
class Throughput:
    setup: Setup
    work: Work
    runs: int
    seconds: float
    cpu_seconds: float

    @property
    def cells(self) -> list[str]:
        per_second = self.runs / self.seconds
        return [
            self.work.name,
            f"{self.setup.workers} × {self.setup.slots}",
            str(self.runs),
            f"{self.seconds:.1f}",
            number(per_second),
            f"{per_second / self.setup.total:.3f}",
            f"{self.cpu_seconds / self.seconds:.1f}",
        ]


@contextmanager
def workers(setup: Setup) -> Iterator[tuple[Running, list[int]]]:
    """A service with so many workers, and the process ids that it consists of."""
    with running(worker_concurrency=setup.slots) as service, ExitStack() as stack:
        more = [stack.enter_context(_worker(service, number)) for number in range(1, setup.workers)]
        for pid in (service.process.pid, *more):
            _await_fork_server(pid)
        time.sleep(_SETTLE_SECONDS)
        yield service, [service.process.pid, *more]


@contextmanager
def _worker(service: Running, number: int) -> Iterator[int]:
    command = [str(service.bin / "flansible"), "worker", "--config", str(service.root / "config.ini")]
    with (service.root / f"worker-{number}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--name", f"more{number}"],
            cwd=service.root,
            env=service.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)


def _await_fork_server(pid: int) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while not any(_FORK_SERVER in child.cmdline() for child in psutil.Process(pid).children(recursive=True)):
        if time.monotonic() > give_up_at:
            sys.exit(f"a worker has no fork server after {_START_SECONDS:g} s")
        time.sleep(0.2)


def throughput(service: Running, pids: list[int], setup: Setup, work: Work, runs: int) -> Throughput:
    before = _cpu_seconds(pids)
    with service.client() as client:
        seconds = works.through_the_api(client, work, runs)
    found = Throughput(setup, work, runs, seconds, _cpu_seconds(pids) - before)
    print(f"measured: {' | '.join(found.cells)}", file=sys.stderr, flush=True)
    return found


def _cpu_seconds(pids: list[int]) -> float:
    return sum(sum(cpu_by_role(pid).values()) for pid in pids)


def measure() -> list[Throughput]:
    """What waits first, then what computes."""
    found = []
    for setup in dict.fromkeys((*WAITING, *BUSY)):
        with workers(setup) as (service, pids):
            for module in _BUSY_RUNS if setup in BUSY else ():
                throughput_of = works.adhoc(module)
                found.append(throughput(service, pids, setup, throughput_of, _BUSY_RUNS[module]))
            if setup in WAITING:
                found.append(throughput(service, pids, setup, _WAIT, WAVES * setup.total))
    names = [_WAIT.name, *(works.adhoc(module).name for module in _BUSY_RUNS)]
    return sorted(found, key=lambda one: (names.index(one.work.name), one.setup.total, one.setup.workers))


@dataclass(frozen=True)
class Measured:
    """What one run costs by its kind; idle_bytes: a worker with its fork server that has nothing to do."""

    runs: dict[str, RunCosts]
    waiting: footprint.Waiting
    idle_bytes: float


def costs_of_runs() -> Measured:
    waiting = footprint.waiting_runs(_WAITING_RUNS)
    found = {}
    with running() as service:
        idle = footprint.idle(service)
        for module in _BUSY_RUNS:
            cost = costs.per_run(service, works.adhoc(module))
            cpu = cost.cpu_seconds
            found[module] = RunCosts(
                cpu["run"], cpu["worker"], cpu["web"], cost.redis_cpu_seconds, waiting.own, cost.stored_bytes
            )
    return Measured(found, waiting, idle["worker"].pss + idle["fork server"].pss)


def report(found: list[Throughput], one_run: Measured, load: float) -> str:
    head = f"{machine()}. Load average before: {load:.1f}."
    measured = table(
        ("runs", "workers × slots", "number", "seconds", "runs/s", "runs/s and slot", "cores used"),
        (one.cells for one in found),
    )
    return "\n\n".join(
        part.strip() for part in (head, measured, _cost_table(one_run), _nodes(one_run.runs, one_run.idle_bytes))
    )


def _cost_table(one_run: Measured) -> str:
    head = ("one run", "Ansible (CPU ms)", "worker", "web", "Redis", "memory while it waits", "stored in Redis")
    runs = table(
        head,
        (
            [
                f"`{module}`",
                *(number(seconds * 1000) for seconds in (run.ansible, run.worker, run.web, run.redis)),
                f"{run.waiting_bytes / 1e6:.0f} MB",
                f"{run.stored_bytes / 1000:.1f} kB",
            ]
            for module, run in one_run.runs.items()
        ),
    )
    waiting = one_run.waiting
    there = f"{waiting.processes:.0f} processes, the module's among them, and {waiting.descriptors:.1f} descriptors"
    return f"{runs}\nA run that waits on this machine has {there} of the worker."


def _nodes(runs: dict[str, RunCosts], idle_bytes: float) -> str:
    """The last table: worked out, not measured."""
    debug, ping = runs["debug"], runs["ping"]
    rows = []
    for node in NODES:
        of_debug, of_ping = (carried(node, run, idle_bytes) for run in (debug, ping))
        name = f"{node.cores} cores, {node.memory_gb} GB"
        busy = (number(one.busy_per_second) for one in (of_ping, of_debug))
        rows.append([name, f"{of_debug.waiting:,}", *busy, str(max(of_debug.workers, of_ping.workers))])
    redis = f"{runs_per_second_of_redis(debug):,.0f} runs/s, {runs_in_memory_of_redis(debug, 1):,} records a GB"
    nodes = table(("node (worked out)", "runs that wait, at once", "`ping`/s", "`debug`/s", "workers"), rows)
    return f"{nodes}\nOne Redis, worked out likewise, without those who poll or follow: {redis}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    one_run = costs_of_runs()
    text = report(measure(), one_run, load)
    print(text)
    if asked.write:
        put(TOP / "docs/scaling.md", NAME, text)


if __name__ == "__main__":
    main()
