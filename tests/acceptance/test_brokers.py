"""External Redis and RabbitMQ, for real: the work gets done, and while they are away or frozen nothing is lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers import servers
from tests.helpers.services import Service, lay_out, start_service
from tests.helpers.waiting import eventually

REDIS_PASSWORD = "word-for-redis"
REFUSED_SECONDS = 6  # it takes three: the patience with a broker that does not answer
BACK_SECONDS = 12
ONE_SLOT = "worker_concurrency = 1\n"


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="flansible-test-"))
    (path / "server").mkdir()
    lay_out(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def redis_server(place: Path) -> Iterator[servers.Server]:
    server = servers.redis(place / "server", REDIS_PASSWORD)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def rabbitmq_server(place: Path) -> Iterator[servers.Server]:
    (place / "rabbitmq").mkdir()
    node, mapper = servers.rabbitmq(place / "rabbitmq")
    # Of a message that is not acknowledged; its default is half an hour.
    (place / "rabbitmq/none.config").write_text(
        "[{rabbit, [{consumer_timeout, 4000}, {channel_tick_interval, 1000}]}]."
    )
    mapper.start()
    try:
        node.start()
        yield node
        node.stop()
    finally:
        mapper.stop()


class Broker:
    """A broker that a test may kill and freeze, with all its processes."""

    def __init__(self, server: servers.Server, url: str, data: Path | None = None) -> None:
        self.url = url
        self._server = server
        self._data = data  # what is deleted when it is killed

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a machine that loses power."""
        self._signal(signal.SIGKILL)
        self._server.stop()
        if self._data is not None:
            shutil.rmtree(self._data)

    def start(self) -> None:
        self._server.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._server._process is not None
        process = psutil.Process(self._server._process.pid)
        for each in [process, *process.children(recursive=True)]:
            each.send_signal(number)


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, place: Path) -> Broker:
    if request.param == "rabbitmq":
        server: servers.Server = request.getfixturevalue("rabbitmq_server")
        return Broker(server, f"amqp://guest:guest@127.0.0.1:{server.port}//")
    server = request.getfixturevalue("redis_server")
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}/0"
    return Broker(server, url, place / "server/appendonlydir" if "forgets" in request.param else None)


@pytest.fixture
def service(place: Path, broker: Broker) -> Iterator[Service]:
    """Two slots, records in a Redis of its own."""
    service = running(place, broker.url, "embedded", "worker_concurrency = 2\n")
    yield service
    assert service.stop() < 10
    log = service.log.read_text()
    assert "Unrecoverable" not in log and "CRITICAL" not in log, log


def running(place: Path, broker: str, store: str, more: str = "") -> Service:
    return start_service(place, f"CELERY_BROKER_URL = {broker}\nCELERY_RESULT_BACKEND = {store}\n{more}")


def sleep(service: Service, seconds: float) -> str:
    return service.submit("ansiblecommand", {"module": "command", "module_args": f"sleep {seconds}"})


def is_refused(service: Service) -> None:
    """A submission and a look at the health, while the broker is away: both are answered, and soon."""
    began = time.monotonic()
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug"})
    assert (reply.status_code, reply.json()["code"]) == (503, "broker_unavailable"), reply.text
    assert int(reply.headers["Retry-After"]) > 0
    assert time.monotonic() - began < REFUSED_SECONDS
    began = time.monotonic()
    eventually(lambda: service.client().get("/api/health").status_code == 503, 2)  # an answer is good for a second
    assert time.monotonic() - began < 2 * REFUSED_SECONDS


def works_again(service: Service) -> None:
    """Not a single submission is refused from now on, and one is run soon."""
    began = time.monotonic()
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(task_id, seconds=BACK_SECONDS)["Status"] == "SUCCESS"
    eventually(lambda: service.client().get("/api/health").status_code == 200, began + BACK_SECONDS - time.monotonic())


@pytest.mark.parametrize("broker", ["redis", "redis that forgets", "rabbitmq"], indirect=True)
def test_runs_outlive_a_broker_that_is_killed_and_what_waits_is_run_once(service: Service, broker: Broker) -> None:
    mark = service.root / "ran"
    body = {"module": "shell", "module_args": f"sleep 1; echo x >> {mark}"}
    before: set[str] = set()
    long = sleep(service, 600)
    eventually(lambda: service.status(long)["state"] == "running")
    for _ in range(2):
        some = [service.submit("ansiblecommand", body) for _ in range(3)]  # one of them runs
        broker.kill()
        is_refused(service)
        broker.start()
        works_again_within_a_while(service)
        for task_id in some:
            assert service.wait(task_id, seconds=40)["state"] == "succeeded"
        before.update(some)
    assert service.status(long)["state"] == "running"
    assert service.client().post(f"/api/ansibletaskcancel/{long}").is_success
    assert service.wait(long)["state"] == "canceled"
    assert mark.read_text() == "x\n" * len(before)
    listed = {task["task_id"] for task in service.client().get("/api/ansibletasks").json()["tasks"]}
    assert before | {long} <= listed
    assert service.client().get("/api/ansibletasks?state=queued").json()["tasks"] == []  # no refused one is left


