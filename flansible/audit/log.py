"""Writes the audit log: one JSON line per event, chained so that a removed, changed, inserted or moved line shows.

Each line has its number (`seq`), the code of the line before it (`prev`) and its own code (`mac`): HMAC-SHA-256 over
the line, with a key derived from secret_key_file. A valid line cannot be made without that key. The head, a small file
beside the log, holds the last number and code, so that removed last lines show too. An attacker who restores an older
log together with its older head is not noticed from the files alone: the copy on standard output is for that, and a
process that has written more lines than such a head has reports it in its next line.

Several processes write: each locks the head, appends with one write() and updates the head. Nothing is synced to the
disk, so a line takes about 50 µs; a machine that loses power may lose its last seconds of lines, which `flansible audit
verify` then reports as missing. Called by the web processes,
Flower and the commands.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import json
import logging
import os
import re
import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from flansible.errors import AuditUnavailable, ConfigurationError
from flansible.sealing import read_or_make_key
from flansible.system import atomic_files
from flansible.system.timestamps import timestamp

log = logging.getLogger(__name__)

FIRST = "0" * 64  # `prev` of the first line
TORN = "audit_torn"
HEAD_LOST = "audit_head_lost"
ROLLED_BACK = "audit_rolled_back"
MAX_TEXT = 300
_HEAD_BYTES = 256
_REST_BYTES = 1 << 16
_BEGINNING = b'{"time": "'
_MAX_LINE_BYTES = 48 * 1024  # twelve texts of MAX_TEXT characters, each up to twelve bytes in JSON
_LINE = re.compile(rb'(\{.*), "mac": "([0-9a-f]{64})"\}', re.DOTALL)
# A token that was entered as a user name must not be logged.
_TOKEN = re.compile(r"(flansible_[0-9a-f]{12}_)[0-9a-f]+", re.IGNORECASE)


@dataclass(frozen=True)
class AuditEvent:
    """An event to audit. Texts may come from anyone: they are cut and cleaned when written.

    request: method and path; what: its subject; outcome: a word; code: of the refusal, or of the rule.
    """

    event: str
    user: str = ""
    address: str = ""
    request: str = ""
    what: str = ""
    outcome: str = ""
    code: str = ""
    request_id: str = ""
    task_id: str = ""
    token: str = ""
    omitted: int = 0


@dataclass(frozen=True)
class ChainHead:
    """The end of the chain. inode and size: the log's, after its last line was written."""

    seq: int = 0
    mac: str = FIRST
    inode: int = 0
    size: int = 0


@dataclass(frozen=True)
class Link:
    """A line of the chain with a valid code."""

    seq: int
    prev: str
    mac: str
    record: dict[str, Any]


