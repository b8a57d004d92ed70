"""Builds sandboxes: the arguments of bubblewrap for the fork server of one confined user, by one entry of rbac.json.

A sandbox shows only what is mounted here: the system, this Python, the user's inventories and playbook_root read-only,
the user's home, an empty /tmp. flansible.authorization.shown_paths decides what of these folders is hidden; `build`
lists the mounts.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from flansible.authorization import isolation, notes, shown_paths
from flansible.authorization.notes import Note
from flansible.authorization.path_parts import is_below
from flansible.authorization.shown_paths import ShownPaths
from flansible.authorization.variable_files import NamesReader
from flansible.config import Settings
from flansible.errors import RunnerError
from flansible.models import Confinement
from flansible.projects import order as project_order
from flansible.system.atomic_files import replacing
from flansible.worker import homes, mounts, operator_config
from flansible.worker.homes import HOME
from flansible.worker.inventory_names import InventoryNames
from flansible.worker.mounts import Mounts

_ENVIRONMENT = re.compile(r"LANG$|LANGUAGE$|LC_\w+$|TZ$|PATH$|USER$|LOGNAME$|SHELL$|TERM$|COLUMNS$|LINES$")


@dataclass(frozen=True)
class Sandbox:
    """The sandbox of one user's runs by one entry. Equal ones show the same files, so runs can share a fork server.

    principal: the user and the entry; arguments: bubblewrap's, up to the command; stamps: the files meant, as a path
    may point to a different file later; snapshot: a folder of data_dir that it shows, if any; notes: what is left out;
    playbook_root: resolved, for these; configurations: the operator's Ansible configuration files that it has, each
    with what they lack there; confinement: the limits for which it was built.
    """

    principal: str
    home: str
    arguments: tuple[str, ...] = field(repr=False)
    stamps: tuple[tuple[int, int], ...] = field(repr=False)
    environment: tuple[tuple[str, str], ...] = field(repr=False)
    snapshot: str | None = field(default=None, repr=False)
    notes: tuple[Note, ...] = field(default=(), repr=False, compare=False)
    playbook_root: str = field(default="/", repr=False, compare=False)
    configurations: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False, compare=False)
    confinement: Confinement | None = field(default=None, repr=False, compare=False)


def build(principal: str, confinement: Confinement, ssh_sockets: str | None, settings: Settings) -> Sandbox:
    """Builds the sandbox of runs with these rights. ssh_sockets: the folder for sockets of ssh masters.

    principal: the user and the entry of rbac.json; confinement: that entry's limits. Raises RunnerError.

    The order of the mounts is their meaning: a later one covers an earlier one at the same place.

     1. /proc, with its writable files read-only, and /dev.
     2. /tmp and /dev/shm: empty and writable. Before the rest, parts of which may lie in /tmp.
        The user's home, writable but for what programs load from it: homes.py.
     3. All trees that are shown, each after those around it, without what is hidden: that is left out, not covered.
        The system's programs, libraries and parts of /etc; this Python and its packages; sandbox_paths; the user's
        inventories and paths, with their variables; playbook_root; collections and roles of the service's user, in
        the home.
     4. /etc/passwd with the sandbox's home, and copies of ssh's configuration: over those of 3. Copies of the
        operator's Ansible configuration.
     5. The user's folders of `writable`, unless they are gone or have become links.
     6. The sockets of ssh masters, writable. Of the user's projects the trees and requirements on this machine, all of
        them: so that a new commit needs no new sandbox; and the folder for copies of this user's runs, writable.
     7. / read-only: it holds the folders that bubblewrap has made for the mounts, so nothing can follow.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise RunnerError(f"bwrap is not installed; {isolation.ADVICE}")
    try:
        home = homes.make_home(principal, settings.data_dir)
        shown = _rule(confinement, settings, InventoryNames(settings.data_dir))
        found = _trees(shown, settings, home)
        found.add("--ro-bind", _passwd(settings.data_dir), "/etc/passwd")
        for source, target in _ssh_configurations(settings.data_dir):
            found.add("--ro-bind", source, target)
        configurations = operator_config.files(os.environ, found.shows, found.covers)
        for one in configurations:
            found.add("--ro-bind", _kept(settings.data_dir, "ansible.cfg", one.text), one.path)
        variables, unset = operator_config.variables(os.environ, found.shows)
    except OSError as error:
        raise RunnerError(f"the sandbox of {principal} cannot be made: {error}") from error
    writable, gone = _writable(shown)
    for folder in writable:
        found.add("--bind", folder, folder)
    if ssh_sockets:
        found.add("--bind", ssh_sockets, ssh_sockets)
    for option, project_folder in _projects(principal, confinement, settings):
        found.add(option, project_folder, project_folder)
    arguments = (
        *(program, *isolation.NAMESPACES),
        *found.arguments,
        *(word for path in (*homes.empty_folders(home), "/") for word in ("--remount-ro", path)),
    )
    return Sandbox(
        principal,
        str(home),
        arguments,
        tuple(found.stamps),
        _environment(variables),
        snapshot=found.snapshot,
        notes=(*notes.of(shown), *map(Note, unset), *gone),
        playbook_root=shown.root,
        configurations=tuple((one.path, one.notes) for one in configurations),
        confinement=confinement,
    )


