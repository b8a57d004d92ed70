"""Functions that the operator provides, which settings name as `package.module:function`."""

from __future__ import annotations

import importlib
from typing import Any

from flansible.errors import ConfigurationError, Fault


def load(setting: str, name: str) -> Any:
    """Imports the function that a setting names; None for an empty one. Raises ConfigurationError, which names it."""
    if not name:
        return None
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # the operator's module may raise anything
        message = f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigurationError([Fault("config", setting, message)]) from error
    if not callable(function):
        raise ConfigurationError([Fault("config", setting, f"{module_name} has no function {function_name}")])
    return function
