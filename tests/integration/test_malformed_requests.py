"""Malformed and ambiguous requests, byte by byte: each is answered once, and nothing behind it is served.

The statuses are those of gunicorn's own worker, which reads from the socket as it parses (2026-11-30).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.helpers.webserver import WebServer

LOGIN = "Authorization: Basic YWRtaW46YWRtaW4gc2VjcmV0"  # ADMIN's
CHUNKED = "Transfer-Encoding: chunked"
BEHIND = b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def lines(*given: str) -> bytes:
    return "\r\n".join((*given, "", "")).encode("latin-1")


def get(*headers: str, path: str = "/nothing") -> bytes:
    return lines(f"GET {path} HTTP/1.1", "Host: x", *headers, "Connection: close")


def post(*headers: str, body: bytes = b"{}") -> bytes:
    head = ("POST /api/git HTTP/1.1", "Host: x", LOGIN, "Connection: close", "Content-Type: application/json")
    return lines(*head, *headers) + body


def chunks(body: bytes) -> bytes:
    return post(CHUNKED, body=body)


EMPTY = b"0\r\n\r\n"
MALFORMED: dict[str, tuple[bytes, int]] = {
    "long uri": (lines("GET /" + "a" * 9000 + " HTTP/1.1", "Host: x"), 414),
    "long header": (lines("GET / HTTP/1.1", "Host: x", "X: " + "a" * 9000), 431),
    "101 headers": (lines("GET / HTTP/1.1", "Host: x", *(f"X{n}: a" for n in range(101))), 431),
    "nonsense": (b"nonsense\r\n\r\n", 400),
    "http 9.9": (lines("GET / HTTP/9.9", "Host: x"), 400),
    "http 2.0": (lines("GET / HTTP/2.0", "Host: x"), 400),
    "space before colon": (lines("GET / HTTP/1.1", "Host: x", "X : a"), 400),
    "null in value": (lines("GET / HTTP/1.1", "Host: x", "X: a\x00b"), 400),
    "null in uri": (lines("GET /\x00 HTTP/1.1", "Host: x"), 400),
    "8bit uri": (lines("GET /\xff HTTP/1.1", "Host: x"), 400),
    "two cl": (post("Content-Length: 2", "Content-Length: 3", body=b"{} "), 400),
    "same cl twice": (post("Content-Length: 2", "Content-Length: 2"), 400),
    "cl list": (post("Content-Length: 2, 2"), 400),
    "cl -1": (post("Content-Length: -1"), 400),
    "cl +2": (post("Content-Length: +2"), 400),
    "cl 0x2": (post("Content-Length: 0x2"), 400),
    "cl 2_0": (post("Content-Length: 2_0"), 400),
    "cl empty": (post("Content-Length: "), 400),
    "cl unicode": (post("Content-Length: \xb2"), 400),
    "cl huge": (post("Content-Length: " + "9" * 30), 413),
    "cl 5000 digits": (post("Content-Length: " + "9" * 5000), 400),
    "cl and te": (post("Content-Length: 2", CHUNKED, body=EMPTY), 400),
    "te and cl": (post(CHUNKED, "Content-Length: 2", body=EMPTY), 400),
    "te twice": (post(CHUNKED, CHUNKED, body=EMPTY), 400),
    "te chunked, chunked": (post("Transfer-Encoding: chunked, chunked", body=EMPTY), 400),
    "te gzip": (post("Transfer-Encoding: gzip"), 400),
    "te chunked, gzip": (post("Transfer-Encoding: chunked, gzip", body=EMPTY), 400),
    "te gzip, chunked": (post("Transfer-Encoding: gzip, chunked", body=EMPTY), 400),
    "te identity": (post("Transfer-Encoding: identity"), 400),
    "te xchunked": (post("Transfer-Encoding: xchunked", body=EMPTY), 501),
    "te tab": (post("Transfer-Encoding:\tchunked", body=EMPTY), 400),
    "te vt": (post("Transfer-Encoding: \x0bchunked", body=EMPTY), 400),
    "te folded": (post("Transfer-Encoding:\r\n chunked", body=EMPTY), 400),
    "te 1.0": (lines("POST /api/git HTTP/1.0", LOGIN, CHUNKED, "Content-Type: application/json") + b"0\r\n\r\n", 400),
    "te underscore": (post("Transfer_Encoding: chunked", "Content-Length: 2"), 400),
    "folded": (lines("GET / HTTP/1.1", "Host: x", "X: a", " b", "Connection: close"), 400),
    "bare lf head": (b"GET / HTTP/1.1\nHost: x\nConnection: close\n\n\r\n\r\n", 400),
    "bare lf in value": (lines("GET / HTTP/1.1", "Host: x", "X: a\nY: b", "Connection: close"), 400),
    "bare cr in value": (lines("GET / HTTP/1.1", "Host: x", "X: a\rY: b", "Connection: close"), 400),
    "no host": (lines("GET /nothing HTTP/1.1", "Connection: close"), 404),
    "two hosts": (lines("GET /nothing HTTP/1.1", "Host: a", "Host: b", "Connection: close"), 400),
    "empty line first": (b"\r\n" + lines("GET /nothing HTTP/1.1", "Host: x", "Connection: close"), 404),
    "two empty lines first": (b"\r\n\r\n" + lines("GET /nothing HTTP/1.1", "Host: x", "Connection: close"), 400),
    "no version": (b"GET /nothing\r\n\r\n", 400),
    "lower method": (lines("get / HTTP/1.1", "Host: x"), 400),
    "odd method": (lines("G#T / HTTP/1.1", "Host: x"), 400),
    "connect": (lines("CONNECT x:1 HTTP/1.1", "Host: x"), 404),
    "expect other": (lines("GET / HTTP/1.1", "Host: x", "Expect: x"), 417),
    "empty name": (lines("GET / HTTP/1.1", "Host: x", ": a"), 400),
    "no colon": (lines("GET / HTTP/1.1", "Host: x", "abc"), 400),
    "upgrade h2c": (
        lines(
            "GET /nothing HTTP/1.1",
            "Host: x",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Connection: close",
        ),
        404,
    ),
    "h2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "proxy line": (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + lines("GET / HTTP/1.1", "Host: x"), 400),
    "spaces": (lines("GET  / HTTP/1.1", "Host: x"), 400),
    "tab in line": (lines("GET\t/ HTTP/1.1", "Host: x"), 400),
    "absolute": (lines("GET http://e/api/nothing HTTP/1.1", "Host: x", "Connection: close"), 404),
    "star": (lines("OPTIONS * HTTP/1.1", "Host: x", "Connection: close"), 404),
    "chunk ok": (chunks(b"2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk zz": (chunks(b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk 0x": (chunks(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk +": (chunks(b"+2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk -": (chunks(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk _": (chunks(b"0_2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk space": (chunks(b" 2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk trailing space": (chunks(b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    "chunk empty": (chunks(b"\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk lf": (chunks(b"2\n{}\n0\n\n\r\n\r\n"), 400),
    "chunk no crlf": (chunks(b"2\r\n{}0\r\n\r\n\r\n\r\n"), 400),
    "chunk wrong crlf": (chunks(b"2\r\n{}xx0\r\n\r\n"), 400),
    "chunk ext": (chunks(b"2;a=b\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk ext bad": (chunks(b"2;a\nb\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk ext cr": (chunks(b"2;a\rb\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk huge": (chunks(b"FFFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n" + b" " * 5_000_000), 413),
    "chunk trailer": (chunks(b"2\r\n{}\r\n0\r\nX: y\r\n\r\n"), 400),
    "chunk trailer cl": (chunks(b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"), 400),
    "chunk trailer bad": (chunks(b"2\r\n{}\r\n0\r\nX y\r\n\r\n"), 400),
    "chunk 00": (chunks(b"2\r\n{}\r\n000\r\n\r\n"), 400),
}


@pytest.fixture(scope="module")
def server(server: WebServer) -> Iterator[WebServer]:
    """The shared one, in whose log no request of these tests leaves a failure."""
    before = len(server.log.read_text())
    yield server
    assert "Traceback" not in server.log.read_text()[before:]


def replies(server: WebServer, request: bytes) -> tuple[list[int], bytes]:
    """Returns the statuses of all replies until the server closes, and all that it has said."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while more := connection.recv(1 << 20):
            got += more
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", got)], got


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_answered_once_and_ends_the_connection(server: WebServer, name: str) -> None:
    request, status = MALFORMED[name]
    found, got = replies(server, request)
    assert found == [status] and b'"code"' in got


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\nHost: x", 400),
        (b"nonsense\r\n", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 20_000, 431),
    ],
    ids=["TLS", "bare LF", "no request line", "long", "much"],
)
def test_a_beginning_that_can_become_no_head_is_refused_at_once(
    server: WebServer, beginning: bytes, status: int
) -> None:
    """Such a client may wait for our answer, as one does that tries whether we speak TLS."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(beginning)
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 %d" % status


# Odd, but of a certain length: what comes behind them is the next request.
WELL_FORMED = {
    "te underscore",
    "te tab",
    "te gzip, chunked",
    "chunk trailer",
    "no host",
    "upgrade h2c",
    "chunk ext",
    "chunk ok",
    "empty line first",
    "star",
    "absolute",
    "chunk 00",
}


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - WELL_FORMED))
def test_nothing_behind_a_malformed_request_is_served(server: WebServer, name: str) -> None:
    request = re.sub(rb"Connection: close\r?\n", b"", MALFORMED[name][0])
    found, got = replies(server, request + BEHIND)
    assert b'"openapi"' not in got and len(found) <= 2
