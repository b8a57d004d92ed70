"""The doctor's checks of the machine: interpreter, locale, account and programs."""

from __future__ import annotations

import locale
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

from flansible.config.ansible_version import ansible_version
from flansible.doctor.check import Check, Mark
from flansible.system import account

PROGRAM_SECONDS = 5.0
FEW_OPEN_FILES = 4096
MIN_PYTHON = (3, 11)


def python() -> list[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        return [Check(Mark.FAIL, "python", version, f"install Flansible under Python {wanted} or later")]
    return [Check(Mark.OK, "python", f"{version} ({sys.executable})")]


def utf8() -> list[Check]:
    """Checks for UTF-8 the way Ansible does, which refuses to start without it."""
    advice = "set LC_ALL=C.UTF-8 in the environment of the service"
    try:
        locale.setlocale(locale.LC_ALL, "")
        found = locale.getlocale()[1] or "none"
    except (locale.Error, ValueError) as error:
        return [Check(Mark.FAIL, "locale", f"cannot be used ({error})", advice)]
    for what, name in (("encoding", found), ("file system encoding", sys.getfilesystemencoding())):
        if name.lower() not in ("utf-8", "utf8"):
            return [Check(Mark.FAIL, "locale", f"{what} is {name}, and Ansible requires UTF-8", advice)]
    return [Check(Mark.OK, "locale", found)]


def not_root() -> list[Check]:
    if os.geteuid() == 0:
        # Debian gives a system user the home /nonexistent unless one is named.
        make_user = "adduser --system --group --home /srv/flansible flansible"
        advice = f"create a user for the service ({make_user}) and start it as that user"
        return [Check(Mark.WARN, "account", "root: Ansible tasks on this machine run as root", advice)]
    return [Check(Mark.OK, "account", f"user id {os.geteuid()}, not root")]


def home() -> list[Check]:
    """Checks whether Ansible can write its own files, and those of modules that run on this machine."""
    if fault := account.home_fault():
        return [Check(Mark.FAIL, "home", fault, account.home_advice())]
    if fault := account.account_fault():
        return [Check(Mark.WARN, "home", fault, account.home_advice())]
    return [Check(Mark.OK, "home", f"{account.name()} can write where Ansible keeps its files")]


def ansible() -> list[Check]:
    """Checks the version without importing Ansible; the range is the one in setup.py."""
    version = ansible_version()
    if version.installed is None:
        return [Check(Mark.FAIL, "ansible-core", "is not installed for this Python", version.install_command)]
    if version.tested is None:
        advice = f"{shlex.quote(sys.executable)} -m pip install flansible"
        found = f"{version.installed}; the tested versions are not known, because Flansible is not installed"
        return [Check(Mark.WARN, "ansible-core", found, advice)]
    if not version.is_tested:
        found = f"{version.installed} is not a tested version"
        return [Check(Mark.FAIL, "ansible-core", found, version.install_command)]
    return [Check(Mark.OK, "ansible-core", f"{version.installed} (tested: {version.tested.specifier})")]


def ssh() -> list[Check]:
    return [_program("ssh", "-V", Mark.FAIL, "Ansible reaches other machines with it", "openssh-client")]


def git() -> list[Check]:
    return [_program("git", "--version", Mark.WARN, "POST /api/git and update_git_repo need it", "git")]


def open_files() -> list[Check]:
    """Checks how many connections a web process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY or limit >= FEW_OPEN_FILES:
        return [Check(Mark.OK, "open files", "no limit" if limit == resource.RLIM_INFINITY else f"{limit}")]
    found = f"{limit} allow {limit // 2} connections and as many followers in each web process, or fewer"
    return [Check(Mark.WARN, "open files", found, "raise the limit: `ulimit -Hn`, or LimitNOFILE in systemd's unit")]


def _program(name: str, option: str, missing: Mark, purpose: str, package: str) -> Check:
    advice = f"install it, on Debian: apt-get install {package}"
    path = shutil.which(name)
    if path is None:
        return Check(missing, name, f"is not on the PATH, and {purpose}", advice)
    try:
        ended = subprocess.run(
            [path, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROGRAM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Check(missing, name, f"{path} {option} did not end within {PROGRAM_SECONDS:g} s", advice)
    said = ended.stdout.decode(errors="replace").strip().partition("\n")[0]
    if ended.returncode != 0:
        return Check(missing, name, f"{path} {option} failed: {said}", advice)
    return Check(Mark.OK, name, f"{said} ({path})")


AREAS: dict[str, Callable[[], list[Check]]] = {
    "python": python,
    "locale": utf8,
    "account": not_root,
    "home": home,
    "ansible-core": ansible,
    "ssh": ssh,
    "git": git,
    "open files": open_files,
}
