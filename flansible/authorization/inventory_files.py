"""Decides by content which files and folders are inventories; executes nothing, and no pattern of names decides alone.

Called by flansible.authorization.shown_paths, in web processes and workers, for what lies beside a user's inventories.
In doubt something is an inventory: it is then hidden, and the run says so.

| a file is an inventory when                                                                                      |
|------------------------------------------------------------------------------------------------------------------|
| each of its lines is one of Ansible's INI form, with a section, or a variable `ansible_...`; where Ansible would   |
| reject some lines, it is in doubt if most have that form, and one is `[...:vars]` or has a variable `ansible_...` |
| each of its lines is a plain name of a host (*names*), unless its ending is one that Ansible ignores             |
| it is YAML, JSON or TOML that maps groups to `hosts`, `children` or `vars`, or names an inventory `plugin`; or    |
| what an inventory program prints, with `_meta`                                                                   |
| it is a program that mentions two of `--list`, `--host`, `_meta`, `hostvars` and "hosts"; with one it is in doubt |
| it is a compiled program that has the text `hostvars`; with `--list` and `--host` it is in doubt                  |
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import shlex
import stat
import tomllib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any, Literal

import yaml

from flansible.playbooks import yaml_outline

Kind = Literal["inventory", "names", "playbook", ""]

VARIABLES = ("group_vars", "host_vars")
# Folders and files in which version control keeps all versions of what lies beside them.
HISTORIES = (
    ".git",
    ".hg",
    ".svn",
    ".bzr",
    ".jj",
    ".sl",
    ".pijul",
    "_darcs",
    "CVS",
    "RCS",
    "SCCS",
    "_FOSSIL_",
    ".fslckout",
)
_MAX_BYTES = 1024 * 1024
_LONG_LINE = 16 * 1024
_MAX_ENTRIES = 10_000
_MAX_DEPTH = 4
# Folders of a project whose files are no inventories, whatever they look like.
_OF_PROJECTS = frozenset(
    (*VARIABLES, "roles", "files", "templates", "tasks", "handlers", "vars", "defaults", "meta", "library")
    + ("module_utils", "collections", "ansible_collections", "docs", "molecule", "node_modules", "__pycache__")
)
_OF_PLUGINS = "_plugins"
# What Ansible passes over in a folder of inventories; and endings that copies of a file have.
_IGNORED = (".md", ".txt", ".rst", ".cfg", ".retry", ".pyc", ".pyo", ".rpm", ".j2", ".log", ".pem", ".crt", ".key")
_COPIES = ("~", ".bak", ".orig", ".swp", ".old", ".save", ".tmp")
_USUAL_NAMES = re.compile(r"(?:.*[._-])?(?:hosts?|inventory|inventories)(?:[._-].*)?|.*\.ini", re.IGNORECASE)
_VERSION = re.compile(r"v?\d+(?:\.\d+){0,2}(?:[-+.]?[a-z]\w*(?:\.\d+)*)?", re.IGNORECASE)
_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_HOST = re.compile(r"(?=.*\w)[\w\[:][\w.:%\[\]@-]*(?<!:)")
_VARIABLE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)
_PARTS = re.compile(r"[^A-Za-z0-9]+")
_SHORTEST_PART = 3
_HIDDEN_NAME = re.compile(r"\.(?!git|hg|svn|ansible|ssh)")
_GROUP_KEYS = frozenset({"hosts", "children", "vars"})
_LARGE_YAML = re.compile(r"^[^\S\n]+(?:hosts|children):\s*$", re.MULTILINE)
_PROGRAM = re.compile(r"--(?:list|host)(?![\w-])|\b_meta\b|\bhostvars\b|[\"']hosts[\"']")
_COMPILED = b"\x7fELF"
_MOST_COMPILED = 64 * 1024 * 1024
_COMPILED_OPTIONS = (re.compile(rb"--list(?![\w-])"), re.compile(rb"--host(?![\w-])"))
_MOST_REJECTED = 20
_MOST_STATIC = 200
# The configuration of an inventory plugin, and encrypted files: only Ansible can list their hosts.
COMPUTED = re.compile(rb"\bplugin[\"']?\s*:|^\$ANSIBLE_VAULT", re.MULTILINE)
# What editors begin a file with.
_BYTE_ORDER = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_PLAY = re.compile(r"^(?:- +|  +)[\"']?(?:hosts|(?:ansible\.builtin\.)?import_playbook)[\"']?\s*:", re.MULTILINE)
_LIST = re.compile(r"(?:[^\S\n]*(?:#.*|---.*)?\n)*+-\s")


def kind_of(path: str) -> Kind:
    """Returns what a file is, cached until it changes. `names`: words that may be hosts, or a program with one sign."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    is_program = bool(found.st_mode & 0o111)
    return _kind_of(path, is_program, (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=50_000)
def _kind_of(path: str, is_program: bool, stamp: tuple[int, ...]) -> Kind:
    try:
        # A run that may write beside it could put a pipe in its place by now.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = file.read(_MAX_BYTES)
            if is_program and found.startswith(_COMPILED):
                return _compiled_kind(file.fileno())
    except (OSError, ValueError):
        return ""
    # Ansible reads comments, and programs, in any encoding.
    text = found.decode(next((name for mark, name in _BYTE_ORDER if found.startswith(mark)), "utf-8"), "replace")
    if "\0" in text or text.startswith("$ANSIBLE_VAULT"):
        return ""  # encrypted: what it holds is safe without being hidden
    is_whole = stamp[2] <= _MAX_BYTES
    if _LIST.match(text) and _PLAY.search(text):
        return "playbook"
    if _is_mapping_of_groups(path, text, is_whole):
        return "inventory"
    if kind := _ini_kind(text if is_whole else text.rpartition("\n")[0]):
        return kind
    signs = {match.strip("'\"") for match in _PROGRAM.findall(text)} if is_program or text.startswith("#!") else set()
    return "inventory" if len(signs) > 1 else "names" if signs else ""


def _compiled_kind(descriptor: int) -> Kind:
    size = min(os.fstat(descriptor).st_size, _MOST_COMPILED)
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as data:
        if data.find(b"hostvars") >= 0:
            return "inventory"
        return "names" if all(option.search(data) for option in _COMPILED_OPTIONS) else ""


def _is_mapping_of_groups(path: str, text: str, is_whole: bool) -> bool:
    if path.endswith(".toml"):
        try:
            return _are_groups(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError):
            return False
    if not any(word in text for word in ("hosts", "children", "vars", "plugin")):
        return False
    if not is_whole:
        return _LARGE_YAML.search(text) is not None
    try:
        top = yaml_outline.entries(yaml_outline.compose(text))
    except (ValueError, RecursionError):
        return False
    if isinstance(top.get("plugin"), yaml.ScalarNode) or "hostvars" in yaml_outline.entries(top.get("_meta")):
        return True
    return _are_groups({name: _outline(node) for name, node in top.items()})


def _outline(node: yaml.Node) -> Any:
    """Returns a mapping with the kinds of its values; for other nodes nothing."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return {name: _plain(inner) for name, inner in yaml_outline.entries(node).items()}


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {}
    return [] if isinstance(node, yaml.SequenceNode) else "" if not yaml_outline.is_null(node) else None


def _are_groups(top: dict[str, Any]) -> bool:
    """Whether one of the values is a group, as Ansible reads one: `hosts` and `children` are mappings, or empty."""
    for value in top.values():
        if not isinstance(value, dict):
            continue
        keys = value.keys() & _GROUP_KEYS
        if not keys or any(isinstance(value[key], list) for key in keys):
            continue
        if keys == value.keys() or any(isinstance(value.get(key), dict) for key in ("hosts", "children")):
            return True
    return False


def _ini_kind(text: str) -> Kind:
    section, has_sections, is_ansibles = "hosts", False, False
    hosts: list[str] = []
    lines = rejected = 0
    for line in (line.strip() for line in text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and (heading := _SECTION.fullmatch(line)):
            section, has_sections = heading[2] or "hosts", True
            if section not in _GROUP_KEYS:
                return ""
            is_ansibles |= heading[2] is not None
            continue
        lines += 1
        if section == "vars":
            rejected += "=" not in line
        elif found := _host_line(line):
            hosts.append(found[0])
            is_ansibles |= any(word.startswith("ansible_") for word in found[1:])
        else:
            rejected += 1
        if rejected > _MOST_REJECTED:
            return ""
    if rejected:
        return "names" if is_ansibles and rejected * 2 < lines else ""
    if is_ansibles or (has_sections and hosts):
        return "inventory"
    return "names" if not has_sections and hosts and not all(map(_VERSION.fullmatch, hosts)) else ""


def _host_line(line: str) -> list[str]:
    """Returns a host and its variables; nothing for a line that is none."""
    host, *variables = _words(line)
    is_one = _HOST.fullmatch(host) and all(map(_VARIABLE.fullmatch, variables))
    return [host, *variables] if is_one else []


def _words(line: str) -> list[str]:
    if len(line) > _LONG_LINE:  # shlex takes time by the square of a word's length
        host, *others = line.split()
        return [host, *filter(_VARIABLE.fullmatch, others)]
    try:
        return shlex.split(line, comments=True) or [""]
    except ValueError:
        return [""]


def is_inventory(path: str, *, is_beside: bool) -> bool:
    """Whether a file is an inventory. is_beside: mere names count too, unless the file's name says what it is."""
    found = kind_of(path)
    if found != "names":
        return found == "inventory" and (is_beside or not os.path.basename(path).startswith("."))
    name = _without_copies(os.path.basename(path))
    if name.startswith(".") or name.endswith(_IGNORED):
        return False
    return is_beside or _USUAL_NAMES.fullmatch(name) is not None


def _without_copies(name: str) -> str:
    while (ending := next((end for end in _COPIES if name.endswith(end)), "")) and name != ending:
        name = name.removesuffix(ending)
    return name


def stem(path: str) -> str:
    """Returns a file's name without endings: prod.py, prod.ini and prod.py.bak have the same."""
    name = os.path.basename(path)
    return name[:1] + _without_copies(name)[1:].partition(".")[0]


def is_named_like(name: str, stems: Collection[str]) -> bool:
    """Whether the name of a file or folder has one of these stems as a part: prod.ini, vault-prod, prod_keys."""
    if is_of_project(name) and not _HIDDEN_NAME.match(name):
        return False
    return stem(name) in stems or any(part in stems for part in _PARTS.split(name) if len(part) >= _SHORTEST_PART)


def is_project(folder: str) -> bool:
    """Whether a folder has playbooks, roles or an ansible.cfg, so that more than inventories lies there."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return "ansible.cfg" in names or "roles" in names or has_playbooks(folder)


def has_playbooks(folder: str) -> bool:
    """Whether playbooks lie in a folder: Ansible loads group_vars and host_vars beside them, for any inventory."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return False
    books = (name for name in names if name.endswith((".yml", ".yaml")))
    return any(kind_of(os.path.join(folder, name)) == "playbook" for name in books)


def is_bare_repository(folder: str) -> bool:
    """Whether a folder is where git keeps a history, whatever its name is."""
    return os.path.isfile(os.path.join(folder, "HEAD")) and os.path.isdir(os.path.join(folder, "objects"))


def repositories_of(folder: str) -> Iterator[str]:
    """Yields where git keeps the history of a folder, links resolved, if `.git` in it only says so."""
    named = os.path.join(folder, ".git")
    place = os.path.realpath(named)
    if os.path.isfile(place):  # of a worktree or a submodule
        place = os.path.realpath(os.path.join(folder, _first_line(place).removeprefix("gitdir:").strip() or "."))
    for found in {place, os.path.realpath(os.path.join(place, _first_line(os.path.join(place, "commondir")) or "."))}:
        if found != named and is_bare_repository(found):
            yield found


def _first_line(path: str) -> str:
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(_MAX_BYTES).strip("\r\n")
    except (OSError, ValueError):
        return ""


def is_static(inventory: str) -> bool:
    """Whether nothing is executed to read an inventory: it has no programs, and names no plugin."""
    inside = (os.path.join(top, name) for top, _, names in os.walk(inventory) for name in names)
    files = [inventory] if os.path.isfile(inventory) else list(itertools.islice(inside, _MOST_STATIC + 1))
    return len(files) <= _MOST_STATIC and not any(map(_is_computed, files))


def _is_computed(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES)
        return os.access(path, os.X_OK) or text.startswith(b"#!") or COMPUTED.search(text) is not None
    except OSError:
        return True


def named_by_script(inventory: str) -> list[str]:
    """Returns the files beside an inventory that is a program whose names its text has: what it reads."""
    try:
        if not os.stat(inventory).st_mode & 0o111 or not os.path.isfile(inventory):
            return []
        with open(inventory, errors="replace") as file:
            text = file.read(_MAX_BYTES)
        with os.scandir(os.path.dirname(inventory)) as entries:
            files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    names = set(re.findall(r"[\w@+~-][\w.@+~-]*", text))
    return sorted(path for path in files if os.path.basename(path) in names and path != inventory)


class Search:
    """Searches folders for inventories, each shallow folder before deeper ones.

    is_own: whether a path is the user's: it is passed over. leads_to_own: whether something below it is: such a folder
    is never one inventory. undecided: folders that came after the limit; they count as inventories.
    """

    def __init__(self, is_own: Callable[[str], bool], leads_to_own: Callable[[str], bool]) -> None:
        self._is_own = is_own
        self._leads_to_own = leads_to_own
        self._left = _MAX_ENTRIES
        self.undecided: list[str] = []

    def beside(self, folder: str, *, names_count: bool, only_files: bool = False) -> Iterator[str]:
        """Yields the inventories in a folder, which may be the folder of a user's inventory: files, and whole folders.

        names_count: the user's inventory is a folder, so a folder beside it with a mere list of names is one too.
        """
        waiting = deque([(folder, 0)])
        while waiting:
            path, depth = waiting.popleft()
            entries = [entry for entry in self._entries(path) if not self._is_own(entry.path)]
            files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
            yield from (path for path in files if is_inventory(path, is_beside=depth == 0))
            if only_files or depth >= _MAX_DEPTH:
                continue
            for inner in (entry.path for entry in entries if entry.is_dir(follow_symlinks=False)):
                if is_of_project(os.path.basename(inner)):
                    continue
                if self._leads_to_own(inner):
                    waiting.append((inner, depth + 1))
                elif self._left <= 0:
                    self.undecided.append(inner)
                    yield inner
                elif self._is_one(inner, names_count and depth == 0):
                    yield inner
                else:
                    waiting.append((inner, depth + 1))

    def _is_one(self, folder: str, names_count: bool) -> bool:
        files = [entry.path for entry in self._entries(folder) if entry.is_file(follow_symlinks=False)]
        return any(is_inventory(path, is_beside=names_count) for path in files) and not is_project(folder)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return []
        self._left -= len(found)
        return found


def is_of_project(name: str) -> bool:
    """Whether a folder of this name has a project's own files, and no inventories."""
    return name in _OF_PROJECTS or name.endswith(_OF_PLUGINS) or name.startswith(".")
