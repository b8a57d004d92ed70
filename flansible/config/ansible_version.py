"""The tested versions of ansible-core. setup.py names the range; this reads it from the installed metadata.

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
    """The version of ansible-core in this Python (None: not installed) and the tested range (None: unknown)."""

    installed: str | None
    tested: Requirement | None

    @property
    def is_tested(self) -> bool:
        """Whether this version was tested; unknown means no."""
        if self.installed is None or self.tested is None:
            return False
        return self.tested.specifier.contains(self.installed, prereleases=True)

    @property
    def install_command(self) -> str:
        return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(str(self.tested or ANSIBLE))}"


def ansible_version() -> AnsibleVersion:
    """Reads the installed version, and the range from the metadata of the installed Flansible."""
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
    """Raises ConfigurationError if ansible-core is missing or not a tested version.

    allow_untested: log a warning instead.
    """
    found = ansible_version()
    if found.is_tested:
        return
    if found.installed is None:
        message = f"is not installed for this Python; {found.install_command}"
    elif found.tested is None:
        message = f"{found.installed}; the tested versions are not known, because Flansible is not installed"
    else:
        message = f"{found.installed} is not a tested version ({found.tested.specifier}); {found.install_command}"
    if allow_untested:
        log.warning("%s %s", ANSIBLE, message)
        return
    message += f", or set {OVERRIDE} = true in config.ini to take the risk"
    raise ConfigurationError([Fault(ANSIBLE, "", message)])
