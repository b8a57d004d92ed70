"""Mends the embedded Redis' append-only file, as a power loss leaves it: zeros, rubbish or half a command at its end.

`flansible up` runs it as a program (`python -m flansible.launcher.redis_repair DATA_DIR`) when its Redis ends instead
of starting; `flansible repair` calls `mend` with `cut_all`. The damaged file is copied first, then cut behind its last
whole command. Where that would take back more than the last minute, it is left to the operator: tasks that have run
would run again. Prints what was lost, and writes it to Redis' log. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flansible.errors import ConfigurationError, Fault
from flansible.launcher import append_only_file
from flansible.launcher.append_only_file import Content

MENDED, NOT_MENDED, NOT_DAMAGED = 0, 1, 2  # exit codes
LOG_NAME = "redis.log"
FILE = "appendonly.aof"
FOLDER = "appendonlydir"  # of Redis 7, which has a manifest there and several files
_MANIFEST = f"{FILE}.manifest"
_MANIFEST_LINE = re.compile(r"file (\S+) seq ([0-9]+) type ([bih])(?: \w+ \S+)*")
_PART = re.compile(re.escape(FILE) + r"\.([0-9]+)\.(base\.rdb|base\.aof|incr\.aof)")
_MOST_SECONDS = 60.0
_MOST_BYTES = 1024 * 1024  # where the time is not known: in a file that has no task records
_LOG_BYTES = 4096
_LOG_LINES = 2


def mend(data_dir: Path, cut_all: bool = False) -> list[str]:
    """Mends the file and returns what was done, a sentence for each file; [] when nothing is damaged.

    cut_all: however much is lost. Raises ConfigurationError when it cannot be mended, with what to do.
    """
    folder = data_dir / FOLDER
    done = []
    try:
        if folder.is_dir() and any(_PART.fullmatch(name) for name in os.listdir(folder)):
            paths = _listed(folder / _MANIFEST)
            if paths is None:
                paths = _write_manifest(folder)
                done.append(f"Redis' list of files {folder / _MANIFEST} was damaged or missing and is written anew.")
        else:
            paths = [data_dir / FILE] if (data_dir / FILE).exists() else []
        for path in paths:
            found = append_only_file.read(path)
            if found.problem:
                done.append(_cut(path, found, path == paths[-1], len(paths) == 1, cut_all))
    except OSError as error:
        raise _fault(Path(error.filename or data_dir), f"cannot be read or mended: {error.strerror}") from error
    return done


def has_no_manifest(data_dir: Path) -> bool:
    """Whether the list of Redis' files is missing: it would begin without any records, and write over them."""
    folder = data_dir / FOLDER
    return (
        folder.is_dir() and not (folder / _MANIFEST).exists() and any(map(_PART.fullmatch, sorted(os.listdir(folder))))
    )


def _listed(manifest: Path) -> list[Path] | None:
    """Returns the files of the manifest in the order in which Redis reads them; None when it is damaged or missing."""
    try:
        lines = manifest.read_text("ascii").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    rows = [_MANIFEST_LINE.fullmatch(line) for line in lines if line and not line.startswith("#")]
    if not rows or None in rows:
        return None
    names = [(row[3], int(row[2]), row[1]) for row in rows if row and row[3] != "h"]
    paths = [manifest.parent / name for _, _, name in sorted(names)]  # "b" comes before "i"
    return paths if all(path.exists() for path in paths) else None


def _write_manifest(folder: Path) -> list[Path]:
    """Writes the manifest of a folder that has one snapshot and one file of commands: only then is it sure."""
    parts = [match for match in map(_PART.fullmatch, sorted(os.listdir(folder))) if match]
    kinds = [match[2].partition(".")[0] for match in parts]
    if kinds != ["base", "incr"]:
        found = ", ".join(match[0] for match in parts)
        raise _fault(
            folder / _MANIFEST,
            f"is damaged or missing, and which of {found} belong together is not known. " + _advice(folder),
        )
    lines = [f"file {match[0]} seq {match[1]} type {kind[0]}\n" for match, kind in zip(parts, kinds, strict=True)]
    temporary = folder / f"temp-{_MANIFEST}"
    _write_durably(temporary, lambda path: path.write_text("".join(lines)))
    os.replace(temporary, folder / _MANIFEST)
    return [folder / match[0] for match in parts]


