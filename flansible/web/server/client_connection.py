"""One client's connection: what it has sent of a request, and what it has not taken yet of a reply. Never blocks.

Used by the loop and by one request thread at a time (flansible.web.server.worker). gunicorn's parser reads from it, and
gunicorn writes replies to it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum
from socket import socket
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import (
    InvalidChunkExtension,
    InvalidChunkSize,
    InvalidRequestLine,
    LimitRequestHeaders,
    NoMoreData,
    ParseException,
)
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from flansible.system.sockets import WOULD_BLOCK, end_sending

HEAD_BYTES = 64 * 1024  # the most of a head; of a line or the trailers of a body in chunks
_READ_BYTES = 64 * 1024
# A body may have so many chunks, and one more for so many bytes of the limit: each takes time, however small it is.
_FEW_CHUNKS = 1024
_SMALL_CHUNK_BYTES = 512
_MOST_SIZE_DIGITS = 32  # of a chunk: they are read again whenever more of it arrives
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?", re.DOTALL)
_TLS_HANDSHAKE = b"\x16\x03"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    """What a connection waits for."""

    HANDSHAKE = 1  # of TLS
    HEAD = 2
    BODY = 3
    WORKING = 4  # a thread has it
    SENDING = 5  # the client has not taken all that is buffered of a reply
    IDLE = 6  # the next request
    CLOSING = 7  # all is sent; for the client to close


class _Received(Unreader):  # type: ignore[misc]
    """What gunicorn's parser reads from: what was received of one request, and then the end."""

    def __init__(self, head: bytes) -> None:
        super().__init__()
        self.pieces = deque([head])

    def chunk(self, size_hint: int | None = None) -> bytes:
        return self.pieces.popleft() if self.pieces else b""

    @property
    def is_empty(self) -> bool:
        return not self.pieces and not self.buf.getvalue()


