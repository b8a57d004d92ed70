"""Processes of a service that die or are told to: they are started again, and every task has a true end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from tests.helpers.leaks import fail_on_leaks
from tests.helpers.ports import free_port
from tests.helpers.process_tree import keeper_of, new_mark, sleepers, sleeping
from tests.helpers.services import ADMIN, FLANSIBLE_WORKER, SCRIPTS, Service, child, started, worker_by_hand
from tests.helpers.waiting import eventually


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing_behind(_home: Path, _subreaper: None) -> Iterator[None]:
    """Of the module in place of each test: what dies is started again, as another process."""
    yield from fail_on_leaks(_home, False, "module")


class Mortal:
    """A service whose processes are killed; each time a test has it, it works."""

    MOST_DEATHS = 6  # `up` stops when one of its children dies ten times within a minute

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._service: Service | None = None
        self._deaths: Counter[str] = Counter()

    def service(self, **deaths: int) -> Service:
        """deaths: how often each role will be killed. Another service, where this one has seen too many."""
        self._deaths.update(deaths)
        if self._service is None or max(self._deaths.values(), default=0) > self.MOST_DEATHS:
            self.close()
            self._deaths = Counter(deaths)
            self._service = self._stack.enter_context(started("drain_seconds = 1\n"))
        return self._service

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def mortal() -> Iterator[Mortal]:
    found = Mortal()
    yield found
    found.close()


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("role", ["web", "worker", "redis"])
def test_what_dies_is_started_again(mortal: Mortal, role: str, times: int) -> None:
    """Killed alone: what it had started itself must not stand in its successor's way."""
    service = mortal.service(**{role: times})
    for _ in range(times):
        victim = child(service, role)
        orphans = victim.children(recursive=True)
        victim.kill()
        eventually(lambda victim=victim: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
        # First: a web process that has lost its master answers until it is ended.
        _, alive = psutil.wait_procs(orphans, timeout=10)
        assert alive == []
        eventually(lambda: healthy_again(service), 60)
        assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


def test_a_web_process_that_dies_is_started_again(mortal: Mortal) -> None:
    service = mortal.service()
    processes = child(service, "web").children()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    eventually(lambda: healthy_again(service), 60)
    assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


@pytest.mark.nightly
def test_flower_that_dies_is_started_again() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/healthcheck"
    with started(f"flower_tcp_port = {port}\n", "--flower") as service:
        for _ in range(2):
            eventually(lambda: is_answered(url), 60)
            child(service, "flower").kill()
            eventually(lambda: not is_answered(url))
        eventually(lambda: is_answered(url), 60)


def healthy_again(service: Service) -> bool:
    return is_answered(f"{service.url}/api/health")


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url, auth=ADMIN, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_worker_told_to_stop_by_celery_control_drains_too(mortal: Mortal) -> None:
    service = mortal.service(worker=1)
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 60"})
    eventually(lambda: service.status(task_id)["state"] == "running")
    celery = str(SCRIPTS / "celery")
    words = [celery, "-A", "flansible.celery_app", "control", "shutdown"]
    subprocess.run(words, cwd=service.root, env=service.environ, capture_output=True, timeout=30)
    status = service.wait(task_id)
    assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)
    eventually(lambda: healthy_again(service), 60)  # `up` has started another


@pytest.mark.nightly
def test_a_task_whose_worker_is_killed_becomes_lost_and_is_never_run_again(mortal: Mortal, tmp_path: Path) -> None:
    service = mortal.service(worker=1)
    mark, ran = f"94{os.getpid()}.25", tmp_path / "ran"
    body = {"module": "shell", "module_args": f"echo x >> {ran}; sleep {mark}"}
    task_id = service.submit("ansiblecommand", body)
    eventually(lambda: sleepers(mark))
    child(service, "worker").kill()
    eventually(lambda: not sleepers(mark))  # nothing goes on unsupervised
    status = service.wait(task_id, seconds=40)
    assert (status["Status"], status["state"]) == ("LOST", "lost")
    assert "died" in status["description"]
    assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"
    assert ran.read_text() == "x\n"


