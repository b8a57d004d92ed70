"""`flansible restore FILE`: brings a service back from a backup, into a data_dir that does not exist or is empty.

The archive is unpacked beside data_dir and checked as a whole; only then anything gets its place. Nothing that exists
is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flansible.backup import archive_format
from flansible.backup.archive_format import CONFIG, FORMAT, HISTORY, KEY, RBAC, REDIS, TOKENS, BackupHeader
from flansible.config import Settings
from flansible.errors import BackupUnusable, HistoryUnavailable
from flansible.history import online_backup
from flansible.history.schema import VERSION
from flansible.system import atomic_files

# A Redis with an append-only file reads no snapshot, but such a file may begin with one; versions from 7 on move it
# into their folder.
_REDIS_FILE = "appendonly.aof"


@dataclass(frozen=True)
class _Unpacked:
    header: BackupHeader
    folder: Path
    names: tuple[str, ...]

    def file(self, name: str) -> Path:
        return self.folder / name


def restore(file: Path, base: Path, find_settings: Callable[[], Settings]) -> list[str]:
    """Restores a backup; returns lines for the operator.

    base: where config.ini is made, if none is found; find_settings: loads the settings, with that one too. Raises
    BackupUnusable, ConfigurationError.
    """
    placed: list[Path] = []  # removed again if it cannot all be done
    try:
        with atomic_files.new_folder(base, ".restore-") as folder:
            unpacked = _unpack(file, folder)
            settings = find_settings()
            if settings.config_file is None and CONFIG in unpacked.names:
                placed.append(_place(unpacked.file(CONFIG), base / CONFIG))
                settings = find_settings()
            targets = _targets(settings, unpacked)
            _refuse_existing(settings, targets)
            _refuse_other_places(settings, unpacked)
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            settings.data_dir.chmod(0o700)
            for name, target in targets.items():
                placed.append(_place(unpacked.file(name), target))
            placed.clear()
    except OSError as error:
        raise BackupUnusable(f"the backup cannot be restored: {error}") from error
    finally:
        for path in placed:
            path.unlink(missing_ok=True)
    return _lines(unpacked, settings, targets)


def _unpack(file: Path, folder: Path) -> _Unpacked:
    header: BackupHeader | None = None
    names = []
    for item in archive_format.unpack(file, folder):
        if isinstance(item, BackupHeader):
            header = item
            _refuse_newer(file, header)
        else:
            names.append(item)
    if header is None:
        raise BackupUnusable(f"{file} is not a backup, or is damaged: it is empty")
    if HISTORY in names:
        try:
            found = online_backup.version_of(folder / HISTORY)
        except HistoryUnavailable as error:
            raise BackupUnusable(f"{file} is damaged: {error}") from error
        if found != header.history_version:
            raise BackupUnusable(f"{file} is damaged: its database has version {found}, not {header.history_version}")
    return _Unpacked(header, folder, tuple(names))


def _refuse_newer(file: Path, header: BackupHeader) -> None:
    if header.format > FORMAT or (header.history_version or 0) > VERSION:
        message = f"{file} was made by Flansible {header.flansible}, which is newer than this one"
        raise BackupUnusable(f"{message}: install that version or a later one, then restore")


def _targets(settings: Settings, unpacked: _Unpacked) -> dict[str, Path]:
    places = {
        RBAC: settings.rbac_file,
        TOKENS: settings.token_file,
        KEY: settings.secret_key_file,
        REDIS: settings.data_dir / _REDIS_FILE,
        HISTORY: settings.data_dir / HISTORY,
    }
    return {name: path for name, path in places.items() if name in unpacked.names}


def _refuse_existing(settings: Settings, targets: dict[str, Path]) -> None:
    found = [str(path) for path in targets.values() if path.exists() or path.is_symlink()]
    if settings.data_dir.exists() and any(settings.data_dir.iterdir()):
        found.insert(0, str(settings.data_dir))
    if found:
        message = f"exists and is not empty: {', '.join(dict.fromkeys(found))}"
        raise BackupUnusable(f"{message}. Nothing was restored: move that away first, with the service stopped")


def _refuse_other_places(settings: Settings, unpacked: _Unpacked) -> None:
    """Refuses what the service of these settings would never read."""
    if REDIS in unpacked.names and not settings.embeds_redis:
        raise BackupUnusable("the backup has the records of an embedded Redis, and this service has one of its own")
    if HISTORY in unpacked.names and not (settings.database_url or "").startswith("sqlite:"):
        raise BackupUnusable("the backup has an embedded history database, and this service has another (DATABASE_URL)")


def _place(source: Path, target: Path) -> Path:
    """Gives a file its name, whole or not at all. Raises FileExistsError."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # another file system
        os.link(source, target)
        return target
    with atomic_files.replacing(target, keep_existing=True) as temporary:
        with source.open("rb") as opened, temporary.open("wb") as file:
            while piece := opened.read(1 << 20):
                file.write(piece)
    return target


def _lines(unpacked: _Unpacked, settings: Settings, targets: dict[str, Path]) -> list[str]:
    header = unpacked.header
    lines = [f"Restored the backup of {header.created}, of Flansible {header.flansible}"]
    lines += [f"  {name} to {path}" for name, path in targets.items()]
    if (header.history_version or VERSION) < VERSION:
        lines.append(f"The first worker takes the database from version {header.history_version} to {VERSION}")
    if KEY not in targets:
        lines.append(f"Without its key: queued tasks with passwords end as error. Put it to {settings.secret_key_file}")
    return lines
