"""Which folders users' runs may write: `writable` of rbac.json, refused where another run would load what they write.

Called by flansible.identity.users whenever rbac.json is read. What a folder holds is looked at when it is first
granted, and then remembered in data_dir: afterwards its user can put anything there, and must not be able to make
rbac.json unreadable by it. What a path means is checked each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flansible.config import Settings, comma_list
from flansible.playbooks import ansible_cfg

_REMEMBERED = "writable"
# Folders from which Ansible loads code or variables, wherever they lie; and those that it does below playbook_root.
_LOADED = frozenset(
    ("group_vars", "host_vars", "roles", "collections", "ansible_collections", "library", "module_utils")
    + (".git", ".ansible", ".ssh")
)
_LOADED_IN_PROJECTS = _LOADED | frozenset(
    (
        "vars",
        "defaults",
        "tasks",
        "handlers",
        "meta",
        "templates",
        "files",
        "plugins",
        "inventories",
        "inventory",
        "environments",
    )
)
_OF_PLUGINS = "_plugins"
_LOADING_SETTING = re.compile(
    r"\w+_plugins|library|module_utils|roles_path|collections_paths?|inventory|vault_\w+|private_key_file|\w+_file"
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/boot", "/proc", "/sys", "/dev", "/run")
_PLAY = re.compile(r"^(?:- +|  +)[\"']?(?:hosts|(?:ansible\.builtin\.)?import_playbook)[\"']?\s*:", re.MULTILINE)
_MAX_ENTRIES = 20_000
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Grants:
    """What rbac.json grants a user, with paths resolved."""

    inventories: tuple[Path, ...]
    paths: tuple[Path, ...]
    writable: tuple[Path, ...]


@dataclass(frozen=True)
class _Place:
    """What runs load code or variables from. is_inside: whether a folder in it is refused too."""

    path: Path
    what: str
    is_inside: bool = True


@dataclass
class WritableFolders:
    """Checks the folders of all users together. settings: None where config.ini is not known."""

    users: Mapping[str, Grants]
    settings: Settings | None
    _places: list[_Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [*_given_places(self.users), *_service_places(self.settings)]

    def faults(self) -> Iterator[tuple[str, int, str]]:
        """Yields each refused folder: the user, its number in the list, and why."""
        for name, granted in self.users.items():
            for number, folder in enumerate(granted.writable):
                if reason := self._reason(name, folder):
                    yield name, number, f"{folder} must not be writable: {reason}"
        self._forget_others()

    def _reason(self, user: str, folder: Path) -> str:
        for place in self._places:
            if place.path.is_relative_to(folder):
                is_it = place.path == folder
                return f"it is {place.what}" if is_it else f"it holds {place.path}, {place.what}"
            if place.is_inside and folder.is_relative_to(place.path):
                return f"it lies in {place.path}, {place.what}"
        for other, granted in self.users.items():
            for path in granted.paths:
                if other != user and folder.is_relative_to(path):
                    return f"it lies in {path}, a path of {other}"
            for path in granted.writable:
                if path != folder and (path.is_relative_to(folder) or folder.is_relative_to(path)):
                    return f"one of it and {path}, which {other} may write, lies in the other"
        if name := self._loaded_name(folder):
            return f"Ansible loads code or variables from a folder {name}"
        return self._configured(folder) or self._content(folder)

    def _configured(self, folder: Path) -> str:
        """Returns which ansible.cfg around the folder names it, or something in or around it, as code or a secret."""
        root = Path(os.path.realpath(self.settings.playbook_root)) if self.settings else None
        for around in folder.parents if root and folder.is_relative_to(root) else ():
            if not around.is_relative_to(root or around):
                break
            for name, value in ansible_cfg.defaults(around / "ansible.cfg").items():
                if not _LOADING_SETTING.fullmatch(name):
                    continue
                for word in filter(None, re.split(r"[\s:,@]+", value)):
                    named = Path(os.path.realpath(os.path.join(around, os.path.expanduser(word))))
                    if named.is_relative_to(folder) or folder.is_relative_to(named):
                        return f"{name} of {around / 'ansible.cfg'} is {word}"
        return ""

    def _loaded_name(self, folder: Path) -> str:
        root = Path(os.path.realpath(self.settings.playbook_root)) if self.settings else None
        is_below = root is not None and folder.is_relative_to(root)
        parts = folder.relative_to(root).parts if is_below and root else folder.parts
        names = _LOADED_IN_PROJECTS if is_below else _LOADED
        return next((part for part in parts if part in names or part.endswith(_OF_PLUGINS)), "")

    def _content(self, folder: Path) -> str:
        """Returns what in the folder runs would load; nothing for a folder that was granted before."""
        if not folder.is_dir() or self._is_remembered(folder):
            return ""
        left = _MAX_ENTRIES
        for path, folders, names in os.walk(folder):
            for name in folders:
                if name in _LOADED or name.endswith(_OF_PLUGINS):
                    return f"it holds {os.path.join(path, name)}, from which Ansible loads code or variables"
            for file in (os.path.join(path, name) for name in names):
                if os.path.basename(file) == "ansible.cfg" or (file.endswith((".yml", ".yaml")) and _is_playbook(file)):
                    return f"it holds {file}, from which runs load what they do"
            left -= len(folders) + len(names)
            if left < 0:
                return "it holds too much to be looked at; grant a new folder"
        self._remember(folder)
        return ""

    # What was granted before, as files in data_dir: a digest of the path, with the folder's identity in it.

    def _is_remembered(self, folder: Path) -> bool:
        try:
            found = folder.stat()
            mark = self._mark(folder)
            return mark is not None and mark.read_text() == f"{found.st_dev}:{found.st_ino}"
        except OSError:
            return False

    def _remember(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            found = folder.stat()
            if (mark := self._mark(folder)) is not None and mark.parent.parent.is_dir():
                mark.parent.mkdir(mode=0o700, exist_ok=True)
                mark.write_text(f"{found.st_dev}:{found.st_ino}")

    def _forget_others(self) -> None:
        """Forgets folders that no user may write any more."""
        marks = {self._mark(folder) for granted in self.users.values() for folder in granted.writable}
        with contextlib.suppress(OSError):
            if self.settings is not None:
                for mark in (self.settings.data_dir / _REMEMBERED).iterdir():
                    if mark not in marks:
                        mark.unlink()

    def _mark(self, folder: Path) -> Path | None:
        if self.settings is None:
            return None
        return self.settings.data_dir / _REMEMBERED / hashlib.sha256(os.fsencode(folder)).hexdigest()


def _given_places(users: Mapping[str, Grants]) -> Iterator[_Place]:
    for name, granted in users.items():
        for path in granted.inventories:
            yield _Place(path, f"an inventory of {name}")
        for path in granted.paths:
            yield _Place(path, f"a path of {name}", is_inside=False)


def _service_places(settings: Settings | None) -> Iterator[_Place]:
    for folder in _SYSTEM:
        yield _Place(Path(folder), "a folder of the system")
    python = {sys.prefix, sys.exec_prefix, sys.base_prefix, str(Path(__file__).parents[1])}
    for folder in sorted(map(os.path.realpath, python)):
        yield _Place(Path(folder), "a folder of this Python")
    for folder in ("~/.ansible", "~/.ssh", "~/.ansible.cfg"):
        yield _Place(Path(os.path.realpath(os.path.expanduser(folder))), "a part of the service's home")
    if settings is None:
        return
    yield _Place(Path(os.path.realpath(settings.playbook_root)), "playbook_root", is_inside=False)
    for private in settings.private_paths:
        yield _Place(Path(os.path.realpath(private)), "private to the service")
    for path in comma_list(settings.sandbox_paths):
        yield _Place(Path(os.path.realpath(path)), "one of sandbox_paths")
    if settings.default_inventory and "," not in settings.default_inventory:
        yield _Place(Path(os.path.realpath(settings.default_inventory)), "default_inventory")


def _is_playbook(path: str) -> bool:
    try:
        if not os.path.isfile(path):
            return False
        with open(path, encoding="utf-8", errors="replace") as file:
            return _PLAY.search(file.read(_MAX_BYTES)) is not None
    except OSError:
        return False
