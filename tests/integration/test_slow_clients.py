"""Connections that send slowly, read nothing, or are too many take no thread, and honest clients do not notice."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers import certificates
from tests.helpers.redis_server import RedisServer
from tests.helpers.slow_clients import KINDS, Crowd, basic, held, poll
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, DEV, WebServer, read_head, read_to_end

LOGIN, VIEWER = basic(ADMIN), basic(DEV)
STATUS = "/api/ansibletasks?limit=1"


def running(folder: Path, redis_url: str, **more: Any) -> Iterator[WebServer]:
    server = WebServer(folder, redis_url, **{"max_connections_per_address": 100, **more})
    try:
        with server.client() as client:
            assert client.get(STATUS).status_code == 200  # the password is known from here on
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text() and "ERROR" not in server.log.read_text()


@pytest.fixture(scope="module")
def server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    yield from running(tmp_path_factory.mktemp("web"), shared_redis.url)


@pytest.fixture(scope="module", params=["plain", "TLS"])
def crowded(
    shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    more = {"trusted": certificates.authority(folder)} if request.param == "TLS" else {}
    yield from running(folder, shared_redis.url, **more)


@pytest.fixture
def proxied(shared_redis: RedisServer, tmp_path: Path) -> Iterator[WebServer]:
    settings = {"trusted_proxies": "127.0.0.1", "max_connections_per_address": 3}
    yield from running(tmp_path, shared_redis.url, **settings)


def connect(server: WebServer, data: bytes, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), 20, source_address=(source, 0))
    connection.sendall(data)
    return connection


def code(connection: socket.socket) -> tuple[int, str]:
    """Returns status and code of the one reply before the connection ends."""
    head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.mark.by_day(3)
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS, ("viewer",)], ids="-".join)
def test_honest_polls_are_answered_beside_slow_clients(crowded: WebServer, kinds: tuple[str, ...]) -> None:
    """Any of them would hold all four threads of the only process; docs/performance.md has figures."""
    crowd = Crowd(crowded.port, 300, 10 if kinds == KINDS else 1, kinds, crowded.context is not None)
    if kinds == ("viewer",):
        crowd = replace(crowd, kinds=("bodies", "deaf"), path="/api/preview", login=VIEWER)
    with held(crowd):
        seconds = poll(crowded.port, STATUS, LOGIN, 3, crowded.context)
    assert len(seconds) > 20 and statistics.quantiles(seconds, n=10)[-1] < 0.2  # 5 ms on an idle machine


def test_an_address_has_so_many_connections_and_another_one_its_own(server: WebServer) -> None:
    request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(server, b"", "127.0.0.3"))
        refused = stack.enter_context(connect(server, b"", "127.0.0.3"))
        assert code(refused) == (429, "connection_limit")
        assert code(stack.enter_context(connect(server, request, "127.0.0.4"))) == (404, "not_found")
    eventually(lambda: connects(server, request, "127.0.0.3"))


def test_a_tls_handshake_does_not_wait_behind_those_of_other_addresses(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The last of 481 is answered among the first; without turns after 60 to 115 others."""
    for server in running(tmp_path, shared_redis.url, trusted=certificates.authority(tmp_path)):
        # This process may be late to look: the best of three counts.
        assert min(answered_before_the_last(server) for _ in range(3)) < 40


def answered_before_the_last(server: WebServer) -> int:
    with contextlib.ExitStack() as stack:
        server.process().suspend()
        many = [stack.enter_context(begin_handshake(server, f"127.0.0.{3 + number % 6}")) for number in range(480)]
        last = stack.enter_context(begin_handshake(server, "127.0.0.9"))
        server.process().resume()
        assert select.select([last], [], [], 20)[0]
        return len(select.select(many, [], [], 0)[0])


def begin_handshake(server: WebServer, source: str) -> ssl.SSLSocket:
    """Sends the client's first part."""
    raw = socket.create_connection(("127.0.0.1", server.port), 20, source_address=(source, 0))
    assert server.context is not None
    begun = server.context.wrap_socket(raw, server_hostname="127.0.0.1", do_handshake_on_connect=False)
    begun.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return begun


def connects(server: WebServer, request: bytes, source: str) -> bool:
    with connect(server, request, source) as connection, contextlib.suppress(OSError):
        return code(connection)[0] == 404
    return False


def test_connections_that_come_at_once_are_shared_out(shared_redis: RedisServer, tmp_path: Path) -> None:
    """One process used to take them all in four of ten bursts, and answered half as many requests as two do. One that
    the machine has no time for in those milliseconds cannot take any."""
    uneven = 0
    with contextlib.contextmanager(running)(tmp_path, shared_redis.url, web_workers=2) as server:
        for _ in range(10):
            with contextlib.ExitStack() as stack:
                for _ in range(48):
                    stack.enter_context(connect(server, b"GET "))
                eventually(lambda: server.clients() == 48)
                uneven += min(server.clients_by_process()) < 4
            eventually(lambda: server.clients() == 0)
    assert uneven <= 2


