"""`flansible up` from start to stop: what it refuses, what it makes, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from werkzeug.security import generate_password_hash

from tests.helpers.ports import free_port
from tests.helpers.process_tree import detached, sleepers
from tests.helpers.services import Service, flansible_environ, lay_out, start_service, write
from tests.helpers.waiting import eventually

FLANSIBLE = str(Path(sys.executable).parent / "flansible")


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="flansible-test-"))
    yield path
    shutil.rmtree(path)


def refused(place: Path, environ: dict[str, str] | None = None) -> str:
    """What `flansible up` says when it will not start."""
    done = subprocess.run(
        [FLANSIBLE, "up"],
        cwd=place,
        env={**flansible_environ(), **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_any_file_it_works_and_makes_a_private_rbac_json(place: Path) -> None:
    environ = {**flansible_environ(), "FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    process = subprocess.Popen(
        [FLANSIBLE, "up"], cwd=place, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line == f"Flansible is ready at http://127.0.0.1:{environ['FLANSIBLE_FLASK_TCP_PORT']}\n"
    reply = httpx.get(line.split()[-1] + "/api/ansibletasks", auth=("admin", "admin"))
    assert reply.json() == {"tasks": [], "next_before": None, "changes": 0}
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "password admin; change it with `flansible passwd admin`" in errors
    assert f"Playbooks are looked for in {place}/playbooks, which does not exist" in errors
    assert (place / "rbac.json").stat().st_mode & 0o777 == 0o600
    assert (place / ".flansible").stat().st_mode & 0o777 == 0o700


def test_on_another_address_it_wants_a_password_for_admin_first(place: Path) -> None:
    environ = {"FLANSIBLE_FLASK_TCP_IP": "0.0.0.0", "FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    assert "flansible passwd admin" in refused(place, environ)
    assert not (place / "rbac.json").exists()
    users = {"rbac": [{"user": "admin", "password": "admin", "inventories": []}]}
    write(place / "rbac.json", json.dumps(users))
    assert "still the default" in refused(place, environ)
    hashed = {"user": "admin", "password": generate_password_hash("admin")}
    write(place / "rbac.json", json.dumps({"rbac": [hashed]}))
    assert "still the default" in refused(place, environ)  # hashed is no better


def test_faults_of_config_ini_are_told_all_at_once_with_their_keys(place: Path) -> None:
    write(place / "config.ini", "[Default]\nFlask_tcp_port = 99999\nCELERY_TASK_TIMEOUT = soon\nplaybok_root = x\n")
    said = refused(place, {"FLANSIBLE_CELERY_BROKER_URL": "http://user:hidden@nowhere"})
    for word in ("Flask_tcp_port", "CELERY_TASK_TIMEOUT", "did you mean playbook_root", "FLANSIBLE_CELERY_BROKER_URL"):
        assert word in said
    assert "hidden" not in said


def test_faults_of_rbac_json_are_told_all_at_once_with_their_keys(place: Path) -> None:
    users = [{"user": "admin"}, {"user": "dev", "password": 5, "inventories": "dev"}, {"usr": "x", "password": "y"}]
    write(place / "rbac.json", json.dumps({"rbac": users}))
    said = refused(place, {"FLANSIBLE_FLASK_TCP_PORT": str(free_port())})
    for words in (
        *('user "admin": password: is missing', 'user "dev": password: ', 'user "dev": inventories: '),
        *("rbac[2]: user: is missing", 'rbac[2]: unknown key "usr", did you mean "user"?'),
    ):
        assert words in said


def test_a_port_in_use_is_told_before_anything_starts_or_is_written(place: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        said = refused(place, {"FLANSIBLE_FLASK_TCP_PORT": str(port)})
    assert "Flask_tcp_port" in said and f"FLANSIBLE_FLASK_TCP_PORT={port + 1}" in said
    assert list(place.iterdir()) == []


@pytest.fixture
def impatient(place: Path) -> Iterator[Service]:
    """A service whose runs may take three seconds."""
    lay_out(place)
    running = start_service(place, "CELERY_TASK_TIMEOUT = 3\ngrace_seconds = 1\n")
    yield running
    assert running.stop() < 10


def test_a_run_over_its_time_is_ended_with_everything_it_started(impatient: Service) -> None:
    mark = f"98{os.getpid()}.25"
    task_id = impatient.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    status = impatient.wait(task_id)
    assert (status["Status"], status["state"]) == ("TIMEOUT", "timed_out")
    assert "CELERY_TASK_TIMEOUT" in status["description"]
    assert sleepers(mark) == []


def test_a_second_service_or_worker_on_the_same_data_is_refused(impatient: Service) -> None:
    environ = {"FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    assert "another `flansible up`" in refused(impatient.root, environ)
    worker = subprocess.run(
        [FLANSIBLE, "worker"], cwd=impatient.root, env=impatient.environ, capture_output=True, text=True, timeout=60
    )
    assert worker.returncode == 2, worker
    assert "a worker of this name is running" in worker.stderr and "--name" in worker.stderr


def child(service: Service, role: str) -> psutil.Process:
    """The process of one role that `flansible up` has started."""
    for process in psutil.Process(service.process.pid).children():
        try:
            words = process.cmdline()
        except psutil.ZombieProcess:  # left to `up` by one that was killed, and about to be taken note of
            continue
        if (role in words) if role != "redis" else ("unixsocket" in " ".join(words)):
            return process
    raise AssertionError(f"no {role}")


@pytest.mark.parametrize("role", ["web", "worker", "redis"])
def test_what_dies_is_started_again(impatient: Service, role: str) -> None:
    """Killed alone: what it had started itself must not stand in its successor's way."""
    for _ in range(2):
        victim = child(impatient, role)
        orphans = victim.children(recursive=True)
        victim.kill()
        eventually(lambda victim=victim: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
        # First: a web process that has lost its master answers until it is ended.
        _, alive = psutil.wait_procs(orphans, timeout=10)
        assert alive == []
        eventually(lambda: healthy_again(impatient), 60)
        status, _ = impatient.run("ansiblecommand", {"module": "debug"})
        assert status["Status"] == "SUCCESS"


def test_a_web_process_that_dies_is_started_again(impatient: Service) -> None:
    processes = child(impatient, "web").children()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    eventually(lambda: healthy_again(impatient), 60)
    assert impatient.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


def test_flower_that_dies_is_started_again(place: Path) -> None:
    lay_out(place)
    port = free_port()
    service = start_service(place, f"flower_tcp_port = {port}\n", ("--flower",))
    try:
        for _ in range(2):
            eventually(lambda: is_answered(f"http://127.0.0.1:{port}/healthcheck"), 60)
            child(service, "flower").kill()
            eventually(lambda: not is_answered(f"http://127.0.0.1:{port}/healthcheck"))
        eventually(lambda: is_answered(f"http://127.0.0.1:{port}/healthcheck"), 60)
    finally:
        assert service.stop() < 10


def healthy_again(service: Service) -> bool:
    return is_answered(f"{service.url}/api/health")


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url, auth=("admin", "admin secret"), timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_stop_during_runs_ends_them_and_says_so(place: Path) -> None:
    """Eight that do not want to end, as many as there are slots, and one behind them."""
    lay_out(place)
    service = start_service(place)
    mark = f"97{os.getpid()}.25"
    lost = [service.submit("ansiblecommand", detached(mark)) for _ in range(8)]
    eventually(lambda: len(sleepers(mark)) >= 4 * 8, 60)
    queued = service.submit("ansiblecommand", {"module": "debug"})
    assert service.stop() < 10
    assert sleepers(mark) == []
    again = start_service(place)
    try:
        for task_id in lost:
            status = again.status(task_id)
            assert (status["Status"], status["state"]) == ("LOST", "lost")
            assert "worker was stopped" in status["description"]
        assert again.wait(queued)["state"] == "succeeded"
    finally:
        assert again.stop() < 10


def test_a_stop_waits_for_runs_as_long_as_it_is_told_to_and_the_web_server_shows_them(place: Path) -> None:
    lay_out(place)
    service = start_service(place, "drain_seconds = 60\n")
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 4"})
    eventually(lambda: service.status(task_id)["state"] == "running")
    service.process.send_signal(signal.SIGTERM)
    assert service.wait(task_id)["state"] == "succeeded"
    assert service.process.wait(10) == 0
    service.stop()


def test_a_second_signal_ends_the_stop_at_once(place: Path) -> None:
    lay_out(place)
    service = start_service(place, "drain_seconds = 3600\n")
    mark = f"93{os.getpid()}.25"
    task_id = service.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    service.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert service.status(task_id)["state"] == "running"
    later = service.submit("ansiblecommand", {"module": "debug"})  # taken, and kept for the next start
    service.process.send_signal(signal.SIGINT)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
    assert sleepers(mark) == []
    service.stop()
    again = start_service(place)
    try:
        status = again.status(task_id)
        assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)
        assert again.wait(later)["state"] == "succeeded"
    finally:
        assert again.stop() < 10


