"""Decides which play tasks the run may execute itself, and stops one at whatever only a worker process may do.

`allowed` judges a play task before it runs, for all hosts; while it runs (`guarded`), what Ansible looks up decides:
plugins that are not the installation's, lookups, connections that do anything when they are made, an implicit localhost
that would stay in the inventory. Each of these raises NeedsWorker, which no handler of Ansible's catches. Until then
the task has only computed: nothing is printed, sent or changed.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ansible
from ansible import constants
from ansible._internal._templating import _jinja_plugins
from ansible._internal._templating._jinja_plugins import JinjaPluginIntercept
from ansible.executor import task_executor
from ansible.executor.task_executor import TaskExecutor
from ansible.inventory.data import InventoryData
from ansible.playbook.task import Task
from ansible.plugins.loader import (
    Jinja2Loader,
    PluginLoader,
    action_loader,
    become_loader,
    connection_loader,
    lookup_loader,
    vars_loader,
)
from ansible.plugins.strategy import StrategyBase
from ansible.utils.display import Display

from flansible.errors import NeedsWorker
from flansible.runner.ansible_internals import replace

_INSTALLATION = os.path.join(os.path.dirname(ansible.__file__), "")
_STRATEGIES = frozenset(f"ansible.plugins.strategy.{name}" for name in ("debug", "free", "host_pinned", "linear"))
_ACTIONS = frozenset("add_host assert debug fail group_by set_fact set_stats validate_argument_spec".split())
# These compute from their terms and the variables.
_LOOKUPS = frozenset(
    "dict flattened indexed_items items list nested sequence subelements together vars varnames".split()
)
_CONNECTIONS = frozenset({"local", "ssh"})  # an object of them does nothing until it is used
_BECOME_METHODS = frozenset({"su", "sudo"})
_VERBOSE = 3  # from here on Ansible prints what each process loads


class Allowed(enum.Enum):
    """What the run itself may do of a play task."""

    NOTHING = enum.auto()
    UP_TO_CONNECTION = enum.auto()  # all that Ansible does before it makes one: skip the task, or all of an include
    ACTION = enum.auto()  # the connection is made, not used


class _State(threading.local):
    """What the thread that runs the task must not do; all others are unaffected."""

    queue: Any = None
    allowed: Allowed | None = None


_state = _State()


def allowed(strategy: StrategyBase, task: Task) -> Allowed:
    """Returns what the run itself may do of this play task, on whatever host."""
    if not _is_plain_run(strategy) or not _is_plain_task(task):
        return Allowed.NOTHING
    if task.loop is not None and not _has_own_callbacks_only(strategy):
        return Allowed.NOTHING  # items are reported by the results thread on the command line
    if task.action in constants._ACTION_ALL_INCLUDES:
        return Allowed.UP_TO_CONNECTION
    if _is_one_of(_ACTIONS, action_loader, task.action, task.collections):
        return Allowed.ACTION
    return Allowed.UP_TO_CONNECTION if task.when and task.loop is None else Allowed.NOTHING


def _is_plain_run(strategy: StrategyBase) -> bool:
    return (
        type(strategy).__module__ in _STRATEGIES
        and _comes_with_ansible(strategy)
        and max(Display().verbosity, Display().log_verbosity) < _VERBOSE
        and not constants.DEFAULT_DEBUG
        and not constants.DEFAULT_JINJA2_EXTENSIONS
        and not _has_foreign_vars_plugins()
    )


def _is_plain_task(task: Task) -> bool:
    """Whether nothing of the task waits, watches the clock or concerns another host."""
    return not (
        task.async_val
        or task.timeout
        or task.delegate_to
        or task.until
        or task.retries is not None
        or task.debugger
        or task.loop_control.pause
        or "{" in str(task.action)
    )


def _has_own_callbacks_only(strategy: StrategyBase) -> bool:
    plugins = strategy._tqm._callback_plugins
    return all(_comes_with_ansible(plugin) or type(plugin).__module__.startswith("flansible.") for plugin in plugins)


def _comes_with_ansible(plugin: Any) -> bool:
    """Whether this object's class is Ansible's own: by its file, since a project's may have the same module name."""
    return str(plugin._original_path).startswith(_INSTALLATION)


def _has_foreign_vars_plugins() -> bool:
    if any(_own_name(name) != "host_group_vars" for name in constants.VARIABLE_PLUGINS_ENABLED):
        return True
    return any(not path.startswith(_INSTALLATION) for path in vars_loader.all(path_only=True))


