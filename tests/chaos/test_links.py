"""Links that are cut, machines that stand still, a Redis that is put back: never two runs of one task, no ghosts."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from flansible.models import FINAL_STATES, State
from tests.chaos.cluster import Cluster, cluster, moment_of, signal_all
from tests.chaos.conftest import Scale
from tests.helpers.network import Direction, require_network
from tests.helpers.waiting import eventually

SHORT_LEASE = 15
ROUNDS = 40
LEASE = 60  # the default


def test_a_worker_that_is_cut_off_ends_its_runs_before_any_other_may_begin(scale: Scale) -> None:
    require_network()
    with cluster(SHORT_LEASE) as machines:
        again = machines.submit(120, "shared", "requeue")
        eventually(lambda: beats(machines, again), 60)
        lost = machines.submit(120)
        waiting = machines.submit(1, "shared")
        eventually(lambda: beats(machines, lost), 60)
        victim = machines.machine_of(again)
        cut_at = time.time()
        machines.machines[victim].cut()
        eventually(lambda: "has not been heard of since" in machines.status(again).description, 30)
        assert machines.status(again).state is State.RUNNING and machines.status(again).attempt is None
        eventually(lambda: last_beat(machines, again) < time.time() - 1, 30)
        assert last_beat(machines, again) - cut_at < SHORT_LEASE - 0.5, "it ended by itself, before the lease did"
        # Its lock and it itself go to the other worker.
        eventually(lambda: machines.status(waiting).state is State.SUCCEEDED or machines.status(again).attempt == 2, 60)
        eventually(lambda: machines.status(again).attempt == 2 and last_beat(machines, again) > time.time() - 1, 60)
        machines.machines[victim].heal()
        if machines.status(lost).state is State.LOST:
            assert moment_of(machines.status(lost).finished_at or "") - cut_at > SHORT_LEASE - 3
        for task_id in (again, lost):
            machines.store.cancel(task_id, "admin")
        await_end(machines, [again, lost, waiting], 60)
        assert machines.overlaps() == [] and machines.ghosts([again, lost, waiting]) == []
        eventually(lambda: [load.running for load in machines.store.workers()] == [0, 0], 30)


def beats(machines: Cluster, task_id: str) -> bool:
    return any(period.task_id == task_id for period in machines.periods())


def last_beat(machines: Cluster, task_id: str) -> float:
    return max((period.last for period in machines.periods() if period.task_id == task_id), default=0.0)


def await_end(machines: Cluster, task_ids: list[str], seconds: float) -> None:
    eventually(lambda: all(machines.status(task_id).state in FINAL_STATES for task_id in task_ids), seconds)


# What happens for so many seconds to one worker's machine, or to Redis.
Fault = Callable[[Cluster, int, float], None]


def cut(direction: Direction) -> Fault:
    def happen(machines: Cluster, victim: int, seconds: float) -> None:
        machines.machines[victim].cut(direction)
        time.sleep(seconds)
        machines.machines[victim].heal()

    return happen


def stop_worker(machines: Cluster, victim: int, seconds: float) -> None:
    stopped([machines.workers[victim].pid], seconds)


def stop_keepers(machines: Cluster, victim: int, seconds: float) -> None:
    machines.machines[victim].cut()
    stopped([keeper.pid for keeper in machines.keepers_of(victim)], seconds)
    machines.machines[victim].heal()


def stopped(pids: list[int], seconds: float) -> None:
    signal_all(pids, signal.SIGSTOP)
    time.sleep(seconds)
    signal_all(pids, signal.SIGCONT)


def stop_machine(machines: Cluster, victim: int, seconds: float) -> None:
    machines.machines[victim].freeze()
    time.sleep(seconds)
    machines.machines[victim].thaw()


def put_back_redis(machines: Cluster, victim: int, seconds: float) -> None:
    machines.put_back_redis(seconds)


FAULTS: dict[str, Fault] = {
    "cut in": cut("in"),
    "cut out": cut("out"),
    "cut both": cut("both"),
    "worker stopped": stop_worker,
    "keepers stopped, cut": stop_keepers,
    "machine stopped": stop_machine,
    "redis put back": put_back_redis,
}


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_at_no_moment_are_there_two_runs_of_one_task(number: int, scale: Scale) -> None:
    require_network()
    with cluster(LEASE) as machines:
        play(machines, scale.chance("links", number), f"CHAOS_SEED={scale.seed}, round {number}")


def play(machines: Cluster, chance: random.Random, what: str) -> None:
    # Six that want one lock, one after the other, have time to end.
    tasks = [
        machines.submit(chance.uniform(5, most), lock, chance.choice(("fail", "requeue")))
        for lock, most in chance.choices((("", 120), ("a", 50)), k=6)
    ]
    time.sleep(chance.uniform(2, 6))
    name = chance.choice(sorted(FAULTS))
    seconds = chance.choice((5.0, 12.0, 15.0, 40.0, 90.0))
    FAULTS[name](machines, chance.randrange(2), seconds)
    await_end(machines, tasks, 420)
    what = f"{what}: {name} for {seconds:g} s"
    # A machine that wakes needs a moment to kill what must not run any more.
    allowed_seconds = 1.0 if name == "machine stopped" else 0.05
    assert machines.overlaps(allowed_seconds) == [], what
    if name != "machine stopped":
        assert machines.ghosts(tasks) == [], what
    if seconds <= 40 and name != "keepers stopped, cut":
        for task_id in tasks:
            task, output = machines.status(task_id), machines.store.output(task_id, 0, 10_000).decode()
            assert task.state is State.SUCCEEDED and task.attempt is None, f"{what}: {task.state}: {task.description}"
            assert f"the last line of {task_id}" in output, what
    eventually(lambda: [load.running for load in machines.store.workers()] == [0, 0], 60)
