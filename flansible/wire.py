"""Frames between the supervisor (worker) and the runner: a 4-byte big-endian length, then that many bytes of JSON.

One channel (a Unix socket) per run. The supervisor sends one `run` frame and later perhaps `stop`; the keeper
answers `started` and, as its very last word, `exited`. A channel that ends without `exited` means the keeper died.
The run itself writes `event` frames to a pipe of its own and closes with `end`.
Standard library only (import law).

| frame   | from       | fields |
|---------|------------|--------|
| run     | supervisor | program, argv, cwd, extra_vars, data_only, environment, secrets, grace_seconds, colour_mark, |
|         |            | strategy: Mitogen's, or null; ssh_masters: where the fast ssh profile has masters, or null; |
|         |            | listing: `plan` or `inventory` when it is to tell what it would touch and execute nothing |
| stop    | supervisor | grace_seconds: between TERM and KILL |
| started | keeper     | pid |
| exited  | keeper     | returncode (int, null when signalled), signal (int or null), stopped_count, and stopped: |
|         |            | of the processes that were ended before their time the first 200, each {pid, name} |
| event   | run        | event (str), time (unix seconds), offset (int: output bytes before it), and what it carries |
| plan    | run        | plan: what a listing run has found; too_large: there is more of it than is told; time, offset |
| end     | run        | returncode (int), broken (str or null), stats, custom_stats, time, offset |
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from flansible.errors import WireError

Frame = dict[str, Any]

MAX_FRAME_BYTES = 256 * 1024 * 1024
_HEADER = struct.Struct(">I")


def encode(frame: Frame) -> bytes:
    """The bytes of one frame. Raises WireError when it is larger than MAX_FRAME_BYTES."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames; feed it whatever arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`, one by one.

        Raises WireError on a length over the limit or broken JSON, after the frames that came before it.
        """
        self._buffer += data
        return self._complete()

    def _complete(self) -> Iterator[Frame]:
        position = 0
        try:
            while len(self._buffer) - position >= _HEADER.size:
                (length,) = _HEADER.unpack_from(self._buffer, position)
                if length > MAX_FRAME_BYTES:
                    raise WireError(f"a frame announces {length} bytes, over the limit of {MAX_FRAME_BYTES}")
                start = position + _HEADER.size
                if len(self._buffer) - start < length:
                    return
                frame = _decode(bytes(self._buffer[start : start + length]))
                position = start + length
                yield frame
        finally:
            del self._buffer[:position]

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has begun and is not complete."""
        return len(self._buffer)


def _decode(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame is not JSON: {error}") from error
    if not isinstance(frame, dict):
        raise WireError(f"a frame is a {type(frame).__name__}, not an object")
    return frame


def receive(channel: socket.socket) -> Frame | None:
    """The next frame of a blocking socket, or None at its end. Raises WireError when it ends within a frame."""
    header = _receive_exactly(channel, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise WireError(f"a frame announces {length} bytes, over the limit of {MAX_FRAME_BYTES}")
    body = _receive_exactly(channel, length)
    if body is None:
        raise WireError("the channel ended between a frame's header and its body")
    return _decode(body)


def _receive_exactly(channel: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = channel.recv(min(count - len(data), 1 << 20))
        if not piece:
            if data:
                raise WireError("the channel ended within a frame")
            return None
        data += piece
    return bytes(data)
