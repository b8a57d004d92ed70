"""Which Ansible configuration a run has: decides which fork server may run it.

Ansible reads ansible.cfg when it is imported, so one warm process has one configuration. The order of places is
Ansible's own (ansible.config.manager.find_ini_config_file); Ansible itself is never imported in the worker.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

_PLAIN_DIRECTORY = "/"
_USER_CONFIG = "~/.ansible.cfg"
_SYSTEM_CONFIG = "/etc/ansible/ansible.cfg"
_CWD_MACRO = b"{{CWD}}"


@dataclass(frozen=True)
class Configuration:
    """What a fork server was, or must be, started with.

    directory: where to start it; config_file: the ansible.cfg it will find there, if any;
    stamp: that file's version, so that an edit makes another configuration.
    """

    directory: str
    config_file: str | None
    stamp: tuple[int, ...]


def configuration_of(directory: str, environ: Mapping[str, str] = os.environ) -> Configuration:
    """The configuration of a run in `directory`; runs with equal ones can share a fork server."""
    config_file = _find(directory, environ)
    stamp = _stamp(config_file)
    if _depends_on_directory(directory, config_file, environ):
        return Configuration(directory, config_file, stamp)
    return Configuration(_PLAIN_DIRECTORY, config_file, stamp)


def _find(directory: str, environ: Mapping[str, str]) -> str | None:
    candidates = []
    if "ANSIBLE_CONFIG" in environ:
        path = os.path.join(directory, os.path.expanduser(os.path.expandvars(environ["ANSIBLE_CONFIG"])))
        candidates.append(os.path.join(path, "ansible.cfg") if os.path.isdir(path) else path)
    if not _world_writable(directory):
        candidates.append(os.path.join(directory, "ansible.cfg"))
    candidates += [os.path.expanduser(_USER_CONFIG), _SYSTEM_CONFIG]
    return next((path for path in candidates if os.access(path, os.R_OK)), None)


def _depends_on_directory(directory: str, config_file: str | None, environ: Mapping[str, str]) -> bool:
    """Whether Ansible would configure itself otherwise elsewhere."""
    own = os.path.join(directory, "ansible.cfg")
    if os.path.exists(own):  # it is used, or Ansible warns that a world-writable directory's is not
        return True
    if any(name.startswith("ANSIBLE_") and name != "ANSIBLE_CONFIG" for name in environ):
        return True  # a relative path in such a variable counts from the working directory
    if not os.path.isabs(environ.get("ANSIBLE_CONFIG", "/")):
        return True
    return config_file is not None and _mentions_cwd(config_file)


def _mentions_cwd(config_file: str) -> bool:
    try:
        with open(config_file, "rb") as file:
            return _CWD_MACRO in file.read()
    except OSError:
        return True


def _world_writable(directory: str) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError:
        return True


def _stamp(path: str | None) -> tuple[int, ...]:
    if path is None:
        return ()
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
