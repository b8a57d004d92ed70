"""Gives a forked process another Ansible configuration than the one that its parent has loaded.

Ansible reads its configuration as it is imported, and keeps in many places what it read. Here `ansible.constants` is
executed again, in place, and each value that was captured from it is captured again, by executing Ansible's own
statement. A process made so holds what one started in that directory and environment holds. Called by the zygote
(`capture`) and by the fork servers that are forked from it (`apply`).

tests/integration/test_reconfigure.py finds what is captured by reading Ansible's source, and compares every attribute
of every loaded module with those of a process that was started.

| captured                                    | where                        | captured again by                  |
|---------------------------------------------|------------------------------|------------------------------------|
| the configuration manager                   | `config` of many modules     | it stays the same object           |
| search paths of plugins                     | each plugin loader           | `apply`                            |
| defaults of keywords, switches of templates | classes                      | CLASS_VARIABLES                    |
| colours, log file, ignored inventories      | module variables             | MODULE_VARIABLES                   |
| the colour of a callback's method           | its default argument         | `_set_default_colour`              |
| cowsay, the log's verbosity, warnings shown | the one object of `Display`  | `_reset_display`                   |
| options of a plugin's documentation         | the cache of the fork server | nothing: NotForkable if in doubt   |
"""

from __future__ import annotations

import ast
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ansible import constants
from ansible.config import manager
from ansible.config.manager import ConfigManager
from ansible.module_utils._internal import _deprecator
from ansible.playbook.attribute import Attribute
from ansible.plugins import loader
from ansible.plugins.callback import CallbackBase
from ansible.utils import display
from ansible.utils.display import Display
from jinja2.nativetypes import NativeEnvironment

from flansible.errors import NotForkable
from flansible.runner import cleanup
from flansible.runner.ansible_internals import replace

# What a version lacks is passed over. A module that imports a variable by its name comes after the one that has it.
MODULE_VARIABLES = {
    "ansible.vars.manager": ("_INJECT_FACTS", "_INJECT_FACTS_ORIGIN"),  # 2.21
    "ansible.executor.task_executor": ("_INJECT_FACTS", "_INJECT_FACTS_ORIGIN"),  # 2.20; 2.21 imports it
    "ansible.executor.module_common": ("_ANSIBALLZ_CODE",),
    "ansible.inventory.manager": ("IGNORED_PATTERNS", "IGNORED_EXTS", "IGNORED"),
    "ansible.utils.color": ("ANSIBLE_COLOR",),
    "ansible.utils.display": ("logger", "color_to_log_level"),
}
CLASS_VARIABLES = {
    "ansible.cli.CLI": ("PAGER",),
    "ansible.executor.task_queue_manager.TaskQueueManager": ("_callback_dispatch_error_handler",),
    "ansible.playbook.base.Base": ("no_log", "any_errors_fatal", "timeout"),
    "ansible.playbook.play.Play": ("strategy",),
    "ansible.playbook.play_context.PlayContext": (
        "module_compression",
        "executable",
        "timeout",
        "private_key_file",
        "pipelining",
        "become_exe",
        "become_flags",
    ),
    "ansible.playbook.task.Task": ("poll",),
    "ansible._internal._templating._jinja_common._TemplateConfig": (
        "allow_embedded_templates",
        "allow_broken_conditionals",
        "jinja_extensions",
        "sandbox_mode",
        "unknown_type_encountered_handler",
        "unknown_type_conversion_handler",
        "untrusted_template_handler",
    ),
}


@dataclass(frozen=True)
class Captured:
    """What `apply` executes again, compiled once.

    constants: the module; definitions: of all settings; templates: those among their defaults, compiled; loaders: the
    constant that each plugin loader has its search path from; fragments: where plugins' documentation was searched.
    """

    constants: CodeType
    definitions: dict[str, Any]
    templates: dict[str, Any]
    modules: tuple[tuple[ModuleType, CodeType], ...]
    classes: tuple[tuple[type, ModuleType, CodeType], ...]
    loaders: tuple[tuple[loader.PluginLoader, str], ...]
    fragments: frozenset[str]


def capture() -> Captured:
    """Finds what `apply` needs, in a process whose configuration is the one that it was started with."""
    named = {id(value): name for name, value in vars(constants).items() if isinstance(value, list)}
    loaders = [one for one in vars(loader).values() if isinstance(one, loader.PluginLoader)]
    definitions = constants.config.get_configuration_definitions()
    defaults = {one["default"] for one in definitions.values() if isinstance(one.get("default"), str)}
    return Captured(
        constants=_code_of(constants),
        definitions=definitions,
        templates={one: NativeEnvironment().from_string(one) for one in defaults if one.startswith("{{")},
        modules=tuple(_of_module(name, variables) for name, variables in MODULE_VARIABLES.items()),
        classes=tuple(_of_class(name, variables) for name, variables in CLASS_VARIABLES.items()),
        loaders=tuple((one, named[id(one.config)]) for one in loaders if id(one.config) in named),
        fragments=frozenset(constants.DOC_FRAGMENT_PLUGIN_PATH),
    )


