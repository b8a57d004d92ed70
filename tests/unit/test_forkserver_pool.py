"""Which fork servers and zygotes the pool keeps, ends and counts, with processes that are only said to be there."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from flansible.worker import fork_server, zygotes
from flansible.worker.ansible_config import Configuration, configuration_of
from flansible.worker.fork_server import ForkServer
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.preparation import Preparation
from flansible.worker.sandbox import Sandbox
from flansible.worker.zygote_handle import ForkedProcess, Zygote
from tests.helpers.waiting import eventually

_pids = itertools.count(1 << 30)


class NoZygote(Zygote):
    """A zygote without a process."""

    def __init__(
        self, _limits: tuple[int, int] | None = None, _pack_usual: bool = False, sandbox: Sandbox | None = None
    ) -> None:
        self._sandbox, self.confinements = sandbox, set()
        self._is_late = self.has_ended = False
        self.used_at = time.monotonic()
        self.pid = next(_pids)

    def fork(self, _configuration: Configuration, _pack_usual: bool = False) -> NoProcess:
        self.used_at = time.monotonic()
        return NoProcess(self)

    def wait(self, _seconds: float) -> bool:
        return self.has_ended

    def hang_up(self) -> None:
        self.has_ended = True

    def kill_sandbox(self) -> None:
        self.has_ended = self.has_ended or self.is_sandboxed

    def is_gone(self) -> bool:
        return self.has_ended


class NoProcess(ForkedProcess):
    """A fork server without a process."""

    def __init__(self, zygote: Zygote) -> None:
        self.zygote, self._pidfd, self.first_frame = zygote, None, {}
        self.pid = next(_pids)
        self.has_ended = False

    def wait(self, _seconds: float) -> bool:
        return self.has_ended

    def hang_up(self) -> None:
        self.has_ended = True

    def send_descriptors(self, _letter: bytes, _descriptors: list[int]) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServerPool]:
    monkeypatch.setattr(zygotes, "Zygote", NoZygote)
    pool = ForkServerPool(20)
    yield pool
    pool.close()


@pytest.fixture
def run(pool: ForkServerPool, tmp_path: Path) -> Iterator[Callable[..., ForkServer]]:
    """Launches a run in a folder of this name, with a configuration of its own."""
    ours, theirs = socket.socketpair()

    def launch(name: str, sandbox: Sandbox | None = None, is_ansible: bool = True) -> ForkServer:
        return pool.launch(folder(tmp_path, name), {}, theirs, ours.fileno(), ours.fileno(), sandbox, is_ansible)

    with ours, theirs:
        yield launch


def folder(parent: Path, name: str) -> str:
    path = parent / name
    if not path.exists():
        path.mkdir(mode=0o755)
        (path / "ansible.cfg").touch()
    return str(path)


def of(user: str, file: int = 0) -> Sandbox:
    return Sandbox(user, os.sep, (), ((file, file),), ())


def test_the_zygote_whose_fork_servers_are_used_is_not_the_one_that_makes_room(
    pool: ForkServerPool, run: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes, "_MOST_SANDBOXED", 2)
    busy, idle = run("p", of("busy")), run("p", of("idle"))
    assert run("p", of("busy")) is busy
    run("p", of("third"))
    assert (busy.is_usable, idle.is_usable) == (True, False)
    assert pool.counts("w").evicted == 1


def test_a_fork_server_that_gets_not_ready_keeps_no_other_waiting(
    run: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    fork = fork_server.fork

    def slow(configuration: Configuration, *more: Any) -> ForkServer:
        if configuration.directory.endswith("slow"):
            hangs.set()
            goes_on.wait(10)
        return fork(configuration, *more)

    monkeypatch.setattr(fork_server, "fork", slow)
    with ThreadPoolExecutor() as background:
        slow_run = background.submit(run, "slow")
        try:
            assert hangs.wait(10)
            background.submit(run, "other").result(2)
            assert not slow_run.done()
        finally:
            goes_on.set()
    assert slow_run.result().is_usable


def test_what_a_fork_server_replaces_is_ended_when_all_can_have_the_new_one(
    pool: ForkServerPool, run: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool._limit = 1
    old = run("old")
    kept: list[list[str]] = []
    monkeypatch.setattr(old, "close", lambda: kept.append([key.directory for key in pool._servers]))
    run("new")
    assert [Path(directory).name for [directory] in kept] == ["new"]


def test_what_is_only_prepared_ends_no_fork_server(
    pool: ForkServerPool, run: Callable[..., ForkServer], tmp_path: Path
) -> None:
    pool._limit = 1
    server = run("used")
    pool.prepare(configuration_of(folder(tmp_path, "waiting")))
    assert (server.alive, pool.counts("w").evicted) == (True, 0)
    (tmp_path / "used" / "ansible.cfg").write_text("[defaults]\n")
    pool.prepare(configuration_of(folder(tmp_path, "used")))
    assert pool.counts("w").forked == 2


def test_a_sandbox_that_has_changed_replaces_the_users_older_one(
    pool: ForkServerPool, run: Callable[..., ForkServer]
) -> None:
    other = run("p", of("ops"))
    older = [run(name, of("dev", file=1)) for name in "pq"]
    newer = run("p", of("dev", file=2))
    assert [server.is_usable for server in (other, *older, newer)] == [True, False, False, True]
    assert pool._zygotes.all() == [other.host, newer.host]


def test_a_late_zygote_is_replaced_and_its_fork_servers_stay(
    pool: ForkServerPool, run: Callable[..., ForkServer]
) -> None:
    pool._limit = 2
    first, second = run("a"), run("b")
    late = first.host
    assert isinstance(late, NoZygote)
    late._is_late = True
    third = run("c")
    assert third.host is not late and second.is_usable and run("b") is second
    assert late.alive and late.pid in pool.unconfined_pids
    run("d")
    run("c")
    assert not second.is_usable and not late.alive


def test_a_fork_server_whose_sandbox_was_withdrawn_meanwhile_gets_no_run(
    pool: ForkServerPool, run: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[ForkServer] = []
    fork = fork_server.fork

    def withdrawn(configuration: Configuration, *more: Any) -> ForkServer:
        server = fork(configuration, *more)
        if not forked:
            pool.withdraw(server.host)
        forked.append(server)
        return server

    monkeypatch.setattr(fork_server, "fork", withdrawn)
    server = run("p", of("dev"))
    assert server is forked[1] and server.host is not forked[0].host
    assert not forked[0].alive and forked[0].host in pool.sandboxed()


def test_a_zygote_that_was_unused_for_long_ends_in_a_service_without_runs(
    pool: ForkServerPool, run: Callable[..., ForkServer]
) -> None:
    server = run("p", of("dev"))
    zygote = server.host
    pool._drop(server)
    assert isinstance(zygote, NoZygote)
    Preparation(cast(Any, None), pool, cast(Any, None), lambda _user: None, lambda: False).tick()
    assert zygote.alive
    zygote.used_at -= 121
    Preparation(cast(Any, None), pool, cast(Any, None), lambda _user: None, lambda: False).tick()
    assert not zygote.alive and pool._zygotes.all() == []


def test_only_runs_of_ansible_that_did_not_wait_for_their_fork_server_count_as_warm(
    pool: ForkServerPool, run: Callable[..., ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = fork_server.fork

    def with_another_waiting(configuration: Configuration, *more: Any) -> ForkServer:
        waiting.append(background.submit(run, "p"))
        eventually(lambda: looks == ["p"] * 3)
        return fork(configuration, *more)

    waiting: list[Future[ForkServer]] = []
    looks: list[str] = []
    look = pool._warm_server

    def looked(configuration: Configuration, is_for_run: bool) -> ForkServer | None:
        looks.append(Path(configuration.directory).name)
        return look(configuration, is_for_run)

    monkeypatch.setattr(pool, "_warm_server", looked)
    monkeypatch.setattr(fork_server, "fork", with_another_waiting)
    with ThreadPoolExecutor() as background:
        server = run("p")
    assert waiting[0].result() is server and pool.counts("w").warm == 0
    assert run("p", is_ansible=False) is server and pool.counts("w").warm == 0
    assert run("p") is server and pool.counts("w").warm == 1
