"""Runs of the real fork server seen at their pipes: every frame and every byte, without supervisor or store."""

from __future__ import annotations

import os
import re
import select
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from flansible import wire
from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.waiting import eventually

COLOUR_MARK = "\U00100000"
_MARKS = re.compile(COLOUR_MARK.encode() + rb"\[(?:[0-9;]*m|([0-9]+)e)")
_READ_BYTES = 1 << 18


class DirectRun:
    """One run under way; leaving the `with` block ends it, if it has not ended."""

    def __init__(
        self,
        servers: ForkServerPool,
        place: Path,
        *argv: str,
        program: str = "ansible-playbook",
        environment: dict[str, str] | None = None,
        deaf: bool = False,
        lease: tuple[float, float] | None = None,
        rules: dict[str, Any] | None = None,
    ) -> None:
        """deaf: the event pipe is closed at once, so no process reads the events; lease: stop_at and kill_at."""
        self.frames: list[wire.Frame] = []
        self.keeper_frames: list[wire.Frame] = []
        self._output = bytearray()
        self._channel, theirs = socket.socketpair()
        output, output_end = os.pipe2(os.O_CLOEXEC)
        events, events_end = os.pipe2(os.O_CLOEXEC)
        servers.launch(str(place), environment or {}, theirs, output_end, events_end)
        theirs.close()
        os.close(output_end)
        os.close(events_end)
        self._pipes = [output] if deaf else [output, events]
        if deaf:
            os.close(events)
        request = {
            "type": "run",
            "program": program,
            "argv": argv,
            "cwd": str(place),
            "extra_vars": [],
            "data_only": False,
            "environment": environment or {},
            "secrets": None,
            "rules": rules,
            "grace_seconds": 0.2,
            "colour_mark": COLOUR_MARK,
            "stop_at": lease[0] if lease else None,
            "kill_at": lease[1] if lease else None,
        }
        self._channel.sendall(wire.encode(request))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> DirectRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread.is_alive():
            self.stop()
        self.wait()
        self._channel.close()
        for descriptor in self._pipes:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Process id of the run."""
        started = eventually(lambda: next((frame for frame in self.keeper_frames if frame["type"] == "started"), None))
        return int(started["pid"])

    @property
    def keeper(self) -> psutil.Process:
        return psutil.Process(psutil.Process(self.pid).ppid())

    @property
    def exited(self) -> wire.Frame | None:
        """The keeper's last frame; None when it died."""
        return next((frame for frame in self.keeper_frames if frame["type"] == "exited"), None)

    @property
    def events(self) -> list[wire.Frame]:
        return [frame for frame in self.frames if frame["type"] == "event"]

    @property
    def results(self) -> list[wire.Frame]:
        return [frame for frame in self.events if frame["event"] == "host_result"]

    @property
    def end(self) -> wire.Frame:
        return next(frame for frame in self.frames if frame["type"] == "end")

    @property
    def output(self) -> bytes:
        """Without the colour marks: what offsets count."""
        return _MARKS.sub(b"", bytes(self._output))

    @property
    def text(self) -> str:
        return self.output.decode()

    @property
    def coloured(self) -> str:
        """With the marks of colours and events."""
        return self._output.decode()

    def stop(self, grace_seconds: float = 0.2) -> None:
        try:
            self._channel.sendall(wire.encode({"type": "stop", "grace_seconds": grace_seconds}))
        except OSError:
            pass  # the keeper is gone

    def extend(self, stop_at: float, kill_at: float) -> None:
        self._channel.sendall(wire.encode({"type": "lease", "stop_at": stop_at, "kill_at": kill_at}))

    def hang_up(self) -> None:
        """Closes our sending side, as a killed worker would; reads what the keeper still sends."""
        self._channel.shutdown(socket.SHUT_WR)

    def wait(self, seconds: float = 60.0) -> DirectRun:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), self.text
        return self

    def texts(self) -> list[tuple[wire.Frame, str]]:
        """Each event with the text between the event before it and itself."""
        offsets = [self.offset(event) for event in self.events]
        pairs = zip(self.events, [0, *offsets], offsets, strict=False)
        return [(event, self.output[start:end].decode()) for event, start, end in pairs]

    def offset(self, frame: wire.Frame) -> int:
        """The bytes of output before a frame's mark."""
        removed = 0
        for match in _MARKS.finditer(self._output):
            if match[1] and int(match[1]) == frame["mark"]:
                return match.start() - removed
            removed += len(match[0])
        raise AssertionError(f"the output has no mark {frame['mark']}")

    def _read(self) -> None:
        """Reads until the keeper closes its end of the channel, then what is still in the pipes."""
        frames, words = wire.FrameReader(), wire.FrameReader()
        takers: dict[int, Any] = {self._pipes[0]: self._output.extend}
        if len(self._pipes) == 2:
            takers[self._pipes[1]] = lambda data: self.frames.extend(frames.feed(data))
        for descriptor in takers:
            os.set_blocking(descriptor, False)
        open_descriptors = {self._channel.fileno(), *takers}
        while self._channel.fileno() in open_descriptors:
            for descriptor in select.select(open_descriptors, [], [])[0]:
                data = os.read(descriptor, _READ_BYTES)
                if not data:
                    open_descriptors.discard(descriptor)
                elif descriptor in takers:
                    takers[descriptor](data)
                else:
                    self.keeper_frames.extend(words.feed(data))
        for descriptor in open_descriptors:
            try:
                while data := os.read(descriptor, _READ_BYTES):
                    takers[descriptor](data)
            except BlockingIOError:
                continue
