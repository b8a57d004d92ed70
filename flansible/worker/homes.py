"""The homes of confined runs: kept from run to run, but for what programs load from a home as code.

What one run writes there must not be executed by the next: it would do what the rules on modules and hosts refuse. So
these files and folders are mounted read-only, and each folder around one is mounted onto itself, in every sandbox of a
home: what is a mountpoint can be neither removed nor renamed, so no mount can be led elsewhere. The operator can fill
them from outside. Called by flansible.worker.sandbox and by `flansible home`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from flansible.models import split_principal
from flansible.system.atomic_files import new_folder, writable_folder

HOME = "/home/flansible-user"  # as the sandbox has it: nothing else that is shown lies there
SHARED = ("collections", "roles")  # of the service's `~/.ansible`
_ANSIBLE_CFG = ".ansible.cfg"
# Of Ansible, Python, git and fish; of Ansible, ssh, git and the shells. `~/.ansible/tmp` and the like stay writable.
CODE_FOLDERS = (
    ".ansible/collections",
    ".ansible/plugins",
    ".ansible/roles",
    ".config/fish",
    ".config/git",
    ".local/lib",
)
CODE_FILES = (
    ".bash_login", ".bash_profile", ".bashrc", ".cshrc", ".gitconfig", ".login", ".profile", ".ssh/config", ".tcshrc",
    ".zlogin", ".zprofile", ".zshenv", ".zshrc",
)  # fmt: skip
_LOCAL_TMP = ".ansible/tmp"  # without which no run of Ansible can begin
_AROUND = tuple(sorted({os.path.dirname(path) for path in (*CODE_FOLDERS, *CODE_FILES)} - {""}))
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def home_of(principal: str, data_dir: Path) -> Path:
    """Returns the path of the home of a user's runs by one entry; the operator may put ssh keys and known_hosts there.

    Not one for all entries: what a run by one of them leaves there would be read, with its keys, by runs of another.
    """
    return data_dir / "homes" / "+".join(map(_folder_name, filter(None, split_principal(principal))))


def _folder_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else "=" + sha256(name.encode()).hexdigest()[:32]


def make_home(principal: str, data_dir: Path) -> Path:
    """Returns the home and creates it if necessary, closed to others. Raises OSError."""
    home = home_of(principal, data_dir)
    if not home.exists():
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Complete before it gets its name: no run has one without mountpoints.
        with new_folder(home.parent, ".new-") as new:
            _make_mountpoints(new)
            try:
                new.rename(home)
            except OSError:
                if not home.is_dir():
                    raise
    _make_mountpoints(home)
    return home


def binds(home: Path) -> Iterator[tuple[str, str, str]]:
    """Yields bubblewrap's binds for the home, each an option, a source and a target."""
    yield "--bind", str(home), HOME
    files = (*CODE_FILES, _ANSIBLE_CFG) if has_ansible_cfg(home) else CODE_FILES
    for option, paths in (("--bind", _AROUND), ("--ro-bind", (*CODE_FOLDERS, *files))):
        for path in paths:
            yield option, str(home / path), f"{HOME}/{path}"


def empty_folders(home: Path | None) -> dict[str, str]:
    """Returns the empty folders that the home has in a sandbox, with their modes; SHARED are mounted there.

    Ansible passes over an ansible.cfg that it cannot read. A file that is empty would stand in for the operator's.
    """
    folders = {shared(name): "0700" for name in SHARED}
    return folders if home is None or has_ansible_cfg(home) else folders | {f"{HOME}/{_ANSIBLE_CFG}": "0000"}


def shared(name: str) -> str:
    """Returns where a sandbox has one of SHARED."""
    return f"{HOME}/.ansible/{name}"


def has_ansible_cfg(home: Path) -> bool:
    """Whether the operator has put an ansible.cfg there; a folder of this name stands for none."""
    return (home / _ANSIBLE_CFG).is_file()


def _make_mountpoints(home: Path) -> None:
    """Makes what is missing, or what a run has put in its place. Follows no link."""
    _give_access(home)
    for name in (*_AROUND, *CODE_FOLDERS, _LOCAL_TMP):
        if _is_missing(home / name, stat.S_ISDIR):
            (home / name).mkdir(mode=0o700, exist_ok=True)
    for name in CODE_FILES:
        if _is_missing(home / name, stat.S_ISREG):
            with contextlib.suppress(FileExistsError):
                (home / name).touch(mode=0o600, exist_ok=False)
    if _is_missing(home / _ANSIBLE_CFG, lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        (home / _ANSIBLE_CFG).mkdir(mode=0o700, exist_ok=True)


def _give_access(home: Path) -> None:
    """Opens the folders that a run may have closed, or no other of its user's could begin. Follows no link."""
    for folder in (home, *(home / name for name in (*_AROUND, _LOCAL_TMP))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), writable_folder(folder):
            pass


def _is_missing(path: Path, is_its_kind: Callable[[int], bool]) -> bool:
    """Whether this is not there, or is now, since what was there is of another kind: a link is removed, others kept."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    if is_its_kind(mode):
        return False
    if stat.S_ISLNK(mode):
        path.unlink()
    else:
        path.rename(Path(tempfile.mkdtemp(dir=path.parent, prefix="replaced-")) / path.name)
    return True
