"""`flansible audit verify`: whether an audit log is what was written. flansible.audit tells how it is chained."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from flansible.audit import log as audit_log
from flansible.audit.log import Chain, ChainHead, Link
from flansible.errors import ConfigurationError, Fault

_CONFESSIONS = (audit_log.HEAD_LOST, audit_log.ROLLED_BACK)


@dataclass(frozen=True)
class Wrong:
    """The first thing wrong; line counts from 1 within the file, 0 is no line of it."""

    path: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}: line {self.line}: {self.why}" if self.line else f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Verified:
    """All is well. torn: half lines that a full disk or a crash has left, each owned up to by the next line."""

    first: int
    last: int
    torn: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1 if self.last else 0

    def __str__(self) -> str:
        which = f", {self.first} to {self.last}" if self.last else ""
        torn = f"; {self.torn} half lines of a crash or a full disk, owned up to" if self.torn else ""
        return f"{self.count} records{which}, none missing or changed{torn}"


@dataclass
class _Walk:
    """Goes from line to line. is_open: the first line may be any, since older files are no longer kept."""

    chain: Chain
    is_open: bool
    seq: int = 0
    mac: str = audit_log.FIRST
    first: int = 1
    torn: int = 0
    suspect: tuple[Path, int, bytes] | None = field(default=None)

    def step(self, path: Path, number: int, raw: bytes) -> Wrong | None:
        link = self.chain.link(raw.rstrip(b"\n"))
        if self.suspect is not None and not (link and _owns_up(link, self.suspect[2])):
            return self._accuse()
        if link is None:
            self.suspect = (path, number, raw.rstrip(b"\n"))
            return None
        self.torn += self.suspect is not None
        self.suspect = None
        why = self._break(link)
        self.seq, self.mac, self.is_open = link.seq, link.mac, False
        return Wrong(path, number, why) if why else None

    def end(self, path: Path, head: ChainHead | None, is_half: bool) -> Wrong | None:
        """is_half: the last line has no end, so a writer may be at it."""
        if self.suspect is not None and not is_half:
            return self._accuse()
        self.torn += self.suspect is not None
        if head is None:
            return Wrong(path, 0, "its head is missing or of another key: whether the last lines are there is unknown")
        if head.seq > self.seq:
            return Wrong(path, 0, f"ends with record {self.seq}, and its head knows of {head.seq}: the tail is missing")
        if head.seq == self.seq and head.mac != self.mac:
            return Wrong(path, 0, "its head belongs to another log")
        return None

    def _accuse(self) -> Wrong:
        assert self.suspect is not None
        return Wrong(self.suspect[0], self.suspect[1], "was changed, or is no line of this log")

    def _break(self, link: Link) -> str:
        if link.record.get("event") in _CONFESSIONS:
            return f"says that lines are gone: {link.record['event']}: {link.record.get('what', '')}"
        if self.is_open:
            self.first = link.seq
            return ""
        due = self.seq + 1
        if link.seq > due:
            missing = f"record {due} is" if link.seq == due + 1 else f"records {due} to {link.seq - 1} are"
            before = "; give the older files before it, or --partial when they are not kept" if self.seq == 0 else ""
            return f"is record {link.seq}, and {missing} missing before it{before}"
        if link.seq < due:
            return f"is record {link.seq} where {due} is due: it was moved, or put in from elsewhere"
        return "" if link.prev == self.mac else "does not continue the line before it"


def verify(paths: list[Path], log: Path, secret: bytes, is_partial: bool = False) -> Verified | Wrong:
    """paths: the files of this log, oldest first; secret: what secret_key_file holds."""
    chain = Chain(secret)
    walk = _Walk(chain, is_partial)
    try:
        # First: what is added while we read is more than the head knows, not less.
        head = audit_log.read_head(log, chain)
        raw = b"\n"
        for path in paths:
            for number, raw in enumerate(_lines(path), 1):
                if (wrong := walk.step(path, number, raw)) is not None:
                    return wrong
    except (OSError, EOFError) as error:
        return Wrong(paths[-1], 0, f"cannot be read: {error}")
    return walk.end(paths[-1], head, not raw.endswith(b"\n")) or Verified(walk.first, walk.seq, walk.torn)


def read_key(path: Path) -> bytes:
    """Raises ConfigurationError: a key that was made anew would fit nothing."""
    try:
        return path.read_bytes().strip()
    except OSError as error:
        message = f"cannot be read: {error}; without the key of the log nothing of it can be verified"
        raise ConfigurationError([Fault(str(path), "secret_key_file", message)]) from error


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield from packed
    else:
        with path.open("rb") as file:
            yield from file


def _owns_up(link: Link, half: bytes) -> bool:
    what = str(link.record.get("what", ""))
    return link.record.get("event") == audit_log.TORN and what.endswith(sha256(half).hexdigest())