@contextmanager
def worker_by_hand(service: Service, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker started beside the service's own; killed in the end should it still be there."""
    log = service.root / "worker.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=service.root,
            env=service.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
    assert "Traceback" not in log.read_text()


CELERY_WORKER = ("celery", "-A", "flansible.celery_app", "worker", "-n", "hand@%h")
FLANSIBLE_WORKER = ("flansible", "worker", "--name", "hand")


@pytest.fixture(scope="module")
def busy() -> Iterator[Service]:
    """A service whose own worker is taken up, and whose workers let runs go on for an hour when they are stopped."""
    root = Path(tempfile.mkdtemp(prefix="flansible-test-"))
    lay_out(root)
    service = start_service(root, "worker_concurrency = 1\ndrain_seconds = 3600\n")
    mark = f"36{os.getpid()}.25"
    blocker = service.submit("ansiblecommand", {"module": "command", "module_args": f"sleep {mark}"})
    eventually(lambda: sleepers(mark))
    yield service
    service.client().post(f"/api/ansibletaskcancel/{blocker}")
    service.wait(blocker)
    assert service.stop() < 10
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("command", "signals"),
    [
        (CELERY_WORKER, "TERM TERM"),
        (CELERY_WORKER, "INT INT QUIT INT"),
        (CELERY_WORKER, "QUIT"),
        (FLANSIBLE_WORKER, "TERM QUIT TERM"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_second_signal_to_a_worker_ends_its_runs_at_once(
    busy: Service, command: tuple[str, ...], signals: str
) -> None:
    mark = f"92{os.getpid()}.25"
    with worker_by_hand(busy, *command) as worker:
        task_id = busy.submit("ansiblecommand", detached(mark))
        eventually(lambda: len(sleepers(mark)) >= 4)
        for name in signals.split():
            worker.send_signal(getattr(signal, f"SIG{name}"))
            time.sleep(0.4)
        assert worker.wait(15) == 0
        assert sleepers(mark) == []
        status = busy.status(task_id)
        assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)


def test_a_first_signal_to_a_worker_lets_its_run_end_and_leaves_what_waits(busy: Service) -> None:
    with worker_by_hand(busy, *CELERY_WORKER) as worker:
        task_id = busy.submit("ansiblecommand", {"module": "command", "module_args": "sleep 3"})
        eventually(lambda: busy.status(task_id)["state"] == "running")
        queued = busy.submit("ansiblecommand", {"module": "debug"})
        worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 0
        assert busy.status(task_id)["state"] == "succeeded"
        assert busy.status(queued)["state"] == "queued"
    with worker_by_hand(busy, *CELERY_WORKER) as worker:
        assert busy.wait(queued)["state"] == "succeeded"
        worker.terminate()
        worker.wait(15)


def test_a_worker_told_to_stop_by_celery_control_drains_too(place: Path) -> None:
    lay_out(place)
    service = start_service(place, "drain_seconds = 1\n")
    try:
        task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 60"})
        eventually(lambda: service.status(task_id)["state"] == "running")
        celery = str(Path(sys.executable).parent / "celery")
        words = [celery, "-A", "flansible.celery_app", "control", "shutdown"]
        subprocess.run(words, cwd=place, env=service.environ, capture_output=True, timeout=30)
        status = service.wait(task_id)
        assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)
        eventually(lambda: healthy_again(service), 60)  # `up` has started another
    finally:
        assert service.stop() < 10


def test_a_task_whose_worker_is_killed_becomes_lost_and_is_never_run_again(place: Path) -> None:
    lay_out(place)
    service = start_service(place)
    try:
        mark, started = f"94{os.getpid()}.25", place / "started"
        body = {"module": "shell", "module_args": f"echo x >> {started}; sleep {mark}"}
        task_id = service.submit("ansiblecommand", body)
        eventually(lambda: sleepers(mark))
        worker = next(c for c in psutil.Process(service.process.pid).children() if "worker" in c.cmdline())
        worker.kill()
        eventually(lambda: not sleepers(mark))  # nothing goes on unsupervised
        status = service.wait(task_id, seconds=40)
        assert (status["Status"], status["state"]) == ("LOST", "lost")
        assert "died" in status["description"]
        assert service.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"
        assert started.read_text() == "x\n"
    finally:
        assert service.stop() < 10


def test_a_task_whose_message_is_gone_is_run_all_the_same(place: Path) -> None:
    lay_out(place)
    service = start_service(place)
    try:
        with redis.Redis(unix_socket_path=str(place / ".flansible/redis.sock")) as store:
            busy = [service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 4"}) for _ in range(8)]
            for task_id in busy:
                eventually(lambda task_id=task_id: service.status(task_id)["state"] == "running")
            waiting = service.submit("ansiblecommand", {"module": "debug"})
            assert store.delete("flansible:broker:flansible") == 1
        assert service.status(waiting)["state"] == "queued"
        assert service.wait(waiting, seconds=60)["Status"] == "SUCCESS"
    finally:
        assert service.stop() < 10


@pytest.mark.parametrize("drain_seconds", [2, 3600])
def test_when_up_itself_is_killed_everything_ends_and_a_new_one_works_at_once(place: Path, drain_seconds: int) -> None:
    lay_out(place)
    config = f"drain_seconds = {drain_seconds}\nflower_tcp_port = {free_port()}\n"
    service = start_service(place, config, ("--flower",))
    mark = f"96{os.getpid()}.25"
    task_id = service.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    tree = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    service.process.wait()
    service.stop()
    again = start_service(place)  # waits for what the other has left
    try:
        _, alive = psutil.wait_procs(tree, timeout=10)
        assert alive == []
        assert sleepers(mark) == []
        assert again.wait(task_id, seconds=40)["state"] == "lost"
        assert again.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"
    finally:
        assert again.stop() < 10


def test_two_workers_share_twenty_tasks(place: Path) -> None:
    lay_out(place)
    service = start_service(place, "worker_concurrency = 2\n")
    second = subprocess.Popen(
        [FLANSIBLE, "worker", "--name", "second"],
        cwd=place,
        env=service.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        admin = service.client()
        body = {"module": "command", "module_args": "sleep 0.3"}
        began = time.monotonic()
        ids = [service.submit("ansiblecommand", body) for _ in range(20)]
        for task_id in ids:
            assert service.wait(task_id)["Status"] == "SUCCESS"
        assert time.monotonic() - began < 60
        listed = admin.get("/api/ansibletasks?state=succeeded").json()["tasks"]
        assert {task["task_id"] for task in listed} == set(ids)
    finally:
        second.terminate()
        second.wait(15)
        assert service.stop() < 10


def test_celery_by_hand_works_as_a_worker_too(place: Path) -> None:
    """`celery -A flansible.celery_app worker` beside a service whose own worker is busy."""
    lay_out(place)
    service = start_service(place, "worker_concurrency = 1\n")
    blocker = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 30"})
    eventually(lambda: service.status(blocker)["state"] == "running")
    by_hand = subprocess.Popen(
        [str(Path(sys.executable).parent / "celery"), "-A", "flansible.celery_app", "worker", "-n", "hand@%h"],
        cwd=place,
        env=service.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status, _ = service.run("ansiblecommand", {"module": "debug"})
        assert status["Status"] == "SUCCESS"
        assert service.status(blocker)["state"] == "running"
    finally:
        by_hand.terminate()
        by_hand.wait(15)
        assert service.stop() < 10
