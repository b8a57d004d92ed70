"""Rules on ad-hoc modules: whether the user may run the module, under any spelling of its name, and its arguments.

Modules are checked by name only: web processes never load Ansible.
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

from flansible.authorization.rules.refusal import ASK, forbidden
from flansible.authorization.rules.strings import assignments_in, is_reserved
from flansible.identity.users import User
from flansible.models import AdhocRequest

# A word, or a collection's name and a module in it: `command.py` and `ping x=y` are names to Ansible too.
_NAME = re.compile(r"[a-z_]\w*(\.[a-z_]\w*\.[a-z_]\w*(\.[a-z_]\w*)*)?", re.ASCII | re.IGNORECASE)
_COMMAND_LINES = frozenset({"command", "raw", "script", "shell"})
_CORE = ("ansible.builtin.", "ansible.legacy.")

# They run play tasks from files, whose strings Ansible templates: a user who can write a file could run anything.
_INCLUDES = frozenset({"include", "include_role", "include_tasks", "import_role", "import_tasks", "import_playbook"})
# They set variables or hosts for the run; cached facts last longer.
_SETTERS = frozenset({"add_host", "set_fact"})
# What they evaluate as expressions: a run would fail, since it trusts no text of a restricted user.
_EXPRESSIONS = frozenset({("debug", "var"), ("assert", "that")})
# They run the module named in their argument `use`.
_DELEGATES = frozenset({"package", "service"})

# Modules of ansible-core that work on the host alone: their action plugin, if any, uses no file of this machine.
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
    """Raises Forbidden when the user may not run the module, or the one that it would run instead."""
    name = _canonical(request.module)
    _check_granted(user, name)
    for key, value in _arguments(name, request):
        _check_argument(name, key)
        if (name, key.strip()) in _EXPRESSIONS:
            message = f"Ansible evaluates {key} of {name}, and what you give is data. Only admin may use it here."
            instead = " Use msg, or a playbook." if name == "debug" else " Use a playbook."
            raise forbidden(f"module_args.{key.strip()}", "template_forbidden", message + instead)
        if name in _DELEGATES and key.strip() == "use" and value != "auto":
            _check_granted(user, _canonical(str(value)))


def is_remote(request: AdhocRequest) -> bool:
    """Whether the module certainly works on the hosts alone, without reading or writing on the control machine."""
    return _canonical(request.module) in REMOTE


def runs_a_file(request: AdhocRequest) -> bool:
    """Whether the module runs play tasks of a file, or may: a name of another form could be one of those."""
    name = request.module.casefold()
    return not _NAME.fullmatch(name) or name.rpartition(".")[2] in _INCLUDES


def _canonical(given: str) -> str:
    """Returns the canonical name of a module: lower case, and without the prefix for those of ansible-core."""
    name = given.casefold()
    if not _NAME.fullmatch(name):
        raise forbidden("module", "module_forbidden", "must be a module's name, such as ping or community.general.ufw")
    prefix = next((prefix for prefix in _CORE if name.startswith(prefix)), "")
    if prefix and "." in name.removeprefix(prefix):
        raise forbidden("module", "module_forbidden", f"must be a single word after {prefix}")
    return name.removeprefix(prefix)


def _check_granted(user: User, name: str) -> None:
    if name in _INCLUDES:
        raise forbidden(
            "module",
            "module_forbidden",
            f"You may not run {name} ad hoc: it runs a file. Start the file as a playbook.",
        )
    if user.modules_allowed is not None and not _matches(name, user.modules_allowed):
        yours = ", ".join(user.modules_allowed) or "none"
        raise forbidden("module", "module_forbidden", f"You may not run module {name}. Yours: {yours}. {ASK}")
    if _matches(name, user.modules_denied):
        raise forbidden("module", "module_forbidden", f"You may not run module {name}: rbac.json denies it to you.")
    if user.modules_denied and "." not in name and name not in _core_modules():
        # Ansible accepts short names of collections' modules, which do not show the collection.
        raise forbidden(
            "module",
            "module_forbidden",
            f"{name} is not a module of ansible-core. Write it as namespace.collection.name.",
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
    # _uses_shell turns `command` into a shell; _variable_params and _ansible_* are internal as well.
    if key.strip().startswith("_") and key != "_raw_params":
        message = (
            f"{key} is internal to Ansible. Leave it out. If it is part of a value, give module_args as an object."
        )
        raise forbidden(f"module_args.{key}", "argument_forbidden", message)
    if name in _SETTERS and is_reserved(key):
        message = f"{key} decides where and how Ansible connects. Only admin may set it."
        raise forbidden(f"module_args.{key}", "connection_variable_forbidden", message)


def _arguments(name: str, request: AdhocRequest) -> Iterable[tuple[str, Any]]:
    """Returns the module's arguments by name, as Ansible reads them: an object, JSON, or key=value."""
    given = request.arguments
    if isinstance(given, str) and given.startswith("{") and given.endswith("}"):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            pass
    if isinstance(given, dict):
        return given.items()
    # From a command line Ansible takes only a few key=value words, none of which matters here.
    return assignments_in(given) if isinstance(given, str) and name not in _COMMAND_LINES else ()
