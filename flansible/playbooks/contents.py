"""Reads a playbook's description, its plays and the variables it takes.

Pure; called by the web process, on files that users push. Only their outline is read: no YAML object is constructed and
no template is evaluated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from flansible.models import MAX_PATH_CHARACTERS, ListedPlay, ListedVariable
from flansible.playbooks import roles, yaml_outline
from flansible.playbooks.roles import UsedRole
from flansible.system import atomic_files

MAX_BYTES = 1024 * 1024
_IMPORTS = ("import_playbook", "ansible.builtin.import_playbook")
_PLAY_KEYS = ("hosts", *_IMPORTS)
_TYPES = {"str": "str", "int": "int", "integer": "int", "bool": "bool", "boolean": "bool", "list": "list"}
_TYPES |= {"dict": "dict", "path": "path", "raw": "raw", "float": "float"}
_SPECS = ("meta/argument_specs.yml", "meta/argument_specs.yaml", "meta/main.yml", "meta/main.yaml")
_VAULT = "$ANSIBLE_VAULT;"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_DESCRIPTION = 2000
_MOST_VARIABLES = 500
_MOST_PLAYS = 200  # a file of 1 MiB can have a quarter of a million, and the plays of thousands of files are kept
_MOST_IMPORTS = 100
_MOST_PROMPTING_FILES = 100
_MOST_PROMPTING_BYTES = 128 * 1024  # flow mappings take 2.5 s per MB to parse
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Playbook:
    """A playbook. node: the list of its plays; is_encrypted: the whole file is, so its plays are unknown."""

    description: str
    node: yaml.SequenceNode
    is_encrypted: bool = False

    @property
    def plays(self) -> list[ListedPlay]:
        """The first of its plays."""
        return [_play(yaml_outline.entries(node)) for node in self.node.value[:_MOST_PLAYS]]


def read(path: Path) -> Playbook | None:
    """Reads the playbook at `path`: a YAML list whose first item is a play, or a file that is encrypted as a whole.

    None if it is something else.
    """
    text = _text(path)
    return _parse(text) if text is not None else None


def _parse(text: str) -> Playbook | None:
    if text.startswith(_VAULT):
        return Playbook("", yaml.SequenceNode("", []), is_encrypted=True)
    try:
        node = yaml_outline.compose(text)
    except ValueError:
        return None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return None
    if not any(name in _PLAY_KEYS for name in yaml_outline.entries(node.value[0])):
        return None
    return Playbook(_leading_comment(text), node)


@dataclass(frozen=True)
class Summary:
    """A playbook in the list of playbooks."""

    description: str
    plays: tuple[ListedPlay, ...]
    is_encrypted: bool


def summary(path: Path) -> Summary | None:
    """Reads a playbook's summary, cached until the file changes: a list has hundreds of them."""
    try:
        return _summary(path, atomic_files.stamp(path))
    except OSError:
        return None


@lru_cache(maxsize=5000)
def _summary(path: Path, _stamp: tuple[int, ...] | None) -> Summary | None:
    found = read(path)
    return Summary(found.description, tuple(found.plays), found.is_encrypted) if found is not None else None


def variables(
    playbook: Playbook, path: Path, may_read: Callable[[Path], bool], directory: Path | None = None
) -> list[ListedVariable]:
    """Returns the plays' vars_prompt, their roles' argument_specs, and simple values that plays set.

    may_read: whether the file at a real path may be read; directory: the run's, whose ansible.cfg says where roles are.
    """
    found: list[ListedVariable] = []
    search = roles.search_path(directory or path.parent, may_read)
    for play, folder in _plays(playbook, path, may_read, {path}):
        name = _play(play).play
        found += _prompts(play)
        for role in dict.fromkeys(roles.of(play)):
            found += _role_variables(role, roles.folders(role.name, folder, search), name, may_read)
        found += _plain_vars(play, name)
    return [variable for variable in found if _NAME.fullmatch(variable.name)][:_MOST_VARIABLES]


def prompts(paths: Iterable[Path], may_read: Callable[[Path], bool]) -> list[ListedVariable]:
    """Returns the vars_prompt of playbooks and of those that they import, each file's once. may_read: as `variables`.

    None at all if these are too many or too large to be read while a request waits. Descriptions and defaults are
    left out.
    """
    found: list[ListedVariable] = []
    seen: set[Path] = set()
    size = 0
    waiting = list(paths)[::-1]
    while waiting:
        path = waiting.pop()
        real = Path(os.path.realpath(path))
        if real in seen or not may_read(real):
            continue
        seen.add(real)
        try:
            size += path.stat().st_size
            if size > _MOST_PROMPTING_BYTES or len(seen) > _MOST_PROMPTING_FILES:
                return []
            asked, imports = _asked(path, atomic_files.stamp(path))
        except OSError:
            continue
        found += asked
        waiting += [Path(os.path.realpath(path.parent / name)) for name in reversed(imports)]
    return found[:_MOST_VARIABLES]


