"""A preview that no worker carries out: what the reply says, and that nothing stays queued."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flansible.models import State
from flansible.store import Store
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import WebServer

THREADS = 4  # of the web process
BODY: dict[str, Any] = {"kind": "adhoc", "request": {"module": "ping", "host_pattern": "web1", "inventory": "web1,"}}


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[WebServer]:
    running = WebServer(tmp_path, redis_url)
    yield running
    running.stop()


def preview_tasks(redis: RedisServer) -> list[str]:
    with redis.client() as client:
        found = (key.decode().split(":") for key in client.scan_iter("flansible:task:*"))
        return sorted({parts[2] for parts in found if parts[2] != "all"})


def asked(server: WebServer) -> dict[str, Any]:
    with server.client() as client:
        reply = client.post("/api/preview", json=BODY, timeout=40)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_without_a_worker_it_says_so_at_once(server: WebServer, shared_redis: RedisServer) -> None:
    began = time.monotonic()
    found = asked(server)
    assert time.monotonic() - began < 5
    assert (found["allowed"], found["plays"], found["detail"]) == (True, None, "no worker answers; try again")
    store = Store(shared_redis.url)
    [task_id] = preview_tasks(shared_redis)
    task = store.task(task_id)
    assert task is not None and task.state is State.CANCELED
    store.close()


def test_a_quarter_of_the_threads_is_left_to_others(server: WebServer, shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        # A worker that is there and takes nothing.
        client.zadd("flansible:workers", {"worker": time.time() + 60})
        client.hset("flansible:workers:slots", "worker", "1 0")  # one slot, no run
    answers: list[str] = []
    waiting = [threading.Thread(target=lambda: answers.append(asked(server)["detail"])) for _ in range(THREADS)]
    for thread in waiting:
        thread.start()
    eventually(lambda: len(answers) == 1, 10)
    assert "too many requests" in answers[0]
    with server.client() as client:
        assert client.get("/api/ansibletasks").json()["tasks"] == []
    for thread in waiting:
        thread.join()
    assert answers[1:] == ["no worker has taken it; try again"] * (THREADS - 1)
