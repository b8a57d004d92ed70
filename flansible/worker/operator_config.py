"""The operator's Ansible configuration for confined runs: its files and variables, without secrets and unseen files.

Called by flansible.worker.sandbox. On the command line the service's user has /etc/ansible/ansible.cfg, ~/.ansible.cfg,
the file that ANSIBLE_CONFIG names, and the variables ANSIBLE_*; so has a confined run. Left out, with a note that names
the setting, is what names files that the sandbox does not show, and what holds a secret. Ansible is not imported here,
so settings are judged by their names and values.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

HOME_FILE = "~/.ansible.cfg"
SYSTEM_FILE = "/etc/ansible/ansible.cfg"
_PREFIX = "ANSIBLE_"
_FILE_VARIABLE = "ANSIBLE_CONFIG"
_MAX_BYTES = 1024 * 1024
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:pass|passwd|password|passphrase|pwd?|psw|[a-z]*token|secrets?|credentials?|jwt|bearer|webhooks?"
    r"|(?:api|access|account|auth|conf|encryption|private|session|shared|signing)_?key)(?:_|$)"
)
_SECRET_VALUE = re.compile(
    r"\w://[^/\s@:]*+:[^/\s@]*@"  # a URL with a password
    r"|(?:password|passwd|token|secret)\s*[=:]\s*\S|\bsshpass\s+-p"
    r"|^[\w.-]+:\d+:\w+:\S",  # host, port, database and password of a fact cache
    re.IGNORECASE,
)
_SWITCH = re.compile(r"true|false|yes|no|on|off|0|1|none|null|prompt|ask|", re.IGNORECASE)
_NAMES_A_FILE = re.compile(r"_(?:file|identity_list|script|path_file)$|^(?:inventory|token_path)$|_token_path$")
_NAMES_PATHS = re.compile(
    r"_(?:files?|paths?|dir|plugins|list|connection|script|home)$|^(?:library|module_utils|inventory|home)$"
)
# Ansible writes there, and makes it if necessary; in a home that is the sandbox's.
_SCRATCH = re.compile(r"tmp|cache|caching|control_path|retry|^log_|save_path")
_REMOTE = frozenset(
    {"remote_tmp", "system_tmpdirs", "interpreter_python", "python_interpreter", "interpreter_python_fallback"}
)
_SPLIT = re.compile(r"[\s,:=@'\"]+")
_SHARED = ("~/.ansible/roles", "~/.ansible/collections")
# Without the connection the cache plugin ends each run.
_TOGETHER = {"fact_caching_connection": "fact_caching", "cache_plugin_connection": "cache_plugin"}

IsShown = Callable[[str], bool]


@dataclass(frozen=True)
class OperatorFile:
    """A configuration file of the operator. path: its own; text: what a run has there; notes: what the run lacks."""

    path: str
    text: str
    notes: tuple[str, ...]


def files(environ: Mapping[str, str], is_shown: IsShown, is_covered: IsShown) -> list[OperatorFile]:
    """Returns the operator's files that the sandbox does not show already, in Ansible's order.

    is_covered: whether a path lies in a tree of the sandbox, so that it cannot be added where it is hidden.
    """
    named = environ.get(_FILE_VARIABLE)
    found: list[OperatorFile] = []
    for given in filter(None, (named, HOME_FILE, SYSTEM_FILE)):
        path = os.path.abspath(os.path.expanduser(os.path.expandvars(given)))
        path = os.path.join(path, "ansible.cfg") if os.path.isdir(path) else path
        real = os.path.realpath(path)
        if not os.path.isfile(real) or is_shown(real) or any(one.path == path for one in found):
            continue
        if not is_covered(path):
            found.append(_read(path, is_shown))
    return found


def variables(environ: Mapping[str, str], is_shown: IsShown) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns the service's variables ANSIBLE_* that confined runs have, and notes on those that they lack."""
    found = {name: value for name, value in environ.items() if name.startswith(_PREFIX)}
    config = found.pop(_FILE_VARIABLE, None)
    options = {name: (name.removeprefix(_PREFIX).lower(), value) for name, value in found.items()}
    left_out = _left_out(options.items(), None, is_shown)
    kept = {name: value for name, value in found.items() if name not in left_out}
    if config is not None:
        kept[_FILE_VARIABLE] = os.path.abspath(os.path.expanduser(os.path.expandvars(config)))
    return kept, _notes("the service's environment", left_out)


