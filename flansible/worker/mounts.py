"""Collects the mounts of a sandbox: bubblewrap's arguments for the folders that are shown, without what is hidden.

Called by flansible.worker.sandbox for a user's runs, and by flansible.worker.inventory_names for its hidden ones.
Whatever is hidden in a folder is left out by mounting the rest of the folder piece by piece: a mount over the hidden
file would be gone as soon as the file below it is replaced. bubblewrap takes at most 9,000 arguments, and its time
grows with the square of the mounts (100 take 0.03 s, 1,000 take 1.4 s, 2,900 take 16 s): beyond a number of them small
files and folders are copied into one folder that is mounted instead (flansible.worker.snapshots).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import flansible
from flansible.authorization.path_parts import is_below, upwards
from flansible.worker import snapshots
from flansible.worker.snapshots import OpenedFolder

MOST_MOUNTS = 200
_TMPFS_BYTES = 1024**3
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of /etc what programs need to find names, hosts, libraries and certificates. No shadow, no keys, no /etc/ansible.
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "default/locale",
    "gai.conf", "group", "host.conf", "hostname", "hosts", "inputrc", "issue", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "login.defs", "lsb-release", "machine-id", "magic",
    "mime.types", "networks", "nsswitch.conf", "os-release", "pki/ca-trust", "pki/tls/certs", "profile", "protocols",
    "python3", "python3.11", "python3.12", "python3.13", "redhat-release", "resolv.conf", "rpc", "services", "shells",
    "ssh/ssh_config", "ssh/ssh_known_hosts", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_EMPTY_IN_PROC = ("kcore", "keys", "kmsg", "timer_list", "sched_debug")


class Rule(Protocol):
    """What of the trees is hidden: flansible.authorization.shown_paths."""

    def is_hidden(self, path: str) -> bool: ...

    def is_partly_hidden(self, folder: str) -> bool: ...


def programs() -> list[str]:
    """Returns the folders that every run needs: the system's, this Python with its packages, and Flansible."""
    folders = [path for path in _SYSTEM if not os.path.islink(path)]
    folders += [sys.prefix, sys.exec_prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    folders += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    # The package alone: the folder above may be a checkout with config.ini and rbac.json in it.
    folders.append(os.path.dirname(flansible.__file__))
    return [path for path in folders if os.path.isdir(path)]


@dataclass
class Mounts:
    """Collects the mounts. rule: what is hidden; data_dir: for snapshots; stamps: which files the arguments mean.

    writable: folders that are mounted as they are, and never looked into or copied: a user's runs can write them.
    """

    rule: Rule
    data_dir: Path
    writable: frozenset[str] = frozenset()
    arguments: list[str] = field(default_factory=list)
    stamps: list[tuple[int, int]] = field(default_factory=list)
    snapshot: str | None = None
    _trees: dict[str, str] = field(default_factory=dict)  # target to source
    _opened: list[OpenedFolder] = field(default_factory=list)
    _binds: list[tuple[str, str]] = field(default_factory=list)

    def add(self, option: str, source: str, target: str) -> None:
        found = os.stat(source)
        self.stamps.append((found.st_dev, found.st_ino))
        self.arguments += [option, source, target]

    def add_system(self) -> None:
        """Adds new devices, processes and temporary files; programs, libraries, names and certificates as trees."""
        self.arguments += ["--proc", "/proc", "--dev", "/dev"]
        for name in _kernel_files():
            source = "/dev/null" if name in _EMPTY_IN_PROC else f"/proc/{name}"
            self.arguments += ["--ro-bind", source, f"/proc/{name}"]
        for path in ("/tmp", "/dev/shm"):
            self.arguments += ["--perms", "1777", "--size", str(_TMPFS_BYTES), "--tmpfs", path]
        # bubblewrap makes /dev a tmpfs without a limit: what could be written there would fill the memory.
        self.arguments += ["--remount-ro", "/dev", "--symlink", "/tmp", "/var/tmp"]
        for path in _SYSTEM:
            if os.path.islink(path):
                self.arguments += ["--symlink", os.readlink(path), path]
        for path in (f"/etc/{name}" for name in _ETC):
            self.add_tree(os.path.realpath(path), path)

    def shows(self, path: str) -> bool:
        """Whether one of the trees shows a path of this machine at its own place, links resolved."""
        if self.rule.is_hidden(path):
            return False
        return any(self._trees.get(part) == part for part in upwards(path))

    def covers(self, path: str) -> bool:
        """Whether a path lies in one of the trees, where nothing can be mounted any more."""
        return any(part in self._trees for part in upwards(path))

    def add_tree(self, source: str, target: str | None = None) -> None:
        """Adds a file, or a folder with all in it that is not hidden."""
        self._trees.setdefault(target or source, source)

    def mount_trees(self, links: Iterable[str] = ()) -> None:
        """Adds the arguments for all trees, each after those around it. links: made as they are. Raises OSError."""
        for target, source in sorted(self._trees.items()):
            if not self._is_within_another(target, source):
                self._add_shown(source, target, None)
        if len(self._binds) > MOST_MOUNTS and self._opened:
            self._use_snapshot()
        for folder in self._opened:
            self._mount_opened(folder)
        for source, target in self._binds:
            self.add("--ro-bind", source, target)
        for link in links:
            if not self._is_within_another(link, link):
                self.arguments += ["--symlink", os.readlink(link), link]

    def _is_within_another(self, target: str, source: str) -> bool:
        """Whether the tree around it shows this one already."""
        if target != source:
            return False
        for folder in upwards(source):
            if folder != source and self._trees.get(folder) == folder:
                return True
            if self.rule.is_hidden(folder):
                return False
        return False

    def _add_shown(self, source: str, target: str, around: OpenedFolder | None) -> None:
        if self.rule.is_hidden(source) or not os.path.exists(source):
            return
        if source in self.writable or not (os.path.isdir(source) and self.rule.is_partly_hidden(source)):
            self._binds.append((source, target))
            return
        folder = OpenedFolder(target)
        if around is None:
            self._opened.append(folder)
        else:
            around.folders.append(folder)
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                inner = os.path.join(target, entry.name)
                if entry.is_symlink():
                    if not self.rule.is_hidden(entry.path):
                        folder.links.append((os.readlink(entry.path), inner))
                elif entry.is_dir() or entry.is_file():
                    self._add_shown(entry.path, inner, folder)

    def _mount_opened(self, folder: OpenedFolder) -> None:
        if self.snapshot is None:
            self.arguments += ["--dir", folder.target]
            for text, target in folder.links:
                self.arguments += ["--symlink", text, target]
            for inner in folder.folders:
                self._mount_opened(inner)
        else:
            self.add("--ro-bind", snapshots.path_in(self.snapshot, folder.target), folder.target)

    def _use_snapshot(self) -> None:
        inside: list[tuple[str, str]] = []
        outside: list[tuple[str, str]] = []
        for source, target in self._binds:
            is_inside = any(is_below(target, folder.target) for folder in self._opened)
            (inside if is_inside else outside).append((source, target))
        plan = snapshots.plan(self._opened, inside, MOST_MOUNTS - len(outside), self.writable)
        self.snapshot = snapshots.make(plan, self.data_dir)
        self._binds = outside + plan.mounted


@cache
def _kernel_files() -> tuple[str, ...]:
    """Returns what in /proc is not a process and is a folder or writable.

    In the sandbox of a service that is root, the kernel treats file accesses as root's, and writing core_pattern and
    the like commands the kernel. bubblewrap itself covers only some of them.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode) or mode & 0o222 or entry.name in _EMPTY_IN_PROC:
            found.append(entry.name)
    return tuple(sorted(found))
