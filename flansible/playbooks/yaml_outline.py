"""YAML read for its outline: nodes as they stand, nothing constructed. Called on what users send and pull."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

# PyYAML composes nodes by recursion in C: what is nested deep enough ends the process, not with an exception.
_MAX_DEPTH = 100
_OWN_TAGS = "tag:yaml.org,2002:"
_MOST_NODES = 1000


def compose(text: str) -> yaml.Node | None:
    """The first document; None when there is none. Raises ValueError for what is no YAML, or nested too deep."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f"is nested deeper than {_MAX_DEPTH} levels")
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    return node


def entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """What an object has, by key; nothing for what is no object."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def items(node: yaml.Node | None) -> list[yaml.Node]:
    """What a list has; nothing for what is no list."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def text(node: yaml.Node | None) -> str:
    """A string as it is written; of a list of them, all with commas between; else nothing."""
    if isinstance(node, yaml.SequenceNode):
        return ",".join(item.value for item in node.value if isinstance(item, yaml.ScalarNode))
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def is_plain(node: yaml.Node) -> bool:
    """Whether it is of YAML's own types alone, at its top: !vault and its like are not."""
    return node.tag.startswith(_OWN_TAGS)


def value(node: yaml.Node | None) -> Any:
    """What it stands for in JSON; None for what has a tag such as !vault, and for what is too much to show."""
    return _value(node, [_MOST_NODES])


def _value(node: yaml.Node | None, left: list[int]) -> Any:
    # Aliases can make a few lines a billion values: each counts as often as it is met.
    left[0] -= 1
    if node is None or left[0] < 0 or not is_plain(node):
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, left) for item in node.value[:_MOST_NODES]]
    if isinstance(node, yaml.MappingNode):
        return {name: _value(item, left) for name, item in list(entries(node).items())[:_MOST_NODES]}
    return _scalar(node.tag.removeprefix(_OWN_TAGS), str(node.value))


def _scalar(kind: str, written: str) -> Any:
    plain = written.replace("_", "")
    if kind == "null":
        return None
    if kind == "bool":
        return written.lower() in ("yes", "true", "on")
    try:
        if kind == "int":
            # YAML 1.1: a leading 0 is octal.
            return int(plain, 8) if re.fullmatch(r"[-+]?0[0-7]+", plain) else int(plain, 0)
        if kind == "float":
            number = float(plain)
            return number if math.isfinite(number) else written
    except ValueError:  # 12:30 is a number to YAML 1.1
        pass
    return written