@lru_cache(maxsize=500)
def _asked(path: Path, _stamp: tuple[int, ...] | None) -> tuple[tuple[ListedVariable, ...], tuple[str, ...]]:
    """Returns the prompts of a file's own plays, and the paths of what it imports; cached until the file changes."""
    text = _text(path)
    # Most playbooks prompt for nothing, and parsing takes longer than reading.
    if text is None or not any(word in text for word in ("vars_prompt", *_IMPORTS)):
        return (), ()
    playbook = _parse(text)
    plays = [yaml_outline.entries(node) for node in playbook.node.value] if playbook else []
    found = [prompt for play in plays if _imported(play) is None for prompt in _prompts(play)]
    named = (prompt for prompt in found if len(prompt.name) <= _LONGEST_NAME and _NAME.fullmatch(prompt.name))
    slim = [
        prompt.model_copy(update={"default": None, "description": "", "play": (prompt.play or "")[:_LONGEST_NAME]})
        for prompt in named
    ]
    imports = [name for play in plays if (name := _imported(play)) is not None and _is_path(name)]
    return tuple(slim[:_MOST_VARIABLES]), tuple(imports[: _MOST_PROMPTING_FILES + 1])


def _plays(
    playbook: Playbook, path: Path, may_read: Callable[[Path], bool], seen: set[Path]
) -> Iterator[tuple[dict[str, yaml.Node], Path]]:
    """Yields each play with its playbook's folder, also those of imported playbooks, which are read once each."""
    for node in playbook.node.value:
        play = yaml_outline.entries(node)
        imported = _imported(play)
        if imported is None:
            yield play, path.parent
            continue
        if not _is_path(imported) or len(seen) > _MOST_IMPORTS:
            continue
        target = Path(os.path.realpath(path.parent / imported))
        if target in seen or not may_read(target):
            continue
        seen.add(target)
        if (found := read(target)) is not None:
            yield from _plays(found, target, may_read, seen)


def _imported(play: dict[str, yaml.Node]) -> str | None:
    return next((yaml_outline.text(play[name]) for name in _IMPORTS if name in play), None)


def _is_path(text: str) -> bool:
    return len(text) <= MAX_PATH_CHARACTERS and "\0" not in text


def _text(path: Path) -> str | None:
    try:
        # Reading a pipe, or a file of the kernel, whose size is 0, could block this thread for ever.
        if not path.is_file() or not 0 < path.stat().st_size <= MAX_BYTES:
            return None
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return None


def _leading_comment(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("#"):
            if not word.startswith("#!"):
                lines.append(word.lstrip("#").strip())
        elif word == "---" or (not word and not any(lines)):
            continue
        else:
            break
    return "\n".join(lines).strip()[:_LONGEST_DESCRIPTION]


def _play(play: dict[str, yaml.Node]) -> ListedPlay:
    for name in _IMPORTS:
        if name in play:
            return ListedPlay(play=yaml_outline.text(play.get("name")) or yaml_outline.text(play[name]), hosts="")
    hosts = yaml_outline.text(play.get("hosts"))
    return ListedPlay(play=yaml_outline.text(play.get("name")) or hosts, hosts=hosts)


def _prompts(play: dict[str, yaml.Node]) -> list[ListedVariable]:
    name = _play(play).play
    return [_prompt(yaml_outline.entries(item), name) for item in yaml_outline.items(play.get("vars_prompt"))]


def _prompt(prompt: dict[str, yaml.Node], play: str) -> ListedVariable:
    given = prompt.get("default")
    default = yaml_outline.value(given)
    private = yaml_outline.value(prompt.get("private"))
    return ListedVariable(
        name=yaml_outline.text(prompt.get("name")),
        source="vars_prompt",
        play=play,
        type="str",
        required=given is None or yaml_outline.is_null(given),  # what !vault and !unsafe hold is a default too
        default=None if default is None else str(default),
        description=yaml_outline.text(prompt.get("prompt")).strip(),
        private=str(private).lower() not in ("false", "no", "off", "0"),
    )


def _role_variables(
    role: UsedRole, folders: Iterator[Path], play: str, may_read: Callable[[Path], bool]
) -> Iterator[ListedVariable]:
    for path in (Path(os.path.realpath(folder / name)) for folder in folders for name in _SPECS):
        if not may_read(path):
            continue
        try:
            top = yaml_outline.entries(yaml_outline.compose(_text(path) or ""))
        except ValueError:
            continue
        specs = yaml_outline.entries(top.get("argument_specs"))
        if specs:
            options = yaml_outline.entries(yaml_outline.entries(specs.get(role.entry)).get("options"))
            yield from (_option(word, yaml_outline.entries(node), role.name, play) for word, node in options.items())
            return


def _option(name: str, option: dict[str, yaml.Node], role: str, play: str) -> ListedVariable:
    kind = yaml_outline.text(option.get("type")) or "str"
    choices = yaml_outline.value(option.get("choices"))
    described = option.get("description")
    words = [yaml_outline.text(item) for item in yaml_outline.items(described)] or [yaml_outline.text(described)]
    return ListedVariable(
        name=name,
        source="argument_specs",
        play=play,
        role=role,
        type=_TYPES.get(kind, "raw"),  # type: ignore[arg-type]  # the table's words are the model's
        required=yaml_outline.value(option.get("required")) is True,
        default=yaml_outline.value(option.get("default")),
        choices=choices if isinstance(choices, list) else None,
        description=" ".join(words).strip(),
        private=yaml_outline.value(option.get("no_log")) is True,
    )


def _plain_vars(play: dict[str, yaml.Node], name: str) -> Iterator[ListedVariable]:
    for word, node in yaml_outline.entries(play.get("vars")).items():
        if not isinstance(node, yaml.ScalarNode) or "{{" in node.value or "{%" in node.value:
            continue
        value = yaml_outline.value(node)
        yield ListedVariable(
            name=word,
            source="vars",
            play=name,
            type=_type_of(value),  # type: ignore[arg-type]  # one of the model's words
            required=False,
            default=value,
            private=not yaml_outline.is_plain(node),
        )


def _type_of(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float"}.get(type(value), "str")