def _read(path: str, is_shown: IsShown) -> OperatorFile:
    # As Ansible reads it.
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_string(file.read(_MAX_BYTES))
    except (OSError, ValueError, configparser.Error) as error:
        reason = " ".join(str(error).split())[:200] if isinstance(error, OSError) else type(error).__name__
        return OperatorFile(path, "", (f"{path} is not in force in this run, since it cannot be read: {reason}",))
    left_out: dict[str, str] = {}
    for section in (*parser.sections(), parser.default_section):
        # Not `items`: it has the defaults of all sections as well.
        options = parser.defaults() if section == parser.default_section else dict(parser._sections[section])  # type: ignore[attr-defined]
        named = {f"{section}.{key}": (_option_name(section, key), value) for key, value in options.items()}
        gone = _left_out(named.items(), os.path.dirname(path), is_shown)
        for name in gone:
            if section == parser.default_section:
                parser._defaults.pop(name.partition(".")[2])  # type: ignore[attr-defined]
            else:
                parser.remove_option(section, name.removeprefix(f"{section}."))
        left_out |= {name.removeprefix("defaults."): reason for name, reason in gone.items()}
    text = io.StringIO()
    parser.write(text)
    return OperatorFile(path, text.getvalue(), _notes(path, left_out))


def _option_name(section: str, key: str) -> str:
    return f"galaxy_{key}" if section.startswith("galaxy") else key


def _left_out(options: Iterable[tuple[str, tuple[str, str]]], folder: str | None, is_shown: IsShown) -> dict[str, str]:
    """Returns what is left out, by the given names, and why. folder: from which relative paths count, if known."""
    options = list(options)
    found: dict[str, str] = {}
    for given, (name, value) in options:
        if _is_secret(name, value):
            found[given] = "secret"
        elif name not in _REMOTE and any(_is_unseen(name, word, folder, is_shown) for word in _words(name, value)):
            found[given] = "unseen"
    gone = {_TOGETHER.get(name) for given, (name, _) in options if given in found}
    return found | {given: "together" for given, (name, _) in options if name in gone and given not in found}


def _is_secret(name: str, value: str) -> bool:
    if _SECRET_VALUE.search(value):
        return True
    return not (_NAMES_A_FILE.search(name) or _SWITCH.fullmatch(value.strip())) and bool(_SECRET_NAME.search(name))


def _words(name: str, value: str) -> list[str]:
    words = [word for word in _SPLIT.split(value) if word and "{{" not in word and "$" not in word]
    paths = [word for word in words if word.startswith(("/", "~"))]
    # Others are paths only where the setting says so, and of the options of programs none is.
    if _NAMES_PATHS.search(name):
        paths += [word for word in words if word not in paths and not word.startswith("-")]
    return paths


def _is_unseen(name: str, word: str, folder: str | None, is_shown: IsShown) -> bool:
    """Whether a path is one of this machine's that the sandbox does not show."""
    if word == "~" or word.startswith(_SHARED) or (word.startswith("~/") and _SCRATCH.search(name)):
        return False
    is_relative = not word.startswith(("/", "~"))
    if is_relative and (folder is None or word in ("prompt", "memory")):
        return False
    path = os.path.realpath(os.path.join(folder or "/", os.path.expanduser(word)))
    if is_shown(path):
        return False
    if _SCRATCH.search(name):
        return not path.startswith(("/tmp/", "/dev/")) and (os.path.isabs(word) or "/" in word)
    is_file_setting = _NAMES_A_FILE.search(name) is not None
    return os.path.exists(path) or (is_file_setting and not is_relative)


def _notes(source: str, left_out: Mapping[str, str]) -> tuple[str, ...]:
    reasons = {
        "unseen": "since what this names is not shown to this run: add it to sandbox_paths",
        "secret": "since this holds a secret",
        "together": "since it needs another setting that was left out",
    }
    # A run always has its inventories on its command line.
    named = {name: reason for name, reason in left_out.items() if name not in ("inventory", "ANSIBLE_INVENTORY")}
    return tuple(
        f"{', '.join(sorted(name for name in named if named[name] == reason))} of {source} left out, {text}"
        for reason, text in reasons.items()
        if reason in named.values()
    )
