"""Loads Ansible and every plugin class it ships, once, so that each forked run has them in memory.

Called by the zygote, or by a fork server that is started on its own, before the first fork. Only the installation is
loaded: each run searches the user's directories and collections itself, so that an edited file is noticed and none is
shared. Loading the classes, rather than making one run in this process, leaves no state of a run to be inherited. What
the configuration has a part in is done last, by `finish`.

Measured (mean CPU time of an ad-hoc `debug`, in turn, 2 busy cores): about 75 ms; without the plugin classes 193 ms,
without the cached routing table 158 ms. Shared parsers save 5 ms of it, compiled regular expressions 3 ms, and modules
imported beforehand 3 ms.
"""

from __future__ import annotations

import functools
import importlib
import marshal
import os
import stat
import sys
from collections.abc import Callable
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

from flansible.runner import colour_marks, own_frames, plugin_options_cache, template_cache
from flansible.runner.ansible_internals import replace

# Imported only to save time: each run would import them lazily.
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
_IMPORTED_BY_ANSIBLE = frozenset({"ansible.plugins.become.runas"})  # of the plugins, whatever a run uses

# What Ansible printed while it read its configuration, such as a warning about it: each run prints that first.
import_output = b""
_is_loaded = False


def note_import_output() -> None:
    """Notes what was printed so far. Called once the configuration has been read."""
    global import_output
    sys.stderr.flush()
    # The worker gives us a file; nothing else can be read back.
    import_output = os.pread(2, os.fstat(2).st_size, 0) if stat.S_ISREG(os.fstat(2).st_mode) else b""


def load() -> None:
    """Loads Ansible and its plugin classes: what is the same under every configuration."""
    global _is_loaded
    for name in _LAZY_MODULES:
        importlib.import_module(name)
    _cache_routing_table()
    # A finder for the installation alone; each run makes the real one, which searches for collections then.
    _AnsibleCollectionFinder([os.path.dirname(_internal.__file__)], False)._install()
    try:
        with plugin_options_cache.record_options():
            for plugin_loader in _LOADERS:
                _load_classes(plugin_loader)
        _warm_regex_caches()
    finally:
        _AnsibleCollectionFinder._remove()
        for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
            del sys.modules[name]
    _forget_paths()
    _let_projects_override()
    _load_collection_with_inventory_plugins()
    template_cache.cache_compiled_templates()
    own_frames.hide_own_frames()
    colour_marks.replace_colour_functions()
    _is_loaded = True


def finish() -> tuple[str, str | None]:
    """Makes what depends on the configuration. Returns the version of ansible-core and the path of its ansible.cfg."""
    for program, command in (("ansible", AdHocCLI), ("ansible-playbook", PlaybookCLI)):
        _share_parser(program, command)
    return ansible_version, constants.CONFIG_FILE


def _cache_routing_table() -> None:
    # Parsing the routing table of ansible.builtin, 10,000 lines of YAML, is half of what a short run has left to do.
    # Remembered by content, so an edited file is parsed again; the dict is given out once per process.

    @functools.cache
    def parse(text: bytes | str, content_id: Any) -> Any:
        if _is_loaded:
            return parse_originally(text, content_id)
        return _make_in_child(lambda: parse_originally(text, content_id))

    parse_originally = replace(_collection_finder, "_meta_yml_to_dict", parse)


def _make_in_child(make: Callable[[], Any]) -> Any:
    """Makes a value of plain types in a child process, which takes along the memory that is needed for making it alone.

    Here it would stay as holes in pages that are shared: 4 MB, and each page copied as soon as a fork fills a hole.
    """
    made = os.memfd_create("flansible-made")
    with open(made, "w+b") as file:
        try:
            pid = os.fork()
        except OSError:
            return make()
        if pid == 0:
            status = 1
            try:
                marshal.dump(make(), file)
                file.flush()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        file.seek(0)
        return marshal.load(file) if status == 0 else make()  # which raises what the child has met


def _load_classes(plugin_loader: loader.PluginLoader) -> None:
    # Limited to the installation this once; None makes the loader compute its real paths at the next search.
    paths = [loader.PluginPathContext(path, True) for path in plugin_loader._get_package_paths()]
    replace(plugin_loader, "_paths", paths)
    try:
        for _ in plugin_loader.all(class_only=True):
            pass
    finally:
        replace(plugin_loader, "_paths", None)


def _forget_paths() -> None:
    """Empties what loaders remember of search paths: a run searches the paths of its own configuration, as they are.

    The classes stay, in a cache by file.
    """
    for plugin_loader in vars(loader).values():
        if isinstance(plugin_loader, loader.PluginLoader):
            replace(plugin_loader, "_paths", None)
            replace(plugin_loader, "_searched_paths", set())
            plugin_loader._plugin_path_cache.clear()
        if isinstance(plugin_loader, loader.Jinja2Loader):
            replace(plugin_loader, "_cached_non_collection_wrappers", {})


def _let_projects_override() -> None:
    """Makes a run load a project's plugin that has the name of an installed one.

    Ansible takes what is in sys.modules by that name: the command line has only what it has used there.
    """
    preloaded = {name for name in sys.modules if name.startswith("ansible.plugins.") and name.count(".") > 2}
    preloaded -= _IMPORTED_BY_ANSIBLE

    def load_module(plugin_loader: loader.PluginLoader, *, python_module_name: str, path: str) -> Any:
        if python_module_name in preloaded and sys.modules[python_module_name].__file__ != path:
            del sys.modules[python_module_name]
        preloaded.discard(python_module_name)
        return load_original_module(plugin_loader, python_module_name=python_module_name, path=path)

    load_original_module = replace(loader.PluginLoader, "_load_module_source", load_module)


def _load_collection_with_inventory_plugins() -> None:
    """Loads ansible.builtin when the command line would: as inventory plugins are imported; -vvvv prints when."""

    def load_and_get(subdirs: bool = True) -> Any:
        importlib.import_module("ansible_collections.ansible.builtin")
        return get_package_paths(subdirs)

    get_package_paths = replace(loader.inventory_loader, "_get_package_paths", load_and_get)


def _warm_regex_caches() -> None:
    """Does what each run does first, so that Python and Jinja have compiled their regular expressions."""
    for program, command in (("ansible", AdHocCLI), ("ansible-playbook", PlaybookCLI)):
        _make_parser(program, command)
    Templar(loader=DataLoader()).template(TrustedAsTemplate().tag("{{ 1 }} {# #}"))
    clean_facts({})
    parsecolor("black")


def _make_parser(program: str, command: type[CLI]) -> Any:
    made = command([program])
    made.init_parser()
    made.parser.parse_args(["localhost"])
    return made.parser


def _share_parser(program: str, command: type[CLI]) -> None:
    """Makes a command's argument parser once for all runs: making it takes longer than parsing with it."""
    parser = _make_parser(program, command)

    def use_shared_parser(self: CLI) -> None:
        self.parser = parser

    replace(command, "init_parser", use_shared_parser)
