"""Reads the hosts and groups of inventories by a hidden run of Ansible's loader, for the rule on shown paths.

Called while a sandbox is built, when variables could be those of others' inventories. Inventories may be programs and
plugins, so the hidden run is in a sandbox too: without a network, with an empty home, without folders that any user's
runs can write, for twenty seconds at most. The user's own inventories are read with what the user's runs are shown,
without variables; nothing that the user can write is read. Names are cached until a file of the inventory changes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

from flansible.authorization import isolation
from flansible.authorization.path_parts import is_below, is_in
from flansible.authorization.shown_paths import ShownPaths
from flansible.authorization.variable_files import Names
from flansible.errors import RunnerError
from flansible.system.session_keyring import call_in_new_session_keyring
from flansible.worker import snapshots
from flansible.worker.mounts import Mounts, Rule

log = logging.getLogger(__name__)

_MODULE = "flansible.runner.inventory_listing"
_SECONDS = 20.0
_MAX_BYTES = 16 * 1024 * 1024
_MAX_STAMPED = 20_000
_MAX_KNOWN = 10_000
_HOME = "/home/flansible-user"
_COLLECTIONS = "/home/flansible-shared/collections"

_RETRY_SECONDS = 60.0

_lock = threading.Lock()
_locks: defaultdict[tuple[bool, tuple[str, ...]], threading.Lock] = defaultdict(threading.Lock)
_known: dict[tuple[bool, str], _Known] = {}


@dataclass(frozen=True)
class _Known:
    """What was read of an inventory. stamp: its version; until: when a failure is tried again."""

    stamp: str
    names: frozenset[str] | None
    until: float = math.inf

    def is_of(self, stamp: str) -> bool:
        return self.stamp == stamp and time.monotonic() < self.until


@dataclass(frozen=True)
class InventoryNames:
    """A flansible.authorization.variable_files.NamesReader. data_dir: the service's."""

    data_dir: Path

    def own(self, shown: ShownPaths, inventories: tuple[str, ...]) -> Names:
        """Reads the user's inventories, with what `shown` shows and nothing that the user's runs can write."""
        trees = [*shown.opened, *shown.readable, *shown.variables, shown.root]
        return self._read(True, inventories, _Without(shown, shown.writable), trees)

    def others(self, shown: ShownPaths, inventories: tuple[str, ...]) -> Names:
        """Reads inventories that are not the user's, with all around them but private files."""
        outside = (path for path in inventories if not is_below(path, shown.root))
        trees = [*shown.opened, shown.root, *(_around(path) for path in outside)]
        return self._read(False, inventories, _Without(None, shown.private | shown.writable), trees)

    def _read(self, is_own: bool, inventories: tuple[str, ...], rule: Rule, trees: Iterable[str]) -> Names:
        stamps = {path: _stamp(path) for path in inventories}
        with _lock:
            asking = _locks[is_own, inventories]
        # One at a time: a user's runs that begin together ask for the same.
        with asking:
            unread = [path for path in inventories if not _is_known(is_own, path, stamps[path])]
            if unread:
                found, until = self._attempt(is_own, unread, rule, trees)
                with _lock:
                    if len(_known) + len(unread) > _MAX_KNOWN:
                        _known.clear()
                    for path in unread:
                        _known[is_own, path] = _Known(stamps[path], found.get(path), until)
            with _lock:
                known = {path: _known.get((is_own, path)) for path in inventories}
        return {path: one.names if one else None for path, one in known.items()}

    def _attempt(
        self, is_own: bool, inventories: list[str], rule: Rule, trees: Iterable[str]
    ) -> tuple[dict[str, frozenset[str] | None], float]:
        """Returns what the hidden run has read, and until when that is true of inventories that do not change."""
        try:
            return self._run(is_own, inventories, rule, trees), math.inf
        except (OSError, ValueError, subprocess.SubprocessError, RunnerError) as error:
            log.warning("hosts and groups of %d inventories could not be read: %s", len(inventories), error)
            return {}, time.monotonic() + _RETRY_SECONDS

    def _run(
        self, is_own: bool, inventories: list[str], rule: Rule, trees: Iterable[str]
    ) -> dict[str, frozenset[str] | None]:
        program = shutil.which("bwrap")
        if program is None:
            raise OSError("bwrap is not installed")
        mounts = Mounts(rule, self.data_dir)
        mounts.add_system()
        for path in trees:
            mounts.add_tree(path)
        if os.path.isdir(source := os.path.realpath(os.path.expanduser("~/.ansible/collections"))):
            mounts.add_tree(source, _COLLECTIONS)
        mounts.mount_trees()
        command = [
            *(program, *isolation.NAMESPACES, "--unshare-net", "--die-with-parent", *mounts.arguments),
            *("--perms", "0700", "--tmpfs", _HOME, "--remount-ro", "/", "--chdir", "/"),
            *("--", sys.executable, "-P", "-s", "-m", _MODULE),
        ]
        environment = {"HOME": _HOME, "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
        environment["ANSIBLE_COLLECTIONS_PATH"] = _COLLECTIONS
        held = snapshots.hold(mounts.snapshot)
        try:
            text = _output_of(command, environment, json.dumps({"inventories": inventories}))
        finally:
            if held is not None:
                os.close(held)
        return _parse(text, inventories, is_own=is_own)


@dataclass(frozen=True)
class _Without:
    """A rule that hides what another one hides, and some more paths."""

    rule: ShownPaths | None
    hidden: frozenset[str]

    def is_hidden(self, path: str) -> bool:
        return is_in(path, self.hidden) or (self.rule is not None and self.rule.is_hidden(path))

    def is_partly_hidden(self, folder: str) -> bool:
        is_above = any(is_below(path, folder) for path in self.hidden)
        return is_above or (self.rule is not None and self.rule.is_partly_hidden(folder))


def _around(inventory: str) -> str:
    """Returns what to show of an inventory: a program may read what lies beside it."""
    is_program = os.path.isfile(inventory) and os.access(inventory, os.X_OK)
    return os.path.dirname(inventory) if is_program else inventory


def _output_of(command: list[str], environment: dict[str, str], text: str) -> bytes:
    """Like `_read_output`, without the service's session keyring. All in one thread: bwrap ends with its parent's."""
    return call_in_new_session_keyring(lambda: _read_output(command, environment, text))


def _read_output(command: list[str], environment: dict[str, str], text: str) -> bytes:
    """Returns what the program writes, as far as it comes in time. Raises ValueError when it is too much."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/"
    ) as process:
        # Ends the sandbox with all in it, and with that the reading.
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(text.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass
            found = process.stdout.read(_MAX_BYTES + 1)
        finally:
            timer.cancel()
            process.kill()
    if len(found) > _MAX_BYTES:
        raise ValueError("they are too many")
    return found


def _parse(text: bytes, inventories: list[str], *, is_own: bool) -> dict[str, frozenset[str] | None]:
    """Returns the names of each inventory; None where some could not be read, unless it is the user's.

    Raises ValueError for anything else.
    """
    answer = json.loads(text)
    found: dict[str, frozenset[str] | None] = {}
    for path in inventories:
        entry = answer[path] if isinstance(answer, dict) and path in answer else None
        names = entry.get("names") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(names, list):
            raise ValueError("the answer is none")
        found[path] = frozenset(map(str, names)) if is_own or entry.get("complete") is True else None
    return found


def _is_known(is_own: bool, inventory: str, stamp: str) -> bool:
    with _lock:
        known = _known.get((is_own, inventory))
    return known is not None and known.is_of(stamp)


def _stamp(inventory: str) -> str:
    """Returns a digest of the versions of an inventory's files; of a file also of those beside it, for programs."""
    folder = inventory if os.path.isdir(inventory) else os.path.dirname(inventory)
    digest = sha256(_version(inventory))
    for path in islice(_files(folder, deep=folder == inventory), _MAX_STAMPED):
        digest.update(_version(path))
    return digest.hexdigest()


def _files(folder: str, *, deep: bool) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        yield entry.path
        if deep and entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, deep=True)


def _version(path: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        return repr(path).encode()
    found = (path, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode)
    return repr(found).encode()
