"""How output, colours, events and requests are stored: compressed pieces, each readable by itself.

What is stored counts on these forms; a piece of another form would get another first byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import accumulate

import zstandard

from flansible.errors import HistoryUnavailable
from flansible.store import ColourMark
from flansible.system.timestamps import timestamp

# A piece of output is what a reader in the middle has to unpack; one of events is as long as that compresses well: the
# facts of one host are much like those of another.
OUTPUT_BYTES = 128 * 1024
EVENT_BYTES = 512 * 1024
_LEVEL = 9  # level 3 takes a third less time and a fifth more space
_PLAIN, _COMPRESSED = b"\0", b"\1"
# With its inventory, of 300 characters: an index of PostgreSQL takes 2,700 bytes.
_NAME_BYTES, _NAME_CHARACTERS = 1024, 200


def pack(data: bytes) -> bytes:
    """Compresses, unless that is longer."""
    if not data:
        return b""
    small = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(data)
    return _COMPRESSED + small if len(small) < len(data) else _PLAIN + data


def unpack(stored: bytes) -> bytes:
    """Gives back what `pack` was given. Raises HistoryUnavailable for what was damaged on the disk, which SQLite does
    not notice by itself."""
    if stored[:1] != _COMPRESSED:
        return bytes(stored[1:])
    try:
        return zstandard.ZstdDecompressor().decompress(stored[1:])
    except zstandard.ZstdError as error:
        reason = "is damaged: a part of this task cannot be unpacked"
        raise HistoryUnavailable(f"the history database {reason} ({error})", reason) from error


def pack_marks(marks: Sequence[ColourMark]) -> bytes:
    """Packs colour marks, which are in order: each is the distance from the one before, and its code."""
    lines, previous = [], 0
    for mark in marks:
        lines.append(f"{mark.offset - previous} {mark.code}")
        previous = mark.offset
    return pack("\n".join(lines).encode())


def unpack_marks(stored: bytes) -> list[ColourMark]:
    marks, offset = [], 0
    for line in unpack(stored).decode().splitlines():
        distance, _, code = line.partition(" ")
        offset += int(distance)
        marks.append(ColourMark(offset, code))
    return marks


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Packs rising numbers, as the distances between them."""
    distances, previous = [], 0
    for number in numbers:
        distances.append(str(number - previous))
        previous = number
    return pack(" ".join(distances).encode())


def unpack_numbers(stored: bytes) -> list[int]:
    return list(accumulate(int(word) for word in unpack(stored).split()))


def to_text(value: str) -> str:
    """Escapes what a column of text cannot hold: bytes that are no UTF-8, as Redis has them too, and NUL."""
    return value.encode(errors="backslashreplace").decode().replace("\0", "\\u0000")


def host_name(name: str) -> str:
    """Escapes the name of a host as `to_text` does; cuts one that is too long for an index, and adds a digest of it."""
    name = to_text(name)
    encoded = name.encode()
    if len(encoded) <= _NAME_BYTES:
        return name
    return f"{name[:_NAME_CHARACTERS]}…{sha256(encoded).hexdigest()}"


def milliseconds(time: str) -> int:
    """Turns an RFC 3339 time into milliseconds since 1970."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def moment(milliseconds: int | None) -> str | None:
    """Turns milliseconds since 1970 into an RFC 3339 time."""
    return None if milliseconds is None else timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))
