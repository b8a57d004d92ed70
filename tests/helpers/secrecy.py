"""Where a secret could be seen that should not: command lines and environments, Redis, files of the service."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.helpers.services import Service


@dataclass
class Watch:
    """Every command line and environment on this machine, again and again."""

    command_lines: set[bytes] = field(default_factory=set)
    environments: set[bytes] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    rounds: int = 0

    def look(self) -> None:
        """Reads the files themselves: psutil takes ten times as long for a round."""
        while not self.over.wait(0.05):
            for pid in filter(str.isdecimal, os.listdir("/proc")):
                with suppress(OSError):
                    self.command_lines.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                    self.environments.add(Path(f"/proc/{pid}/environ").read_bytes())
            self.rounds += 1

    @property
    def seen(self) -> set[str]:
        """Command lines, and environments in braces."""
        lines = {line.decode(errors="replace") for line in self.command_lines}
        return lines | {f"{{{text.decode(errors='replace')}}}" for text in self.environments}


def stored(service: Service) -> str:
    """Every key with its value, in the form of Redis' own dump and in plain text."""
    found = []
    with redis.Redis(unix_socket_path=str(service.root / ".flansible/redis.sock")) as store:
        for key in store.scan_iter("*"):
            kind = store.type(key)
            if kind == b"none":
                continue  # it has expired meanwhile
            read = {b"string": store.get, b"hash": store.hgetall, b"set": store.smembers, b"stream": store.xrange}
            read |= {b"zset": lambda name: store.zrange(name, 0, -1), b"list": lambda name: store.lrange(name, 0, -1)}
            found.append(f"{key!r} {read[kind](key)!r} {store.dump(key)!r}")
    return "\n".join(found)


def files(folder: Path) -> Iterator[str]:
    """What lies in the data folder: logs, homes, and what Redis writes to the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield f"{path} {path.read_bytes()!r}"
