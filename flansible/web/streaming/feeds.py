"""Feeds: what a follower is sent, piece by piece, and the head of its reply.

Read by the stream loop (flansible.web.streaming.stream_loop).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from flansible.store import Position, Store

PIECE_BYTES = 64 * 1024  # read at once for one follower, and the most that is buffered for a client that does not read

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Piece:
    """One piece of a reply. rest: the feed of what follows, None at the end; headers: further ones of a whole reply."""

    data: bytes
    rest: Feed | None
    headers: Headers = ()


class Feed(ABC):
    """The rest of one follower's reply. Feeds compare by value: the next piece of equal ones is read once for all."""

    opening: ClassVar[bytes] = b""
    keep_alive: ClassVar[bytes] = b""  # sent after this many seconds without data
    keep_alive_seconds: ClassVar[float] = 15.0
    task_id: str

    @abstractmethod
    def next(self, store: Store, position: Position) -> Piece:
        """Reads the next piece; `rest` is this feed itself when no more is stored yet.

        Raises StoreUnavailable, and TaskDeleted when the rest is not there any more.
        """

    def timeout_reply(self) -> Piece:
        """Returns the whole reply for a long poll whose time is over."""
        return Piece(b"", None)


@dataclass(frozen=True)
class ReplyHead:
    """Status line and headers of a reply.

    is_chunked: the client speaks HTTP/1.1, so that chunks show it the end of the reply, unlike a broken connection.
    """

    status: str
    headers: Headers
    is_chunked: bool

    def for_stream(self) -> bytes:
        """Encodes the head of a stream."""
        return self._encode((("Transfer-Encoding", "chunked"),) if self.is_chunked else ())

    def for_whole(self, piece: Piece) -> bytes:
        """Encodes the head of a whole reply, with its length."""
        return self._encode((*piece.headers, ("Content-Length", str(len(piece.data)))))

    def frame(self, data: bytes, is_last: bool = False) -> bytes:
        """Frames data of a stream as it goes over the wire: as a chunk, where the client speaks HTTP/1.1."""
        if not self.is_chunked:
            return data
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return chunk + b"0\r\n\r\n" if is_last else chunk

    def _encode(self, more: Headers) -> bytes:
        headers = (*self.headers, *more, ("Connection", "close"))
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")
