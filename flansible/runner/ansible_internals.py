"""Ansible's attributes that the runner replaces, overrides, or uses although they are private: one table.

Every replacement goes through `replace`, which refuses an attribute that the table lacks. A test checks that each entry
exists with these parameters in the installed ansible-core, and that the code uses no other private attribute of
Ansible's. With a new ansible-core, begin here: 2.19, 2.20 and 2.21 pass. Used in every process of the runner; loads no
Ansible itself.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple


class Internal(NamedTuple):
    """One attribute.

    parameters: what a function takes; with `...` at the end it may take others besides. before: gone from this version
    of ansible-core on.
    """

    owner: str
    name: str
    why: str
    parameters: str | None = None
    before: str | None = None


REPLACED = (
    Internal("ansible.cli.CLI", "_get_secret", "answer password prompts from the request", "prompt"),
    Internal("ansible.cli.CLI", "get_host_list", "notice an empty limit", "inventory, subset, pattern"),
    Internal("ansible.cli.CLI", "post_process_args", "use the request's private key", "self, options"),
    Internal("ansible.cli.adhoc", "TaskQueueManager", "add the event callback"),
    Internal("ansible.cli.adhoc.AdHocCLI", "init_parser", "share one parser among all runs", "self"),
    Internal("ansible.cli.playbook", "PlaybookExecutor", "list hosts and play tasks for a preview"),
    Internal("ansible.cli.playbook.PlaybookCLI", "init_parser", "share one parser among all runs", "self"),
    Internal("ansible.config.manager", "ConfigManager", "keep one manager when the configuration is read again"),
    Internal("ansible.config.manager", "NativeEnvironment", "compile defaults that are templates once"),
    Internal("ansible.config.manager.ConfigManager", "_plugins", "record the options that plugins declare"),
    Internal(
        "ansible.config.manager.ConfigManager",
        "_read_config_yaml_file",
        "parse the definitions of all settings once",
        "self, yml_file",
    ),
    Internal("ansible.constants", "DEFAULT_LOCAL_TMP", "each run's own temp directory"),
    Internal("ansible.executor.module_common", "_ANSIBALLZ_CODE", "tag temp directories; use compiled module code"),
    Internal(
        "ansible.executor.module_common",
        "_find_module_utils",
        "put packed modules where Ansible caches them",
        "*, module_path, module_compression, ...",
    ),
    Internal("ansible.executor.playbook_executor", "TaskQueueManager", "add the event callback"),
    Internal("ansible.executor.process.worker.WorkerProcess", "run", "end with the run's process", "self"),
    Internal("ansible.executor.process.worker.WorkerProcess", "start", "record that a worker failed to start", "self"),
    Internal("ansible.executor.task_executor", "_invoke_lookup", "leave lookups to workers", "*, plugin_name, ..."),
    Internal("ansible.executor.task_executor.TaskExecutor", "_get_become", "leave become to workers", "self, name"),
    Internal(
        "ansible.executor.task_executor.TaskExecutor",
        "_get_connection",
        "refuse local connections where there is no sandbox; leave others to workers",
        "self, cvars, templar, current_connection",
    ),
    Internal(
        "ansible.executor.task_queue_manager.TaskQueueManager",
        "has_dead_workers",
        "notice that a worker was killed",
        "self",
    ),
    Internal(
        "ansible.inventory.data.InventoryData",
        "_create_implicit_localhost",
        "refuse the control machine to users who may not use it; leave making it to workers",
        "self, pattern",
    ),
    Internal(
        "ansible.inventory.manager.InventoryManager",
        "get_hosts",
        "select among the user's hosts only",
        "self, pattern, ignore_limits, ignore_restrictions, order",
    ),
    Internal(
        "ansible.module_utils._internal._errors.EventFactory",
        "_get_formatted_traceback",
        "show no frames of ours in tracebacks",
        "self, exception",
    ),
    Internal(
        "ansible.parsing.vault.PromptVaultSecret",
        "ask_vault_passwords",
        "answer vault prompts from the request",
        "self",
    ),
    Internal("ansible.playbook.attribute.Attribute", "default", "make Mitogen's strategy a play's default"),
    Internal(
        "ansible.plugins.action.ActionBase",
        "_compute_environment_string",
        "note the temp directories that a play task's environment names",
        "self, raw_environment_out",
    ),
    Internal(
        "ansible.plugins.action.ActionBase",
        "_configure_module",
        "know whether the module runs on this machine",
        "self, module_name, module_args, task_vars",
    ),
    Internal(
        "ansible.plugins.action.ActionBase",
        "_make_tmp_path",
        "know whether the directory is made on this machine",
        "self, remote_user",
    ),
    Internal("ansible.plugins.loader.PluginLoader", "config", "search the paths of another configuration"),
    Internal(
        "ansible.plugins.loader.PluginLoader",
        "_get_package_paths",
        "load the inventory plugins' collection when Ansible would",
        "self, subdirs",
    ),
    Internal(
        "ansible.plugins.loader.PluginLoader",
        "_load_config_defs",
        "register recorded options in place of parsing them",
        "self, name, module, path",
    ),
    Internal(
        "ansible.plugins.loader.PluginLoader",
        "_load_module_source",
        "load a project's plugin that has an installed one's name",
        "self, *, python_module_name, path",
    ),
    Internal("ansible.plugins.loader.PluginLoader", "_paths", "search only the installation while preloading"),
    Internal("ansible.plugins.loader.PluginLoader", "_searched_paths", "search a run's own paths anew"),
    Internal(
        "ansible.plugins.loader.Jinja2Loader",
        "_cached_non_collection_wrappers",
        "find filters and tests on a run's paths",
    ),
    Internal("ansible.plugins.strategy", "WorkerProcess", "run tasks without a worker"),
    Internal(
        "ansible.plugins.strategy.StrategyBase",
        "_process_pending_results",
        "hand out the results of tasks without a worker",
        "self, iterator, one_pass, max_passes",
    ),
    Internal(
        "ansible.plugins.strategy.StrategyBase",
        "_queue_task",
        "run tasks without a worker",
        "self, host, task, task_vars, play_context",
    ),
    Internal("ansible.plugins.shell.ShellBase", "_generate_temp_dir_name", "tag temp directories with the run", ""),
    Internal("ansible.plugins.callback", "stringc", "note the colours of a diff", "text, color, wrap_nonvisible_chars"),
    Internal("ansible.plugins.callback.CallbackBase", "_get_diff", "note the colours of a diff", "self, difflist"),
    Internal("ansible.plugins.callback.default", "colorize", "mark the colours of the recap", "lead, num, color"),
    Internal("ansible.plugins.callback.default", "hostcolor", "mark the colours of the recap", "host, stats, color"),
    Internal(
        "ansible.utils.display",
        "_synchronize_textiowrapper",
        "wrap the streams once, though the display is initialized twice",
        "tio, lock",
    ),
    Internal("ansible.utils.display.Display", "_lock", "keep the lock that the streams have"),
    Internal("ansible.utils.display.Display", "_final_q", "collect what a task without a worker says"),
    Internal("ansible.utils.display", "stringc", "mark colours", "text, color, wrap_nonvisible_chars"),
    Internal(
        "ansible.utils.display.Display",
        "display",
        "print in the colour that travels with a text",
        "self, msg, color, ...",
    ),
    Internal(
        "ansible.utils.collection_loader._collection_finder",
        "_meta_yml_to_dict",
        "parse the routing table of ansible.builtin once",
        "yaml_string_data, content_id",
    ),
    Internal(
        "ansible.vars.manager.VariableManager",
        "get_delegated_vars_and_hostname",
        "delegate to the user's hosts only",
        "self, templar, task, variables",
    ),
    Internal(
        "ansible._internal._templating._jinja_plugins",
        "_invoke_lookup",
        "leave lookups to workers",
        "*, plugin_name, ...",
    ),
    Internal(
        "ansible._internal._templating._jinja_plugins.JinjaPluginIntercept",
        "__getitem__",
        "leave a project's filters and tests to workers",
        "self, key",
    ),
    Internal(
        "ansible._internal._templating._jinja_bits.AnsibleEnvironment",
        "compile",
        "compile a template once",
        "self, source, ...",
    ),
    Internal("tempfile", "mkdtemp", "make no temp directory while Ansible is imported", "suffix, prefix, dir"),
)

OVERRIDDEN = (
    Internal("ansible.cli.CLI", "_play_prereqs", "add variables that are never templated", "self"),
    Internal("ansible.cli.CLI", "ask_passwords", "a preview needs no password", ""),
    Internal(
        "ansible.cli.CLI", "get_host_list", "end a preview once its hosts are known", "inventory, subset, pattern"
    ),
    Internal(
        "ansible.cli.adhoc.AdHocCLI", "_play_ds", "keep module arguments untemplated", "self, pattern, async_val, poll"
    ),
    Internal("ansible.executor.playbook_executor.PlaybookExecutor", "run", "report a preview's plays", "self"),
    Internal(
        "ansible.executor.task_queue_manager.TaskQueueManager", "load_callbacks", "add the event callback", "self"
    ),
    Internal("ansible.plugins.callback.CallbackBase", "_load_name", "the event callback's name"),
)

_JINJA = "ansible._internal._templating._jinja_bits"
_PLUGINS = "ansible._internal._templating._jinja_plugins"
_FINDER = "ansible.utils.collection_loader._collection_finder"
USED = (
    Internal("ansible.config.manager.ConfigManager", "_errors", "leave a worker's reports to each host"),
    Internal("ansible.constants", "_ACTION_ALL_INCLUDES", "count the includes of a preview; know an include"),
    Internal("ansible.constants", "_ACTION_META", "leave Ansible's own meta tasks out of a preview"),
    Internal("ansible.executor.module_common", "_CachedModule", "read a packed module's sources"),
    Internal("ansible.executor.module_common", "_MODULE_UTILS_PATH", "know the installation's module_utils"),
    Internal(
        "ansible.executor.task_result", "_RawTaskResult", "send the result of a task without a worker", before="2.21"
    ),
    Internal("ansible.executor.playbook_executor.PlaybookExecutor", "_inventory", "hosts of a preview's play"),
    Internal("ansible.executor.playbook_executor.PlaybookExecutor", "_loader", "files beside a preview's playbook"),
    Internal("ansible.executor.playbook_executor.PlaybookExecutor", "_variable_manager", "tags of a preview's play"),
    Internal("ansible.executor.task_queue_manager.TaskQueueManager", "_callback_plugins", "add the event callback"),
    Internal("ansible.executor.task_queue_manager.TaskQueueManager", "_stats", "distinguish rescued failures"),
    Internal("ansible.executor.task_queue_manager.TaskQueueManager", "_workers", "find the worker that was killed"),
    Internal("ansible.inventory.manager.InventoryManager", "_hosts_patterns_cache", "know when to select hosts anew"),
    Internal("ansible.playbook.play.Play", "_included_path", "files beside an imported playbook"),
    Internal("ansible.playbook.task.Task", "_parent", "copy what a task without a worker changes"),
    Internal("ansible.playbook.task.Task", "_uuid", "match a result with its play task"),
    Internal("ansible.plugins.AnsiblePlugin", "_original_path", "know whether a plugin is the installation's"),
    Internal("ansible.plugins.action.ActionBase", "_connection", "know whether it is local"),
    Internal("ansible.plugins.action.ActionBase", "_get_remote_user", "find the remote_tmp of that user", "self"),
    Internal(
        "ansible.plugins.callback.CallbackBase",
        "_print_task_path",
        "its default colour is a setting",
        "self, task, color",
    ),
    Internal("ansible.plugins.callback.CallbackBase", "_init_callback_methods", "get events at all", "self"),
    Internal("ansible.plugins.connection.NetworkConnectionBase", "_remote_is_local", "know that it executes here"),
    Internal("ansible.plugins.connection.ConnectionBase", "_load_name", "know which connection plugin it is"),
    Internal(
        "ansible.plugins.loader.Jinja2Loader",
        "_ensure_non_collection_wrappers",
        "know a collection's filters and tests by their old names",
        "self, args, kwargs",
    ),
    Internal("ansible.plugins.loader.PluginLoader", "_extra_dirs", "know that a role has added filters or tests"),
    Internal("ansible.plugins.loader.PluginLoader", "_get_paths", "find all module_utils", "self, subdirs"),
    Internal("ansible.plugins.loader.PluginLoader", "_plugin_path_cache", "search a run's own paths anew"),
    Internal("ansible.plugins.strategy.StrategyBase", "_pending_results", "know what workers have not sent yet"),
    Internal("ansible.plugins.strategy.StrategyBase", "_results", "know what workers have not sent yet"),
    Internal("ansible.plugins.strategy.StrategyBase", "_tqm", "know the callbacks"),
    Internal("ansible.utils.display.Display", "_lock", "order events and output"),
    Internal(
        "ansible.utils.display",
        "_report_config_warnings",
        "warn about a configuration that was read again",
        "deprecator",
    ),
    Internal(f"{_PLUGINS}.JinjaPluginIntercept", "_jinja_builtins", "know Jinja's own filters and tests"),
    Internal(f"{_PLUGINS}.JinjaPluginIntercept", "_plugin_loader", "know a project's filters and tests"),
    Internal("ansible.vars.manager.VariableManager", "_extra_vars", "add variables that are never templated"),
    Internal("ansible.vars.manager.VariableManager", "_inventory", "find the hosts that a user may delegate to"),
    Internal(_FINDER, "_AnsibleCollectionFinder", "import collections while preloading"),
    Internal(f"{_FINDER}._AnsibleCollectionFinder", "_install", "import collections while preloading", "self"),
    Internal(f"{_FINDER}._AnsibleCollectionFinder", "_remove", "import collections while preloading", ""),
    Internal(_JINJA, "_TEMPLATE_OVERRIDE_FIELD_NAMES", "distinguish templates with different settings"),
    Internal(_JINJA, "_TemplateCompileContext", "distinguish templates with different settings"),
    Internal(f"{_JINJA}.AnsibleEnvironment", "_debuggable_template_source", "distinguish templates of different kinds"),
    Internal("ansible._internal._datatag._tags", "TrustedAsTemplate", "keep strings from being templated"),
    Internal(
        "ansible._internal._datatag._tags.TrustedAsTemplate", "untag", "keep strings from being templated", "value"
    ),
)

_REPLACEABLE = frozenset((internal.owner, internal.name) for internal in REPLACED)


def replace(owner: Any, name: str, value: Any) -> Any:
    """Sets an attribute of Ansible's in this process and its later forks; returns what it was.

    owner: a module, a class or an object. Raises LookupError for an attribute that is not in REPLACED.
    """
    if isinstance(owner, ModuleType):
        owners = [owner.__name__]
    else:
        kind = owner if isinstance(owner, type) else type(owner)
        owners = [f"{one.__module__}.{one.__qualname__}" for one in kind.__mro__]
    if not any((one, name) in _REPLACEABLE for one in owners):
        raise LookupError(f"{owners[0]}.{name} is not in the table of replaced attributes")
    before = getattr(owner, name, None)  # some are set on each object
    setattr(owner, name, value)
    return before