def works_again_within_a_while(service: Service) -> None:
    """The slots may be taken: what counts is that it is accepted at once, and run when its turn has come."""
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(task_id, seconds=40)["Status"] == "SUCCESS"


def test_runs_outlive_a_broker_that_is_frozen(service: Service, broker: Broker) -> None:
    short, long = sleep(service, 2), sleep(service, 14)
    queued = sleep(service, 0)
    eventually(lambda: service.status(long)["state"] == "running")
    broker.freeze()
    try:
        is_refused(service)
        assert service.wait(short)["state"] == "succeeded"  # its end waits for no broker
        is_refused(service)
    finally:
        broker.thaw()
    works_again(service)
    assert service.wait(long)["state"] == service.wait(queued, seconds=20)["state"] == "succeeded"


def test_a_worker_can_be_stopped_while_the_broker_is_frozen(service: Service, broker: Broker) -> None:
    task_id = sleep(service, 60)
    eventually(lambda: service.status(task_id)["state"] == "running")
    broker.freeze()
    try:
        assert service.stop() < 10
    finally:
        broker.thaw()
    again = running(service.root, broker.url, "embedded")
    try:
        status = again.status(task_id)
        assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)
    finally:
        assert again.stop() < 10


def test_a_stop_leaves_what_waits_to_the_next_start(place: Path, broker: Broker) -> None:
    """On RabbitMQ its message is at hand in the worker already."""
    service = running(place, broker.url, "embedded", ONE_SLOT + "drain_seconds = 60\n")
    long, queued = sleep(service, 4), sleep(service, 0)
    eventually(lambda: service.status(long)["state"] == "running")
    service.stop()
    again = running(place, broker.url, "embedded")
    try:
        assert again.status(long)["state"] == "succeeded"
        began = again.wait(queued, seconds=BACK_SECONDS)["started_at"]
        assert began > again.status(long)["finished_at"]
    finally:
        assert again.stop() < 10


def test_what_is_to_run_soon_does_not_wait_behind_all_others(service: Service) -> None:
    busy = [sleep(service, 600), sleep(service, 600)]
    for task_id in busy:
        eventually(lambda task_id=task_id: service.status(task_id)["state"] == "running")
    waiting = [sleep(service, 0.2) for _ in range(40)]
    code = f"from flansible.broker import app; app.enqueue({waiting[-1]!r}, 'a summary', priority=True)"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=service.root, env=service.environ, check=True)
    for task_id in busy:
        service.client().post(f"/api/ansibletaskcancel/{task_id}")
    began = [service.wait(task_id)["started_at"] for task_id in waiting]
    # RabbitMQ has given out one or two of the others by then. Whenever a slot is free its two queues race for it, and
    # on a busy machine either may win several times in a row: hence so many.
    assert sorted(began).index(began[-1]) < len(waiting) / 2


def test_on_rabbitmq_a_message_that_waits_for_a_slot_may_wait_for_long(
    place: Path, rabbitmq_server: servers.Server
) -> None:
    """RabbitMQ closes the channel of a consumer that has not acknowledged one in time (set to 4 s here)."""
    service = running(place, f"amqp://guest:guest@127.0.0.1:{rabbitmq_server.port}//", "embedded", ONE_SLOT)
    try:
        long, queued = sleep(service, 12), sleep(service, 0)
        assert service.wait(long)["state"] == service.wait(queued)["state"] == "succeeded"
        works_again(service)
        assert "Unrecoverable" not in service.log.read_text()
    finally:
        assert service.stop() < 10


def test_an_external_redis_serves_as_broker_and_store(place: Path, redis_server: servers.Server) -> None:
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_server.port}"
    service = running(place, f"{url}/0", f"{url}/1")
    try:
        goes_away_and_comes_back(service, redis_server)
    finally:
        assert service.stop() < 10
    assert REDIS_PASSWORD not in service.log.read_text()


def goes_away_and_comes_back(service: Service, server: servers.Server) -> None:
    """503 while the server is away, and no task that never ends; afterwards everything works without a restart."""
    before = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(before)["Status"] == "SUCCESS"
    server.stop()
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug"})
    assert (reply.status_code, reply.json()["code"]) == (503, "store_unavailable"), reply.text
    assert int(reply.headers["Retry-After"]) > 0
    assert service.client().get("/api/health").status_code == 503
    server.start()
    eventually(lambda: service.client().get("/api/health").status_code == 200, 60)
    after = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(after)["Status"] == "SUCCESS"
    listed = service.client().get("/api/ansibletasks").json()["tasks"]
    assert [task["task_id"] for task in listed] == [after, before]


def test_rabbitmq_serves_as_broker_with_records_in_redis(place: Path, rabbitmq_server: servers.Server) -> None:
    service = running(place, f"amqp://guest:guest@127.0.0.1:{rabbitmq_server.port}//", "embedded")
    try:
        body: dict[str, Any] = {"playbook_dir": str(place / "playbooks"), "playbook": "site.yml"}
        status, output = service.run("ansibleplaybook", {**body, "inventory": str(place / "inventories/dev")})
        assert status["Status"] == "SUCCESS"
        assert "dev1 says nothing" in output
    finally:
        assert service.stop() < 10
