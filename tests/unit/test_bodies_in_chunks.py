"""Bodies in chunks, as the web server hands them to gunicorn's reader."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize

from flansible.web.server.client_connection import ClientConnection

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
MOST_BODY_BYTES = 2**20


def received(data: bytes) -> ClientConnection:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = ClientConnection(ours, ("127.0.0.1", 1), None, "127.0.0.1", 1e9)
    connection.received += data
    assert connection.parse(Config(), lambda path: MOST_BODY_BYTES)
    return connection


@pytest.mark.parametrize("chunk_bytes", [1, 512, 1024, 65536])
def test_reading_a_body_copies_each_byte_a_few_times_however_many_chunks_it_has(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse_chunk_size = ChunkedReader.parse_chunk_size
    copied = 0

    def count(reader: ChunkedReader, unreader: Any, data: bytes | None = None) -> Any:
        nonlocal copied
        copied += len(data or b"")
        return parse_chunk_size(reader, unreader, data)

    monkeypatch.setattr(ChunkedReader, "parse_chunk_size", count)
    chunks = min(MOST_BODY_BYTES // chunk_bytes, 3000)
    body = (b"%x\r\n" % chunk_bytes + b" " * chunk_bytes + b"\r\n") * chunks + b"0\r\n\r\n"
    connection = received(HEAD + body)
    assert connection.request is not None
    assert len(connection.request.body.read()) == chunks * chunk_bytes
    assert copied < 3 * len(body)


def test_a_body_in_chunks_ends_where_the_next_request_begins() -> None:
    following = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b'1;a="b;c"\r\n1\r\n' + b"0004\r\n2\r\n3\r\n" + b"1\r\n4\r\n" + b"0\r\nX-Sum: 1\r\n\r\n"
    connection = received(HEAD + body + following)
    assert connection.request is not None
    assert connection.request.body.read() == b"12\r\n34"
    assert connection.request.trailers == [("X-SUM", "1")]
    assert connection.finish_request() and connection.received == following


def test_a_body_in_chunks_that_is_over_the_limit_is_handed_on_up_to_there() -> None:
    connection = received(HEAD + (b"400\r\n" + b" " * 1024 + b"\r\n") * 1200)
    assert connection.request is not None
    assert len(connection.request.body.read(MOST_BODY_BYTES + 1)) == MOST_BODY_BYTES + 1
    assert not connection.finish_request() and connection.request is None


def test_a_chunk_whose_size_has_more_than_32_digits_is_refused_before_the_rest_of_it_arrives() -> None:
    with pytest.raises(InvalidChunkSize):
        received(HEAD + b"0" * 33 + b"\r\n")
    connection = received(HEAD + b"1".zfill(32) + b"\r\n1\r\n" + b"0" * 32 + b"\r\n\r\n")
    assert connection.request is not None and connection.request.body.read() == b"1"
