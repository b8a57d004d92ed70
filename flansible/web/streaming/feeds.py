"""What followers are sent: feeds that give a reply piece by piece, and the head it begins with.

Read by the followers' thread (flansible.web.streaming.stream_loop), or by the request's own where a client cannot be
handed over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from flansible.store import Position, Store

PIECE_BYTES = 64 * 1024  # read at once for one follower, and all that is kept for one that does not read

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Piece:
    """data: to be sent now; rest: what comes after it, None at the end; headers: more of them, for a whole reply."""

    data: bytes
    rest: Feed | None
    headers: Headers = ()


class Feed(ABC):
    """What one follower is to be sent from here on. A value: what equal feeds give is read once for all of them."""

    opening: ClassVar[bytes] = b""
    keep_alive: ClassVar[bytes] = b""  # sent when there was nothing else for so long
    keep_alive_seconds: ClassVar[float] = 15.0
    task_id: str

    @abstractmethod
    def next(self, store: Store, position: Position) -> Piece:
        """A piece of what is stored; `rest` is this feed itself when there is no more yet. Raises StoreUnavailable."""

    def give_up(self) -> Piece:
        """The whole reply when the time to wait for one is over."""
        return Piece(b"", None)


@dataclass(frozen=True)
class ReplyHead:
    """How a reply begins. is_chunked: the client knows HTTP/1.1, and so can tell the end from a broken connection."""

    status: str
    headers: Headers
    is_chunked: bool

    def of_stream(self) -> bytes:
        return self._lines((("Transfer-Encoding", "chunked"),) if self.is_chunked else ())

    def of_whole(self, piece: Piece) -> bytes:
        return self._lines((*piece.headers, ("Content-Length", str(len(piece.data)))))

    def framed(self, data: bytes, is_last: bool = False) -> bytes:
        """The next bytes of a stream, as they go over the line."""
        if not self.is_chunked:
            return data
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return chunk + b"0\r\n\r\n" if is_last else chunk

    def _lines(self, more: Headers) -> bytes:
        headers = (*self.headers, *more, ("Connection", "close"))
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")
