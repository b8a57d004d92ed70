"""The account of this process: its name, and whether Ansible can write below its home.

Two homes count. Ansible keeps its own files below $HOME, and no run succeeds without. The files of modules that run on
this machine go below the home that /etc/passwd names, which is also where ssh looks for keys, whatever $HOME says.
Called by the commands that start a worker, by the worker while it runs, and by the doctor.
"""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path

from flansible.errors import ConfigurationError, Fault

log = logging.getLogger(__name__)

# Ansible's folder for its own files: the first of these that is set, or the default.
_OWN_FILES = ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_HOME")
_MODULE_FILES = ("ANSIBLE_REMOTE_TEMP", "ANSIBLE_REMOTE_TMP")
_FOLDER = ".ansible"


def name() -> str:
    """Returns the name of this process's user, or its number if it has none."""
    entry = _entry()
    return entry.pw_name if entry else str(os.geteuid())


def home_fault() -> str:
    """Returns why Ansible cannot write its own files; empty when it can."""
    named = next((os.environ[variable] for variable in _OWN_FILES if os.environ.get(variable)), f"~/{_FOLDER}")
    expanded = os.path.expanduser(named)
    if expanded.startswith("~"):
        return f"{name()} has no home, and Ansible keeps its files there"
    return _fault(Path(os.path.abspath(expanded)), "Ansible keeps its files")


def account_fault() -> str:
    """Returns why modules cannot run on this machine and ssh finds no keys; empty when they can."""
    entry = _entry()
    if entry is None or any(os.environ.get(variable) for variable in _MODULE_FILES):
        return ""
    return _fault(Path(entry.pw_dir) / _FOLDER, "modules that run on this machine keep theirs")


def home_advice() -> str:
    """Returns how to get a home that can be written."""
    entry, user = _entry(), name()
    if entry and not account_fault():
        return f"start it with HOME={entry.pw_dir}, the home of {user}"
    new = f"/var/lib/{user}"
    return f"give the account a home, as root: install -d -o {user} -m 700 {new} && usermod --home {new} {user}"


def require_home() -> None:
    """Raises ConfigurationError when Ansible cannot write its own files."""
    if fault := home_fault():
        raise ConfigurationError([Fault("environment", "HOME", f"{fault}; {home_advice()}")])


def warn() -> None:
    """Logs a warning when modules cannot run on this machine."""
    if fault := account_fault():
        log.warning("%s; %s", fault, home_advice())


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _fault(folder: Path, purpose: str) -> str:
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    cannot_write = f"{name()} cannot write in {folder}, where {purpose}"
    if not (os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK, effective_ids=True)):
        return cannot_write
    try:
        space = os.statvfs(there)
    except OSError as error:
        return f"{cannot_write}: {error.strerror}"
    free = space.f_bavail if os.geteuid() else space.f_bfree
    return f"the disk is full that holds {folder}, where {purpose}" if space.f_blocks and not free else ""
