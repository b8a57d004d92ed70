"""The options that the installation's plugins declare, read once by the fork server.

Ansible parses the documentation of each plugin that a run uses, to learn its options. The fork server has done so for
the plugins of the installation; a run registers what was read, by file, at the moment Ansible would have read it. So a
project's plugin with the name of one of the installation's declares its own options, as on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible import constants
from ansible.plugins import get_plugin_class
from ansible.plugins.loader import PluginLoader
from ansible.utils.display import Display

from flansible.runner.ansible_internals import replace

_TALKATIVE = 4

_read: dict[str, dict[str, Any] | None] = {}  # by the path of the plugin; None: it declares none


@contextmanager
def remembered() -> Iterator[None]:
    """Within the block, what Ansible reads is remembered; after it, none of it counts as read."""
    config = constants.config
    registered = replace(config, "_plugins", {})

    def load_and_remember(loader: PluginLoader, name: str, module: Any, path: str) -> None:
        load(loader, name, module, path)
        _read[path] = config._plugins.get(_type_of(loader), {}).get(name)

    def register(loader: PluginLoader, name: str, module: Any, path: str) -> None:
        known = config.has_configuration_definition(_type_of(loader), name)
        # Reading shared pieces of documentation loads a collection, and with -vvvv Ansible says so.
        if path not in _read or Display().verbosity >= _TALKATIVE:
            load(loader, name, module, path)
        if (options := _read.get(path)) is not None and not known:
            config.initialize_plugin_configuration_definitions(_type_of(loader), name, options)

    load = replace(PluginLoader, "_load_config_defs", load_and_remember)
    try:
        yield
    finally:
        replace(config, "_plugins", registered)
        replace(PluginLoader, "_load_config_defs", register)


def change_defaults(path: str, defaults: dict[str, Any]) -> None:
    """Give options of the installation's plugin at `path` other defaults, in this process."""
    options = _read.get(path)
    if options is not None:
        _read[path] = {**options, **{name: {**options[name], "default": defaults[name]} for name in defaults}}


def _type_of(loader: PluginLoader) -> str:
    return str(get_plugin_class(loader.class_name))
