"""Rules on ad-hoc modules: which one it is, whatever its spelling, whether the user may run it, and with what.

Modules are known by name only: web processes never load Ansible.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from flansible.authorization.rules.refusal import forbidden
from flansible.authorization.rules.strings import assignments_in, is_reserved
from flansible.identity.users import User
from flansible.models import AdhocRequest

# A word, or a collection's name and a module in it: `command.py` and `ping x=y` are names to Ansible too.
_NAME = re.compile(r"[a-z_]\w*(\.[a-z_]\w*\.[a-z_]\w*(\.[a-z_]\w*)*)?", re.ASCII | re.IGNORECASE)
_COMMAND_LINES = frozenset({"command", "raw", "script", "shell"})
_CORE = ("ansible.builtin.", "ansible.legacy.")

# They run play tasks out of files, whose strings Ansible templates: whoever may write a file could run anything.
_INCLUDES = frozenset({"include", "include_role", "include_tasks", "import_role", "import_tasks", "import_playbook"})
# They set variables or hosts of the run, cached ones beyond it.
_SETTERS = frozenset({"add_host", "set_fact"})
# They run the module that their argument `use` names.
_DELEGATES = frozenset({"package", "service"})

# Modules of ansible-core that work on the host alone: those whose action, if any, reads and writes no file here.
REMOTE = frozenset(
    """
    apt apt_key apt_repository assert async_status blockinfile command cron deb822_repository debconf debug dnf dnf5
    dpkg_selections expect fail file find gather_facts get_url getent git group hostname iptables known_hosts
    lineinfile mount_facts package package_facts ping pip raw reboot replace rpm_key service service_facts set_stats
    setup shell slurp stat subversion systemd systemd_service sysvinit tempfile user wait_for wait_for_connection
    yum_repository
    """.split()
)


def check(user: User, request: AdhocRequest) -> None:
    """Raises Forbidden when the module, or what it would run in its place, is not the user's."""
    name = _canonical(request.module)
    _check_granted(user, name)
    for key, value in _arguments(name, request):
        _check_argument(name, key)
        if name in _DELEGATES and key.strip() == "use" and value != "auto":
            _check_granted(user, _canonical(str(value)))


def is_remote(request: AdhocRequest) -> bool:
    """Whether it surely works on the hosts alone, and nothing on the control machine is read or written by it."""
    return _canonical(request.module) in REMOTE


def _canonical(given: str) -> str:
    """The one name of a module: in small letters, and those of ansible-core as a single word."""
    name = given.casefold()
    if not _NAME.fullmatch(name):
        raise forbidden("module", "module_forbidden", "must be a module's name, such as ping or community.general.ufw")
    prefix = next((prefix for prefix in _CORE if name.startswith(prefix)), "")
    if prefix and "." in name.removeprefix(prefix):
        raise forbidden("module", "module_forbidden", f"must be a single word after {prefix}")
    return name.removeprefix(prefix)


def _check_granted(user: User, name: str) -> None:
    if name in _INCLUDES:
        raise forbidden("module", "module_forbidden", f"{name} runs what is in a file: start that as a playbook")
    if user.modules_allowed is not None and not _matches(name, user.modules_allowed):
        yours = ", ".join(user.modules_allowed) or "none"
        raise forbidden("module", "module_forbidden", f"{name} is not one of your modules. Yours: {yours}")
    if _matches(name, user.modules_denied):
        raise forbidden("module", "module_forbidden", f"{name} is denied to you in rbac.json")
    if user.modules_denied and "." not in name and name not in _core_modules():
        # Ansible knows short names of collections' modules, which say nothing of the collection.
        raise forbidden(
            "module",
            "module_forbidden",
            f"{name} is not a module of ansible-core: write it as namespace.collection.name",
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    spellings = (name,) if "." in name else (name, *(prefix + name for prefix in _CORE))
    return any(fnmatchcase(spelling, pattern.casefold()) for spelling in spellings for pattern in patterns)


@lru_cache(maxsize=1)
def _core_modules() -> frozenset[str]:
    spec = find_spec("ansible")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = (name for folder in folders for name in os.listdir(os.path.join(folder, "modules")))
    return frozenset(name.removesuffix(".py") for name in files if name.endswith(".py"))


def _check_argument(name: str, key: str) -> None:
    # _uses_shell makes a command a shell; _variable_params and _ansible_* are Ansible's own as well.
    if key.strip().startswith("_") and key != "_raw_params":
        message = f"{key} is Ansible's own argument; leave it out, or give module_args as an object if it is none"
        raise forbidden(f"module_args.{key}", "argument_forbidden", message)
    if name in _SETTERS and is_reserved(key):
        message = f"{key} is one of the variables that decide where and how Ansible connects; for admin only"
        raise forbidden(f"module_args.{key}", "connection_variable_forbidden", message)


def _arguments(name: str, request: AdhocRequest) -> Iterable[tuple[str, Any]]:
    """The module's arguments by name, as Ansible finds them: in an object, in JSON, or as key=value."""
    given = request.arguments
    if isinstance(given, str) and given.startswith("{") and given.endswith("}"):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            pass
    if isinstance(given, dict):
        return given.items()
    # Of a command line Ansible takes only a few words of its own, none of which matters here.
    return assignments_in(given) if isinstance(given, str) and name not in _COMMAND_LINES else ()