def _projects(principal: str, confinement: Confinement, settings: Settings) -> list[tuple[str, str]]:
    """Returns the folders of the user's projects, made where they are missing, each with its option."""
    found = []
    for name in confinement.projects:
        own = project_order.folder_of(settings.data_dir, name)
        found += [("--ro-bind", own / "shown"), ("--bind", project_order.copies(own, principal))]
    for _, folder in found:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return [(option, str(folder)) for option, folder in found]


def trees(confinement: Confinement, settings: Settings, reader: NamesReader | None = None) -> Mounts:
    """Returns the mounts 1 to 3 of `build`. reader: of inventories; without one, names are unknown. Raises OSError."""
    return _trees(_rule(confinement, settings, reader), settings)


def _rule(confinement: Confinement, settings: Settings, reader: NamesReader | None) -> ShownPaths:
    return shown_paths.of(
        confinement.readable,
        confinement.hidden,
        settings,
        mounts.programs(),
        inventories=confinement.inventories,
        writable=confinement.writable,
        reader=reader,
    )


def _trees(shown: ShownPaths, settings: Settings, home: Path | None = None) -> Mounts:
    found = Mounts(shown, settings.data_dir, shown.writable)
    found.add_system()
    for bind in homes.binds(home) if home else ():
        found.add(*bind)
    for path, mode in homes.empty_folders(home).items():
        found.arguments += ["--perms", mode, "--tmpfs", path]
    for path in (*shown.opened, *shown.readable, *shown.variables, shown.root):
        found.add_tree(path)
    for name in homes.SHARED:
        if os.path.isdir(source := os.path.realpath(os.path.expanduser(f"~/.ansible/{name}"))):
            found.add_tree(source, homes.shared(name))
    found.mount_trees(shown.links)
    return found


class Sandboxes:
    """The sandboxes of one worker, under its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, principal: str, confinement: Confinement, ssh_sockets: str | None) -> Sandbox | None:
        """Returns the sandbox, or None where runs are not confined. Raises RunnerError."""
        if not isolation.of(self._settings.isolation).in_force:
            return None
        return build(principal, confinement, ssh_sockets, self._settings)

    def rules(self, confinement: Confinement) -> dict[str, Any]:
        """Returns the rules that the run and its keeper enforce, for flansible.runner.enforcement and .keeper."""
        found = isolation.of(self._settings.isolation)
        return {
            "hosts": confinement.hosts,
            "control_node": confinement.control_node,
            # Where bubblewrap is to be used and does not work, no code of the user may be executed on this machine.
            "remote_only": found.is_missing and not confinement.control_node,
            # Otherwise a process goes on in the sandbox when its user has lost a right, or the account.
            "ends_processes": found.in_force and not confinement.lasting_processes,
        }


def _writable(shown: ShownPaths) -> tuple[list[str], list[Note]]:
    """Returns the folders that can be written, and notes on the others."""
    found, gone = [], []
    for folder in sorted(shown.writable):
        # Nothing around it can be written by a user's run, so it stays what it is.
        if os.path.realpath(folder) == folder and os.path.isdir(folder):
            found.append(folder)
        else:
            concerned = frozenset({folder} if is_below(folder, shown.root) else ())
            gone.append(Note(f"{folder} cannot be written by this run: it does not exist", concerned))
    return found, gone


def _passwd(data_dir: Path) -> str:
    """Writes a copy of /etc/passwd with the sandbox's home, which ssh reads there, not in the environment."""
    own = pwd.getpwuid(os.getuid())
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != own.pw_uid]
    text = "".join(
        f"{entry.pw_name}:x:{entry.pw_uid}:{entry.pw_gid}:{entry.pw_gecos}:{home}:{entry.pw_shell}\n"
        for entry, home in [(own, HOME), *((other, other.pw_dir) for other in others)]
    )
    return _kept(data_dir, "passwd", text)


def _ssh_configurations(data_dir: Path) -> list[tuple[str, str]]:
    """Copies the files that ssh's configuration includes; returns each copy with the path of its original.

    ssh refuses such a file unless root or the user owns it, and without root a sandbox maps root to nobody.
    """
    found = []
    for path in sorted(Path("/etc/ssh/ssh_config.d").glob("*.conf")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append((_kept(data_dir, path.name, path.read_text()), str(path)))
    return found


def _kept(data_dir: Path, name: str, text: str) -> str:
    """Writes a file with this text and returns its path, which stays the same as long as the text does."""
    path = data_dir / "homes" / f".{name}-{sha256(text.encode()).hexdigest()[:16]}"
    if not path.exists():
        with replacing(path, mode=0o644) as temporary:
            temporary.write_text(text)
    return str(path)


def _environment(ansible: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns the variables for paths and language, and Ansible's; the service's others stay out of the sandbox."""
    kept = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
    return tuple(sorted({**kept, **ansible, "HOME": HOME}.items()))
