"""kill -9 of each process of a service, of several, and of all of them, at a random moment of a mixed load."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.chaos import arena as arenas
from tests.chaos.arena import Arena
from tests.chaos.conftest import LONGEST_FROZEN_SECONDS, Players, Scale, playing
from tests.chaos.rounds import WORKER_DIED, Fault, Struck, Touches, struck_now
from tests.helpers.process_tree import Seen, Tree
from tests.helpers.waiting import eventually


@pytest.fixture(scope="module")
def players(scale: Scale) -> Iterator[Players]:
    with ExitStack() as places:
        yield from playing(Players(lambda: Arena(places.enter_context(arenas.place())), scale))


def one_of(kind: str, chance: random.Random) -> Seen:
    """A process of a run; waits for one, should nothing run at this moment."""
    found = eventually(lambda: getattr(Tree(), kind)(), 20)
    victim = chance.choice(sorted(found, key=lambda seen: seen.pid))
    assert isinstance(victim, Seen)
    return victim


def kill_run(_arena: Arena, chance: random.Random, _away: float) -> Struck:
    return of_one_run(victim := one_of("runs", chance), keeper=victim.parent)


def kill_ansible_worker(_arena: Arena, chance: random.Random, _away: float) -> Struck:
    victim, tree = one_of("ansible_workers", chance), Tree()
    return of_one_run(victim, keeper=tree.seen[victim.parent].parent)


def kill_keeper(_arena: Arena, chance: random.Random, _away: float) -> Struck:
    return of_one_run(victim := one_of("keepers", chance), keeper=victim.pid)


def of_one_run(victim: Seen, keeper: int) -> Struck:
    """Kill it; the run is known by its keeper, which stays above all it has started whoever else dies."""
    return replace(struck_now([victim], victim.line), pids=(keeper,))


def kill_fork_server(_arena: Arena, chance: random.Random, _away: float) -> Struck:
    return struck_now([victim := one_of("fork_servers", chance)], victim.line)


def kill_zygote(_arena: Arena, chance: random.Random, _away: float) -> Struck:
    return struck_now([victim := one_of("zygotes", chance)], victim.line)


def kill_worker(arena: Arena, _chance: random.Random, _away: float) -> Struck:
    return struck_now([victim := arena.role("worker")], victim.line)


def kill_web(arena: Arena, _chance: random.Random, _away: float) -> Struck:
    return struck_now([victim := arena.role("web")], victim.line)


def kill_web_worker(arena: Arena, chance: random.Random, _away: float) -> Struck:
    master = arena.role("web")
    return struck_now([victim := chance.choice(Tree().children(master.pid))], victim.line)


def kill_redis(arena: Arena, _chance: random.Random, _away: float) -> Struck:
    return struck_now([victim := arena.role("redis")], victim.line)


def kill_everything(arena: Arena, _chance: random.Random, _away: float) -> Struck:
    at = time.time()
    arena.kill_everything()
    attempts = arena.up_again()
    return Struck(at, time.time(), note=f"{attempts} attempts")


def kill_up(arena: Arena, chance: random.Random, _away: float) -> Struck:
    at = time.time()
    arena.kill_up()
    time.sleep(chance.choice((0.0, chance.uniform(0.0, 3.0))))
    attempts = arena.up_again()
    return Struck(at, time.time(), note=f"{attempts} attempts")


def freeze_redis(arena: Arena, _chance: random.Random, away: float) -> Struck:
    pid, at = arena.role("redis").pid, time.time()
    arenas.freeze([pid])
    time.sleep(min(away, LONGEST_FROZEN_SECONDS))
    arenas.thaw([pid])
    return Struck(at, time.time())


FAULTS = (
    Fault("run", kill_run, Touches.ONE, r"signal 9"),
    Fault(
        "ansible worker",
        kill_ansible_worker,
        Touches.ONE,
        r"exit code \d+|worker process",
        ends_as=("failed", "error"),
        too_late=True,  # it may have given its answer
    ),
    Fault("keeper", kill_keeper, Touches.ONE, r"keeper"),
    Fault("fork server", kill_fork_server, Touches.RUNNING, r"fork server|keeper"),
    Fault("zygote", kill_zygote, Touches.NONE),
    Fault("web server", kill_web, Touches.NONE, web_away=True),
    Fault("web process", kill_web_worker, Touches.NONE, web_away=True),
    Fault("redis", kill_redis, Touches.NONE),
    Fault("celery worker", kill_worker, Touches.RUNNING, WORKER_DIED),
    Fault("up", kill_up, Touches.RUNNING, WORKER_DIED, web_away=True, up_ends=True),
    Fault("everything", kill_everything, Touches.RUNNING, WORKER_DIED, web_away=True, up_ends=True),
)


@pytest.mark.by_day(3)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_after_a_kill_every_task_has_a_true_end(fault: Fault, rounds: range, players: Players) -> None:
    players.play(rounds, fault)


def test_runs_go_on_while_redis_is_frozen(rounds: range, players: Players) -> None:
    players.play(rounds, Fault("redis frozen", freeze_redis, Touches.NONE), away=True)
