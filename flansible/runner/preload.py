"""Load Ansible and every plugin class it ships, once, so that each forked run finds them in memory.

Called by the fork server before its first fork. Only what is part of the installation is loaded: plugins of the user's
directories and collections are looked up by each run anew, so that an edited file is noticed and none is shared.
Loading the classes, rather than making one run in this process, leaves no run's state behind to be inherited.
"""

from __future__ import annotations

import functools
import importlib
import os
import stat
import sys
from typing import Any

# ansible.cli comes first: it sets controller-wide state that later imports rely on.
from ansible import _internal, constants
from ansible._internal._datatag._tags import TrustedAsTemplate
from ansible.cli import CLI
from ansible.cli import __version__ as ansible_version
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI
from ansible.parsing.dataloader import DataLoader
from ansible.plugins import loader
from ansible.template import Templar
from ansible.utils.collection_loader import _collection_finder
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from ansible.utils.color import parsecolor
from ansible.vars.clean import clean_facts

from flansible.runner import colour_marks, plugin_options_cache, template_cache
from flansible.runner.ansible_internals import replace

# Imported here for their weight alone: a run would import them lazily, one by one.
_LAZY_MODULES = (
    "ansible._internal._json._profiles._inventory_legacy",
    "ansible.executor.module_common",
    "ansible.executor.process.worker",
    "ansible.executor.task_executor",
    "ansible.module_utils._internal._json._profiles._module_legacy_c2m",
    "ansible.module_utils._internal._json._profiles._module_legacy_m2c",
    "ansible.module_utils.basic",
    "ansible.modules",
    "ansible.playbook.handler_task_include",
    "ansible.plugins.callback.default",
    "ansible.template",
    "ansible.utils.shlex",
    "multiprocessing.popen_fork",
    "multiprocessing.synchronize",
)
_LOADERS = (
    loader.action_loader,
    loader.become_loader,
    loader.cache_loader,
    loader.callback_loader,
    loader.connection_loader,
    loader.filter_loader,
    loader.inventory_loader,
    loader.lookup_loader,
    loader.shell_loader,
    loader.strategy_loader,
    loader.test_loader,
    loader.vars_loader,
)


# What Ansible printed while it was imported, such as a warning about its configuration: `ansible` would begin with it.
said_while_loading = b""


def load() -> tuple[str, str | None]:
    """Loads Ansible and its plugin classes. Returns the version of ansible-core and the path of its ansible.cfg."""
    global said_while_loading
    said_while_loading = _standard_error_so_far()
    for name in _LAZY_MODULES:
        importlib.import_module(name)
    _remember_parsed_metadata()
    loader._load_plugin_filter()
    # A finder that knows the installation alone; each run makes the real one, which looks for collections then.
    _AnsibleCollectionFinder([os.path.dirname(_internal.__file__)], False)._install()
    try:
        with plugin_options_cache.remembered():
            for plugin_loader in _LOADERS:
                _load_classes(plugin_loader)
        _rehearse()
    finally:
        _AnsibleCollectionFinder._remove()
        for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
            del sys.modules[name]
    _load_collection_with_inventory_plugins()
    template_cache.remember_compiled()
    colour_marks.take_over()
    _drop_own_temp_dir()
    return ansible_version, constants.CONFIG_FILE


def _remember_parsed_metadata() -> None:
    # Parsing the routing table of ansible.builtin, 10,000 lines of YAML, is half of what a short run has left to do.
    # Remembered by content, so an edited file is parsed again; the dict is given out once per process.
    replace(_collection_finder, "_meta_yml_to_dict", functools.cache(_collection_finder._meta_yml_to_dict))


def _load_classes(plugin_loader: loader.PluginLoader) -> None:
    # Narrow the search to the installation for once; None makes the loader work out its real paths when next asked.
    paths = [loader.PluginPathContext(path, True) for path in plugin_loader._get_package_paths()]
    replace(plugin_loader, "_paths", paths)
    try:
        for _ in plugin_loader.all(class_only=True):
            pass
    finally:
        replace(plugin_loader, "_paths", None)


def _load_collection_with_inventory_plugins() -> None:
    """As on the command line, where importing the package of the inventory plugins does it, and -vvvv shows when."""

    def load_and_get(subdirs: bool = True) -> Any:
        importlib.import_module("ansible_collections.ansible.builtin")
        return get_package_paths(subdirs)

    get_package_paths = replace(loader.inventory_loader, "_get_package_paths", load_and_get)


def _rehearse() -> None:
    """What each run does first, for the regular expressions that Python and Jinja compile and keep by doing it."""
    for program, command in (("ansible", AdHocCLI), ("ansible-playbook", PlaybookCLI)):
        _keep_parser(program, command)
    Templar(loader=DataLoader()).template(TrustedAsTemplate().tag("{{ 1 }} {# #}"))
    clean_facts({})
    parsecolor("black")


def _keep_parser(program: str, command: type[CLI]) -> None:
    """Have each run use the parser that is made here; making it takes longer than all that is parsed with it."""
    made = command([program])
    made.init_parser()
    made.parser.parse_args(["localhost"])

    def use_kept_parser(self: CLI) -> None:
        self.parser = made.parser

    replace(command, "init_parser", use_kept_parser)


def _standard_error_so_far() -> bytes:
    sys.stderr.flush()
    # The worker gives us a file; anywhere else there is nothing to be read back.
    return os.pread(2, os.fstat(2).st_size, 0) if stat.S_ISREG(os.fstat(2).st_mode) else b""


def _drop_own_temp_dir() -> None:
    # Ansible made it while its configuration loaded; each run gets one of its own beside it.
    try:
        os.rmdir(constants.DEFAULT_LOCAL_TMP)
    except OSError:
        pass
