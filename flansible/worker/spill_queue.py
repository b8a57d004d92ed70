"""Spill queue: one run's output and events that wait for the store, in memory up to a bound, then in a file.

Used by a Recorder alone, under its lock. The file has no name, so it disappears with its process however that dies.
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

# Output bytes, a colour mark, or an event with the offset at which its output ends.
Piece = bytes | ColourMark | tuple[StoredEvent, int]

_LENGTH = struct.Struct(">I")
_COLOUR_BYTES = 32  # approximate size of one in memory


class SpillQueue:
    """A queue of pieces: at most `memory_bytes` of them in memory, the rest in a file in `directory`."""

    def __init__(self, memory_bytes: int, directory: Path | None) -> None:
        self._memory_bytes = memory_bytes
        self._directory = directory
        # The queue's order: _pieces in memory, then those in the file, then _late, which a full disk did not take.
        self._pieces: deque[Piece] = deque()
        self._late: deque[Piece] = deque()
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._read_at = self._write_at = 0

    def __bool__(self) -> bool:
        return bool(self._pieces or self._late) or self._read_at < self._write_at

    @property
    def full(self) -> bool:
        """Whether memory and disk are full: callers should wait before they add more."""
        return bool(self._late)

    def add(self, piece: Piece) -> None:
        """Appends a piece; keeps it even when `full`."""
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
        """Removes pieces from the front: about `limit_bytes`, at least one piece; [] when the queue is empty."""
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
        """Puts taken pieces back at the front, in order."""
        self._pieces.extendleft(reversed(pieces))
        self._bytes += sum(_size(piece) for piece in pieces)

    def close(self) -> None:
        """Discards everything."""
        self._pieces.clear()
        self._late.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self, piece: Piece) -> bool:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, prefix="flansible-spill-")
            body = _encode(piece)
            data = _LENGTH.pack(len(body)) + body
            # pwrite: the half of a piece that a full disk took is overwritten by the next attempt.
            view, at = memoryview(data), self._write_at
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                view, at = view[count:], at + count
        except OSError as error:
            if not self._late:
                log.warning("output cannot be kept on disk (%s); its run is paused until the store answers", error)
            return False
        self._write_at = at
        return True

    def _read(self, limit_bytes: int) -> bool:
        """Moves some pieces from the file to memory; False when there are none."""
        if self._file is None or self._read_at >= self._write_at:
            return False
        read = 0
        while self._read_at < self._write_at and read < limit_bytes:
            (length,) = _LENGTH.unpack(os.pread(self._file.fileno(), _LENGTH.size, self._read_at))
            body = os.pread(self._file.fileno(), length, self._read_at + _LENGTH.size)
            self._read_at += _LENGTH.size + length
            read += length
            piece = _decode(body)
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


def _encode(piece: Piece) -> bytes:
    if isinstance(piece, bytes):
        return marshal.dumps(piece)
    if isinstance(piece, ColourMark):
        return marshal.dumps((piece.offset, piece.code))
    event, end = piece
    fields = (event.json, event.host, event.failed, event.is_stats, event.verdict, event.play_task)
    return marshal.dumps((*fields, end))


def _decode(body: bytes) -> Piece:
    found = marshal.loads(body)  # written by this process only
    if isinstance(found, bytes):
        return found
    return ColourMark(*found) if len(found) == 2 else (StoredEvent(*found[:-1]), found[-1])