def test_clients_of_a_trusted_proxy_are_counted_one_by_one(proxied: WebServer) -> None:
    """The proxy itself may have any number of connections."""

    def ask(client: str, rest: str = "Content-Length: 10\r\n\r\n{") -> socket.socket:
        head = f"POST /api/git HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9, {client}\r\n"
        return stack.enter_context(connect(proxied, (head + rest).encode()))

    with contextlib.ExitStack() as stack:
        held_back = [ask(f"192.0.2.{number}") for number in range(1, 5) for _ in range(3)]
        eventually(lambda: proxied.clients() >= len(held_back))
        assert code(ask("192.0.2.1")) == (429, "connection_limit")
        assert code(ask("192.0.2.9", "Connection: close\r\n\r\n"))[0] == 401
        # The next request on a connection of the proxy may be another client's.
        held_back[0].sendall(b"}" * 9)
        assert " 401 " in read_head(held_back[0])[0]
        eventually(lambda: code(ask("192.0.2.1", "Connection: close\r\n\r\n"))[0] == 401)


def test_a_trusted_proxy_with_an_ipv6_address_has_no_limit_of_its_own(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    settings = {"trusted_proxies": "::1", "max_connections_per_address": 3, "Flask_tcp_ip": "::"}
    for server in running(tmp_path, shared_redis.url, **settings):
        with contextlib.ExitStack() as stack:
            for _ in range(30):  # as those that a proxy keeps
                stack.enter_context(socket.create_connection(("::1", server.port), 20))
            eventually(lambda server=server: server.clients() >= 30)
            asked = stack.enter_context(socket.create_connection(("::1", server.port), 20))
            asked.sendall(
                b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
            )
            assert code(asked) == (404, "not_found")


def test_who_needs_no_login_sends_a_body_within_seconds(server: WebServer) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        head = b"HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
        public = stack.enter_context(connect(server, b"POST /api/session " + head))
        other = stack.enter_context(connect(server, b"POST /api/git " + head))
        assert code(public) == (408, "request_timeout") and time.monotonic() - began < 10
        other.sendall(b"0123456789")
        assert " 401 " in read_head(other)[0]


def test_a_whole_request_from_a_client_that_sends_no_more_is_answered(server: WebServer) -> None:
    for request, status in (
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n", 400),
        (b"POST /api/git HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", 400),
    ):
        with connect(server, request) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert code(connection)[0] == status


def test_who_expects_it_is_told_to_continue(server: WebServer) -> None:
    head = f"POST /api/git HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {LOGIN}\r\nContent-Type: application/json\r\n"
    for length, answer in ((2, b"HTTP/1.1 100 Continue\r\n\r\n"), (1 << 30, b"HTTP/1.1 413 ")):
        with connect(server, f"{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode()) as connection:
            assert connection.recv(len(answer), socket.MSG_WAITALL) == answer
            if length == 2:
                connection.sendall(b"{}")
                assert " 400 " in read_head(connection)[0]


def test_what_clients_do_not_take_has_a_limit_in_all(shared_redis: RedisServer, tmp_path: Path) -> None:
    before = "from flansible.web.server import connection_table as t\nt.MAX_HELD_BYTES = 2 << 20\n"
    server = WebServer(tmp_path, shared_redis.url, before=before)
    try:
        memory = server.process().memory_info().rss
        body = b"POST /api/git HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b" " * 3_000_000
        with contextlib.ExitStack() as stack:
            for number in range(30):
                with contextlib.suppress(OSError):  # it may be dropped meanwhile
                    stack.enter_context(connect(server, body, f"127.0.0.{10 + number % 3}"))
            assert server.process().memory_info().rss - memory < 30 << 20
            with server.client() as client:
                assert client.post("/api/git", json={"x": "y" * 1_000_000}).status_code == 400
    finally:
        server.stop()


def test_few_descriptors_are_no_end_of_the_process(shared_redis: RedisServer, tmp_path: Path) -> None:
    before = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
    server = WebServer(tmp_path, shared_redis.url, before=before)
    try:
        process = server.process()
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(connect(server, b"")) for _ in range(300)]
            with httpx.Client(base_url=server.url, transport=httpx.HTTPTransport(local_address="127.0.0.5")) as client:
                assert client.get("/api/nothing").status_code == 404
            assert code(crowd[-1]) == (503, "too_many_connections")
        with server.client() as client:
            assert client.get(STATUS).status_code == 200
        assert process.is_running() and server.process().pid == process.pid
    finally:
        server.stop()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