class Chain:
    """Computes and verifies codes. Each covers its kind (line, head, digest), so that none passes for another."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"flansible: audit", "sha256")

    def line(self, record: dict[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
        """Returns the whole line, and its code."""
        start = json.dumps({**record, "seq": seq, "prev": prev}).encode()[:-1]
        mac = self._code(b"line", start)
        return start + f', "mac": "{mac}"}}\n'.encode(), mac

    def link(self, line: bytes) -> Link | None:
        """Parses a line (without its newline); None if its code is wrong."""
        found = _LINE.fullmatch(line)
        if found is None or not hmac.compare_digest(self._code(b"line", found[1]), found[2].decode()):
            return None
        record = json.loads(line)
        return Link(record["seq"], record["prev"], record["mac"], record)

    def head(self, head: ChainHead) -> bytes:
        """Formats a head with a fixed length, so that it overwrites the old one even on a full disk."""
        fields = f"{head.seq} {head.mac} {head.inode} {head.size}"
        return f"{fields} {self._code(b'head', fields.encode())}".ljust(_HEAD_BYTES - 1).encode() + b"\n"

    def read_head(self, text: bytes) -> ChainHead | None:
        """Parses a head; None if its code is wrong."""
        fields, _, mac = text.decode("ascii", "replace").rstrip().rpartition(" ")
        if not hmac.compare_digest(self._code(b"head", fields.encode()), mac.encode("ascii", "replace").decode()):
            return None
        seq, last, inode, size = fields.split(" ")
        return ChainHead(int(seq), last, int(inode), int(size))

    def digest(self, data: bytes) -> str:
        """Returns a keyed digest that only shows whether two versions are the same."""
        return self._code(b"digest", data)[:16]

    def _code(self, kind: bytes, data: bytes) -> str:
        return hmac.digest(self._key, kind + b"\0" + data, "sha256").hex()


class Audit:
    """The audit log of a service. Opens its files for each line, so rotation needs no signal. Safe between threads."""

    def __init__(self, path: Path, key_file: Path, copy_to: int | None = None) -> None:
        """copy_to: a descriptor to which each line is written too, such as standard output."""
        self.path = path
        self._key_file = key_file
        self._copy_to = copy_to
        self._chain: Chain | None = None
        self._lock = threading.Lock()
        self._seen = 0

    def write(self, event: AuditEvent) -> None:
        """Appends a line. Raises AuditUnavailable when that fails; then the log does not have the line."""
        record = {"time": timestamp(), **{name: _clean(value) for name, value in vars(event).items() if value}}
        try:
            with self._lock:
                line = self._append(record)
        except (OSError, ConfigurationError) as error:
            raise AuditUnavailable(f"{self.path} cannot be written: {error}") from error
        if self._copy_to is not None:
            # The reader has gone; the file has the line.
            with contextlib.suppress(OSError):
                os.write(self._copy_to, line)

    def note(self, event: AuditEvent) -> None:
        """Like `write`, but failures are logged, with the event, and not raised."""
        try:
            self.write(event)
        except AuditUnavailable as error:
            said = {name: _clean(value) for name, value in vars(event).items() if value}
            log.error("%s; not audited: %s", error, json.dumps(said))

    def loggable_name(self, name: str, known: Container[str]) -> str:
        """Returns a typed name as it may be logged: hashed when unknown, as it may be a password in the wrong field."""
        if name in known:
            return name
        try:
            return f"unknown:{self.digest(name.encode(errors='surrogatepass'))}"
        except ConfigurationError:
            return "unknown"

    def digest(self, data: bytes) -> str:
        """Returns a short keyed digest. Raises ConfigurationError when there is no key."""
        return self.chain().digest(data)

    def chain(self) -> Chain:
        if self._chain is None:
            self._chain = Chain(read_or_make_key(self._key_file))
        return self._chain

    def _append(self, record: dict[str, Any]) -> bytes:
        chain = self.chain()
        atomic_files.make_private_folder(self.path.parent)
        with _opened(head_path(self.path), os.O_RDWR) as head_file:
            fcntl.flock(head_file, fcntl.LOCK_EX)
            with _opened(self.path, os.O_RDWR | os.O_APPEND) as file:
                writer = _Writer(chain, head_file, file)
                if writer.head.seq < self._seen:
                    what = f"{self._seen} was written before this"
                    writer.add({"time": timestamp(), "event": ROLLED_BACK, "what": what})
                line = writer.add(record)
                self._seen = writer.head.seq
                return line


class _Writer:
    """Appends lines while it holds the lock, and continues where a killed process stopped."""

    def __init__(self, chain: Chain, head_file: int, file: int) -> None:
        self._chain = chain
        self._head_file = head_file
        self._file = file
        found = chain.read_head(os.pread(head_file, _HEAD_BYTES, 0))
        self._is_head_lost = found is None
        self.head = found or ChainHead()
        self._lead = b""  # ends a line that a killed process left unfinished
        self._recover()

    def add(self, record: dict[str, Any]) -> bytes:
        """Appends a line. Raises OSError; then log and head are unchanged."""
        line, mac = self._chain.line(record, self.head.seq + 1, self.head.mac)
        status = os.fstat(self._file)
        size = status.st_size + len(self._lead + line)
        head = ChainHead(self.head.seq + 1, mac, status.st_ino, size)
        try:
            # On a full disk half a line may be written, which would look forged.
            _require_whole(os.write(self._file, self._lead + line), len(self._lead + line))
            _require_whole(os.pwrite(self._head_file, self._chain.head(head), 0), _HEAD_BYTES)
        except OSError:
            os.ftruncate(self._file, status.st_size)
            raise
        self.head, self._lead = head, b""
        return line

    def _recover(self) -> None:
        """Finds where the chain continues: the log may be ahead of the head, since a writer may have been killed.

        | found at the start                                | event     | what is done                              |
        |---------------------------------------------------|-----------|-------------------------------------------|
        | the head ends where the log ends                  |           | nothing                                   |
        | whole lines after the head that continue it       |           | they are taken into the head              |
        | half a line at the end, that began as our lines   | torn      | it stays; the next line reports it, else  |
        | do and is not longer than one                     |           | `verify` would call it changed            |
        | no head, or a wrong code in it; the log has lines | head lost | the next line reports it, as the first of |
        |                                                   |           | a new chain                               |
        | no head and an empty log                          |           | the chain begins                          |
        | a head older than this process's last line        | rolled    | the next line reports it, by              |
        |                                                   | back      | `Audit._append`                           |
        | anything else, which is no accident               |           | it stays for `verify` to find             |
        """
        status = os.fstat(self._file)
        known = min(self.head.size, status.st_size) if status.st_ino == self.head.inode else 0
        rest = os.pread(self._file, _REST_BYTES, known)
        if status.st_size and os.pread(self._file, 1, status.st_size - 1) != b"\n":
            self._lead = b"\n"
        if self._is_head_lost:
            if status.st_size:
                self.add({"time": timestamp(), "event": HEAD_LOST, "what": "the head is gone, or of another key"})
            return
        while rest:
            line, end, after = rest.partition(b"\n")
            link = self._chain.link(line) if end else None
            if link is None or (link.seq, link.prev) != (self.head.seq + 1, self.head.mac):
                break
            known += len(line) + 1
            self.head = ChainHead(link.seq, link.mac, status.st_ino, known)
            rest = after
        if _is_half_line(rest):
            what = f"the line before this one was not written whole; sha256 {sha256(rest).hexdigest()}"
            self.add({"time": timestamp(), "event": TORN, "what": what})


def _is_half_line(text: bytes) -> bool:
    """Whether it may be the beginning of a line that a writer could not finish, and not what somebody has put there."""
    beginning = text[: len(_BEGINNING)]
    return 0 < len(text) < _MAX_LINE_BYTES and b"\n" not in text and _BEGINNING.startswith(beginning) and text.isascii()


def _require_whole(written: int, expected: int) -> None:
    if written < expected:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def head_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def read_head(path: Path, chain: Chain) -> ChainHead | None:
    """Reads the head of a log; None if it is missing or its code is wrong. Raises OSError."""
    try:
        with _opened(head_path(path), os.O_RDONLY, make=False) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return chain.read_head(os.pread(file, _HEAD_BYTES, 0))
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _opened(path: Path, flags: int, make: bool = True) -> Iterator[int]:
    """Opens a private file and creates it if necessary. Raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        if not make:
            raise
        descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        atomic_files.chown_to_folder_owner(descriptor, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _clean(value: str | int) -> str | int:
    """Cuts a text and replaces what is not printable."""
    if isinstance(value, int):
        return value
    text = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 3] + "..."
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    return _TOKEN.sub(r"\1...", text)
