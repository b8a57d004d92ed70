"""The file that a backup is: a tar of few known members, the first of which has the versions, the last the checksums.

| member            | is                                                                      |
|-------------------|-------------------------------------------------------------------------|
| `backup.json`     | the format's version, Flansible's, the tables', when it was made         |
| `config.ini`      | the configuration                                                       |
| `rbac.json`       | users and rights                                                        |
| `tokens.json`     | the API tokens                                                          |
| `secret.key`      | the key that seals secrets; only on request                             |
| `redis.rdb`       | the records of the embedded Redis                                       |
| `history.sqlite3` | the embedded history database                                           |
| `checksums.json`  | size and SHA-256 of each of the others                                  |

A reader takes no other member, and nothing of a member but its name and its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from flansible.errors import BackupUnusable

FORMAT = 1
HEADER, CHECKSUMS = "backup.json", "checksums.json"
CONFIG, RBAC, TOKENS, KEY, REDIS, HISTORY = (
    *("config.ini", "rbac.json", "tokens.json", "secret.key", "redis.rdb", "history.sqlite3"),
)
MEMBERS = (CONFIG, RBAC, TOKENS, KEY, REDIS, HISTORY)
_MODE = 0o600
_PIECE_BYTES = 1024 * 1024
_MAX_TEXT_BYTES = 1024 * 1024  # of the two members that are read as a whole


@dataclass(frozen=True)
class BackupHeader:
    """What the first member says. history_version: of the tables; None without an embedded database."""

    format: int
    flansible: str
    created: str
    history_version: int | None


class BackupWriter:
    """Writes members one after the other. Raises OSError."""

    def __init__(self, file: IO[bytes], header: BackupHeader) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self._checksums: dict[str, dict[str, int | str]] = {}
        self._add_text(HEADER, asdict(header))

    def add(self, name: str, path: Path) -> None:
        with path.open("rb") as source:
            self._add(name, os.fstat(source.fileno()).st_size, source)

    def finish(self) -> None:
        self._add_text(CHECKSUMS, dict(self._checksums))
        self._tar.close()

    def _add_text(self, name: str, content: dict[str, object]) -> None:
        data = json.dumps(content, indent=1).encode()
        self._add(name, len(data), io.BytesIO(data))

    def _add(self, name: str, size: int, source: IO[bytes]) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, _MODE
        hashed = _Hashed(source)
        self._tar.addfile(info, hashed)
        self._checksums[name] = {"size": size, "sha256": hashed.digest.hexdigest()}


class _Hashed:
    """A file that is read, and what was read of it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def unpack(file: Path, folder: Path) -> Iterator[BackupHeader | str]:
    """Yields the header of a backup; then unpacks its members to files of these names, and yields each name.

    At the end all of them have been compared with their checksums. Raises BackupUnusable, OSError.
    """
    try:
        with tarfile.open(file, mode="r:") as tar:
            yield from _unpack(tar, folder)
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupUnusable(f"{file} is not a backup, or is damaged: {error}") from error


def _unpack(tar: tarfile.TarFile, folder: Path) -> Iterator[BackupHeader | str]:
    found: dict[str, dict[str, int | str]] = {}
    for info in tar:
        if not info.isreg() or info.issparse() or info.name in found or info.name not in (HEADER, *MEMBERS, CHECKSUMS):
            raise ValueError(f"it has {info.name[:100]!r}, which is no part of a backup, or twice")
        if (info.name == HEADER) != (not found):
            raise ValueError("it does not begin with its versions")
        source = tar.extractfile(info)
        assert source is not None  # it is a regular file
        if info.name in (HEADER, CHECKSUMS):
            data = source.read(_MAX_TEXT_BYTES)
            if info.name == CHECKSUMS:
                _compare(json.loads(data), found)
                return
            found[HEADER] = {"size": info.size, "sha256": hashlib.sha256(data).hexdigest()}
            yield _header(json.loads(data))
            continue
        digest, size = hashlib.sha256(), 0
        with (folder / info.name).open("xb") as target:
            (folder / info.name).chmod(_MODE)
            while piece := source.read(_PIECE_BYTES):
                digest.update(piece)
                target.write(piece)
                size += len(piece)
        found[info.name] = {"size": size, "sha256": digest.hexdigest()}
        yield info.name
    raise ValueError("its end is missing")


def _header(content: dict[str, object]) -> BackupHeader:
    version = content["history_version"]
    return BackupHeader(
        format=int(str(content["format"])),
        flansible=str(content["flansible"]),
        created=str(content["created"]),
        history_version=None if version is None else int(str(version)),
    )


def _compare(expected: object, found: dict[str, dict[str, int | str]]) -> None:
    if expected == found:
        return
    wanted = expected if isinstance(expected, dict) else {}
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    raise ValueError(f"the checksum of {', '.join(map(repr, wrong))[:300]} is wrong")
