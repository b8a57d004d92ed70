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
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from werkzeug.security import generate_password_hash

from tests.helpers.leaks import fail_on_leaks
from tests.helpers.ports import free_port
from tests.helpers.process_tree import detached, sleepers
from tests.helpers.services import (
    CELERY_WORKER,
    FLANSIBLE_WORKER,
    Service,
    flansible_environ,
    lay_out,
    start_service,
    worker_by_hand,
    write,
)
from tests.helpers.waiting import eventually

FLANSIBLE = str(Path(sys.executable).parent / "flansible")
THREE_SLOTS = "worker_concurrency = 3\n"
LONG = "worker_concurrency = 1\ndrain_seconds = 3600\n"


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing_behind(_home: Path, _subreaper: None) -> Iterator[None]:
    """Of the module in place of each test: a test goes on with the service that another has started."""
    yield from fail_on_leaks(_home, False, "module")


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="flansible_test_"))
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


class Site:
    """A folder whose service is stopped, killed and started again; a test goes on with what another has started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.with_flower = f"{LONG}flower_tcp_port = {free_port()}\n"
        self._config, self._service = "", None  # type: tuple[str, Service | None]

    def service(self, config: str = LONG) -> Service:
        """The one that runs, if one does that was started like this; else a new one."""
        if self._service is None or self._config != config or self._service.process.poll() is not None:
            self.stop()
            arguments = ("--flower",) if "flower" in config else ()
            self._config, self._service = config, start_service(self.root, config, arguments)
        return self._service

    def stop(self) -> float:
        """Seconds that it took."""
        service, self._service = self._service, None
        return service.stop() if service is not None else 0.0


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(root)
    found = Site(root)
    yield found
    assert found.stop() < 10
    shutil.rmtree(root)


def test_a_second_service_or_worker_on_the_same_data_is_refused(site: Site) -> None:
    service = site.service(THREE_SLOTS)
    environ = {"FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    assert "another `flansible up`" in refused(service.root, environ)
    worker = subprocess.run(
        [FLANSIBLE, "worker"], cwd=service.root, env=service.environ, capture_output=True, text=True, timeout=60
    )
    assert worker.returncode == 2, worker
    assert "a worker of this name is running" in worker.stderr and "--name" in worker.stderr


@pytest.mark.parametrize("slots", (3, pytest.param(8, marks=pytest.mark.nightly)))
def test_a_stop_during_runs_ends_them_and_says_so(site: Site, slots: int) -> None:
    """As many that do not want to end as there are slots, and one behind them."""
    service = site.service(THREE_SLOTS.replace("3", str(slots)))
    mark = f"97{os.getpid()}.25"
    lost = [service.submit("ansiblecommand", detached(mark)) for _ in range(slots)]
    eventually(lambda: len(sleepers(mark)) >= 4 * slots, 60)
    queued = service.submit("ansiblecommand", {"module": "debug"})
    assert site.stop() < 10
    assert sleepers(mark) == []
    again = site.service()
    for task_id in lost:
        status = again.status(task_id)
        assert (status["Status"], status["state"]) == ("LOST", "lost")
        assert "worker was stopped" in status["description"]
    assert again.wait(queued)["state"] == "succeeded"


def test_a_second_signal_ends_the_stop_at_once(site: Site) -> None:
    service = site.service()
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
    again = site.service(site.with_flower)
    status = again.status(task_id)
    assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)
    assert again.wait(later)["state"] == "succeeded"


@pytest.fixture
def busy(site: Site) -> Iterator[Service]:
    """A service whose own worker is taken up, and whose workers let runs go on for an hour when they are stopped."""
    service = site.service(site.with_flower)
    mark = f"36{os.getpid()}.25"
    blocker = service.submit("ansiblecommand", {"module": "command", "module_args": f"sleep {mark}"})
    eventually(lambda: sleepers(mark))
    yield service
    assert service.status(blocker)["state"] == "running"  # what ended meanwhile was run by workers started by hand
    service.client().post(f"/api/ansibletaskcancel/{blocker}")
    service.wait(blocker)


@pytest.mark.by_day(1)
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


@pytest.mark.nightly
def test_a_first_signal_to_a_worker_by_hand_lets_its_run_end_and_leaves_what_waits_to_the_next(busy: Service) -> None:
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


@pytest.mark.nightly
def test_a_task_whose_message_is_gone_is_run_all_the_same(busy: Service) -> None:
    waiting = busy.submit("ansiblecommand", {"module": "debug"})
    with redis.Redis(unix_socket_path=str(busy.root / ".flansible/redis.sock")) as store:
        assert store.delete("flansible:broker:flansible") == 1
    assert busy.status(waiting)["state"] == "queued"
    with worker_by_hand(busy, *CELERY_WORKER) as worker:
        assert busy.wait(waiting, seconds=60)["Status"] == "SUCCESS"
        worker.terminate()
        worker.wait(15)


@pytest.mark.parametrize("drain_seconds", ("3600", pytest.param("2", marks=pytest.mark.nightly)))
def test_when_up_itself_is_killed_everything_ends_and_a_new_one_works_at_once(site: Site, drain_seconds: str) -> None:
    mark = f"96{os.getpid()}.25"
    service = site.service(site.with_flower.replace("3600", drain_seconds))
    task_id = service.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    tree = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    service.process.wait()
    again = site.service()  # waits for what the other has left
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert alive == []
    assert sleepers(mark) == []
    assert again.wait(task_id, seconds=40)["state"] == "lost"
    assert again.run("ansiblecommand", {"module": "debug"})[0]["Status"] == "SUCCESS"


def test_a_stop_waits_for_runs_as_long_as_it_is_told_to_and_the_web_server_shows_them(site: Site) -> None:
    """After those that start it again: there is no service afterwards."""
    service = site.service()
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 4"})
    eventually(lambda: service.status(task_id)["state"] == "running")
    service.process.send_signal(signal.SIGTERM)
    assert service.wait(task_id)["state"] == "succeeded"
    assert service.process.wait(10) == 0


@pytest.mark.nightly
def test_after_a_power_loss_it_starts_again_says_what_was_lost_and_keeps_the_file(place: Path) -> None:
    lay_out(place)
    service = start_service(place)
    task_id = service.run("ansiblecommand", {"module": "debug"})[0]["task_id"]
    assert service.stop() < 10
    data = place / ".flansible"
    (file,) = [path for path in data.rglob("appendonly.aof*") if path.suffix == ".aof" and "base" not in path.name]
    with file.open("ab") as end:
        end.write(bytes(10_000))
    again = start_service(place)
    try:
        assert again.status(task_id)["state"] == "succeeded"
        said = again.log.read_text()
        assert f"Redis' file {file} was damaged" in said and "Its last 10,000 bytes were cut off" in said
        assert "ended with exit code" not in said
        assert "Its last 10,000 bytes were cut off" in (data / "redis.log").read_text()
        assert len(list(file.parent.glob(f"{file.name}.damaged-*"))) == 1
    finally:
        assert again.stop() < 10


def test_a_redis_that_cannot_start_is_told_with_its_file_the_reason_and_a_command(place: Path) -> None:
    data = place / ".flansible"
    data.mkdir(mode=0o700)
    (data / "appendonly.aof").write_bytes(b"REDIS0009\xfe\x00\x77" + bytes(500))
    environ = {**flansible_environ(), "FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    done = subprocess.run([FLANSIBLE, "up"], cwd=place, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"Redis cannot start: {data}/appendonly.aof: the snapshot in it is damaged" in done.stderr
    assert f"mv {data}/appendonly.aof {data}/appendonly.aof.damaged" in done.stderr
