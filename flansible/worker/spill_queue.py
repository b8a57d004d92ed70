"""What waits to be stored of one run, in order: in memory up to a bound, beyond it in a file that has no name.

Used by a Recorder alone, under its lock. A file without a name is gone with its process, however that dies.
"""

from __future__ import annotations

import logging
import marshal
import os
import struct
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

from flansible.store import ColourMark, StoredEvent

log = logging.getLogger(__name__)

# One of the three: output bytes, a colour mark, an event with the offset at which its output ends.
Piece = bytes | ColourMark | tuple[StoredEvent, int]

_LENGTH = struct.Struct(">I")
_COLOUR_BYTES = 32  # about what one takes in memory


class SpillQueue:
    """A queue of pieces. `memory_bytes` bounds what is held in memory; `directory` is where the rest goes."""

    def __init__(self, memory_bytes: int, directory: Path | None) -> None:
        self._memory_bytes = memory_bytes
        self._directory = directory
        # In this order: what is in memory, what is in the file, and what a full disk did not take.
        self._pieces: deque[Piece] = deque()
        self._late: deque[Piece] = deque()
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._read_at = self._write_at = 0

    def __bool__(self) -> bool:
        return bool(self._pieces or self._late) or self._read_at < self._write_at

    @property
    def full(self) -> bool:
        """Whether memory is full and the disk takes no more: whoever adds had better wait."""
        return bool(self._late)

    def add(self, piece: Piece) -> None:
        """At the end. It is kept in any case."""
        while self._late and self._spill(self._late[0]):
            self._late.popleft()
        if self._late:
            self._late.append(piece)
        elif self._read_at == self._write_at and self._bytes < self._memory_bytes:
            self._pieces.append(piece)
            self._bytes += _size(piece)
        elif not self._spill(piece):
            self._late.append(piece)

    def take(self, limit_bytes: int) -> list[Piece]:
        """From the front, one piece at least and about so many bytes; nothing when there is nothing."""
        taken = []
        left = limit_bytes
        while left > 0:
            if not self._pieces and not self._read(limit_bytes):
                if not self._late:
                    break
                self._pieces, self._late = self._late, deque()
                self._bytes = sum(_size(piece) for piece in self._pieces)
            piece = self._pieces.popleft()
            size = _size(piece)
            self._bytes -= size
            left -= size
            taken.append(piece)
        return taken

    def put_back(self, pieces: list[Piece]) -> None:
        """At the front, in order: what was taken and is not stored after all."""
        self._pieces.extendleft(reversed(pieces))
        self._bytes += sum(_size(piece) for piece in pieces)

    def close(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._late.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self, piece: Piece) -> bool:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, prefix="flansible-spill-")
            body = _packed(piece)
            data = _LENGTH.pack(len(body)) + body
            # At an offset of our own: what a full disk took only half of is written over.
            view, at = memoryview(data), self._write_at
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                view, at = view[count:], at + count
        except OSError as error:
            if not self._late:
                log.warning("output that waits for the store cannot be kept on disk (%s): its run has to wait", error)
            return False
        self._write_at = at
        return True

    def _read(self, limit_bytes: int) -> bool:
        """Some pieces from the file to memory; False when there are none."""
        if self._file is None or self._read_at >= self._write_at:
            return False
        read = 0
        while self._read_at < self._write_at and read < limit_bytes:
            (length,) = _LENGTH.unpack(os.pread(self._file.fileno(), _LENGTH.size, self._read_at))
            body = os.pread(self._file.fileno(), length, self._read_at + _LENGTH.size)
            self._read_at += _LENGTH.size + length
            read += length
            piece = _unpacked(body)
            self._pieces.append(piece)
            self._bytes += _size(piece)
        if self._read_at >= self._write_at:
            self._file.truncate(0)
            self._read_at = self._write_at = 0
        return True


def _size(piece: Piece) -> int:
    if isinstance(piece, bytes):
        return len(piece)
    return _COLOUR_BYTES if isinstance(piece, ColourMark) else len(piece[0].json)


def _packed(piece: Piece) -> bytes:
    if isinstance(piece, bytes):
        return marshal.dumps(piece)
    if isinstance(piece, ColourMark):
        return marshal.dumps((piece.offset, piece.code))
    event, end = piece
    return marshal.dumps((event.json, event.host, event.failed, event.is_stats, event.verdict, end))


def _unpacked(body: bytes) -> Piece:
    found = marshal.loads(body)  # written by this very process
    if isinstance(found, bytes):
        return found
    return ColourMark(*found) if len(found) == 2 else (StoredEvent(*found[:-1]), found[-1])
