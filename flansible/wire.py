"""Frames between the worker and the runner: a 4-byte big-endian length, then that many bytes of JSON, an object.

Each frame names its `type`. A control socket carries one frame each way: `loaded` from the zygote; `configure` to a
fork server that it has forked; `ready` or `refused` from a fork server. Each run has a channel (a Unix socket) and an
event pipe. On the channel the supervisor sends `run`, then `lease` frames and perhaps `stop`; the keeper
answers `started` and, as its last frame, `exited`: a channel that ends without it means that the keeper died. Where the
machine denies what a run needs, `failed` is the last frame, which the fork server may send too. On the event pipe the
run sends `event`, `plan` and `hide` frames and closes with `end`. Standard library only (import law).

A test compares this table with the code: in the last column every backticked word is a field, and no field is missing.

| frame   | from        | to         | fields |
|---------|-------------|------------|--------|
| loaded  | zygote      | worker     | `ansible_version` |
| configure | worker    | fork server | `directory`: where its runs find their configuration; `environment`: all |
|         |             |            | variables; `pack_usual`: whether it packs usual modules while idle |
| refused | fork server | worker     | `reason`: why it cannot take on that configuration, in a few words |
| ready   | fork server | worker     | `ansible_version`; `config_file`: path, or null |
| run     | supervisor  | keeper     | the step: `program`, `argv`, `cwd`, `extra_vars`, `launch_vars`, |
|         |             |            | `data_only`, `environment`; `strategy`: Mitogen's, or null; |
|         |             |            | `listing`: "plan" or "inventory" for a preview run, which executes |
|         |             |            | nothing, or null; `secrets`: of the request, or null; `agent`: the public |
|         |             |            | key of the one that an agent holds for it, or null; `rules`: those that |
|         |             |            | the run itself enforces for a confined user (hosts, control_node, |
|         |             |            | remote_only, ends_processes), or null; `grace_seconds`: |
|         |             |            | between TERM and KILL when the supervisor is gone; `colour_mark`; |
|         |             |            | `ssh_masters`: control socket directory of the fast ssh profile, or null; |
|         |             |            | `project`: what the step of a project is to do, or null; `tree_locks`: files |
|         |             |            | on which the run holds locks, so that what it uses of a project is kept; |
|         |             |            | `stop_at`, `kill_at`: as in a lease, or null |
| lease   | supervisor  | keeper     | `stop_at`: when to send TERM, unless another one comes before; |
|         |             |            | `kill_at`: when to send KILL at the latest; seconds of CLOCK_BOOTTIME |
| stop    | supervisor  | keeper     | `grace_seconds`: between TERM and KILL |
| started | keeper      | supervisor | `pid`: the run's, `keeper`: its own, both in their own PID namespace; for |
|         |             |            | an agent with the descriptor of the socket on which it is to serve |
| failed  | keeper      | supervisor | `reason`: why the run could not be started or watched, in words |
| exited  | keeper      | supervisor | `returncode`: int, null when signalled; `signal`: int or null; |
|         |             |            | `stopped_count` and `stopped`: of the processes ended before their time the |
|         |             |            | first 200, each {pid, name} |
| event   | run         | supervisor | `event`: "play_start", "task_start" or "host_result"; `play`, `task`, |
|         |             |            | `module`, `handler`, `host`, `verdict`, `duration_seconds`, `result`, |
|         |             |            | `groups` (with a host's first result): as the event has them; `time`: Unix |
|         |             |            | seconds; `mark`: number of its mark in the output |
| hide    | run         | supervisor | `lines`: of the private key that the run has decrypted, to be masked; before |
|         |             |            | it prints anything; `time`, `mark` |
| plan    | run         | supervisor | `plan`: what a preview run found; `too_large`: it is left out for its size; |
|         |             |            | `time`, `mark` |
| end     | run         | supervisor | `returncode`; `broken`: str or null; `warning`: one of WARNINGS, or null; |
|         |             |            | `reason`: EMPTY_LIMIT, or null; `stats`, `custom_stats`, `time`, `mark` |
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from flansible.errors import WireError

Frame = dict[str, Any]

# What a run with exit code 0 may lack that has no result on any host.
NO_HOSTS = "no hosts matched"
NO_PLAY_TASKS = "no play task ran on a host"
WARNINGS = (NO_HOSTS, NO_PLAY_TASKS)
# Why Ansible ended with exit code 1, where it is known.
EMPTY_LIMIT = "the limit leaves no hosts"

MAX_FRAME_BYTES = 256 * 1024 * 1024
# Of what a run or its keeper sends: decoded it takes up to thirty times as much, in a process that all runs share.
MAX_REPORT_BYTES = 5 * 1024 * 1024
_HEADER = struct.Struct(">I")


def encode(frame: Frame) -> bytes:
    """Encodes one frame. Raises WireError when it is larger than MAX_FRAME_BYTES."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Splits a stream of bytes from a run or its keeper into frames, in whatever pieces the bytes arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that `data` completes.

        Raises WireError on a length over the limit or broken JSON, after the frames that came before it.
        """
        self._buffer += data
        return self._complete()

    def _complete(self) -> Iterator[Frame]:
        position = 0
        try:
            while len(self._buffer) - position >= _HEADER.size:
                (length,) = _HEADER.unpack_from(self._buffer, position)
                if length > MAX_REPORT_BYTES:
                    raise WireError(f"a frame announces {length} bytes, over the limit of {MAX_REPORT_BYTES}")
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
        """Counts the bytes received of an incomplete frame."""
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
    """Reads the next frame of a blocking socket; None at its end. Raises WireError when it ends within a frame."""
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
