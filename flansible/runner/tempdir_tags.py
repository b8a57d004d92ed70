"""Makes the run's number part of the names of the temp directories that its modules make on this machine.

Called in the run process. The shape of Ansible's names stays: where they have something random they have the number
(`ansible-tmp-<time>-<pid>-<number>`), or it goes before that. Other machines get what Ansible would send them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.executor import module_common
from ansible.plugins.action import ActionBase
from ansible.plugins.shell import ShellBase

from flansible.runner.ansible_internals import replace
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import Payloads

# In the program that Ansible wraps around a Python module. What the wrapper makes and what the module itself does.
_ANCHOR = "    import tempfile\n"
_NUMBERING = """\
    mkdtemp = tempfile.mkdtemp
    def numbered(suffix=None, prefix=None, dir=None):
        if str(prefix).startswith(('ansible_%%s_payload_' %% ansible_module, 'ansible-moduletmp-')):
            prefix += '%d' + prefix[-1]
        return mkdtemp(suffix, prefix, dir)
    tempfile.mkdtemp = numbered
"""
_TEMP_VARIABLES = ("TMPDIR", "TEMP", "TMP")


def name_after(files: RunFiles, payloads: Payloads) -> None:
    """From now on, in this process and those forked from it. payloads: what helps the modules of this machine start."""
    if not constants.DEFAULT_KEEP_REMOTE_FILES:
        _Naming(files, payloads).begin()


class _Naming:
    def __init__(self, files: RunFiles, payloads: Payloads) -> None:
        self._files = files
        self._payloads = payloads
        self._generate_temp_dir_name = ShellBase._generate_temp_dir_name
        self._wrapper = module_common._ANSIBALLZ_CODE
        self._numbering_wrapper = self._wrapper.replace(_ANCHOR, _ANCHOR + _NUMBERING % files.number, 1)
        # Whether what is made next is made on this machine; each worker is a process and has one connection at a time.
        self._local = False

    def begin(self) -> None:
        naming = self

        def make_tmp_path(action: ActionBase, *args: Any, **kwargs: Any) -> Any:
            naming._look_at(action)
            return make_original_tmp_path(action, *args, **kwargs)

        def configure_module(action: ActionBase, *args: Any, **kwargs: Any) -> Any:
            naming._look_at(action)
            return configure_original_module(action, *args, **kwargs)

        def compute_environment_string(action: ActionBase, raw_environment_out: Any = None) -> Any:
            environment = {} if raw_environment_out is None else raw_environment_out
            text = compute_original_string(action, environment)
            naming._files.note(_temp_places(environment))
            return text

        make_original_tmp_path = replace(ActionBase, "_make_tmp_path", make_tmp_path)
        configure_original_module = replace(ActionBase, "_configure_module", configure_module)
        compute_original_string = replace(ActionBase, "_compute_environment_string", compute_environment_string)
        replace(ShellBase, "_generate_temp_dir_name", staticmethod(self._name))

    def _look_at(self, action: ActionBase) -> None:
        connection = action._connection
        self._local = connection.transport == "local" or bool(getattr(connection, "_remote_is_local", False))
        wrapper = self._wrapper
        if self._local:
            wrapper = self._payloads.with_bytecode(self._files.folder, self._numbering_wrapper)
            self._files.note([*_remote_places(action), *_temp_places(os.environ)])
        replace(module_common, "_ANSIBALLZ_CODE", wrapper)

    def _name(self) -> str:
        name = str(self._generate_temp_dir_name())
        return f"{name.rpartition('-')[0]}-{self._files.number}" if self._local else name


def _remote_places(action: ActionBase) -> Iterator[str]:
    """Where Ansible or the module will make directories; the home may be that of either user, by either account."""
    remote_tmp = os.path.expandvars(action.get_shell_option("remote_tmp", default="~/.ansible/tmp"))
    yield os.path.expanduser(remote_tmp)
    if remote_tmp.startswith("~/"):
        for user in (action._get_remote_user(), action.get_become_option("become_user")):
            if user:
                yield os.path.expanduser(f"~{user}{remote_tmp[1:]}")
    yield from action.get_shell_option("system_tmpdirs", default=[])


def _temp_places(environment: Mapping[str, Any]) -> list[str]:
    return [str(environment[name]) for name in _TEMP_VARIABLES if environment.get(name)]
