"""Queues with real workers and brokers: who runs what, what waits, and what health and Flower say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers import servers
from tests.helpers.ports import free_port
from tests.helpers.repositories import Repository
from tests.helpers.services import ADMIN, DEV, SCRIPTS, Service, lay_out, start_service, write
from tests.helpers.waiting import eventually

# What does not depend on the broker.
ON_REDIS = pytest.mark.parametrize(
    "service", ("redis", pytest.param("rabbitmq", marks=pytest.mark.nightly)), indirect=True
)


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    root, data = (Path(tempfile.mkdtemp(prefix="flansible_test_")) for _ in range(2))
    lay_out(root)
    document = json.loads((root / "rbac.json").read_text())
    dev = document["rbac"][1]
    dev["queues"] = {"dmz": ["inventories/shared"], "empty": []}
    dev |= {"projects": ["shop"], "inventories": [*dev["inventories"], "shop:inventories/dev"]}
    write(root / "rbac.json", json.dumps(document)).chmod(0o600)
    started: list[servers.Server] = []
    config = f"flower_tcp_port = {free_port()}\n"
    if request.param == "rabbitmq":
        node, mapper = servers.rabbitmq(data)
        started = [mapper, node]
        for server in started:
            server.start()
        config += f"CELERY_BROKER_URL = amqp://guest:guest@127.0.0.1:{node.port}//\n"
    running = start_service(root, config)
    yield running
    assert running.stop() < 10
    for server in reversed(started):
        server.stop()
    for folder in (root, data):
        shutil.rmtree(folder)


@contextmanager
def worker(service: Service, name: str, queues: str) -> Iterator[subprocess.Popen[str]]:
    """A further worker on this machine, which has reported."""
    command = [str(SCRIPTS / "flansible"), "worker", "--name", name, "--queues", queues]
    with (service.root / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=service.root, env=service.environ, stdout=log, stderr=log, text=True, start_new_session=True
        )
    try:
        eventually(lambda: any(one.startswith(f"{name}@") for found in health(service).values() for one in found), 60)
        yield process
    finally:
        process.terminate()
        assert process.wait(20) == 0, (service.root / f"{name}.log").read_text()


@contextmanager
def flower(service: Service) -> Iterator[httpx.Client]:
    """A client of Flower, which runs as long."""
    config = (service.root / "config.ini").read_text()
    port = next(line.split()[-1] for line in config.splitlines() if "flower" in line)
    with (service.root / "flower.log").open("w") as log:
        command = [str(SCRIPTS / "flansible"), "flower"]
        process = subprocess.Popen(command, cwd=service.root, env=service.environ, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=ADMIN, timeout=30) as client:
            eventually(lambda: answers(client), 60)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthcheck").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def lost(service: Service) -> str:
    """A task of which no worker has a message: it is taken from the broker, as a worker does that dies at once."""
    task_id = service.submit("ansiblecommand", adhoc(service, queue="dmz"))
    take = (
        "from flansible.broker import app as broker\n"
        "with broker.app.connection_for_write() as connection:\n"
        "    queue = broker._queue('dmz', False)(connection.default_channel)\n"
        "    queue.declare()\n"
        "    message = queue.get(no_ack=True)\n"
        "    print(message.headers['id'])\n"
    )
    python = [str(SCRIPTS / "python"), "-c", take]
    done = subprocess.run(python, cwd=service.root, env=service.environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == task_id, done
    return task_id


@pytest.fixture(scope="module")
def far(service: Service, lost: str) -> Iterator[None]:
    """A worker of two queues, for the tests that follow."""
    with worker(service, "far", "dmz,lan"):
        yield


def health(service: Service) -> dict[str, list[str]]:
    found = service.client().get("/api/health").json()["queues"]
    return {item["queue"]: item["workers"] for item in found}


def adhoc(service: Service, **fields: Any) -> dict[str, Any]:
    return {"module": "ping", "inventory": str(service.root / "inventories/shared"), "host_pattern": "all", **fields}


def ran_on(service: Service, task_id: str) -> str:
    status = eventually(
        lambda: service.status(task_id)["description"].startswith("running on ") and service.status(task_id)
    )
    return str(status["description"])


def test_a_task_goes_to_a_worker_of_its_queue_and_waits_for_one(service: Service) -> None:
    waiting = service.submit("ansiblecommand", adhoc(service, queue="dmz"), DEV)
    status = service.status(waiting, DEV)
    assert (status["state"], status["reason"], status["queue"]) == ("queued", "no_worker", "dmz")
    assert "queue dmz" in status["description"]
    assert set(health(service)) == {"default", "dmz", "empty"} and health(service)["dmz"] == []
    assert service.run("ansiblecommand", adhoc(service))[0]["Status"] == "SUCCESS", "others do not wait for it"
    assert service.status(waiting, DEV)["state"] == "queued"
    with worker(service, "far", "dmz"):
        assert health(service)["dmz"][0].startswith("far@") and len(health(service)["default"]) == 1
        assert service.wait(waiting, DEV)["Status"] == "SUCCESS"
        slow = adhoc(service, module="command", module_args="sleep 2", queue="dmz")
        assert "running on far@" in ran_on(service, service.submit("ansiblecommand", slow))
        usual = adhoc(service, module="command", module_args="sleep 2", queue="default")
        assert "running on flansible@" in ran_on(service, service.submit("ansiblecommand", usual))
        preview = {"kind": "adhoc", "request": adhoc(service, queue="dmz")}
        assert service.client(DEV).post("/api/preview", json=preview).json()["hosts"] == ["tool1"]
    eventually(lambda: health(service)["dmz"] == [], 30)
    preview = service.client().post("/api/preview", json=preview).json()
    assert preview["plays"] is None and "no worker serves queue dmz; start one with" in preview["detail"]


@ON_REDIS
@pytest.mark.usefixtures("far")
def test_what_waited_for_a_lock_is_sent_to_its_own_queue(service: Service) -> None:
    holder = adhoc(service, module="command", module_args="sleep 2", lock="door")
    task_id = service.submit("ansiblecommand", holder)
    eventually(lambda: service.status(task_id)["state"] == "running")
    waiter = service.submit("ansiblecommand", adhoc(service, queue="dmz", lock="door"))
    eventually(
        lambda: service.status(waiter)["state"] != "queued" or service.status(waiter)["reason"].startswith("locked_by")
    )
    assert service.wait(waiter)["Status"] == "SUCCESS"


@ON_REDIS
@pytest.mark.usefixtures("far")
def test_a_worker_of_two_queues_serves_both(service: Service) -> None:
    for queue in ("dmz", "lan"):
        assert service.run("ansiblecommand", adhoc(service, queue=queue))[0]["Status"] == "SUCCESS"


@ON_REDIS
@pytest.mark.usefixtures("far")
def test_a_lost_message_is_sent_again_by_a_worker_of_its_queue(service: Service, lost: str) -> None:
    assert service.wait(lost, seconds=40)["Status"] == "SUCCESS"
    assert "sending its message again" in (service.root / "far.log").read_text()
    assert "sending its message again" not in service.log.read_text()


@ON_REDIS
@pytest.mark.usefixtures("far")
def test_a_project_names_the_queue_of_requests_that_name_none(service: Service) -> None:
    folder = service.root / "shop"
    commit = Repository.make(folder).git("rev-parse", "HEAD")
    spec = {"url": str(folder), "queue": "dmz"}
    assert service.client().put("/api/projects/shop", json=spec).status_code == 201
    request = {"project": "shop", "playbook": "site.yml", "inventory": "inventories/dev"}
    reply = service.client().post("/api/ansibleplaybook", json=request)
    assert (reply.status_code, reply.json()["commit"]) == (202, commit)
    assert service.status(reply.json()["task_id"])["queue"] == "dmz"
    assert service.wait(reply.json()["task_id"])["Status"] == "SUCCESS"
    listed = service.client().get("/api/listplaybooks", params={"project": "shop"})
    assert [one["playbook"] for one in listed.json()["playbooks"]] == ["site.yml"]
    forbidden = service.client(DEV).post("/api/ansibleplaybook", json=request)
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "queue_forbidden"), forbidden.text
    usual = service.client().post("/api/ansibleplaybook", json={**request, "queue": "default"})
    assert "queue" not in service.status(usual.json()["task_id"]), "the default one is not shown"
    assert service.wait(usual.json()["task_id"])["Status"] == "SUCCESS"


def test_users_name_the_queues_of_rbac_json(service: Service) -> None:
    def refusal(**fields: Any) -> tuple[int, str]:
        reply = service.client(DEV).post("/api/ansiblecommand", json=adhoc(service, **fields))
        return reply.status_code, "" if reply.status_code == 202 else reply.json()["code"]

    dev = str(service.root / "inventories/dev")
    assert refusal(queue="lan") == (403, "queue_forbidden")
    assert refusal(queue="dmz", inventory=dev) == (403, "queue_forbidden")
    assert refusal(queue="empty") == (403, "queue_forbidden")
    assert refusal(queue="d.m") == (400, "invalid_field")
    assert refusal(queue="default", inventory=dev) == (202, "")
    assert refusal(queue="dmz") == (202, "")


@ON_REDIS
@pytest.mark.usefixtures("far")
def test_flower_shows_the_queues_of_a_worker(service: Service) -> None:
    name = health(service)["dmz"][0]
    with flower(service) as client:

        def queues() -> Any:
            shown = client.get("/api/workers", params={"refresh": "true"}).json().get(name, {})
            return sorted(queue["name"] for queue in shown.get("active_queues", []))

        both = [f"flansible.queue.{queue}{kind}" for queue in ("dmz", "lan") for kind in ("", ".next")]
        assert eventually(lambda: queues() == both, 30)


@ON_REDIS
def test_a_wrong_name_stops_the_start(service: Service) -> None:
    command = [str(SCRIPTS / "flansible"), "worker", "--queues", "d.m"]
    done = subprocess.run(command, cwd=service.root, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 2 and "no name of a queue" in done.stderr