def install() -> None:
    """Installs the guards in this process; they do nothing outside `guarded`."""
    _guard_templates()
    _guard_connections()

    def create_localhost(inventory: InventoryData, pattern: str) -> Any:
        if _state.allowed is not None:
            raise NeedsWorker("an implicit localhost")
        return create_original_localhost(inventory, pattern)

    def queue_of_thread(display: Display) -> Any:
        return _state.queue or display.__dict__.get("_final_q")

    def set_queue(display: Display, queue: Any) -> None:
        display.__dict__["_final_q"] = queue

    create_original_localhost = replace(InventoryData, "_create_implicit_localhost", create_localhost)
    replace(Display, "_final_q", property(queue_of_thread, set_queue))


@contextmanager
def guarded(queue: Any, allowed: Allowed) -> Iterator[None]:
    """Guards this thread in the block: it may do what is allowed, and Display sends to `queue`."""
    config = constants.config
    found = config.WARNINGS.copy(), config.DEPRECATED.copy(), config._errors.copy()
    _state.queue, _state.allowed = queue, allowed
    try:
        yield
    finally:
        _state.queue = _state.allowed = None
        # A worker reports these and ends: whoever comes next finds them again.
        for kept, before in zip((config.WARNINGS, config.DEPRECATED, config._errors), found, strict=True):
            kept.clear()
            (kept.update if isinstance(kept, set) else kept.extend)(before)


def _guard_templates() -> None:
    def get_plugin(plugins: JinjaPluginIntercept, name: str) -> Any:
        if _state.allowed is not None and not _is_installed_with_ansible(plugins, name):
            raise NeedsWorker(f"filter or test {name}")
        return get_original_plugin(plugins, name)

    def invoke_lookup(*, plugin_name: str, **options: Any) -> Any:
        if _state.allowed is not None and not _is_one_of(_LOOKUPS, lookup_loader, plugin_name):
            raise NeedsWorker(f"lookup {plugin_name}")
        return invoke_original_lookup(plugin_name=plugin_name, **options)

    get_original_plugin = replace(JinjaPluginIntercept, "__getitem__", get_plugin)
    invoke_original_lookup = replace(_jinja_plugins, "_invoke_lookup", invoke_lookup)
    replace(task_executor, "_invoke_lookup", invoke_lookup)


def _guard_connections() -> None:
    def get_connection(executor: TaskExecutor, cvars: Any, templar: Any, current_connection: str) -> Any:
        if _state.allowed is Allowed.UP_TO_CONNECTION or (
            _state.allowed is Allowed.ACTION and not _is_one_of(_CONNECTIONS, connection_loader, current_connection)
        ):
            raise NeedsWorker(f"connection {current_connection}")
        return get_original_connection(executor, cvars, templar, current_connection)

    def get_become(executor: TaskExecutor, name: str) -> Any:
        if _state.allowed is not None and not _is_one_of(_BECOME_METHODS, become_loader, name):
            raise NeedsWorker(f"become method {name}")
        return get_original_become(executor, name)

    get_original_connection = replace(TaskExecutor, "_get_connection", get_connection)
    get_original_become = replace(TaskExecutor, "_get_become", get_become)


def _is_one_of(names: frozenset[str], loader: PluginLoader, name: str, collections: list[str] | None = None) -> bool:
    """Whether a plugin has one of these names, and no other of that name comes before the installation's.

    None but these is looked up: Ansible prints each time that another is redirected to a collection.
    """
    if _own_name(name) not in names:
        return False
    found = loader.find_plugin_with_context(name, collection_list=collections)
    return bool(found.resolved) and found.plugin_resolved_path.startswith(_INSTALLATION)


def _is_installed_with_ansible(plugins: JinjaPluginIntercept, name: str) -> bool:
    """Whether a filter or test comes from the installation; asked before files of the project are loaded.

    Ansible redirects names that it had once to collections, such as `json_query`: such a name is in neither table.
    """
    loader: Jinja2Loader = plugins._plugin_loader
    if "." in _own_name(name) or _has_foreign_files(tuple(loader._get_paths())):
        return False
    loader._ensure_non_collection_wrappers()
    name = name.removeprefix("ansible.legacy.")
    return name in loader._cached_non_collection_wrappers or name in plugins._jinja_builtins


def _own_name(name: str) -> str:
    return str(name).removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


@cache
def _has_foreign_files(folders: tuple[str, ...]) -> bool:
    foreign = (folder for folder in folders if not os.path.join(folder, "").startswith(_INSTALLATION))
    return any(name.endswith(".py") for folder in foreign if os.path.isdir(folder) for name in os.listdir(folder))
