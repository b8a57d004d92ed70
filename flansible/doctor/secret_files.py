"""Files that hold secrets, and whether other users of this machine could read them or put their own in their place.

`refuse_exposed` stops the commands that start a part of the service; doctor shows the same, line by line. What lies in
a folder that others cannot enter is out of their reach, whatever its own mode.
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

# Settings that name a file of which every byte is secret; rbac.json and config.ini are looked at for what is in them.
SECRET_KEYS = tuple(key for key in ("secret_key_file", "token_file", "tls_key") if key in KEYS)
URL_PASSWORD = re.compile(r"://[^\s/]*:\S*@")


@dataclass(frozen=True)
class Exposure:
    """One way in which a file is open to everybody, and the command that closes it."""

    found: str
    command: str


def refuse_exposed(settings: Settings) -> None:
    """Raises ConfigurationError with every secret file that is open to others, and the command that mends it."""
    faults = [
        Fault(str(path), key, f"{exposure.found}; {exposure.command}")
        for key, path, is_secret in _files(settings)
        for exposure in exposures(path, is_secret)
    ]
    if faults:
        raise ConfigurationError(faults)


def exposures(path: Path, is_secret: bool = True) -> list[Exposure]:
    """How others could read this file, if it is secret, or change it. None of a file that is not there."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return []
    found = []
    if _within_reach(path):
        if is_secret and mode & stat.S_IROTH:
            found.append(Exposure(f"everybody on this machine can read {path}", f"chmod o-r {_quoted(path)}"))
        if mode & stat.S_IWOTH:
            found.append(Exposure(f"everybody on this machine can write {path}", f"chmod o-w {_quoted(path)}"))
    for folder in _folders(path):
        if _is_open_folder(folder):
            found.append(Exposure(f"everybody on this machine can replace {path}", f"chmod o-w {_quoted(folder)}"))
    return found


def holds_secrets(rbac_file: Path) -> bool:
    """Whether rbac.json has a password worth keeping: in the published samples each is its user's own name.

    What cannot be understood may hold one.
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
    """Key, file, and whether it is secret. One that is not must still be safe from being written by others."""
    if settings.config_file:
        yield "configuration", settings.config_file, has_url_password(settings.config_file)
    yield "rbac_file", settings.rbac_file, holds_secrets(settings.rbac_file)
    for key in SECRET_KEYS:
        path = getattr(settings, key)
        if path is not None:
            yield key, path, True


def _within_reach(path: Path) -> bool:
    """Whether others get as far as this path: every folder above it lets them through."""
    return all(_mode(folder) & stat.S_IXOTH for folder in _above(Path(os.path.realpath(path))))


def _folders(path: Path) -> Iterable[Path]:
    """All folders on the way to a file, by its name and, when there are links on it, by its real one."""
    return dict.fromkeys((*_above(Path(os.path.realpath(path))), *_above(path)))


def _above(path: Path) -> list[Path]:
    return list(path.parents)


def _is_open_folder(folder: Path) -> bool:
    """Whether others can put something else in place of what is in it. In a sticky one, such as /tmp, they cannot."""
    mode = _mode(folder)
    is_writable = mode & stat.S_IWOTH and mode & stat.S_IXOTH and not mode & stat.S_ISVTX
    return bool(is_writable) and _within_reach(folder)


def _mode(folder: Path) -> int:
    try:
        return folder.stat().st_mode
    except OSError:
        return 0


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
