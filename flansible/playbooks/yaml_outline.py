"""Reads YAML as nodes, without constructing objects. For YAML from requests, and from checkouts of users."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

# PyYAML composes nodes by recursion in C: deep nesting crashes the process instead of raising.
_MAX_DEPTH = 100
_STANDARD_TAGS = "tag:yaml.org,2002:"
_MAX_NODES = 1000


def compose(text: str) -> yaml.Node | None:
    """Parses the first document; None if there is none. Raises ValueError for invalid YAML or too deep nesting."""
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
    """Returns the values of an object by key; empty for other nodes."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def items(node: yaml.Node | None) -> list[yaml.Node]:
    """Returns the items of a list; empty for other nodes."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def text(node: yaml.Node | None) -> str:
    """Returns a string as written, a list of strings joined by commas, or nothing for other nodes."""
    if isinstance(node, yaml.SequenceNode):
        return ",".join(item.value for item in node.value if isinstance(item, yaml.ScalarNode))
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def is_plain(node: yaml.Node) -> bool:
    """Whether the node has a standard YAML type, unlike !vault."""
    return node.tag.startswith(_STANDARD_TAGS)


def is_null(node: yaml.Node) -> bool:
    """Whether the node is null, as written or empty."""
    return node.tag == f"{_STANDARD_TAGS}null"


def value(node: yaml.Node | None) -> Any:
    """Converts a node to JSON values; None for tags such as !vault, and beyond the maximum number of nodes."""
    return _value(node, [_MAX_NODES])


def _value(node: yaml.Node | None, left: list[int]) -> Any:
    # With aliases a few lines can be a billion values: each counts every time.
    left[0] -= 1
    if node is None or left[0] < 0 or not is_plain(node):
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, left) for item in node.value[:_MAX_NODES]]
    if isinstance(node, yaml.MappingNode):
        return {name: _value(item, left) for name, item in list(entries(node).items())[:_MAX_NODES]}
    return _scalar(node.tag.removeprefix(_STANDARD_TAGS), str(node.value))


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
