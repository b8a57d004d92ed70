"""What a process with Ansible loaded holds, attribute by attribute. Used in two processes that are compared."""

from __future__ import annotations

import enum
import logging
import os
import re
import sys
import types
from collections import deque
from typing import Any

_OURS = ("ansible", "flansible")
_LOOKED_INTO = {*_OURS, "argparse", "configparser", "functools", "jinja2", "logging"}
_PLAIN = (str, bytes, int, float, complex, type(None), enum.Enum)
_DEEPEST = 12
_LONGEST = 300


def snapshot() -> dict[str, str]:
    """Returns the path of every attribute of every module of Ansible's and ours, with a text of its value.

    An object that was met before is named by the path of its first meeting: what is shared must be shared in both.
    """
    walk = _Walk()
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in _OURS:
            for variable, value in list(vars(module).items()):
                if not variable.startswith("__"):
                    walk.visit(f"{name}:{variable}", value)
    walk.visit("logging", logging.root)
    walk.found |= {f"environ {name}": value for name, value in os.environ.items()}
    walk.found |= {"cwd": os.getcwd(), "sys.path": repr(sys.path)}
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._paths: dict[int, str] = {}

    def visit(self, path: str, value: Any, depth: int = 0) -> None:
        if isinstance(value, _PLAIN):
            self.found[path] = _text(value)
        elif id(value) in self._paths and not isinstance(value, tuple):
            self.found[path] = f"is {self._paths[id(value)]}"
        elif depth < _DEEPEST and not isinstance(value, types.ModuleType):
            self._paths[id(value)] = path
            self._look_into(path, value, depth + 1)

    def _look_into(self, path: str, value: Any, depth: int) -> None:
        if isinstance(value, (dict, types.MappingProxyType)):
            self.found[path] = f"{len(value)} keys"
            for key, item in list(value.items()):
                self.visit(f"{path}[{_text(key)}]", item, depth)
        elif isinstance(value, (list, tuple, deque)):
            self.found[path] = f"{len(value)} items"
            for index, item in enumerate(value):
                self.visit(f"{path}[{index}]", item, depth)
        elif isinstance(value, (set, frozenset)):
            self.found[path] = ", ".join(sorted(map(_text, value)))
        elif isinstance(value, (classmethod, staticmethod)):
            self.visit(path, value.__func__, depth)
        elif isinstance(value, types.FunctionType):
            self._look_into_function(path, value, depth)
        elif isinstance(value, type):
            self._look_into_class(path, value, depth)
        else:
            self._look_into_object(path, value, depth)

    def _look_into_function(self, path: str, function: types.FunctionType, depth: int) -> None:
        for name in ("__defaults__", "__kwdefaults__", "__dict__"):
            self.visit(f"{path}.{name}", getattr(function, name), depth)
        for number, cell in enumerate(function.__closure__ or ()):
            try:
                self.visit(f"{path}.closure[{number}]", cell.cell_contents, depth)
            except ValueError:  # it is empty
                self.found[f"{path}.closure[{number}]"] = "empty"

    def _look_into_class(self, path: str, owner: type, depth: int) -> None:
        if str(owner.__module__).partition(".")[0] not in _OURS:
            self.found[path] = _text(owner)
            return
        for name, value in list(vars(owner).items()):
            if name not in ("__dict__", "__doc__", "__weakref__"):
                self.visit(f"{path}.{name}", value, depth)

    def _look_into_object(self, path: str, value: Any, depth: int) -> None:
        kind = type(value)
        self.found[path] = _text(value) if isinstance(value, re.Pattern) else kind.__qualname__
        if str(kind.__module__).partition(".")[0] not in _LOOKED_INTO:
            return
        names = {*getattr(value, "__dict__", ())}
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            names |= {slots} if isinstance(slots, str) else {*slots}
        for name in sorted(names):
            if hasattr(value, name):
                self.visit(f"{path}.{name}", getattr(value, name), depth)


def _text(value: Any) -> str:
    return re.sub("0x[0-9a-f]+", "0x", repr(value))[:_LONGEST]
