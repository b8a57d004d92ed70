"""External Redis and RabbitMQ, for real: the work gets done, and while they are away a submission says so."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import servers
from tests.acceptance.conftest import Service, eventually, lay_out, start_service

REDIS_PASSWORD = "word-for-redis"


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
    mapper.start()
    try:
        node.start()
        yield node
        node.stop()
    finally:
        mapper.stop()


def running(place: Path, broker: str, store: str) -> Service:
    return start_service(place, f"CELERY_BROKER_URL = {broker}\nCELERY_RESULT_BACKEND = {store}\n")


def goes_away_and_comes_back(service: Service, server: servers.Server, code: str) -> None:
    """503 while the server is away, and no task that never ends; afterwards everything works without a restart."""
    before = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(before)["Status"] == "SUCCESS"
    server.stop()
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug"})
    assert (reply.status_code, reply.json()["code"]) == (503, code), reply.text
    assert int(reply.headers["Retry-After"]) > 0
    assert service.client().get("/api/health").status_code == 503
    server.start()
    eventually(lambda: service.client().get("/api/health").status_code == 200, 60)
    after = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(after)["Status"] == "SUCCESS"
    listed = service.client().get("/api/ansibletasks").json()["tasks"]
    assert [task["task_id"] for task in listed] == [after, before]


def test_an_external_redis_serves_as_broker_and_store(place: Path, redis_server: servers.Server) -> None:
    url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_server.port}"
    service = running(place, f"{url}/0", f"{url}/1")
    try:
        goes_away_and_comes_back(service, redis_server, "store_unavailable")
    finally:
        assert service.stop() < 10
    assert REDIS_PASSWORD not in service.log.read_text()


def test_rabbitmq_serves_as_broker_with_records_in_redis(place: Path, rabbitmq_server: servers.Server) -> None:
    service = running(place, f"amqp://guest:guest@127.0.0.1:{rabbitmq_server.port}//", "embedded")
    try:
        body = {"playbook_dir": str(place / "playbooks"), "playbook": "site.yml"}
        status, output = service.run("ansibleplaybook", {**body, "inventory": str(place / "inventories/dev")})
        assert status["Status"] == "SUCCESS"
        assert "dev1 says nothing" in output
        goes_away_and_comes_back_with_rabbitmq(service, rabbitmq_server)
    finally:
        assert service.stop() < 10


def goes_away_and_comes_back_with_rabbitmq(service: Service, server: servers.Server) -> None:
    first = service.client().get("/api/ansibletasks").json()["tasks"]
    assert len(first) == 1
    server.stop()
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug"})
    assert (reply.status_code, reply.json()["code"]) == (503, "broker_unavailable"), reply.text
    assert service.client().get("/api/ansibletasks").json()["tasks"] == first
    server.start()
    eventually(lambda: service.client().get("/api/health").status_code == 200, 60)
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(task_id)["Status"] == "SUCCESS"
