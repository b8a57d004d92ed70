"""YAML read for its outline: nodes as they stand, nothing constructed. Called on what users send and pull."""

from __future__ import annotations

import yaml

# PyYAML composes nodes by recursion in C: what is nested deep enough ends the process, not with an exception.
_MAX_DEPTH = 100


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
