"""What a worker node carries, worked out from what one run costs. Pure; for docs/scaling.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY_SHARE = 0.8  # of a node's memory; the rest is for the system, and for what playbooks do
BUSY_SHARE = 0.8  # of a core; above it whatever comes has to wait
MOST_SLOTS = 1000  # of one worker: the upper bound of worker_concurrency


@dataclass(frozen=True)
class RunCosts:
    """Of one run: CPU seconds of Ansible, of the worker, of the web server and of Redis; bytes while it waits."""

    ansible: float
    worker: float
    web: float
    redis: float
    waiting_bytes: float
    stored_bytes: float


@dataclass(frozen=True)
class Node:
    cores: int
    memory_gb: int


NODES = (Node(2, 8), Node(8, 32), Node(32, 128))


@dataclass(frozen=True)
class Carried:
    """waiting: runs at once; busy_per_second: runs begun and ended; workers: processes it takes for either."""

    waiting: int
    busy_per_second: float
    workers: int


def carried(node: Node, run: RunCosts, idle_bytes: float) -> Carried:
    """idle_bytes: of a worker with its fork servers."""
    # A worker is one Python process: its own part of all runs has to fit into one core.
    busy = node.cores * BUSY_SHARE / (run.ansible + run.worker)
    for_busy = math.ceil(busy * run.worker / BUSY_SHARE)
    memory = node.memory_gb * 1e9 * MEMORY_SHARE
    waiting = int((memory - idle_bytes) / run.waiting_bytes)
    workers = max(1, for_busy, math.ceil(waiting / MOST_SLOTS))
    waiting = int((memory - workers * idle_bytes) / run.waiting_bytes)
    return Carried(waiting, busy, workers)


def runs_per_second_of_redis(run: RunCosts) -> float:
    """Redis runs commands in one thread."""
    return BUSY_SHARE / run.redis


def runs_in_memory_of_redis(run: RunCosts, memory_gb: float) -> int:
    return int(memory_gb * 1e9 / run.stored_bytes)
