"""RabbitMQ in every state in which it refuses: submissions and health are 503 and say why."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from kombu import Connection, Queue

from tests.helpers import servers
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually, require_program
from tests.helpers.webserver import WebServer

RABBITMQCTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"  # Debian's in the path becomes another user
COMMAND = {"module": "debug"}
# One call of rabbitmqctl takes longer than all else here, so all is prepared in one, in Erlang.
PREPARE = """
rabbit_vhost:add(<<"taken">>, <<"tests">>),
rabbit_vhost:add(<<"fading">>, <<"tests">>),
rabbit_auth_backend_internal:add_user(<<"reader">>, <<"reader">>, <<"tests">>),
rabbit_auth_backend_internal:add_user(<<"stranger">>, <<"stranger">>, <<"tests">>),
rabbit_auth_backend_internal:set_permissions(<<"reader">>, <<"/">>, <<"^$">>, <<"^$">>, <<".*">>, <<"tests">>),
[rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
 || V <- [<<"taken">>, <<"fading">>]],
ok.
"""


@dataclass(frozen=True)
class Node:
    """A RabbitMQ node, and how to change it from inside."""

    port: int
    environ: dict[str, str]

    def url(self, login: str = "guest:guest", vhost: str = "/") -> str:
        return f"amqp://{login}@127.0.0.1:{self.port}/{vhost}"

    def evaluate(self, erlang: str) -> None:
        control = require_program(RABBITMQCTL)
        done = subprocess.run([control, "eval", erlang], env=self.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    server, mapper = servers.rabbitmq(folder)
    mapper.start()
    try:
        server.start()
        found = Node(server.port, server.environ)
        found.evaluate(PREPARE)
        with Connection(found.url(vhost="taken")) as connection:
            Queue("flansible", max_length=1)(connection.default_channel).declare()
        yield found
    finally:
        server.stop()
        mapper.stop()
        shutil.rmtree(folder)


@contextmanager
def served(folder: Path, store: RedisServer, url: str) -> Iterator[tuple[WebServer, httpx.Client]]:
    server = WebServer(folder, store.url, broker_url=url)
    try:
        with server.client() as client:
            yield server, client
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()


def is_refused(client: httpx.Client, words: str) -> None:
    """Asserts what a submission and health say, and that nothing was queued."""
    before = _queued(client)
    reply = client.post("/api/ansiblecommand", json=COMMAND)
    assert (reply.status_code, reply.json()["code"]) == (503, "broker_unavailable"), reply.text
    assert words in reply.json()["message"] and "Nothing was queued" in reply.json()["message"]
    assert eventually(lambda: _problem(client)).startswith(f"the broker {words}")
    assert _queued(client) == before


def _queued(client: httpx.Client) -> list[str]:
    return [task["task_id"] for task in client.get("/api/ansibletasks?state=queued").json()["tasks"]]


def _problem(client: httpx.Client) -> str:
    reply = client.get("/api/health")
    part = reply.json()["parts"]["broker"]
    assert reply.status_code == 503, "there is no worker in any case"
    return "" if part["ok"] else str(part["detail"])


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    ("login", "vhost", "words"),
    [
        ("guest:wrong", "/", "refuses the user or password"),
        ("guest:guest", "nowhere", "has no such vhost"),
        ("stranger:stranger", "/", "has no such vhost as its URL names, or does not permit this user"),
        ("reader:reader", "/", "refuses the user or password of its URL, or does not permit this user its queues"),
        ("guest:guest", "taken", "has a queue of the same name with other settings"),
    ],
)
def test_what_rabbitmq_refuses_is_a_503_that_says_why(
    tmp_path: Path, shared_redis: RedisServer, node: Node, login: str, vhost: str, words: str
) -> None:
    with served(tmp_path, shared_redis, node.url(login, vhost)) as (_, client):
        is_refused(client, words)


def test_an_alarm_of_rabbitmq_and_the_end_of_its_vhost_are_503_and_an_alarm_passes(
    tmp_path: Path, shared_redis: RedisServer, node: Node
) -> None:
    with served(tmp_path, shared_redis, node.url(vhost="fading")) as (_, client):
        assert client.post("/api/ansiblecommand", json=COMMAND).status_code == 202
        assert not _problem(client)
        node.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
        is_refused(client, "is blocked")
        is_refused(client, "is blocked")  # the same when the connection is a new one
        node.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.6).")
        eventually(lambda: client.post("/api/ansiblecommand", json=COMMAND).status_code == 202, 10)
        eventually(lambda: not _problem(client), 10)
        node.evaluate('rabbit_vhost:delete(<<"fading">>, <<"tests">>).')
        is_refused(client, "has no such vhost")
