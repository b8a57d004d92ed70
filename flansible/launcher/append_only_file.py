"""Reads Redis' append-only file as Redis does when it starts: where its last whole command ends, what follows that.

A file is commands, each `*<count>` and then for each word `$<length>` and the word, all lines with \\r\\n. What a
script wrote stands between MULTI and EXEC, and counts as one. A snapshot may come first (redis_snapshot.py). Used by
redis_repair.py. Standard library only.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path

from flansible.launcher.redis_snapshot import MAGIC, SnapshotReader

_COUNT = re.compile(rb"\*([0-9]{1,10})\r\n")
_LENGTH = re.compile(rb"\$([0-9]{1,10})\r\n")
_MULTI = re.compile(rb"\*1\r\n\$5\r\nMULTI\r\n", re.IGNORECASE)
_EXEC = re.compile(rb"\*1\r\n\$4\r\nEXEC\r\n", re.IGNORECASE)
_COMMENT = 0x23  # of Redis 7: when the following commands were run
# Redis' clock, which store/lua/common/continuity.lua notes each second.
_CLOCK = re.compile(
    rb"\*6\r\n\$4\r\nHSET\r\n\$15\r\nflansible:store\r\n\$6\r\nrun_id\r\n\$40\r\n\w{40}\r\n\$2\r\nat\r\n"
    rb"\$[0-9]{1,2}\r\n([0-9]{1,11}(?:\.[0-9]{1,9})?)\r\n"
)


@dataclass
class Content:
    """What a file holds.

    good_bytes: up to the end of the last whole command that follows only whole ones; problem: why what comes then
    cannot be loaded, '' when nothing comes; in_snapshot: the damage is in the snapshot at the beginning; last_time:
    Redis' clock there, in seconds since 1970; later_commands, latest_time: of what is whole behind the damage.
    """

    size: int
    good_bytes: int = 0
    problem: str = ""
    in_snapshot: bool = False
    last_time: float | None = None
    later_commands: int = 0
    latest_time: float | None = None

    @property
    def lost_bytes(self) -> int:
        return self.size - self.good_bytes

    @property
    def lost_seconds(self) -> float | None:
        """How much time the commands behind the damage took; None when that is not known."""
        if self.last_time is None or self.latest_time is None:
            return None
        return max(0.0, self.latest_time - self.last_time)


def read(path: Path) -> Content:
    """Reads a whole file. Raises OSError."""
    size = path.stat().st_size
    found = Content(size)
    if size == 0:
        return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[: len(MAGIC)] == MAGIC:
            try:
                found.good_bytes = SnapshotReader(data).end()
            except (ValueError, IndexError) as error:
                found.problem, found.in_snapshot = str(error), True
                return found
        _Reader(data, found).read()
    return found


@dataclass
class _Reader:
    data: mmap.mmap
    found: Content
    _multi_at: int | None = field(default=None, init=False)

    def read(self) -> None:
        at = self.found.good_bytes
        try:
            while at < len(self.data):
                at = self._step(at)
        except ValueError as error:
            self.found.problem = str(error)
            self._look_behind(at)
            return
        if self._multi_at is not None:
            self.found.problem = "it ends within a transaction"

    def _step(self, at: int) -> int:
        """Takes note of the command that begins here; returns where it ends."""
        end = self._command_end(at)
        if _MULTI.match(self.data, at):
            self._multi_at = at
        elif _EXEC.match(self.data, at):
            self._multi_at = None
        elif clock := _CLOCK.match(self.data, at):
            self.found.last_time = float(clock[1])
        if self._multi_at is None:
            self.found.good_bytes = end
        return end

    def _command_end(self, at: int) -> int:
        data = self.data
        if data[at] == _COMMENT:
            if (line_end := data.find(b"\n", at, at + 1024)) < 0:
                raise ValueError("it ends within a line")
            return line_end + 1
        count = _COUNT.match(data, at)
        if count is None or int(count[1]) == 0:
            raise ValueError("no command begins here")
        at = count.end()
        for _ in range(int(count[1])):
            length = _LENGTH.match(data, at)
            if length is None:
                raise ValueError("a command ends before its last word" if at >= len(data) - 3 else "a word is damaged")
            at = length.end() + int(length[1]) + 2
            if at > len(data):
                raise ValueError("it ends within a command")
            if data[at - 2 : at] != b"\r\n":
                raise ValueError("a word is damaged")
        return at

    def _look_behind(self, damage: int) -> None:
        """Counts what is whole behind the damage, where two commands or more follow each other."""
        at = damage + 1
        while match := _COUNT.search(self.data, at):
            at, count = match.start(), 0
            try:
                while at < len(self.data):
                    at = self._command_end(at)
                    count += 1
            except ValueError:
                at = max(at, match.start()) + 1
            if count > 1:
                self.found.later_commands += count
        times = [float(match[1]) for match in _CLOCK.finditer(self.data, damage)]
        self.found.latest_time = max(times, default=None)
