"""An external Redis and a RabbitMQ that are killed, stopped or frozen, and come back: runs go on, nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.chaos import arena as arenas
from tests.chaos.arena import Arena
from tests.chaos.conftest import LONGEST_FROZEN_SECONDS, Players, Scale, playing
from tests.chaos.rounds import Fault, Struck, Touches
from tests.helpers import process_tree, servers
from tests.helpers.process_tree import Tree

REDIS_PASSWORD = "word-for-redis"


class Outside:
    """A server that is not the service's own. `pids`: what it is to be told from the service by."""

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self.pids: list[int] = []

    def start(self) -> None:
        before = {process.pid for process in psutil.Process().children()}
        self._server.start()
        self.pids[:] = [process.pid for process in psutil.Process().children() if process.pid not in before]

    def all_pids(self) -> list[int]:
        tree = Tree()
        return [*self.pids, *(seen.pid for pid in self.pids for seen in tree.below(pid))]

    def kill(self) -> None:
        process_tree.kill([psutil.Process(pid) for pid in self.all_pids()])
        self.stop()

    def stop(self) -> None:
        self._server.stop()


def killed(outside: Outside) -> Callable[[Arena, random.Random, float], Struck]:
    def strike(_arena: Arena, _chance: random.Random, away: float) -> Struck:
        at = time.time()
        outside.kill()
        time.sleep(away)
        outside.start()
        return Struck(at, time.time())

    return strike


def stopped(outside: Outside) -> Callable[[Arena, random.Random, float], Struck]:
    def strike(_arena: Arena, _chance: random.Random, away: float) -> Struck:
        at = time.time()
        outside.stop()
        time.sleep(away)
        outside.start()
        return Struck(at, time.time())

    return strike


def frozen(outside: Outside) -> Callable[[Arena, random.Random, float], Struck]:
    def strike(_arena: Arena, _chance: random.Random, away: float) -> Struck:
        at, pids = time.time(), outside.all_pids()
        arenas.freeze(pids)
        time.sleep(min(away, LONGEST_FROZEN_SECONDS))
        arenas.thaw(pids)
        return Struck(at, time.time())

    return strike


def faults(name: str, outside: Outside) -> tuple[Fault, Fault, Fault]:
    return (
        Fault(f"{name} killed", killed(outside), Touches.NONE),
        Fault(f"{name} frozen", frozen(outside), Touches.NONE),
        Fault(f"{name} stopped", stopped(outside), Touches.NONE),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "server"
    path.mkdir()
    return path


def played(scale: Scale, config: str, others: Callable[[], list[int]]) -> Iterator[Players]:
    with ExitStack() as places:
        yield from playing(Players(lambda: Arena(places.enter_context(arenas.place()), config, others), scale))


@pytest.fixture
def with_redis(folder: Path, scale: Scale) -> Iterator[tuple[Players, Outside]]:
    server = servers.redis(folder, REDIS_PASSWORD)
    outside = Outside(server)
    outside.start()
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}"
    config = f"CELERY_BROKER_URL = {url}/0\nCELERY_RESULT_BACKEND = {url}/1\n"
    try:
        for players in played(scale, config, lambda: outside.pids):
            yield players, outside
    finally:
        outside.stop()


@pytest.fixture
def with_rabbitmq(folder: Path, scale: Scale) -> Iterator[tuple[Players, Outside]]:
    server, mapper = servers.rabbitmq(folder)
    outside, outside_mapper = Outside(server), Outside(mapper)
    outside_mapper.start()
    try:
        outside.start()
        config = f"CELERY_BROKER_URL = amqp://guest:guest@127.0.0.1:{server.port}//\n"
        for players in played(scale, config, lambda: outside.pids + outside_mapper.pids):
            yield players, outside
    finally:
        outside.stop()
        outside_mapper.stop()


@pytest.mark.by_day(0)
def test_runs_go_on_while_an_external_redis_is_away(rounds: range, with_redis: tuple[Players, Outside]) -> None:
    players, outside = with_redis
    players.play(rounds, *faults("external redis", outside), away=True)


@pytest.mark.nightly  # test_brokers has a RabbitMQ that is killed, and one that is frozen
def test_runs_go_on_while_rabbitmq_is_away(rounds: range, with_rabbitmq: tuple[Players, Outside]) -> None:
    players, outside = with_rabbitmq
    players.play(rounds, *faults("rabbitmq", outside), away=True)
