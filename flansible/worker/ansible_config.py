"""Finds the Ansible configuration of a run, which decides which fork server may run it.

Ansible reads ansible.cfg when it is imported, so one warm process has one configuration. Searches the same files in the
same order as Ansible (ansible.config.manager.find_ini_config_file), which is never imported in the worker.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flansible.authorization import notes
from flansible.models import Step
from flansible.worker.homes import has_ansible_cfg
from flansible.worker.operator_config import HOME_FILE, SYSTEM_FILE
from flansible.worker.sandbox import Sandbox

_NEUTRAL_DIRECTORY = "/"
_READ_ON_LOADING = re.compile(r"_?ANSIBLE_|NO_COLOR$|PAGER$|OPENSSL_|PYTHON|LC_|LANG|HOME$|TZ$")
_CWD_MACRO = b"{{CWD}}"
# Variables that hold paths: a test compares with all settings of the installed version of Ansible.
_PATHS_VARIABLE = re.compile(
    r"_?ANSIBLE_(\w+_)?(PATHS?|PLUGINS|FILES?|DIR|TEMP|TMP|HOME|INVENTORY|LIBRARY|MODULE_UTILS|SKELETON|KEYRING|LIST"
    r"|EXECUTABLE|SCRIPT|CONNECTION|TEST_ENTRY\d?)"
)


@dataclass(frozen=True)
class Configuration:
    """What a fork server is started with.

    directory: where it starts; config_file: the ansible.cfg it finds there, if any;
    stamp: that file's version, so that an edit makes another configuration;
    environment: variables beside the worker's own, or the sandbox's;
    sandbox: of its user, when that is a confined one.
    """

    directory: str
    config_file: str | None
    stamp: tuple[int, ...]
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    sandbox: Sandbox | None = None


def configuration_of(
    directory: str,
    environment: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
    sandbox: Sandbox | None = None,
) -> Configuration:
    """Returns the configuration of a run in `directory`; runs with equal ones can share a fork server.

    environment: the run's own variables. Those that Ansible or Python reads while it loads become part of the
    configuration; the others are set in the run.
    """
    own = {name: value for name, value in (environment or {}).items() if _READ_ON_LOADING.match(name)}
    effective = {**(dict(sandbox.environment) if sandbox else environ), **own}
    home_file = os.path.expanduser(HOME_FILE)
    config_file = _find(directory, effective, _elsewhere(sandbox, home_file))
    if sandbox and config_file == home_file:
        # The sandbox has it where the service has it, and another home.
        own["ANSIBLE_CONFIG"] = home_file
    start_in = directory if _depends_on_directory(directory, config_file, effective) else _NEUTRAL_DIRECTORY
    return Configuration(start_in, config_file, _stamp(config_file), tuple(sorted(own.items())), sandbox)


def notes_for(step: Step, sandbox: Sandbox | None) -> tuple[str, ...]:
    """Returns what a confined run lacks, in sentences for the user.

    The sandbox's notes on the run's own folders, and what is left out of the operator's configuration file, if that is
    in force there.
    """
    if sandbox is None:
        return ()
    config_file = configuration_of(step.cwd, step.environment, sandbox=sandbox).config_file
    own = notes.concerning(sandbox.notes, step, sandbox.playbook_root)
    return *own, *dict(sandbox.configurations).get(config_file or "", ())


def _elsewhere(sandbox: Sandbox | None, home_file: str) -> tuple[str, ...]:
    """Returns the files that Ansible reads where the directory and ANSIBLE_CONFIG have none.

    A sandbox has copies of the operator's, and a home in which the operator may have put one.
    """
    if sandbox is None:
        return HOME_FILE, SYSTEM_FILE
    known = [path for path, _ in sandbox.configurations]
    if has_ansible_cfg(Path(sandbox.home)):
        return ()
    return tuple(path for path in (home_file, SYSTEM_FILE) if path in known)


def _find(directory: str, environ: Mapping[str, str], elsewhere: tuple[str, ...]) -> str | None:
    candidates = []
    if "ANSIBLE_CONFIG" in environ:
        path = os.path.join(directory, _expand_home(os.path.expandvars(environ["ANSIBLE_CONFIG"]), environ))
        candidates.append(os.path.join(path, "ansible.cfg") if os.path.isdir(path) else path)
    if not _world_writable(directory):
        candidates.append(os.path.join(directory, "ansible.cfg"))
    candidates += [_expand_home(path, environ) for path in elsewhere]
    return next((path for path in candidates if os.access(path, os.R_OK)), None)


def _expand_home(path: str, environ: Mapping[str, str]) -> str:
    """Expands `~` with the run's own HOME."""
    if path.startswith("~/") and environ.get("HOME"):
        return environ["HOME"] + path[1:]
    return os.path.expanduser(path)


def _depends_on_directory(directory: str, config_file: str | None, environ: Mapping[str, str]) -> bool:
    """Whether Ansible started in another directory would have another configuration."""
    if os.path.exists(os.path.join(_NEUTRAL_DIRECTORY, "ansible.cfg")):
        return True  # the neutral directory has a configuration itself
    own = os.path.join(directory, "ansible.cfg")
    if os.path.exists(own):  # Ansible uses it, or warns that it ignores it in a world-writable directory
        return True
    if any(_PATHS_VARIABLE.fullmatch(name) and _may_be_relative(value) for name, value in environ.items()):
        return True  # relative to the working directory
    if not os.path.isabs(environ.get("ANSIBLE_CONFIG", "/")):
        return True
    return config_file is not None and _mentions_cwd(config_file)


def _may_be_relative(paths: str) -> bool:
    """Whether one of these paths may be relative; they are separated as in variables of Ansible's."""
    return any(not path.strip("'\" ").startswith(("/", "~")) for path in re.split("[:,]", paths) if path.strip())


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
