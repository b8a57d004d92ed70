"""Finds the end of a Redis snapshot (RDB): Redis 6.2 rewrites its append-only file as a snapshot that commands follow.

Only what is needed to step over each value; Redis itself judges the contents. Used by append_only_file.py. Standard
library only: `flansible up` runs this when its Redis does not start.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

MAGIC = b"REDIS"
_HEADER_BYTES = 9  # the word and four digits of the version
_CHECKSUM_BYTES = 8
_EOF, _SELECT_DB, _EXPIRE_SECONDS, _EXPIRE_MILLISECONDS = 0xFF, 0xFE, 0xFD, 0xFC
_RESIZE_DB, _AUX, _FREQUENCY, _IDLE, _FUNCTION = 0xFB, 0xFA, 0xF9, 0xF8, 0xF5
_COMPRESSED = 3


class SnapshotReader:
    """Steps over the values of a snapshot. Raises ValueError or IndexError where it is damaged or ends too soon."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._steps: dict[int, Callable[[], object]] = {
            _SELECT_DB: self._length,
            _EXPIRE_SECONDS: lambda: self._skip(4),
            _EXPIRE_MILLISECONDS: lambda: self._skip(8),
            _RESIZE_DB: lambda: self._repeat(2, self._length),
            _AUX: lambda: self._strings(2),
            _FREQUENCY: lambda: self._skip(1),
            _IDLE: self._length,
            _FUNCTION: self._string,
        }
        # By the number of a value's type. Lists and the like that are small are one string.
        self._values: dict[int, Callable[[], None]] = {
            **dict.fromkeys((0, 9, 10, 11, 12, 13, 16, 17, 20), self._string),
            **dict.fromkeys((1, 2, 14), lambda: self._strings(self._length())),
            3: lambda: self._repeat(self._length(), self._scored_by_text),
            4: lambda: self._strings(2 * self._length()),
            5: lambda: self._repeat(self._length(), self._scored),
            18: lambda: self._repeat(self._length(), self._list_node),
            15: lambda: self._stream(0, 0, 0),
            19: lambda: self._stream(5, 1, 0),
            21: lambda: self._stream(5, 1, 8),
        }

    def end(self) -> int:
        """Returns where the snapshot ends."""
        self._at = _HEADER_BYTES
        while (kind := self._byte()) != _EOF:
            if kind in self._steps:
                self._steps[kind]()
            elif kind in self._values:
                self._string()  # the key
                self._values[kind]()
            else:
                raise ValueError(f"a value of the unknown type {kind}")
        self._skip(_CHECKSUM_BYTES)
        return self._at

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError("the file ends within a value")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _number(self, size: int) -> int:
        start = self._at
        self._skip(size)
        return int.from_bytes(self._data[start : self._at], "big")

    def _length(self) -> int:
        first = self._byte()
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | self._byte()
        if first in (0x80, 0x81):
            return self._number(4 if first == 0x80 else 8)
        raise ValueError("a length is expected")

    def _string(self) -> None:
        form = self._data[self._at] - 0xC0
        if form < 0:
            return self._skip(self._length())
        self._at += 1
        if form < _COMPRESSED:
            return self._skip(1 << form)  # a number
        if form > _COMPRESSED:
            raise ValueError("a string of an unknown form")
        compressed, _ = self._length(), self._length()
        self._skip(compressed)

    def _strings(self, count: int) -> None:
        self._repeat(count, self._string)

    def _repeat(self, count: int, step: Callable[[], object]) -> None:
        for _ in range(count):
            step()

    def _scored_by_text(self) -> None:
        self._string()
        if (length := self._byte()) < 253:  # above that it is an infinity or no number, without text
            self._skip(length)

    def _scored(self) -> None:
        self._string()
        self._skip(8)

    def _list_node(self) -> None:
        self._length()
        self._string()

    def _stream(self, stream_lengths: int, group_lengths: int, consumer_bytes: int) -> None:
        """Steps over a stream; how much more than the first version of streams this one has."""
        self._strings(2 * self._length())
        self._repeat(3 + stream_lengths, self._length)
        for _ in range(self._length()):
            self._string()
            self._repeat(2 + group_lengths, self._length)
            for _ in range(self._length()):
                self._skip(24)
                self._length()
            for _ in range(self._length()):
                self._string()
                self._skip(8 + consumer_bytes)
                self._skip(16 * self._length())
