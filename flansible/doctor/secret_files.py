"""Checks whether other users of this machine can read, write or replace files with secrets.

`refuse_exposed` stops the commands that start a part of the service; doctor reports the same, line by line. A file in a
folder that others cannot enter is safe, whatever its own mode.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flansible.config import KEYS, Settings
from flansible.errors import ConfigurationError, Fault

# Settings that name a file that is secret as a whole; rbac.json and config.ini are searched for secrets.
SECRET_KEYS = tuple(key for key in ("secret_key_file", "token_file", "tls_key", "metrics_token_file") if key in KEYS)
URL_PASSWORD = re.compile(r"://[^\s/:]*+:\S*@")


@dataclass(frozen=True)
class Exposure:
    """One way in which other users can access a file, and the command that prevents it."""

    found: str
    command: str


def refuse_exposed(settings: Settings) -> None:
    """Raises ConfigurationError with every exposed secret file and the command that fixes it."""
    faults = [
        Fault(str(path), key, f"{exposure.found}; {exposure.command}")
        for key, path, is_secret in _files(settings)
        for exposure in exposures(path, is_secret)
    ]
    if faults:
        raise ConfigurationError(faults)


def exposures(path: Path, is_secret: bool = True) -> list[Exposure]:
    """Returns how others can read this file, if it is secret, or change it. A missing file has no exposures."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return []
    found = []
    if _is_reachable(path):
        if is_secret and mode & stat.S_IROTH:
            found.append(Exposure(f"every user of this machine can read {path}", f"chmod o-r {_quoted(path)}"))
        if mode & stat.S_IWOTH:
            found.append(Exposure(f"every user of this machine can write {path}", f"chmod o-w {_quoted(path)}"))
    for folder in _folders(path):
        if _is_writable_folder(folder):
            found.append(Exposure(f"every user of this machine can replace {path}", f"chmod o-w {_quoted(folder)}"))
    return found


def holds_secrets(rbac_file: Path) -> bool:
    """Whether rbac.json has a real password: in the published samples each is the user's own name.

    A file that cannot be parsed counts as one that has.
    """
    try:
        entries = json.loads(rbac_file.read_text(encoding="utf-8"))["rbac"]
        return any(entry["user"] != entry["password"] for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def has_url_password(config_file: Path) -> bool:
    try:
        return URL_PASSWORD.search(config_file.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False


def _files(settings: Settings) -> Iterator[tuple[str, Path, bool]]:
    """Yields key, file and whether it is secret. Others must not be able to write any of them."""
    if settings.config_file:
        yield "configuration", settings.config_file, has_url_password(settings.config_file)
    yield "rbac_file", settings.rbac_file, holds_secrets(settings.rbac_file)
    for key in SECRET_KEYS:
        path = getattr(settings, key)
        if path is not None:
            yield key, path, True


def _is_reachable(path: Path) -> bool:
    """Whether others can reach this path: they can enter every folder above it."""
    return all(_mode(folder) & stat.S_IXOTH for folder in _above(Path(os.path.realpath(path))))


def _folders(path: Path) -> Iterable[Path]:
    """Returns all folders above a file: those of its name and, if it has links, those of its real path."""
    return dict.fromkeys((*_above(Path(os.path.realpath(path))), *_above(path)))


def _above(path: Path) -> list[Path]:
    return list(path.parents)


def _is_writable_folder(folder: Path) -> bool:
    """Whether others can replace files in a folder. In a sticky folder, such as /tmp, they cannot."""
    mode = _mode(folder)
    is_writable = mode & stat.S_IWOTH and mode & stat.S_IXOTH and not mode & stat.S_ISVTX
    return bool(is_writable) and _is_reachable(folder)


def _mode(folder: Path) -> int:
    try:
        return folder.stat().st_mode
    except OSError:
        return 0


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