def _cut(path: Path, found: Content, is_last: bool, is_only: bool, cut_all: bool) -> str:
    """Cuts a file behind its last whole command, after a copy of it; returns what was lost."""
    where = f"is damaged after byte {found.good_bytes:,} of {found.size:,} ({found.problem})"
    if found.in_snapshot:
        raise _fault(
            path,
            f"the snapshot in it is damaged ({found.problem}), and without it nothing that follows has a "
            f"meaning. {_advice(path)}",
        )
    if not is_last:
        raise _fault(path, f"{where}, and Redis' later files build on it. {_advice(path.parent)}")
    if is_only and found.good_bytes == 0 and not cut_all:
        raise _fault(path, f"{where}: there is nothing whole in it. {_advice(path)}")
    seconds = found.lost_seconds
    is_much = seconds > _MOST_SECONDS if seconds is not None else found.lost_bytes > _MOST_BYTES
    if found.later_commands and is_much and not cut_all:
        took = f", made in {seconds:,.0f} s" if seconds is not None else ""
        raise _fault(
            path,
            f"{where}, and {found.later_commands:,} whole commands follow{took}: a power loss does not take that much. "
            "Without them, tasks that have run may run again. Put back a backup of the folder "
            f"{path.parent}; or stop the service and cut them off: `flansible repair`",
        )
    copy = _copy(path)
    with path.open("r+b") as file:
        file.truncate(found.good_bytes)
        os.fsync(file.fileno())
    took = f", made in {seconds:.1f} s" if seconds is not None else ""
    commands = f"; {found.later_commands:,} whole commands were behind the damage{took}" if found.later_commands else ""
    return (
        f"Redis' file {path} was damaged, as after a power loss ({found.problem}). Its last {found.lost_bytes:,} bytes "
        f"were cut off, after byte {found.good_bytes:,}{commands}. What the service recorded in its last moment is "
        f"lost. {copy} is the file as it was; delete it once nothing is missing"
    )


def _copy(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    copy = path.with_name(stem)
    temporary = path.with_name(f"temp-{stem}")
    try:
        _write_durably(temporary, lambda target: shutil.copyfile(path, target))
        os.replace(temporary, copy)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        size = path.stat().st_size
        raise _fault(
            path,
            f"is damaged at its end and can be cut, but no copy of it could be kept ({error.strerror}): make room for "
            f"{size:,} bytes in {path.parent}, then start again",
        ) from error
    return copy


def _write_durably(path: Path, write: Callable[[Path], object]) -> None:
    path.touch(0o600)
    write(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _advice(path: Path) -> str:
    return f"Put back a backup of {path}; or begin without any records: mv {path} {path}.damaged"


def _fault(path: Path, message: str) -> ConfigurationError:
    return ConfigurationError([Fault(str(path), "", message)])


def _last_words(log: Path) -> list[str]:
    """Returns the last lines of Redis' log, which say why it ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [f"{log}: {line}" for line in lines[-_LOG_LINES:]]


def report(data_dir: Path, lines: list[str]) -> None:
    """Prints these lines, and adds them to Redis' log."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError), (data_dir / LOG_NAME).open("a") as log:
        log.writelines(f"flansible {time.strftime('%d %b %Y %H:%M:%S')} # {line}\n" for line in lines)


def main(argv: list[str]) -> int:
    data_dir = Path(argv[1])
    try:
        done = mend(data_dir)
    except ConfigurationError as error:
        report(data_dir, [f"Redis cannot start: {error}"])
        return NOT_MENDED
    if done:
        report(data_dir, done)
        return MENDED
    for line in _last_words(data_dir / LOG_NAME):
        print(line, file=sys.stderr)
    return NOT_DAMAGED


if __name__ == "__main__":
    sys.exit(main(sys.argv))
