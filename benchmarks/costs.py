"""What one run costs in CPU seconds, Redis commands, bytes on the wire, bytes stored and messages.

What the idle service does meanwhile is measured first and taken off. Lua's own commands are no round trips: MONITOR
tells them apart.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import redis

from benchmarks import works
from benchmarks.service import Running, roles_of
from benchmarks.works import Work

RUNS = 20
_IDLE_SECONDS = 5.0
_DONE_KEY = "flansible:tasks:state:succeeded"
_LOOK_SECONDS = 0.05
_POLLS = 20


@dataclass(frozen=True)
class Costs:
    """Of one run; cpu_seconds by role, of which `run` has all that Ansible and its modules use."""

    cpu_seconds: dict[str, float]
    redis_cpu_seconds: float
    commands: float
    round_trips: float
    bytes_in: float
    bytes_out: float
    stored_bytes: float
    broker_messages: float


@dataclass
class Monitored:
    """Commands that clients sent, by name, and how many of them are messages of Celery's."""

    sent: Counter[str] = field(default_factory=Counter)
    broker_messages: int = 0


def per_run(service: Running, work: Work) -> Costs:
    """Measures runs without polling."""
    with service.client() as client, redis.Redis(unix_socket_path=str(service.redis_socket)) as store:
        works.through_the_api(client, work)
        time.sleep(1.0)
        costs = _counted(service, client, store, work)
        sent, broker_messages = _watched(service, client, store, work)
        stored_bytes = _stored_bytes(client, store, work)
    return Costs(
        cpu_seconds={name.removeprefix("cpu "): value for name, value in costs.items() if name.startswith("cpu ")},
        redis_cpu_seconds=costs["redis cpu"],
        commands=costs["commands"],
        round_trips=sent,
        bytes_in=costs["bytes in"],
        bytes_out=costs["bytes out"],
        stored_bytes=stored_bytes,
        broker_messages=broker_messages,
    )


def _counted(service: Running, client: Any, store: Any, work: Work) -> dict[str, float]:
    """By counters that run all the time."""
    began, before = time.monotonic(), _counters(service, store)
    time.sleep(_IDLE_SECONDS)
    idle, idle_seconds = _less(_counters(service, store), before), time.monotonic() - began
    began, before = time.monotonic(), _counters(service, store)
    looks = _run_unwatched(client, store, work, RUNS)
    spent, seconds = _less(_counters(service, store), before), time.monotonic() - began
    spent["commands"] -= looks
    return {name: (value - idle[name] * seconds / idle_seconds) / RUNS for name, value in spent.items()}


def _watched(service: Running, client: Any, store: Any, work: Work) -> tuple[float, float]:
    """Commands that clients sent for one run, and messages. In a second turn: watching costs Redis time and bytes."""
    began = time.monotonic()
    with monitored(service) as idle:
        time.sleep(_IDLE_SECONDS)
    idle_seconds, began = time.monotonic() - began, time.monotonic()
    with monitored(service) as seen:
        _run_unwatched(client, store, work, RUNS)
    share = (time.monotonic() - began) / idle_seconds
    del seen.sent["ZCARD"]
    sent = sum(seen.sent.values()) - share * sum(idle.sent.values())
    return sent / RUNS, (seen.broker_messages - share * idle.broker_messages) / RUNS


def round_trips_of_a_poll(service: Running) -> float:
    """Commands that one status request sends to Redis: of many, the usual number, as the idle service speaks too."""
    with service.client() as client:
        work = works.adhoc("debug")
        task_id = works.submit(client, work)
        works.await_success(client, task_id, work.name)
        time.sleep(1.0)
        counts = []
        for _ in range(_POLLS):
            with monitored(service) as seen:
                client.get(f"/api/ansibletaskstatus/{task_id}").raise_for_status()
            counts.append(sum(seen.sent.values()))
    return statistics.median(counts)


def cli_cpu_seconds(service: Running, work: Work, runs: int = 5) -> float:
    works.in_a_shell(service, work)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(runs):
        works.in_a_shell(service, work)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / runs


def _run_unwatched(client: Any, store: Any, work: Work, runs: int) -> int:
    """Until all are final, which Redis is asked for; returns how often it was asked."""
    wanted, looks = store.zcard(_DONE_KEY) + runs, 1
    for _ in range(runs):
        works.submit(client, work)
    while store.zcard(_DONE_KEY) < wanted:
        looks += 1
        time.sleep(_LOOK_SECONDS)
    return looks + 1


def _stored_bytes(client: Any, store: Any, work: Work) -> float:
    """What the keys of one finished task take; its entries in the indexes are a few hundred more."""
    task_id = works.submit(client, work)
    works.await_success(client, task_id, work.name)
    return float(sum(store.memory_usage(key, samples=0) for key in store.scan_iter(f"flansible:task:{task_id}*")))


def _counters(service: Running, store: Any) -> dict[str, float]:
    stats, cpu = store.info("stats"), store.info("cpu")
    found = {
        "commands": stats["total_commands_processed"],
        "bytes in": stats["total_net_input_bytes"],
        "bytes out": stats["total_net_output_bytes"],
        "redis cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    }
    return found | {f"cpu {role}": seconds for role, seconds in cpu_by_role(service.process.pid).items()}


def _less(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def cpu_by_role(up: int) -> dict[str, float]:
    """CPU seconds so far, with those of children that have ended and were waited for.

    A fork server's ended children are keepers, runs, and all that these have started: what it used itself is so little
    beside that it is not entry apart.
    """
    found: dict[str, float] = {}
    for process, role in roles_of(up):
        with contextlib.suppress(psutil.NoSuchProcess):
            role = "run" if role == "fork server" else role
            found[role] = found.get(role, 0.0) + sum(process.cpu_times()[:4])
    return found


@contextmanager
def monitored(service: Running) -> Iterator[Monitored]:
    """Counts what clients send to Redis until the block ends."""
    seen = Monitored()
    listening, mark = threading.Event(), "end of the benchmark's watch"
    socket = str(service.redis_socket)

    def listen() -> None:
        with redis.Redis(unix_socket_path=socket) as store, store.monitor() as monitor:
            listening.set()
            for entry in monitor.listen():
                if mark in entry["command"]:
                    return
                _note(entry, seen)

    thread = threading.Thread(target=listen, name="monitor")
    with redis.Redis(unix_socket_path=socket) as marker:
        marker.ping()  # what a new connection says to Redis must not be counted
        thread.start()
        listening.wait(10)
        try:
            yield seen
        finally:
            marker.echo(mark)
            thread.join(30)


def _note(entry: dict[str, Any], seen: Monitored) -> None:
    if entry["client_type"] == "lua":
        return
    words = entry["command"].split(" ", 2)
    name = words[0].upper()
    seen.sent[name] += 1
    where = words[1] if len(words) > 1 else ""
    seen.broker_messages += name in ("LPUSH", "PUBLISH") and "broker" in where
