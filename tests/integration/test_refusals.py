"""Redis in every state in which it refuses: submissions and health are 503 and say why; afterwards all is well."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.helpers.redis_server import RedisServer, redis_program
from tests.helpers.waiting import eventually
from tests.helpers.webserver import WebServer

State = Callable[[RedisServer], AbstractContextManager[None]]
COMMAND = {"module": "debug"}
_ENDLESS = "while true do end"


@contextmanager
def _settings(server: RedisServer, **values: str | int) -> Iterator[None]:
    """Changes Redis' settings, and changes them back."""
    with contextlib.closing(server.client()) as client:
        before = {name: client.config_get(name)[name] for name in values}
        for name, value in values.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name in values:
                client.config_set(name, before[name])


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    with _settings(server, maxmemory=1):
        yield


@contextmanager
def too_few_replicas(server: RedisServer) -> Iterator[None]:
    with _settings(server, **{"min-replicas-to-write": 1}):
        yield


@contextmanager
def replica(server: RedisServer) -> Iterator[None]:
    with contextlib.closing(server.client()) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def replica_without_primary(server: RedisServer) -> Iterator[None]:
    with _settings(server, **{"replica-serve-stale-data": "no"}), replica(server):
        yield


@contextmanager
def cannot_save(server: RedisServer) -> Iterator[None]:
    """Its folder is gone: it cannot write a snapshot, as on a full disk."""
    shutil.rmtree(server.data)
    with contextlib.closing(server.client()) as client:
        with _settings(server, save="3600 1", **{"stop-writes-on-bgsave-error": "yes"}):
            client.bgsave()
            eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            yield
    server.data.mkdir()


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    with contextlib.closing(server.client()) as client, _settings(server, **{"lua-time-limit": 1}):
        script = threading.Thread(target=_run_endless_script, args=(server,))
        script.start()
        eventually(lambda: _is_refused(client))
        try:
            yield
        finally:
            client.script_kill()
            script.join()


def _run_endless_script(server: RedisServer) -> None:
    with contextlib.closing(server.client()) as client, contextlib.suppress(redis.RedisError):
        client.eval(_ENDLESS, 0)


def _is_refused(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.RedisError:
        return True


@contextmanager
def scripts_forbidden(server: RedisServer) -> Iterator[None]:
    """For a broker it is the lists, in which kombu keeps the queues."""
    with contextlib.closing(server.client()) as client:
        client.acl_setuser("default", enabled=True, categories=["+@all", "-@scripting", "-@list"], nopass=True)
        try:
            yield
        finally:
            client.acl_setuser("default", enabled=True, categories=["+@all"], nopass=True)


@contextmanager
def password_wanted(server: RedisServer) -> Iterator[None]:
    with contextlib.closing(server.client()) as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set("requirepass", "")


@contextmanager
def full_of_clients(server: RedisServer) -> Iterator[None]:
    with contextlib.closing(server.client()) as client:
        before = client.config_get("maxclients")["maxclients"]
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set("maxclients", before)


STATES: dict[State, str] = {
    out_of_memory: "is out of memory",
    too_few_replicas: "too few replicas",
    replica: "is a replica that takes no writes",
    replica_without_primary: "is a replica",
    cannot_save: "cannot write its file",
    busy: "is busy with a script",
    scripts_forbidden: "does not permit its user a command",
    password_wanted: "wants a password",
    # Redis closes such a connection at once: whether its words arrive before is a race.
    full_of_clients: "",
}


@pytest.fixture(scope="module")
def refusing() -> Iterator[RedisServer]:
    server = RedisServer(redis_program(), persistent=False, **{"stop-writes-on-bgsave-error": "no"})
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def on_store(
    refusing: RedisServer, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    """Its records are in the Redis that refuses."""
    running = WebServer(tmp_path_factory.mktemp("store"), refusing.url, broker_url=shared_redis.url)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def on_broker(
    refusing: RedisServer, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    """Its broker is the Redis that refuses."""
    running = WebServer(tmp_path_factory.mktemp("broker"), shared_redis.url, broker_url=refusing.url)
    yield running
    running.stop()


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("part", ["store", "broker"])
def test_whatever_redis_refuses_is_a_503_that_says_why_and_passes(
    refusing: RedisServer, on_store: WebServer, on_broker: WebServer, part: str, state: State
) -> None:
    server = {"store": on_store, "broker": on_broker}[part]
    with server.client() as client:
        assert client.post("/api/ansiblecommand", json=COMMAND).status_code == 202
        with state(refusing):
            reply = client.post("/api/ansiblecommand", json=COMMAND)
            assert (reply.status_code, reply.json()["code"]) == (503, f"{part}_unavailable"), reply.text
            assert STATES[state] in reply.json()["message"] and "Nothing was queued" in reply.json()["message"]
            assert int(reply.headers["Retry-After"]) > 0
            found = eventually(lambda: _problem(client, part))  # that all is well counts for a second
            assert STATES[state] in found
        eventually(lambda: client.post("/api/ansiblecommand", json=COMMAND).status_code == 202, 5)
        eventually(lambda: not _problem(client, part), 5)
    assert "Traceback" not in server.log.read_text()


def _problem(client: httpx.Client, part: str) -> str:
    """What health says of a part that has a problem; a service that has one is not called well."""
    reply = client.get("/api/health")
    health: dict[str, Any] = reply.json()
    assert reply.status_code == 503, "there is no worker in any case"
    return "" if health["parts"][part]["ok"] else str(health["parts"][part]["detail"])


def test_a_redis_that_loads_its_file_is_a_503_that_says_so(tmp_path: Path) -> None:
    redis_server = RedisServer(redis_program(), persistent=True, **{"key-load-delay": "100"})
    commands = b"".join(b"*3\r\n$3\r\nSET\r\n$8\r\n%08d\r\n$1\r\nx\r\n" % number for number in range(40_000))
    (redis_server.data / "appendonly.aof").write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n" + commands)
    server = WebServer(tmp_path, redis_server.url)
    redis_server.start(wait=False)
    try:
        once = redis.Redis(unix_socket_path=str(redis_server.socket), retry=Retry(NoBackoff(), 0))
        with server.client() as client, contextlib.closing(once):
            eventually(lambda: redis_server.socket.exists() and _is_refused(once))
            reply = client.post("/api/ansiblecommand", json=COMMAND)
            assert (reply.status_code, reply.json()["code"]) == (503, "store_unavailable"), reply.text
            assert "is loading its file" in reply.json()["message"]
            assert "is loading its file" in _problem(client, "store")
    finally:
        redis_server.remove()
        server.stop()


def test_health_answers_anybody_while_the_store_refuses(refusing: RedisServer, on_store: WebServer) -> None:
    """Whoever asks: a password that was not checked before cannot be checked now."""
    with password_wanted(refusing):
        for auth in (None, ("admin", "another")):
            reply = httpx.get(f"{on_store.url}/api/health", auth=auth)
            assert (reply.status_code, reply.json()["status"]) == (503, "unavailable")
            assert reply.json()["parts"]["store"] == {"ok": False, "detail": "has a problem; admin sees the details"}
