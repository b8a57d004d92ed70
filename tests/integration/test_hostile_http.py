"""Requests that no honest client sends, byte by byte, to a web server as `flansible web` runs it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.store import Store
from flansible.web.middleware import security_headers
from tests.helpers.redis_server import RedisServer
from tests.helpers.webserver import RecordedRun, WebServer, read_head, read_to_end

LOGIN = "Authorization: Basic YWRtaW46YWRtaW4gc2VjcmV0"  # ADMIN's


@pytest.fixture(scope="module")
def server(server: WebServer) -> Iterator[WebServer]:
    """The shared one, in whose log no request of these tests leaves a failure."""
    before = len(server.log.read_text())
    yield server
    assert "Traceback" not in server.log.read_text()[before:]


def said(server: WebServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body of all replies until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(request)
        got = read_to_end(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def lines(*given: str) -> bytes:
    return "\r\n".join((*given, "", "")).encode("latin-1")


def post(*headers: str, body: bytes = b"", path: str = "/api/git") -> bytes:
    head = (f"POST {path} HTTP/1.1", "Host: x", LOGIN, "Connection: close", "Content-Type: application/json")
    return lines(*head, *headers) + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (lines("GET /" + "a" * 9000 + " HTTP/1.1", "Host: x"), 414),
        (lines("GET / HTTP/1.1", "Host: x", "X: " + "a" * 9000), 431),
        (lines("GET / HTTP/1.1", "Host: x", *(f"X{n}: a" for n in range(101))), 431),
        (b"nonsense\r\n\r\n", 400),
        (lines("GET / HTTP/9.9", "Host: x"), 400),
        (lines("GET / HTTP/1.1", "Host: x", "X : a"), 400),
        (lines("GET / HTTP/1.1", "Host: x", "X: a\x00b"), 400),
        (lines("GET /\x00 HTTP/1.1", "Host: x"), 400),
        (post("Content-Length: 2", "Content-Length: 3", body=b"{} "), 400),
        (post("Content-Length: -1", body=b"{}"), 400),
        (post("Content-Length: 2", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
        (post("Transfer-Encoding: gzip", body=b"{}"), 400),
    ],
)
def test_what_gunicorn_refuses_is_in_the_one_shape_with_the_safe_headers(
    server: WebServer, request_bytes: bytes, status: int
) -> None:
    found, headers, body = said(server, request_bytes)
    assert found == status, body
    assert set(json.loads(body)) == {"message", "code", "errors"}
    assert dict(security_headers.DEFAULT_HEADERS).items() <= headers.items()


@pytest.mark.parametrize(
    ("chunks", "status", "code"),
    [
        (b'b\r\n{"reset": 1\r\n1\r\n}\r\n0\r\n\r\n', 400, "invalid_field"),
        (b"1\r\n{\r\n0\r\n\r\n", 400, "invalid_json"),
        (b"zz\r\n{}\r\n0\r\n\r\n", 400, "invalid_request"),
        (b"400001\r\n" + b" " * 0x400001 + b"\r\n0\r\n\r\n", 413, "body_too_large"),
        (b"5000000\r\n" + b" " * 0x5000000 + b"\r\n0\r\n\r\n", 413, "body_too_large"),
        (b"1\r\n \r\n" * 20_000 + b"0\r\n\r\n", 400, "invalid_request"),
        (b"1\r\n \r\n" * 9000 + b"0\r\n\r\n", 400, "invalid_json"),
        ((b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 63 + b"0\r\n\r\n", 400, "invalid_json"),
        ((b"400\r\n" + b" " * 0x400 + b"\r\n") * 4000 + b"0\r\n\r\n", 400, "invalid_json"),
    ],
    ids=[
        "good chunks",
        "half an object",
        "no number",
        "a byte too many",
        "huge",
        "very many",
        "many",
        "large",
        "large and many",
    ],
)
def test_a_body_in_chunks_is_held_to_the_same_rules(server: WebServer, chunks: bytes, status: int, code: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        try:
            connection.sendall(post("Transfer-Encoding: chunked") + chunks)
            got = read_to_end(connection)
        except OSError:
            assert status == 413 or len(chunks) > 100_000, "only what is far too much may be cut off"
            return
    head, _, body = got.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, body
    assert json.loads(body)["code"] == code


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_where_none_belongs_is_no_second_request(server: WebServer, method: str) -> None:
    """Bytes that a proxy took for a body must not be served as the next client's request."""
    inner = lines("GET /api/openapi.json HTTP/1.1", "Host: x")
    first = lines(f"{method} /api/ansibletasks HTTP/1.1", "Host: x", f"Content-Length: {len(inner)}")
    last = lines("GET /nothing HTTP/1.1", "Host: x", "Connection: close")
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(first + inner + last)
        got = read_to_end(connection)
    statuses = [int(part.split()[0]) for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses in ([401, 404], [405, 404], [401], [405]) and b"openapi" not in got


@pytest.mark.parametrize(
    "path",
    [
        "/api//ansibletasks",
        "/api/./ansibletasks",
        "/api/docs/../ansibletasks",
        "/api;x=1/ansibletasks",
        "/api/ansibletasks;x=1",
        "/api/..;/api/ansibletasks",
        "/api%2fansibletasks/",
        "/api/ansibletasks%00",
        "/api/ansibletasks%2f",
        "/API/ansibletasks",
        "http://evil.example/api/nothing",
    ],
)
def test_an_address_has_one_spelling(server: WebServer, path: str) -> None:
    status, headers, _ = said(server, lines(f"GET {path} HTTP/1.1", "Host: x", LOGIN, "Connection: close"))
    assert status in (400, 404) and "Location" not in headers


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"]
)
def test_no_header_makes_it_another_request(server: WebServer, header: str) -> None:
    request = lines(
        "GET /api/openapi.json HTTP/1.1", "Host: x", f"{header}: POST", f"{header}: /api/git", "Connection: close"
    )
    status, _, body = said(server, request)
    assert status == 200 and b'"openapi"' in body