def apply(captured: Captured) -> None:
    """Takes on the configuration of the present directory and environment.

    Raises NotForkable where only a process that is started has it right, and whatever Ansible raises for a broken
    configuration: its messages are those of a start.
    """
    _execute_constants(captured)
    if any(path not in captured.fragments and os.path.isdir(path) for path in constants.DOC_FRAGMENT_PLUGIN_PATH):
        raise NotForkable("doc_fragment_plugins")
    # In the order of a start: what is read after the warnings were shown is warned about later.
    for module, code in captured.modules:
        exec(code, vars(module))
    _reset_display()
    display._report_config_warnings(_deprecator.ANSIBLE_CORE_DEPRECATOR)
    for owner, module, code in captured.classes:
        _set_class_variables(owner, module, code)
    for plugin_loader, name in captured.loaders:
        replace(plugin_loader, "config", getattr(constants, name) or [])
    _set_default_colour()


class _Compiled:
    """Stands for the environment in which Ansible compiles a default that is a template."""

    def __init__(self, templates: dict[str, Any]) -> None:
        self._templates = templates

    def from_string(self, source: str) -> Any:
        return self._templates.get(source) or NativeEnvironment().from_string(source)


def _execute_constants(captured: Captured) -> None:
    """Executes the module in its own namespace: all that have it as `C` see the new values."""
    known: ConfigManager = constants.config

    def initialize_again() -> ConfigManager:
        ConfigManager.WARNINGS.clear()
        ConfigManager.DEPRECATED.clear()
        vars(known).clear()  # a cache of values is among them
        known.__init__()
        return known

    # Parsing the definitions and compiling the templates in them is most of what an execution takes, in time and in
    # memory that is written to, and the configuration has no part in them.
    compiled = replace(manager, "NativeEnvironment", lambda: _Compiled(captured.templates))
    read = replace(ConfigManager, "_read_config_yaml_file", lambda _self, _path: captured.definitions)
    made = replace(manager, "ConfigManager", initialize_again)
    namespace = vars(constants)
    # A default that is a template sees only what stands before it.
    for name in [name for name in namespace if not name.startswith("__")]:
        del namespace[name]
    try:
        with cleanup.without_own_temp_dir():
            exec(captured.constants, namespace)
        namespace["ConfigManager"] = made
    finally:
        replace(manager, "ConfigManager", made)
        replace(manager, "NativeEnvironment", compiled)
        replace(ConfigManager, "_read_config_yaml_file", read)


def _set_class_variables(owner: type, module: ModuleType, code: CodeType) -> None:
    found: dict[str, Any] = {}
    exec(code, vars(module), found)
    for name, value in found.items():
        if name == "__annotations__":
            continue
        known = vars(owner)[name]
        if isinstance(known, Attribute):
            replace(known, "default", value.default)  # shared by the classes that derive from its owner
        else:
            setattr(owner, name, value)


def _set_default_colour() -> None:
    function = CallbackBase._print_task_path
    assert isinstance(function, FunctionType)
    function.__defaults__ = (constants.COLOR_DEBUG,)


def _reset_display() -> None:
    """Initializes the display again: it is one object, which every module has."""
    shown = Display()
    lock = shown._lock
    # The streams have this lock, once for all.
    wrap = replace(display, "_synchronize_textiowrapper", lambda _stream, _lock: None)
    try:
        shown.__init__()
    finally:
        replace(display, "_synchronize_textiowrapper", wrap)
    replace(shown, "_lock", lock)


def _code_of(module: ModuleType) -> CodeType:
    spec = module.__spec__
    assert spec is not None and spec.loader is not None
    code = spec.loader.get_code(module.__name__)  # type: ignore[attr-defined]
    assert isinstance(code, CodeType)
    return code


def _of_module(name: str, variables: tuple[str, ...]) -> tuple[ModuleType, CodeType]:
    module = importlib.import_module(name)
    return module, _compile(module, _parse(module).body, variables)


def _of_class(name: str, variables: tuple[str, ...]) -> tuple[type, ModuleType, CodeType]:
    module_name, _, class_name = name.rpartition(".")
    module = importlib.import_module(module_name)
    [body] = [node.body for node in _parse(module).body if isinstance(node, ast.ClassDef) and node.name == class_name]
    return getattr(module, class_name), module, _compile(module, body, variables)


def _parse(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    with open(module.__file__, "rb") as file:
        return ast.parse(file.read())


def _compile(module: ModuleType, statements: Iterable[ast.stmt], variables: tuple[str, ...]) -> CodeType:
    """Compiles the statements that set one of the variables, in their order."""
    chosen = [one for one in statements if set(assigned(one)) & set(variables)]
    # It inherits this module's future: annotations are not evaluated, as in Ansible's.
    return compile(ast.Module(chosen, []), str(module.__file__), "exec")


def assigned(statement: ast.stmt) -> list[str]:
    """Returns the names that a statement sets, other than a definition's own."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return []
    if isinstance(statement, ast.ImportFrom):
        return [item.asname or item.name for item in statement.names]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
