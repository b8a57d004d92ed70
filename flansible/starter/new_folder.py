"""Makes the files of a new service: configuration, users, an inventory of this machine and a first playbook.

Run by `flansible init`. Nothing is overwritten, and nothing is added to playbooks, inventories or a .gitignore that
exist: they are kept as they are. A folder with a config.ini is refused, because it is set up already.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flansible.errors import ConfigurationError, Fault
from flansible.identity import passwords

_SOURCES = Path(__file__).parent / "files"
_CONFIG, _RBAC, _GITIGNORE = "config.ini", "rbac.json", ".gitignore"
_INVENTORY, _PLAYBOOK = "inventories/dev/hosts", "playbooks/site.yml"
# The configuration is the last one, because it says that the folder is set up.
_NAMES = (_RBAC, _GITIGNORE, _INVENTORY, _PLAYBOOK, _CONFIG)
_PASSWORD_BYTES = 12


@dataclass(frozen=True)
class NewFolder:
    """What was made and what was kept, as paths below the folder.

    password: admin's, empty when rbac.json was kept; not_ignored: what git would commit and must not.
    """

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    password: str
    not_ignored: tuple[str, ...]


def make(folder: Path) -> NewFolder:
    """Makes the files that are missing. Raises ConfigurationError; then nothing was made."""
    folder = folder.absolute()
    if os.path.lexists(folder / _CONFIG):
        advice = "start the service with `flansible up`, or choose another folder"
        raise ConfigurationError([Fault(str(folder / _CONFIG), "", f"exists, so nothing was made; {advice}")])
    kept = sorted({_top(name) for name in _NAMES if os.path.lexists(folder / _top(name))})
    made = [name for name in _NAMES if _top(name) not in kept]
    password = secrets.token_hex(_PASSWORD_BYTES) if _RBAC in made else ""
    created: list[Path] = []
    try:
        texts = {name: _text(folder, name, password) for name in made}
        _make_folder(folder, created)
        with _as_owner(folder):
            _make_files(folder, texts)
    except OSError as error:
        _remove(created)
        message = f"cannot be made: {error.strerror}; let this user write there, or choose another folder"
        raise ConfigurationError([Fault(error.filename or str(folder), "", message)]) from error
    return NewFolder(folder, tuple(sorted(made)), tuple(kept), password, _not_ignored(folder))


def describe(new: NewFolder, is_terminal: bool) -> Iterator[str]:
    """Yields lines for people. The password is for a terminal alone: anything else may be a log."""
    go_there = "" if new.folder == Path.cwd() else f"cd {shlex.quote(str(new.folder))} && "
    yield f"Made in {new.folder}: {', '.join(new.made)}"
    if new.kept:
        yield f"Kept, because it exists: {', '.join(new.kept)}"
    if new.not_ignored:
        yield f"Add to .gitignore what git must not have: {' '.join(new.not_ignored)}"
    if new.password and is_terminal:
        yield f"Log in as admin with the password {new.password}"
        yield f"It is shown only now; `{go_there}flansible passwd admin` sets another."
    elif new.password:
        yield f"The password of admin is shown on a terminal only: set one with `{go_there}flansible passwd admin`."
    yield f"Next: {go_there}flansible up"


def _top(name: str) -> str:
    return Path(name).parts[0]


def _text(folder: Path, name: str, password: str) -> str:
    if name == _RBAC:
        return passwords.new_document(password)
    text = (_SOURCES / Path(name).name.lstrip(".")).read_text(encoding="utf-8")
    keeps_inventories = os.path.lexists(folder / _top(_INVENTORY))
    if name == _CONFIG and keeps_inventories and not (folder / _INVENTORY).parent.exists():
        return text.replace("\ndefault_inventory", "\n#default_inventory")
    return text


@contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    """As root, works as the owner of the folder: the files become theirs, and a link that they have put there leads
    nowhere that they may not write themselves."""
    if os.geteuid() != 0:
        yield
        return
    owner, group, groups = folder.stat(), os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _make_files(folder: Path, texts: dict[str, str]) -> None:
    """Makes all files or none; only rbac.json is closed to others."""
    created: list[Path] = []
    try:
        for name, text in texts.items():
            path = folder / name
            _make_folder(path.parent, created)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600 if name == _RBAC else 0o644)
            created.append(path)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError:
        _remove(created)
        raise


def _make_folder(path: Path, created: list[Path]) -> None:
    if not path.is_dir():
        _make_folder(path.parent, created)
        path.mkdir(mode=0o755)
        created.append(path)


def _remove(created: list[Path]) -> None:
    for path in reversed(created):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def _not_ignored(folder: Path) -> tuple[str, ...]:
    """Returns the lines of our .gitignore that the folder's lacks."""
    with suppress(OSError, UnicodeDecodeError):
        has = set((folder / _GITIGNORE).read_text(encoding="utf-8").splitlines())
        wanted = (_SOURCES / "gitignore").read_text(encoding="utf-8").splitlines()
        return tuple(line for line in wanted if not line.startswith("#") and not has & {line, line.strip("/")})
    return ()