def sleeping_run(service: Service, mark: str, **more: str) -> tuple[str, psutil.Process, psutil.Process]:
    """A task that sleeps, its keeper and its fork server."""
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": f"sleep {mark}", **more})
    (sleeper,) = eventually(lambda: sleeping(mark))
    return (task_id, *keeper_of(sleeper))


def test_stopped_runners_are_continued_cancel_and_next_tasks_work_and_health_says_it(mortal: Mortal) -> None:
    """As a run of admin may do with SIGSTOP."""
    service, mark = mortal.service(), new_mark()
    task_id, keeper, server = sleeping_run(service, mark)
    keeper.send_signal(signal.SIGSTOP)
    server.send_signal(signal.SIGSTOP)
    following = service.submit("ansiblecommand", {"module": "debug"})
    # 202, or 200 where the worker's look at its runners came while the request waited.
    assert service.client().post(f"/api/ansibletaskcancel/{task_id}", json={}).status_code in (200, 202)
    assert service.wait(following, seconds=20)["Status"] == "SUCCESS"
    status = service.wait(task_id, seconds=20)
    assert status["state"] == "canceled" and not sleeping(mark)
    assert "; 0 processes" not in status["description"]

    def says_it() -> bool:
        server.send_signal(signal.SIGSTOP)  # again and again: it is continued at each look
        return "fork server was stopped by a signal" in service.client().get("/api/health").text

    eventually(says_it, 20)
    eventually(lambda: healthy_again(service), 60)
    assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


def test_a_run_whose_worker_is_killed_while_its_keeper_is_stopped_ends_before_it_begins_again(
    mortal: Mortal, tmp_path: Path
) -> None:
    service, beats = mortal.service(worker=1), tmp_path / "beats"
    script = f"while echo $$ $(date +%s) >> {beats}; do sleep 0.2; done"
    task_id = service.submit("ansiblecommand", {"module": "shell", "module_args": script, "on_lost": "requeue"})
    first = eventually(lambda: beats.exists() and beats.read_text().split()[:1])[0]
    keeper, server = keeper_of(psutil.Process(int(first)))
    keeper.send_signal(signal.SIGSTOP)
    server.send_signal(signal.SIGSTOP)
    child(service, "worker").kill()
    eventually(lambda: {line.split()[0] for line in beats.read_text().splitlines() if line} - {first}, 45)
    assert not psutil.pid_exists(int(first))
    service.client().post(f"/api/ansibletaskcancel/{task_id}", json={})
    assert service.wait(task_id)["state"] == "canceled"
    runs = [line.split()[0] for line in beats.read_text().splitlines() if line]
    assert len([one for one, following in pairwise(runs) if one != following]) == 1, "one after the other"


def test_a_silent_run_that_an_emptied_redis_does_not_know_ends_and_the_service_works(mortal: Mortal) -> None:
    service, mark = mortal.service(), new_mark()
    sleeping_run(service, mark)
    with redis.Redis(unix_socket_path=str(service.root / ".flansible/redis.sock")) as store:
        store.flushall()
    eventually(lambda: not sleeping(mark), 15)
    # What was final is in the history database by now.
    listed = service.client().get("/api/ansibletasks").json()["tasks"]
    assert [task for task in listed if task["Status"] == "PROGRESS"] == []
    eventually(lambda: healthy_again(service), 60)
    assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


@pytest.mark.nightly
def test_two_workers_share_twenty_tasks(mortal: Mortal) -> None:
    service = mortal.service()
    with worker_by_hand(service, *FLANSIBLE_WORKER) as second:
        body = {"module": "command", "module_args": "sleep 0.3"}
        began = time.monotonic()
        ids = [service.submit("ansiblecommand", body) for _ in range(20)]
        for task_id in ids:
            assert service.wait(task_id)["Status"] == "SUCCESS"
        assert time.monotonic() - began < 60
        listed = service.client().get("/api/ansibletasks?state=succeeded&limit=20").json()["tasks"]
        assert {task["task_id"] for task in listed} == set(ids)
        second.terminate()
        second.wait(15)
