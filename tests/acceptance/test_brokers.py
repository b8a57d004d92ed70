"""External Redis and RabbitMQ, for real: the work gets done, and while they are away or frozen nothing is lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers import servers
from tests.helpers.leaks import fail_on_leaks
from tests.helpers.services import Service, lay_out, start_service
from tests.helpers.waiting import eventually

REDIS_PASSWORD = "word-for-redis"
REFUSED_SECONDS = 6  # it takes three: the patience with a broker that does not answer
BACK_SECONDS = 12
TWO_SLOTS = "worker_concurrency = 2\n"
ONE_SLOT = "worker_concurrency = 1\ndrain_seconds = 60\n"


class Broker:
    """A broker that a test may kill and freeze, with all its processes."""

    def __init__(self, server: servers.Server, url: str, data: Path) -> None:
        self.url = url
        self._server = server
        self._data = data

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self, forgets: bool) -> None:
        """As a machine that loses power; forgets: and its disk."""
        self._signal(signal.SIGKILL)
        self._server.stop()
        for path in self._data.glob("append*") if forgets else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self) -> None:
        self._server.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._server._process is not None
        process = psutil.Process(self._server._process.pid)
        for each in [process, *process.children(recursive=True)]:
            each.send_signal(number)


class Site:
    """A broker and a service on it, with records in a Redis of its own, for all tests of this broker."""

    def __init__(self, root: Path, broker: Broker) -> None:
        self.root, self.broker = root, broker
        self._config, self._service = "", None  # type: tuple[str, Service | None]

    def service(self, config: str = TWO_SLOTS) -> Service:
        """The one that runs, if it was started like this; else a new one."""
        if self._service is None or self._config != config:
            self.stop()
            self._config, self._service = config, running(self.root, self.broker.url, "embedded", config)
        return self._service

    def stop(self) -> float:
        """Seconds that it took."""
        if self._service is None:
            return 0.0
        service, self._service = self._service, None
        took = service.stop()
        log = service.log.read_text()
        assert "Unrecoverable" not in log and "CRITICAL" not in log, log
        return took


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing_behind(_home: Path, _subreaper: None) -> Iterator[None]:
    """Of the module in place of each test: tests stop the service of a site and start another."""
    yield from fail_on_leaks(_home, False, "module")


@pytest.fixture
def place() -> Iterator[Path]:
    with laid_out() as path:
        yield path


@contextmanager
def laid_out() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    for name in ("server", "rabbitmq"):
        (path / name).mkdir()
    lay_out(path)
    yield path
    shutil.rmtree(path)


@contextmanager
def redis_broker(place: Path) -> Iterator[Broker]:
    server = servers.redis(place / "server", REDIS_PASSWORD)
    server.start()
    yield Broker(server, f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}/0", place / "server")
    server.stop()


@contextmanager
def rabbitmq_broker(place: Path) -> Iterator[Broker]:
    node, mapper = servers.rabbitmq(place / "rabbitmq")
    # Of a message that is not acknowledged; its default is half an hour.
    (place / "rabbitmq/none.config").write_text(
        "[{rabbit, [{consumer_timeout, 4000}, {channel_tick_interval, 1000}]}]."
    )
    mapper.start()
    try:
        node.start()
        yield Broker(node, f"amqp://guest:guest@127.0.0.1:{node.port}//", place / "rabbitmq")
        node.stop()
    finally:
        mapper.stop()


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    brokers = {"redis": redis_broker, "rabbitmq": rabbitmq_broker}
    with laid_out() as root, brokers[request.param](root) as broker:
        found = Site(root, broker)
        yield found
        assert found.stop() < 10


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


def test_it_serves_as_broker_with_records_in_another_redis(site: Site) -> None:
    service = site.service()
    body: dict[str, Any] = {"playbook_dir": str(site.root / "playbooks"), "playbook": "site.yml"}
    status, output = service.run("ansibleplaybook", {**body, "inventory": str(site.root / "inventories/dev")})
    assert status["Status"] == "SUCCESS"
    assert "dev1 says nothing" in output


def test_runs_outlive_a_broker_that_is_killed_and_what_waits_is_run_once(site: Site, tmp_path: Path) -> None:
    outlive_deaths(site, tmp_path / "ran", rounds=1)


@pytest.mark.nightly
def test_runs_outlive_a_broker_that_is_killed_twice(site: Site, tmp_path: Path) -> None:
    outlive_deaths(site, tmp_path / "ran", rounds=2)


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("site", ["redis"], indirect=True)
def test_runs_outlive_a_redis_that_is_killed_and_forgets(site: Site, tmp_path: Path, rounds: int) -> None:
    outlive_deaths(site, tmp_path / "ran", rounds, forgets=True)


def outlive_deaths(site: Site, mark: Path, rounds: int, forgets: bool = False) -> None:
    service = site.service()
    body = {"module": "shell", "module_args": f"sleep 1; echo x >> {mark}"}
    before: set[str] = set()
    long = sleep(service, 600)
    eventually(lambda: service.status(long)["state"] == "running")
    for _ in range(rounds):
        some = [service.submit("ansiblecommand", body) for _ in range(3)]  # one of them runs
        site.broker.kill(forgets)
        is_refused(service)
        site.broker.start()
        works_again_within_a_while(service)
        for task_id in some:
            assert service.wait(task_id, seconds=40)["state"] == "succeeded"
        before.update(some)
    assert service.status(long)["state"] == "running"
    assert service.client().post(f"/api/ansibletaskcancel/{long}").is_success
    assert service.wait(long)["state"] == "canceled"
    assert mark.read_text() == "x\n" * len(before)
    listed = {task["task_id"] for task in service.client().get("/api/ansibletasks?limit=1000").json()["tasks"]}
    assert before | {long} <= listed
    assert service.client().get("/api/ansibletasks?state=queued").json()["tasks"] == []  # no refused one is left


def works_again_within_a_while(service: Service) -> None:
    """The slots may be taken: what counts is that it is accepted at once, and run when its turn has come."""
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(task_id, seconds=40)["Status"] == "SUCCESS"


@pytest.mark.by_day(1)
def test_runs_outlive_a_broker_that_is_frozen(site: Site) -> None:
    service = site.service()
    short, long = sleep(service, 2), sleep(service, 14)
    queued = sleep(service, 0)
    eventually(lambda: service.status(long)["state"] == "running")
    site.broker.freeze()
    try:
        is_refused(service)
        assert service.wait(short)["state"] == "succeeded"  # its end waits for no broker
        is_refused(service)
    finally:
        site.broker.thaw()
    works_again(service)
    assert service.wait(long)["state"] == service.wait(queued, seconds=20)["state"] == "succeeded"


@pytest.mark.by_day(1)
def test_what_is_to_run_soon_does_not_wait_behind_all_others(site: Site) -> None:
    service = site.service()
    busy = [sleep(service, 600), sleep(service, 600)]
    for task_id in busy:
        eventually(lambda task_id=task_id: service.status(task_id)["state"] == "running")
    count = 40 if site.broker.url.startswith("amqp") else 20
    waiting = [service.submit("ansiblecommand", {"module": "debug"}) for _ in range(count)]
    code = f"from flansible.broker import app; app.enqueue({waiting[-1]!r}, 'a summary', priority=True)"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=service.root, env=service.environ, check=True)
    for task_id in busy:
        service.client().post(f"/api/ansibletaskcancel/{task_id}")
    began = [service.wait(task_id)["started_at"] for task_id in waiting]
    # RabbitMQ has given out one or two of the others by then. Whenever a slot is free its two queues race for it, and
    # on a busy machine either may win several times in a row: hence 40.
    assert sorted(began).index(began[-1]) < len(waiting) / 2


@pytest.mark.by_day(1)
def test_a_worker_can_be_stopped_while_the_broker_is_frozen(site: Site) -> None:
    service = site.service()
    task_id = sleep(service, 60)
    eventually(lambda: service.status(task_id)["state"] == "running")
    site.broker.freeze()
    try:
        assert site.stop() < 10
    finally:
        site.broker.thaw()
    status = site.service(ONE_SLOT).status(task_id)
    assert (status["state"], "worker was stopped" in status["description"]) == ("lost", True)


@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_on_rabbitmq_a_message_that_waits_for_a_slot_may_wait_for_long(site: Site) -> None:
    """RabbitMQ closes the channel of a consumer that has not acknowledged one in time (set to 4 s here)."""
    service = site.service(ONE_SLOT)
    long, queued = sleep(service, 12), sleep(service, 0)
    assert service.wait(long)["state"] == service.wait(queued)["state"] == "succeeded"
    works_again(service)
    assert "Unrecoverable" not in service.log.read_text()


@pytest.mark.by_day(1)
def test_a_stop_leaves_what_waits_to_the_next_start(site: Site) -> None:
    """On RabbitMQ its message is at hand in the worker already."""
    service = site.service(ONE_SLOT)
    long, queued = sleep(service, 4), sleep(service, 0)
    eventually(lambda: service.status(long)["state"] == "running")
    site.stop()
    again = site.service()
    assert again.status(long)["state"] == "succeeded"
    began = again.wait(queued, seconds=BACK_SECONDS)["started_at"]
    assert began > again.status(long)["finished_at"]


def test_an_external_redis_serves_as_broker_and_store(place: Path) -> None:
    server = servers.redis(place / "server", REDIS_PASSWORD)
    server.start()
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}"
    service = running(place, f"{url}/0", f"{url}/1")
    try:
        goes_away_and_comes_back(service, server)
    finally:
        assert service.stop() < 10
        server.stop()
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
