"""Reads files of definitions for `flansible apply`, and remembers the line of each value for errors.

A file has one document for each definition, YAML or JSON, with the keys `kind`, `name` and `spec`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flansible.errors import OptionError

_SUFFIXES = (".yml", ".yaml", ".json")
_KEYS = ("kind", "name", "spec")
_PATH_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_MAX_BYTES = 16 * 1024 * 1024
_MAX_DEPTH = 64
_MAX_NODES = 500_000
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null")}
_NUMBER = re.compile(r"[-+0-9_.eE]+")  # neither .inf nor .nan, which JSON does not have


@dataclass(frozen=True)
class FileDefinition:
    """One definition of a file. node: its document as YAML's tree, with the line of each value."""

    file: str
    kind: str
    name: str
    spec: dict[str, Any]
    node: yaml.Node = field(repr=False)

    def place(self, path: str) -> str:
        """Returns `file:line` of a value. path: such as `spec.hosts[2].name`; of a missing one: where it belongs."""
        node = self.node
        for word, index in _PATH_PART.findall(path):
            found = _child(node, word, index)
            if found is None:
                break
            node = found
        return _place(self.file, node)


def read(paths: Sequence[str]) -> list[FileDefinition]:
    """Reads files, and those in folders, by name. Raises OptionError with every fault of all files."""
    found: list[FileDefinition] = []
    faults: list[str] = []
    for path in paths:
        for file in _files(Path(path)):
            _read_file(file, found, faults)
    seen: dict[tuple[str, str], FileDefinition] = {}
    for item in found:
        first = seen.setdefault((item.kind, item.name), item)
        if first is not item:
            faults.append(f"{item.place('name')}: {item.kind}/{item.name} is also in {first.place('name')}")
    if faults:
        raise OptionError("\n".join([*faults, "Nothing was applied"]))
    return found


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return

    def refuse(error: OSError) -> None:
        raise OptionError(f"{error.filename} cannot be read: {error.strerror}")

    found = [
        Path(folder, name)
        for folder, folders, names in os.walk(path, onerror=refuse)
        for name in names
        if name.endswith(_SUFFIXES) and not name.startswith(".")
    ]
    if not found:
        raise OptionError(f"{path} has no file that ends with {', '.join(_SUFFIXES)}")
    yield from sorted(found)


def _read_file(file: Path, found: list[FileDefinition], faults: list[str]) -> None:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise OptionError(f"{file} is larger than {_MAX_BYTES} bytes")
        nodes = list(yaml.compose_all(data.decode("utf-8-sig"), _Loader))
    except OSError as error:
        raise OptionError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        faults.append(f"{file}: is not UTF-8")
    except RecursionError:
        faults.append(f"{file}: is nested too deeply")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        faults.append(f"{where}: is not YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        faults.append(f"{file}: is not YAML: {error}")
    else:
        for node in nodes:
            if not (isinstance(node, yaml.ScalarNode) and not node.value):  # an empty document, as after a last `---`
                _read_document(str(file), node, found, faults)


def _read_document(file: str, node: yaml.Node, found: list[FileDefinition], faults: list[str]) -> None:
    problems = list(_faults(file, node, 0, iter(range(_MAX_NODES))))
    if problems:
        faults += problems
        return
    try:
        document = _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problem = getattr(error, "problem", None) or error
        mark = getattr(error, "problem_mark", None)
        faults.append(f"{file}:{mark.line + 1 if mark else node.start_mark.line + 1}: {problem}")
        return
    if not isinstance(document, dict):
        faults.append(f"{_place(file, node)}: must have the keys {', '.join(_KEYS)}")
        return
    for key in document:
        if key not in _KEYS:
            at = _key_node(node, str(key)) or node
            faults.append(f"{_place(file, at)}: unknown key {key}; a definition has {', '.join(_KEYS)}")
            problems.append("")
    document.setdefault("spec", {})
    for key, kind, what in (("kind", str, "text"), ("name", str, "text"), ("spec", dict, "a mapping")):
        if not isinstance(document.get(key), kind):
            at = _child(node, key, "") or node
            faults.append(f"{_place(file, at)}: {key} {f'must be {what}' if key in document else 'is missing'}")
            problems.append("")
    if not problems:
        found.append(FileDefinition(file, document["kind"], document["name"], document["spec"], node))


class _Loader(yaml.SafeLoader):
    """YAML 1.2 as JSON knows it: a date is text, and so are the keys and values `on`, `off`, `yes` and `no`."""


_LEFT_OUT = (f"{_TAG}timestamp", f"{_TAG}bool")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LEFT_OUT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _faults(file: str, node: yaml.Node, depth: int, budget: Iterator[int]) -> Iterator[str]:
    """Yields what YAML permits and a definition cannot have. budget: ends the walk, as a few aliases make billions."""
    if next(budget, None) is None:
        raise OptionError(f"{file} has more than {_MAX_NODES} values, those repeated by aliases included")
    if depth > _MAX_DEPTH:
        yield f"{_place(file, node)}: is nested deeper than {_MAX_DEPTH} levels"
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                yield f"{_place(file, key)}: a key must be text; put it in quotes"
            elif key.value in seen:
                yield f"{_place(file, key)}: {key.value} occurs twice"
            else:
                seen.add(key.value)
            yield from _faults(file, value, depth + 1, budget)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _faults(file, item, depth + 1, budget)
    elif node.tag not in _SCALARS or (node.tag == f"{_TAG}float" and not _NUMBER.fullmatch(node.value)):
        yield f"{_place(file, node)}: {node.value!r} is no text, number, true, false or null"


def _child(node: yaml.Node, word: str, index: str) -> yaml.Node | None:
    if index and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
        item: yaml.Node = node.value[int(index)]
        return item
    if word and isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == word), None)
    return None


def _key_node(node: yaml.Node, name: str) -> yaml.Node | None:
    return next((key for key, _ in node.value if key.value == name), None)


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"