class ClientConnection:
    """peer: the client's address, as `accept` returns it; server: ours; deadline: of its phase.

    own_address: by which the peer is counted; address: by which it is counted now, another one for a request through a
    trusted proxy; held_bytes: what that address is charged for the buffers. is_waiting: for an event. request: the one
    that is gathered or answered; reply: what a thread continues once `unsent` is taken.
    """

    def __init__(
        self, sock: socket, peer: Any, server: Any, address: str, deadline: float, *, is_tls: bool = False
    ) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()
        self.peer = peer
        self.server = server
        self.own_address = address
        self.address = address
        self.phase = Phase.HANDSHAKE if is_tls else Phase.HEAD
        self.deadline = deadline
        self.is_waiting = False
        self.received = bytearray()
        self.unsent = memoryview(b"")
        self.held_bytes = 0
        self.request: Request | None = None
        self.reply: Any = None
        self._source = _Received(b"")
        self._written: list[bytes] = []
        self._expects_continue = False
        self._chunk_ends: list[int] = []  # of the body that is gathered
        self._scanned = 0  # before this byte there is no end of the head, or of the body in chunks

    @property
    def buffered_bytes(self) -> int:
        return len(self.received) + len(self.unsent) + sum(map(len, self._source.pieces))

    @property
    def has_begun_request(self) -> bool:
        """Whether a part of a request has arrived, and the rest is waited for."""
        return self.phase is Phase.BODY or (self.phase is Phase.HEAD and bool(self.received))

    # Receiving

    def handshake(self, context: ssl.SSLContext) -> bool:
        """Begins or continues the TLS handshake; returns whether it is complete. Raises OSError."""
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        try:
            self.sock.do_handshake()
        except WOULD_BLOCK:
            return False
        self.phase = Phase.HEAD
        return True

    def receive(self) -> bool:
        """Reads what has arrived; returns False once the client has closed its side. Raises OSError."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except WOULD_BLOCK:
            return True
        self.received += data
        return bool(data)

    def parse(self, cfg: Any, limit: Callable[[str], int]) -> bool:
        """Parses what was received; returns whether `request` is whole. Raises gunicorn's ParseException.

        limit: the most bytes of a body, by path. A larger one is not waited for: the app refuses it, and the connection
        ends.
        """
        if self.request is None and not self._parse_head(cfg):
            return False
        assert self.request is not None
        reader = self.request.body.reader
        most_body_bytes = limit(self.request.path)
        length = self._chunks_end(most_body_bytes) if isinstance(reader, ChunkedReader) else reader.length
        if length is None and len(self.received) > most_body_bytes + HEAD_BYTES:
            length = len(self.received)
            self.request.force_close()
        elif length is not None and length > most_body_bytes + HEAD_BYTES:
            length = 0
            self.request.force_close()
        if length is None or length > len(self.received):
            self._answer_expectation()
            return False
        # Chunk by chunk: for each one, gunicorn's reader copies what is left of the piece.
        ends = itertools.takewhile(length.__gt__, self._chunk_ends)
        for begin, end in itertools.pairwise((0, *ends, length)):
            self._source.pieces.append(bytes(self.received[begin:end]))
        del self.received[:length]
        self._scanned = 0
        return True

    def _parse_head(self, cfg: Any) -> bool:
        end = self.received.find(b"\r\n\r\n", self._scanned)
        if end < 0 and len(self.received) <= HEAD_BYTES:
            self._scanned = max(0, len(self.received) - 3)
            self._check_beginning(cfg)
            return False
        length = end + 4 if end >= 0 else len(self.received)
        self._source = _Received(bytes(self.received[:length]))
        del self.received[:length]
        self._scanned = 0
        self._chunk_ends.clear()
        try:
            request = Request(cfg, self._source, self.peer)
        except (NoMoreData, StopIteration):
            raise LimitRequestHeaders(f"the head is longer than {HEAD_BYTES} bytes") from None
        if length > HEAD_BYTES:
            raise LimitRequestHeaders(f"the head is longer than {HEAD_BYTES} bytes")
        self._expects_continue, request._expected_100_continue = request._expected_100_continue, False
        self.request = request
        return True

    def _check_beginning(self, cfg: Any) -> None:
        """Raises gunicorn's ParseException for a beginning that can become no head: its client may wait for us."""
        if self.received.startswith(_TLS_HANDSHAKE):
            raise InvalidRequestLine("this is TLS, and plain HTTP is spoken here")
        if b"\n" in self.received or len(self.received) > cfg.limit_request_line:
            with contextlib.suppress(NoMoreData, StopIteration):
                Request(cfg, _Received(bytes(self.received)), self.peer)

    def _chunks_end(self, most_body_bytes: int) -> int | None:
        """Returns where a body in chunks ends, None if that has not arrived yet. Raises ParseException for too many,
        and for a size that is too long.

        What is no chunk ends it at once, and with it the connection: gunicorn's reader is given the rest, to refuse it.
        """
        assert self.request is not None
        while (line_end := self.received.find(b"\r\n", self._scanned)) >= 0:
            size = _CHUNK_LINE.fullmatch(self.received, self._scanned, line_end)
            if size is None:
                break
            if len(size[1]) > _MOST_SIZE_DIGITS:
                raise InvalidChunkSize(bytes(size[1][:_MOST_SIZE_DIGITS]))
            if int(size[1], 16) == 0:  # the last one; trailers may follow
                end = self.received.find(b"\r\n\r\n", line_end)
                if end >= 0:
                    return end + 4
                if len(self.received) - line_end > HEAD_BYTES:
                    break
                return None
            end = line_end + 2 + int(size[1], 16) + 2
            if end > len(self.received):
                return None
            if self.received[end - 2 : end] != b"\r\n":
                break
            self._scanned = end
            self._chunk_ends.append(end)
            if len(self._chunk_ends) > _FEW_CHUNKS + most_body_bytes // _SMALL_CHUNK_BYTES:
                raise InvalidChunkExtension("the chunks are too small")
        else:
            if len(self.received) - self._scanned <= HEAD_BYTES:
                return None
        self.request.force_close()
        return len(self.received)

    def _answer_expectation(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            with contextlib.suppress(*WOULD_BLOCK):
                self.sock.send(_CONTINUE)

    def finish_request(self) -> bool:
        """Drops what the app has not read of the body; returns whether the next request begins behind it for sure."""
        request, self.request = self.request, None
        assert request is not None
        if not isinstance(request.body.reader, ChunkedReader):
            self._source.pieces.clear()
            return True
        with contextlib.suppress(ParseException, NoMoreData):
            request.body.read()
            # Where reading has failed before, nothing is left to read either.
            return self._source.is_empty and not getattr(request.body, "failed", False)
        return False

    # Sending. gunicorn calls `sendall` and `send`.

    def sendall(self, data: bytes) -> None:
        self._written.append(data)

    def send(self, data: bytes) -> int:
        self._written.append(data)
        return len(data)

    def flush(self) -> bool:
        """Sends what was written, as much as the client takes; returns whether that is all. Raises OSError."""
        if self._written:
            self.unsent = memoryview(b"".join((self.unsent, *self._written)))
            self._written.clear()
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except WOULD_BLOCK:
            return False
        self.unsent = memoryview(b"")
        return True

    def end(self) -> None:
        """Sends the end of the connection; what the client still sends is dropped. Raises OSError."""
        self.phase = Phase.CLOSING
        self.received.clear()
        end_sending(self.sock)
