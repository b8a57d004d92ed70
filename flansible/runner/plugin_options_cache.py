"""Options that the installation's plugins declare, parsed once by the fork server.

Ansible parses the documentation of each plugin that a run uses, to know its options. The fork server has parsed that of
the installation's plugins; a run registers the result, by file, when Ansible would have parsed it. So a project's
plugin with the name of an installed one declares its own options, as on the command line.

Measured (mean CPU time of an ad-hoc `debug`, in turn, 2 busy cores): 79 ms with it, 105 ms without.
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

    The connection plugin `ssh` as an example:

    | plugin, where it is loaded              | `_load_config_defs` is | effect                                        |
    |-----------------------------------------|------------------------|-----------------------------------------------|
    | installed ssh.py, in the block          | load_and_record        | Ansible parses and registers it; its options  |
    |                                         |                        | are copied from `config._plugins` (emptied    |
    |                                         |                        | for the block) to _recorded[path]             |
    | the block ends                          |                        | `config._plugins` is restored: not registered |
    | installed ssh.py, in a run              | register               | registers _recorded[path] without parsing     |
    | connection_plugins/ssh.py, in a run     | register               | Ansible parses it: that path is not recorded  |
    | a second plugin named `ssh`, in one run | register               | the first one's options stay, as in Ansible   |
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
