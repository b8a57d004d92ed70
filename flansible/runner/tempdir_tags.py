"""Tags the temp directories that modules make on this machine with the run's number.

Called in the run process. Ansible's form of the names stays: the number takes the place of a random part
(`ansible-tmp-<time>-<pid>-<number>`), or goes before it. Other machines get what Ansible would send them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.executor import module_common
from ansible.plugins.action import ActionBase
from ansible.plugins.shell import ShellBase

from flansible.runner import module_wrapper
from flansible.runner.ansible_internals import replace
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import ModuleCache

# Run by the wrapper that Ansible puts around a Python module. Tags the wrapper's directory and the module's own. Not in
# place of mkdtemp: where that fails, its traceback would have one more line than with the command line.
_TAGGING = """\
import sys, tempfile
names = getattr(tempfile, '_get_candidate_names', None)
def tagged():
    prefix = str(sys._getframe(1).f_locals.get('prefix'))
    if prefix.startswith(('ansible_%%s_payload_' %% ansible_module, 'ansible-moduletmp-')):
        return ('%d' + prefix[-1] + name for name in names())
    return names()
if names:
    tempfile._get_candidate_names = tagged
"""
_TEMP_VARIABLES = ("TMPDIR", "TEMP", "TMP")


def tag_temp_dirs(files: RunFiles, modules: ModuleCache) -> None:
    """Tags temp directories in this process and its forks. modules: adds compiled code to modules of this machine."""
    if not constants.DEFAULT_KEEP_REMOTE_FILES:
        _Tagger(files, modules).install()


class _Tagger:
    def __init__(self, files: RunFiles, modules: ModuleCache) -> None:
        self._files = files
        self._modules = modules
        self._generate_temp_dir_name = ShellBase._generate_temp_dir_name
        self._wrapper = module_common._ANSIBALLZ_CODE
        self._tagging_wrapper = module_wrapper.add_program(self._wrapper, _TAGGING % files.number)
        # Whether the next directory is made on this machine; each worker process has one connection at a time.
        self._local = False

    def install(self) -> None:
        tagger = self

        def make_tmp_path(action: ActionBase, *args: Any, **kwargs: Any) -> Any:
            tagger._prepare(action)
            return make_original_tmp_path(action, *args, **kwargs)

        def configure_module(action: ActionBase, *args: Any, **kwargs: Any) -> Any:
            tagger._prepare(action)
            return configure_original_module(action, *args, **kwargs)

        def compute_environment_string(action: ActionBase, raw_environment_out: Any = None) -> Any:
            environment = {} if raw_environment_out is None else raw_environment_out
            text = compute_original_string(action, environment)
            tagger._files.add_directories(_temp_directories(environment))
            return text

        make_original_tmp_path = replace(ActionBase, "_make_tmp_path", make_tmp_path)
        configure_original_module = replace(ActionBase, "_configure_module", configure_module)
        compute_original_string = replace(ActionBase, "_compute_environment_string", compute_environment_string)
        replace(ShellBase, "_generate_temp_dir_name", staticmethod(self._tagged_name))

    def _prepare(self, action: ActionBase) -> None:
        connection = action._connection
        self._local = connection.transport == "local" or bool(getattr(connection, "_remote_is_local", False))
        wrapper = self._wrapper
        if self._local:
            wrapper = self._modules.add_bytecode(self._files.folder, self._tagging_wrapper)
            self._files.add_directories([*_remote_temp_directories(action), *_temp_directories(os.environ)])
        replace(module_common, "_ANSIBALLZ_CODE", wrapper)

    def _tagged_name(self) -> str:
        name = str(self._generate_temp_dir_name())
        return f"{name.rpartition('-')[0]}-{self._files.number}" if self._local else name


def _remote_temp_directories(action: ActionBase) -> Iterator[str]:
    """Yields the directories Ansible or the module may use; a home may be the remote user's or the become user's."""
    remote_tmp = os.path.expandvars(action.get_shell_option("remote_tmp", default="~/.ansible/tmp"))
    yield os.path.expanduser(remote_tmp)
    if remote_tmp.startswith("~/"):
        for user in (action._get_remote_user(), action.get_become_option("become_user")):
            if user:
                yield os.path.expanduser(f"~{user}{remote_tmp[1:]}")
    yield from action.get_shell_option("system_tmpdirs", default=[])


def _temp_directories(environment: Mapping[str, Any]) -> list[str]:
    return [str(environment[name]) for name in _TEMP_VARIABLES if environment.get(name)]
