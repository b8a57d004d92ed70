"""`flansible backup FILE`: writes a backup of a service on this machine, while it runs.

Redis first, then the database: a task that moves in between is in both, and the one in the database counts.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from flansible import __version__
from flansible.backup.archive_format import (
    CONFIG,
    FORMAT,
    HISTORY,
    KEY,
    RBAC,
    REDIS,
    TOKENS,
    BackupHeader,
    BackupWriter,
)
from flansible.config import Settings
from flansible.errors import BackupUnusable
from flansible.history import online_backup
from flansible.history.database import SQLITE
from flansible.history.opening import embedded_file
from flansible.store.snapshot import Snapshots
from flansible.system import atomic_files
from flansible.system.timestamps import timestamp


def write(settings: Settings, target: Path, *, with_key: bool) -> list[str]:
    """Writes the backup, mode 600, which appears when it is whole; returns lines for the operator.

    Raises BackupUnusable, StoreUnavailable, HistoryUnavailable.
    """
    if target.exists():
        raise BackupUnusable(f"{target} exists already: name a new file, or remove that one")
    try:
        folder = target.absolute().parent
        with (
            atomic_files.new_folder(folder, f".{target.name}.copies-") as copies,
            atomic_files.replacing(target, keep_existing=True) as temporary,
        ):
            members, version = _collect(settings, copies, with_key)
            header = BackupHeader(FORMAT, __version__, timestamp(datetime.now(UTC)), version)
            with temporary.open("wb") as file:
                writer = BackupWriter(file, header)
                for name, path in members.items():
                    writer.add(name, path)
                writer.finish()
    except OSError as error:
        raise BackupUnusable(f"{target} cannot be written: {error}") from error
    return [f"Wrote {target}: {', '.join(members)}", *_left_out(settings, with_key)]


def _collect(settings: Settings, copies: Path, with_key: bool) -> tuple[dict[str, Path], int | None]:
    """Returns the members with the files that have them, and the version of the tables."""
    members: dict[str, Path] = {}
    wanted = {CONFIG: settings.config_file, RBAC: settings.rbac_file, TOKENS: settings.token_file}
    if with_key:
        wanted[KEY] = settings.secret_key_file
    for name, path in wanted.items():
        if path is not None and path.exists():
            # These are replaced as a whole when they change, so what is opened is whole.
            members[name] = path
    if settings.embeds_redis:
        taken = settings.data_dir / f".{REDIS}"
        with closing(Snapshots(f"redis+socket://{settings.redis_socket}")) as snapshots:
            snapshots.take(settings.data_dir, taken)
        members[REDIS] = _moved(taken, copies / REDIS)
    version = None
    if (file := embedded_file(settings)) is not None:
        version = online_backup.copy_database(file, copies / HISTORY)
        members[HISTORY] = copies / HISTORY
    return members, version


def _moved(path: Path, target: Path) -> Path:
    try:
        target.touch(0o600)
        with path.open("rb") as source, target.open("wb") as file:
            while piece := source.read(1 << 20):
                file.write(piece)
    finally:
        path.unlink(missing_ok=True)
    return target


def _left_out(settings: Settings, with_key: bool) -> list[str]:
    lines = []
    if not settings.embeds_redis:
        lines.append("Not in it: the records of your Redis; back it up as its manual says, before this")
    if settings.database_url and not settings.database_url.startswith(SQLITE):
        lines.append("Not in it: your PostgreSQL; back it up after this: pg_dump --format=custom")
    if not with_key:
        lines.append("Not in it: secret_key_file, without which sealed secrets cannot be read: --with-key")
    lines.append("Not in it: playbooks, inventories, users' homes, the audit log, the files that config.ini names")
    return lines
