"""Which versions of ansible-core were tested. setup.py names the range; this reads it from what is installed.

Called by `up`, by the worker before it accepts its first run, and by the doctor. Ansible is not imported.
"""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flansible.errors import ConfigurationError, Fault

log = logging.getLogger(__name__)

ANSIBLE = "ansible-core"
OVERRIDE = "allow_untested_ansible"


@dataclass(frozen=True)
class AnsibleVersion:
    """The ansible-core of this Python, None when there is none, and what was tested, None when that is not known."""

    installed: str | None
    tested: Requirement | None

    @property
    def is_tested(self) -> bool:
        """Not known is not tested."""
        if self.installed is None or self.tested is None:
            return False
        return self.tested.specifier.contains(self.installed, prereleases=True)

    @property
    def install_command(self) -> str:
        return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(str(self.tested or ANSIBLE))}"


def ansible_version() -> AnsibleVersion:
    """What is installed, and the range in the metadata of the installed Flansible."""
    try:
        installed = metadata.version(ANSIBLE)
    except metadata.PackageNotFoundError:
        installed = None
    try:
        lines = metadata.requires("flansible") or []
    except metadata.PackageNotFoundError:
        lines = []
    tested = next((found for found in map(Requirement, lines) if canonicalize_name(found.name) == ANSIBLE), None)
    return AnsibleVersion(installed, tested)


def require_tested_ansible(allow_untested: bool) -> None:
    """Raises ConfigurationError when ansible-core is missing or not one of the tested versions.

    allow_untested: the setting of that name; makes it a warning in the log.
    """
    found = ansible_version()
    if found.is_tested:
        return
    if found.installed is None:
        message = f"is not installed for this Python; {found.install_command}"
    elif found.tested is None:
        message = f"{found.installed}; which versions were tested is not known, because Flansible is not installed"
    else:
        message = f"{found.installed} is not one of those tested ({found.tested.specifier}); {found.install_command}"
    if allow_untested:
        log.warning("%s %s", ANSIBLE, message)
        return
    message += f", or set {OVERRIDE} = true in config.ini to take the risk"
    raise ConfigurationError([Fault(ANSIBLE, "", message)])
