"""Frames: whatever way the bytes arrive, the same frames come out, or a WireError."""

from __future__ import annotations

import json
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from flansible import wire
from flansible.errors import WireError

FRAMES = [
    {"type": "run", "argv": ["-m", "ping"], "cwd": "/", "extra_vars": None},
    {},
    {"type": "event", "text": "ünïcode 🎉 \u2028 \ud800 \x00", "nested": {"a": [1, 2.5, True, None]}},
    {"big": "x" * 300},
]


def test_frames_come_out_as_they_went_in() -> None:
    assert list(wire.FrameReader().feed(b"".join(map(wire.encode, FRAMES)))) == FRAMES


def test_a_stream_cut_at_any_byte_gives_the_same_frames() -> None:
    data = b"".join(map(wire.encode, FRAMES))
    for cut in range(len(data) + 1):
        reader = wire.FrameReader()
        assert [*reader.feed(data[:cut]), *reader.feed(data[cut:])] == FRAMES
        assert reader.pending_bytes == 0


def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames() -> None:
    reader = wire.FrameReader()
    found = [frame for byte in b"".join(map(wire.encode, FRAMES)) for frame in reader.feed(bytes([byte]))]
    assert found == FRAMES


def test_a_truncated_frame_is_pending_and_not_invented() -> None:
    reader = wire.FrameReader()
    data = wire.encode({"type": "end"})
    assert list(reader.feed(data[:-1])) == []
    assert reader.pending_bytes == len(data) - 1


def test_a_frame_over_the_limit_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 100)
    with pytest.raises(WireError, match="over the limit of 100"):
        wire.encode({"x": "y" * 100})


def test_a_length_over_the_limit_is_refused_before_anything_is_kept() -> None:
    header = struct.pack(">I", wire.MAX_REPORT_BYTES + 1)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="over the limit"):
            list(wire.FrameReader().feed(header))
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


GARBAGE = {
    "not JSON": b"hello",
    "an empty body": b"",
    "not UTF-8": b'"\xff\xfe"',
    "a list": b"[1,2]",
    "a string": b'"text"',
    "null": b"null",
    "a number": b"1",
    "cut JSON": b'{"a": ',
    "two documents": b"{}{}",
    "too deep": b"[" * 200_000,
    "a number with too many digits": b'{"a":' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_frame_is_a_wire_error(body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body
    with pytest.raises(WireError):
        list(wire.FrameReader().feed(data))


def test_garbage_that_is_no_frame_at_all_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        list(wire.FrameReader().feed(b"Traceback (most recent call last):\n"))


def test_the_frames_before_the_garbage_come_out_even_of_one_read() -> None:
    frames = wire.FrameReader().feed(wire.encode(FRAMES[0]) + wire.encode(FRAMES[1]) + b"\xff" * 8)
    assert [next(frames), next(frames)] == FRAMES[:2]
    with pytest.raises(WireError):
        next(frames)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        yield ours, theirs


Channel = tuple[socket.socket, socket.socket]


def test_receive_gives_one_frame_at_a_time_and_none_at_the_end(channel: Channel) -> None:
    ours, theirs = channel
    theirs.sendall(b"".join(map(wire.encode, FRAMES)))
    theirs.close()
    assert [wire.receive(ours) for _ in FRAMES] == FRAMES
    assert wire.receive(ours) is None


def test_receive_waits_for_a_frame_that_comes_in_pieces(channel: Channel) -> None:
    ours, theirs = channel
    frame = {"argv": ["x" * 3_000_000]}

    def send() -> None:
        theirs.sendall(wire.encode(frame))

    sender = threading.Thread(target=send)
    sender.start()
    assert wire.receive(ours) == frame
    sender.join()


@pytest.mark.parametrize("kept", [1, 3, 4, 5, 10])
def test_a_channel_that_ends_within_a_frame_is_a_wire_error(channel: Channel, kept: int) -> None:
    ours, theirs = channel
    theirs.sendall(wire.encode({"type": "exited"})[:kept])
    theirs.close()
    with pytest.raises(WireError, match="ended"):
        wire.receive(ours)


def test_receive_refuses_a_length_over_the_limit(channel: Channel) -> None:
    ours, theirs = channel
    theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(WireError, match="over the limit"):
        wire.receive(ours)


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_receive_refuses_garbage(channel: Channel, body: bytes) -> None:
    ours, theirs = channel
    theirs.sendall(struct.pack(">I", len(body)))
    sender = threading.Thread(target=theirs.sendall, args=(body,))
    sender.start()
    with pytest.raises(WireError):
        wire.receive(ours)
    sender.join()


def test_a_frame_is_a_length_and_compact_json() -> None:
    """The documented format: a runner in another language could speak it."""
    data = wire.encode({"type": "stop", "grace_seconds": 5.0})
    assert data[:4] == struct.pack(">I", len(data) - 4)
    assert json.loads(data[4:]) == {"type": "stop", "grace_seconds": 5.0}
    assert b" " not in data[4:]
