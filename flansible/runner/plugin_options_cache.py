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

_VERBOSE = 4

_recorded: dict[str, dict[str, Any] | None] = {}  # by the plugin's path; None: it declares no options


@contextmanager
def record_options() -> Iterator[None]:
    """Records the options of each plugin loaded in the block; afterwards they are registered without parsing.

    Where a plugin is loaded, with `copy` of the installation as the example:

    | when                       | by `_load_config_defs` as | which                                                  |
    |----------------------------|---------------------------|--------------------------------------------------------|
    | in the block (fork server) | load_and_record           | has Ansible parse copy.py, and copies what it put into |
    |                            |                           | the emptied `config._plugins` to _recorded[its path]   |
    | the block ends             |                           | `config._plugins` is what it was: none is registered   |
    | in a run, copy.py          | register                  | registers _recorded[its path]; nothing is parsed       |
    | in a run, library/copy.py  | register                  | has Ansible parse it: its path was not recorded        |
    | in a run, a second `copy`  | register                  | leaves the registered options of the first, as Ansible |
    """
    config = constants.config
    registered = replace(config, "_plugins", {})

    def load_and_record(loader: PluginLoader, name: str, module: Any, path: str) -> None:
        load(loader, name, module, path)
        _recorded[path] = config._plugins.get(_type_of(loader), {}).get(name)

    def register(loader: PluginLoader, name: str, module: Any, path: str) -> None:
        known = config.has_configuration_definition(_type_of(loader), name)
        # Parsing shared documentation fragments loads a collection, and with -vvvv Ansible prints that.
        if path not in _recorded or Display().verbosity >= _VERBOSE:
            load(loader, name, module, path)
        if (options := _recorded.get(path)) is not None and not known:
            config.initialize_plugin_configuration_definitions(_type_of(loader), name, options)

    load = replace(PluginLoader, "_load_config_defs", load_and_record)
    try:
        yield
    finally:
        replace(config, "_plugins", registered)
        replace(PluginLoader, "_load_config_defs", register)


def override_defaults(path: str, defaults: dict[str, Any]) -> None:
    """Overrides defaults of the options of the installed plugin at `path`, in this process."""
    options = _recorded.get(path)
    if options is not None:
        _recorded[path] = {**options, **{name: {**options[name], "default": defaults[name]} for name in defaults}}


def _type_of(loader: PluginLoader) -> str:
    return str(get_plugin_class(loader.class_name))
