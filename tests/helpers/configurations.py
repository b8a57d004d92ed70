"""Ansible configurations: settings that a run lives with, whatever their values, and where a configuration has them."""

from __future__ import annotations

import importlib.util
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml

YES_OR_NO = ("true", "false", "yes", "0")
PATHS = ("./{n}", "some{n}", "sub/{n}:/srv/of{n}", "/srv/{n}", "~/.of{n}", "{{{{CWD}}}}/cwd{n}", "$HOME/of{n}")
COLOURS = ("red", "bright blue", "rgb135", "gray5", "color{n}")
# {n} is a number.
SETTINGS: dict[str, tuple[str, ...]] = {
    "ACTION_WARNINGS": YES_OR_NO,
    "ANSIBLE_COW_SELECTION": ("random", "small{n}"),
    "ANSIBLE_FORCE_COLOR": YES_OR_NO,
    "ANSIBLE_NOCOLOR": YES_OR_NO,
    "ANSIBLE_PIPELINING": YES_OR_NO,
    "ANY_ERRORS_FATAL": YES_OR_NO,
    "BECOME_ALLOW_SAME_USER": YES_OR_NO,
    "CALLBACKS_ENABLED": ("oneline", "tree", "nothing_of_{n}"),
    "COLLECTIONS_PATHS": PATHS,
    "COLLECTIONS_SCAN_SYS_PATH": YES_OR_NO,
    "COLOR_CHANGED": COLOURS,
    "COLOR_DEBUG": COLOURS,
    "COLOR_ERROR": COLOURS,
    "COLOR_OK": COLOURS,
    "COLOR_VERBOSE": COLOURS,
    "DEFAULT_ACTION_PLUGIN_PATH": PATHS,
    "DEFAULT_BECOME": ("false", "no"),
    "DEFAULT_BECOME_FLAGS": ("-H -S", "-x{n}"),
    "DEFAULT_BECOME_METHOD": ("su", "sudo"),
    "DEFAULT_CALLBACK_PLUGIN_PATH": PATHS,
    "DEFAULT_EXECUTABLE": ("/bin/sh", "/bin/bash"),
    "DEFAULT_FILTER_PLUGIN_PATH": PATHS,
    "DEFAULT_FORKS": ("3", "{n}"),
    "DEFAULT_FORCE_HANDLERS": YES_OR_NO,
    "DEFAULT_GATHERING": ("explicit", "smart", "implicit"),
    "DEFAULT_HASH_BEHAVIOUR": ("merge", "replace"),
    "DEFAULT_JINJA2_EXTENSIONS": ("jinja2.ext.do", "jinja2.ext.loopcontrols"),
    "DEFAULT_KEEP_REMOTE_FILES": YES_OR_NO,
    "DEFAULT_LOG_FILTER": ("a{n}", "a,b{n}"),
    "DEFAULT_LOG_PATH": ("./log{n}", "sub/log", "/not/there/{n}"),
    "DEFAULT_LOOKUP_PLUGIN_PATH": PATHS,
    "DEFAULT_MANAGED_STR": ("Mine {n}", "Ansible {{file}}"),
    "DEFAULT_MODULE_COMPRESSION": ("ZIP_STORED", "ZIP_DEFLATED"),
    "DEFAULT_MODULE_PATH": PATHS,
    "DEFAULT_POLL_INTERVAL": ("3", "{n}"),
    "DEFAULT_PRIVATE_KEY_FILE": PATHS[:2],
    "DEFAULT_REMOTE_USER": ("someone", "u{n}"),
    "DEFAULT_ROLES_PATH": PATHS,
    "DEFAULT_STDOUT_CALLBACK": ("default", "minimal", "oneline"),
    "DEFAULT_STRATEGY": ("linear", "free", "host_pinned"),
    "DEFAULT_TEST_PLUGIN_PATH": PATHS,
    "DEFAULT_TIMEOUT": ("7", "{n}"),
    "DEFAULT_UNDEFINED_VAR_BEHAVIOR": ("true",),
    "DEFAULT_VERBOSITY": ("0", "1"),
    "DEPRECATION_WARNINGS": YES_OR_NO,
    "DIFF_ALWAYS": YES_OR_NO,
    "DISPLAY_ARGS_TO_STDOUT": YES_OR_NO,
    "DISPLAY_SKIPPED_HOSTS": YES_OR_NO,
    "DUPLICATE_YAML_DICT_KEY": ("warn", "error", "ignore"),
    "ERROR_ON_MISSING_HANDLER": YES_OR_NO,
    "HOST_KEY_CHECKING": YES_OR_NO,
    "INJECT_FACTS_AS_VARS": YES_OR_NO,
    "INVENTORY_IGNORE_EXTS": (".a{n}", ".a,.b{n}"),
    "INVENTORY_IGNORE_PATTERNS": ("a{n}", "a,b{n}"),
    "LOCALHOST_WARNING": YES_OR_NO,
    "LOG_VERBOSITY": ("1", "4"),
    "MAX_FILE_SIZE_FOR_DIFF": ("100{n}",),
    "NETWORK_GROUP_MODULES": ("eos", "eos,ios"),
    "RETRY_FILES_ENABLED": YES_OR_NO,
    "SHOW_CUSTOM_STATS": YES_OR_NO,
    "STRING_CONVERSION_ACTION": ("warn", "ignore"),
    "SYSTEM_WARNINGS": YES_OR_NO,
    "TASK_TIMEOUT": ("3{n}",),
    "VARIABLE_PRECEDENCE": ("all_inventory, groups_inventory",),
}


@cache
def definitions() -> dict[str, Any]:
    spec = importlib.util.find_spec("ansible")
    assert spec is not None and spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "config" / "base.yml"
    return {
        name: found for name, found in yaml.load(path.read_text(), yaml.CSafeLoader).items() if not name.startswith("_")
    }


def value_of(name: str, chance: random.Random) -> str:
    return chance.choice(SETTINGS[name]).format(n=chance.randint(1, 99))


def in_file(name: str) -> tuple[str, str] | None:
    """Section and key of a setting in ansible.cfg."""
    entries = definitions()[name].get("ini")
    return (entries[0]["section"], entries[0]["key"]) if entries else None


def as_variable(name: str) -> str | None:
    entries = definitions()[name].get("env") or ()
    return next((entry["name"] for entry in entries if entry["name"].startswith("ANSIBLE_")), None)


def of_this_version() -> list[str]:
    return sorted(name for name in SETTINGS if name in definitions())
