"""A preview that no worker carries out: what the reply says, and that nothing stays queued."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flansible.models import State
from flansible.store import Store
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, DEV, WebServer

pytestmark = pytest.mark.usefixtures("redis_url")  # an empty Redis for each

THREADS = 4  # of the web process
BODY: dict[str, Any] = {"kind": "adhoc", "request": {"module": "ping", "host_pattern": "web1", "inventory": "web1,"}}
NO_WORKER = (
    "no worker serves queue default; start one with `flansible worker --queues default`, or name another queue in the "
    "request or its project"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_redis: RedisServer) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "hosts").write_text("web1\n")
    running = WebServer(folder, shared_redis.url, inventories=("hosts",))
    yield running
    running.stop()


def preview_tasks(redis: RedisServer) -> list[str]:
    with redis.client() as client:
        found = (key.decode().split(":") for key in client.scan_iter("flansible:task:*"))
        return sorted({parts[2] for parts in found if parts[2] != "all"})


def asked(server: WebServer, user: tuple[str, str] = ADMIN) -> dict[str, Any]:
    inventory = "web1," if user == ADMIN else "hosts"  # in playbook_root
    with server.client(user) as client:
        body = {**BODY, "request": {**BODY["request"], "inventory": inventory}}
        reply = client.post("/api/preview", json=body, timeout=40)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_without_a_worker_it_says_so_at_once(server: WebServer, shared_redis: RedisServer) -> None:
    began = time.monotonic()
    found = asked(server)
    assert time.monotonic() - began < 5
    assert (found["allowed"], found["plays"], found["detail"]) == (True, None, NO_WORKER)
    store = Store(shared_redis.url)
    [task_id] = preview_tasks(shared_redis)
    task = store.task(task_id)
    assert task is not None and task.state is State.CANCELED
    store.close()


def test_threads_are_left_to_others(server: WebServer, shared_redis: RedisServer) -> None:
    """A quarter to other requests, and of the rest one to other users' previews."""
    with shared_redis.client() as client:
        # A worker that is there and takes nothing.
        client.zadd("flansible:workers", {"worker": time.time() + 60})
        client.hset("flansible:workers:slots", "worker", "1 0")  # one slot, no run
    answers: list[str] = []
    waiting = [threading.Thread(target=lambda: answers.append(asked(server)["detail"])) for _ in range(THREADS)]
    for thread in waiting:
        thread.start()
    eventually(lambda: len(answers) == 2, 10)
    assert all("too many requests" in answer for answer in answers)
    others = threading.Thread(target=lambda: answers.append(asked(server, DEV)["detail"]))
    others.start()
    with server.client() as client:
        assert client.get("/api/ansibletasks").json()["tasks"] == []
    for thread in (*waiting, others):
        thread.join()
    assert answers[2:] == ["no worker has taken it; try again"] * (THREADS - 1)