def test_what_a_neighbour_says_of_a_proxy_is_not_believed(server: WebServer) -> None:
    """gunicorn's default trusts 127.0.0.1 as a proxy, with its scheme and even its SCRIPT_NAME."""
    told = ("X-Forwarded-Proto: https", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Host: evil", "SCRIPT_NAME: /evil")
    status, _, body = said(server, lines("GET /api/spec HTTP/1.1", "Host: here", *told, "Connection: close"))
    assert (status, json.loads(body)["basePath"]) == (200, "http://here")


def test_replies_that_are_handed_over_have_the_safe_headers(server: WebServer, store: Store) -> None:
    run = RecordedRun(store)
    run.end()
    for path, *accept in ((f"{run.output_path}?follow=true",), (run.events_path, "Accept: text/event-stream")):
        with server.connect(path, *accept) as connection:
            head, _ = read_head(connection)
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert dict(security_headers.DEFAULT_HEADERS).items() <= headers.items()
        assert "Server" not in headers or headers["Server"] == "gunicorn"


@pytest.fixture(scope="module")
def hasty(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server with time limits of half a second for head and body, and four threads."""
    before = "from flansible.web.server import worker\nworker.HEAD_SECONDS = worker.BODY_SECONDS = 0.5\n"
    running = WebServer(tmp_path_factory.mktemp("web"), shared_redis.url, before=before)
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text() and "ERROR" not in running.log.read_text()


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nX: ",
        post("Content-Length: 1000", body=b"{"),
    ],
    ids=["head", "body"],
)
def test_those_who_send_slowly_do_not_keep_others_out(hasty: WebServer, beginning: bytes) -> None:
    slow = [socket.create_connection(("127.0.0.1", hasty.port), 20) for _ in range(12)]
    try:
        for connection in slow:
            connection.sendall(beginning)
        status, _, _ = said(hasty, lines("GET /nothing HTTP/1.1", "Host: x", "Connection: close"))
        assert status == 404
        for connection in slow:
            head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ") and json.loads(body)["code"] == "request_timeout"
    finally:
        for connection in slow:
            connection.close()


def test_a_request_in_pieces_is_answered_when_it_comes_in_time(hasty: WebServer) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), 20) as connection:
        for piece in (b"GET /nothing HT", b"TP/1.1\r\nHost: x\r\nConn", b"ection: close\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.05)
        assert b" 404 " in read_to_end(connection)


def test_a_body_without_a_login_is_small(server: WebServer) -> None:
    """What takes seconds to check is for those who have one."""
    body = json.dumps({"user": "admin", "password": "x" * 600_000}).encode()
    found, _, reply = said(server, post(f"Content-Length: {len(body)}", body=body, path="/api/session"))
    assert (found, json.loads(reply)["code"]) == (413, "body_too_large")
    long = json.dumps({"user": "admin", "password": "\N{GRINNING FACE}" * 65_536}, ensure_ascii=False).encode()
    assert said(server, post(f"Content-Length: {len(long)}", body=long, path="/api/session"))[0] == 401


def test_those_who_ask_for_health_that_takes_long_do_not_keep_others_out(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    before = "import time\nfrom flansible.broker import app\napp.check_broker = lambda: time.sleep(3)\n"
    running = WebServer(tmp_path, shared_redis.url, before=before)
    health = lines("GET /api/health HTTP/1.1", "Host: x", "Connection: close")
    asked = [socket.create_connection(("127.0.0.1", running.port), 20) for _ in range(12)]
    try:
        for connection in asked:
            connection.sendall(health)
        began = time.monotonic()
        status, _, _ = said(running, lines("GET /nothing HTTP/1.1", "Host: x", "Connection: close"))
        assert status == 404 and time.monotonic() - began < 2
        assert all(b'"parts"' in read_to_end(connection) for connection in asked)
    finally:
        for connection in asked:
            connection.close()
        running.stop()
