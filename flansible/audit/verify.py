"""Verifies an audit log, for `flansible audit verify`. How it is chained is in flansible.audit.log."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from flansible.audit import log as audit_log
from flansible.audit.log import Chain, ChainHead, Link
from flansible.errors import ConfigurationError, Fault

_LOSS_EVENTS = (audit_log.HEAD_LOST, audit_log.ROLLED_BACK)


@dataclass(frozen=True)
class Wrong:
    """The first fault found. line: counted from 1 within the file; 0 if it is not a line."""

    path: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}: line {self.line}: {self.why}" if self.line else f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Verified:
    """The log is complete. torn: half lines from a full disk or a crash, each reported by the next line."""

    first: int
    last: int
    torn: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1 if self.last else 0

    def __str__(self) -> str:
        which = f", {self.first} to {self.last}" if self.last else ""
        torn = (
            f"; {self.torn} half lines of a crash or a full disk, each reported by the next line" if self.torn else ""
        )
        return f"{self.count} records{which}, none missing or changed{torn}"


@dataclass
class _Verification:
    """The state between two lines. is_open: the first line may have any number, since older files were deleted."""

    chain: Chain
    is_open: bool
    seq: int = 0
    mac: str = audit_log.FIRST
    first: int = 1
    torn: int = 0
    unproven: tuple[Path, int, bytes] | None = field(default=None)

    def step(self, path: Path, number: int, raw: bytes) -> Wrong | None:
        link = self.chain.link(raw.rstrip(b"\n"))
        if self.unproven is not None and not (link and _reports_torn(link, self.unproven[2])):
            return self._invalid_line()
        if link is None:
            self.unproven = (path, number, raw.rstrip(b"\n"))
            return None
        self.torn += self.unproven is not None
        self.unproven = None
        why = self._chain_fault(link)
        self.seq, self.mac, self.is_open = link.seq, link.mac, False
        return Wrong(path, number, why) if why else None

    def end(self, path: Path, head: ChainHead | None, is_half: bool) -> Wrong | None:
        """Checks the end of the log against its head. is_half: the last line has no newline, it may be incomplete."""
        if self.unproven is not None and not is_half:
            return self._invalid_line()
        self.torn += self.unproven is not None
        if head is None:
            return Wrong(
                path, 0, "its head is missing or of another key, so it is unknown whether the last lines are there"
            )
        if head.seq > self.seq:
            return Wrong(
                path, 0, f"ends with record {self.seq}, but its head has {head.seq}: the last lines are missing"
            )
        if head.seq == self.seq and head.mac != self.mac:
            return Wrong(path, 0, "its head belongs to another log")
        return None

    def _invalid_line(self) -> Wrong:
        assert self.unproven is not None
        return Wrong(self.unproven[0], self.unproven[1], "was changed, or is not a line of this log")

    def _chain_fault(self, link: Link) -> str:
        if link.record.get("event") in _LOSS_EVENTS:
            return f"reports that lines are missing: {link.record['event']}: {link.record.get('what', '')}"
        if self.is_open:
            self.first = link.seq
            return ""
        due = self.seq + 1
        if link.seq > due:
            missing = f"record {due} is" if link.seq == due + 1 else f"records {due} to {link.seq - 1} are"
            before = "; give the older files before it, or --partial when they are not kept" if self.seq == 0 else ""
            return f"is record {link.seq}, and {missing} missing before it{before}"
        if link.seq < due:
            return f"is record {link.seq} instead of {due}: it was moved, or copied from elsewhere"
        return "" if link.prev == self.mac else "does not continue the line before it"


def verify(paths: list[Path], log: Path, secret: bytes, is_partial: bool = False) -> Verified | Wrong:
    """Verifies the files of a log, oldest first. secret: the content of secret_key_file."""
    chain = Chain(secret)
    verification = _Verification(chain, is_partial)
    try:
        # Read first: lines added while the log is read are then beyond the head, not missing.
        head = audit_log.read_head(log, chain)
        raw = b"\n"
        for path in paths:
            for number, raw in enumerate(_lines(path), 1):
                if (wrong := verification.step(path, number, raw)) is not None:
                    return wrong
    except (OSError, EOFError) as error:
        return Wrong(paths[-1], 0, f"cannot be read: {error}")
    return verification.end(paths[-1], head, not raw.endswith(b"\n")) or Verified(
        verification.first, verification.seq, verification.torn
    )


def read_key(path: Path) -> bytes:
    """Reads the key. Raises ConfigurationError if there is none: a new one would match nothing."""
    try:
        return path.read_bytes().strip()
    except OSError as error:
        message = f"cannot be read: {error}; without the key the log cannot be verified"
        raise ConfigurationError([Fault(str(path), "secret_key_file", message)]) from error


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield from packed
    else:
        with path.open("rb") as file:
            yield from file


def _reports_torn(link: Link, half: bytes) -> bool:
    what = str(link.record.get("what", ""))
    return link.record.get("event") == audit_log.TORN and what.endswith(sha256(half).hexdigest())
