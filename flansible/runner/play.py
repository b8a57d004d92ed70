"""One run: passes a request frame to Ansible's own command-line classes, which drive the TaskQueueManager.

Called once in a freshly forked process whose standard output and error are the run's pipe. Because these are the
classes behind `ansible` and `ansible-playbook`, options, messages and exit codes are theirs; ours are the event
callback, the run's own temp directory, and for users other than admin strings that are never templated.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing.util
import os
import shutil
import signal
import sys
import threading
from typing import Any

import ansible.cli.adhoc
import ansible.executor.playbook_executor
from ansible import constants, context
from ansible._internal._datatag._tags import TrustedAsTemplate
from ansible.cli import CLI
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI
from ansible.errors import AnsibleOptionsError
from ansible.parsing.splitter import parse_kv

from flansible import wire
from flansible.authorization.reserved_variables import CONNECTION_VARIABLE
from flansible.runner import (
    compat,
    enforcement,
    inline_tasks,
    mitogen,
    preload,
    preview_listing,
    process_tree,
    project_step,
    ssh_profile,
)
from flansible.runner.ansible_internals import replace
from flansible.runner.callback import LEFT_OUT, EventCallback, EventPipe, ObservedTaskQueueManager
from flansible.runner.cleanup import RunFiles
from flansible.runner.colour_marks import mark_colours
from flansible.runner.empty_limit import EmptyLimitMonitor
from flansible.runner.module_cache import ModuleCache
from flansible.runner.private_key import use_agent, use_private_key
from flansible.runner.prompts import answer_prompts
from flansible.runner.tempdir_tags import tag_temp_dirs
from flansible.runner.worker_processes import (
    STUCK,
    KilledWorkerMonitor,
    WorkerStartMonitor,
    install_parent_death_handlers,
)

NOTHING_EXECUTED = "Ansible ended with exit code 0 but executed none of the play tasks it had begun"
EXIT_UNEXPECTED = 250  # ansible's own code for an unexpected exception
_LISTINGS = ("listhosts", "listtasks", "listtags", "syntax")
_EXIT_ERROR = 1
_EXIT_OPTIONS = 5
_EXIT_CANNOT_EXECUTE = 126
_EXIT_NOT_FOUND = 127
_FIRST_LINE_BYTES = 4096
_KILL_SECONDS = 5.0
_ROOM_BYTES = 1024  # for the time and the mark of a frame


def local_tmp_base() -> str:
    """Returns the directory of Ansible's local temp directories, and makes it."""
    base: str = os.path.dirname(constants.DEFAULT_LOCAL_TMP)
    os.makedirs(base, mode=0o700, exist_ok=True)
    return base


def run(request: wire.Frame, event_descriptor: int, files: RunFiles | None, modules: ModuleCache) -> int:
    """Executes the step that `request` describes; returns its exit code (git replaces this process instead)."""
    try:
        return _run(request, event_descriptor, files, modules)
    except OSError as error:
        # Ansible reports its own. This one is the disk, or the limits, of the control machine.
        pipe = EventPipe(event_descriptor, request["colour_mark"])
        _send_end(pipe, EventCallback(pipe), EXIT_UNEXPECTED, f"the run broke off: {error}")
        raise


def _run(request: wire.Frame, event_descriptor: int, files: RunFiles | None, modules: ModuleCache) -> int:
    if request["program"] == "project":
        return project_step.run(request, event_descriptor)
    if request.get("tree_locks"):
        project_step.hold_locks(request["tree_locks"])
        sys.dont_write_bytecode = True  # beside plugins in a tree that runs share
    try:
        os.chdir(request["cwd"])
    except OSError as error:
        print(f"ERROR: cannot work in {request['cwd']}: {error.strerror}", file=sys.stderr)
        return _EXIT_CANNOT_EXECUTE
    os.environ.update(request["environment"])
    os.environ.update((request["secrets"] or {}).get("environment") or {})
    os.environ["PWD"] = request["cwd"]
    if request["program"] == "git":
        return _git(request["argv"])
    if files is not None:
        replace(constants, "DEFAULT_LOCAL_TMP", files.folder)
        compat.use_private_rpc_socket(files.folder)
        tag_temp_dirs(files, modules)
        modules.install_in_run(files.folder)
        install_parent_death_handlers(files)
    mark_colours(request["colour_mark"])
    ssh_profile.apply(request.get("ssh_masters"))
    try:
        mitogen.use(request.get("strategy"), files)
    except ImportError as error:
        print(f"ERROR: Mitogen is not installed on this worker: {error}", file=sys.stderr)
        return _EXIT_NOT_FOUND
    return _ansible(request, EventPipe(event_descriptor, request["colour_mark"]))


def _git(argv: list[str]) -> int:
    # Never prompt: a run has no terminal.
    environ = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""}
    # Python ignores SIGPIPE; a program started from it should not.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe("git", ["git", *argv], environ)
    except OSError as error:
        print(f"ERROR: cannot run git: {error.strerror}", file=sys.stderr)
        return _EXIT_NOT_FOUND


def _ansible(request: wire.Frame, pipe: EventPipe) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Line by line, as on a terminal: live, and output and errors in the order they were printed.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    events = EventCallback(pipe)
    starts = WorkerStartMonitor()
    starts.watch()
    killed = KilledWorkerMonitor()
    killed.watch(lambda: _abort(pipe, events))
    limit = EmptyLimitMonitor()
    limit.watch()
    inline_tasks.install()
    ObservedTaskQueueManager.event_callback = events
    for module in (ansible.cli.adhoc, ansible.executor.playbook_executor):
        replace(module, "TaskQueueManager", ObservedTaskQueueManager)
    if request.get("agent"):
        use_agent(request["agent"])
    if problem := _use_private_key(request["secrets"], pipe):
        print(f"ERROR: {problem}", file=sys.stderr)
        return _EXIT_OPTIONS
    _reset_exit_handlers()
    sys.stderr.buffer.write(preload.import_output)
    sys.stderr.flush()  # before anything goes to standard output
    returncode = _run_cli(request, pipe)
    killed.finish()
    _run_exit_handlers()
    silent = returncode == 0 and events.starts > 0 and events.results == 0
    broken = starts.failure or (NOTHING_EXECUTED if silent else None)
    warning = _warning(request, events) if returncode == 0 else None
    reason = wire.EMPTY_LIMIT if limit.found and returncode == _EXIT_ERROR else None
    _send_end(pipe, events, returncode, broken, warning, reason)
    return returncode


def _use_private_key(secrets: dict[str, Any] | None, pipe: EventPipe) -> str:
    """Makes ssh use the request's key, if it has one, and masks what is decrypted; returns why it cannot."""
    if not secrets or not secrets["private_key"]:
        return ""

    def hide(lines: list[str]) -> None:
        pipe.send({"type": "hide", "lines": lines})

    return use_private_key(secrets["private_key"], secrets.get("private_key_passphrase"), hide)


def _warning(request: wire.Frame, events: EventCallback) -> str | None:
    """Returns what a run lacked that has no result on any host, unless it was only to list something."""
    if events.results or request.get("listing") or any(context.CLIARGS.get(option) for option in _LISTINGS):
        return None
    # An ad-hoc command always has a result where it has a host.
    has_hosts = request["program"] == "ansible-playbook" and events.plays > events.plays_without_hosts
    return wire.NO_PLAY_TASKS if has_hosts else wire.NO_HOSTS


def _send_end(
    pipe: EventPipe,
    events: EventCallback,
    returncode: int,
    broken: str | None,
    warning: str | None = None,
    reason: str | None = None,
) -> None:
    end = {
        "type": "end",
        "returncode": returncode,
        "broken": broken,
        "warning": warning,
        "reason": reason,
        "stats": events.stats,
        "custom_stats": events.custom_stats,
    }
    if _is_too_large(end):
        end["custom_stats"] = {LEFT_OUT: f"with the counts of all hosts it is over {wire.MAX_REPORT_BYTES} bytes"}
    if _is_too_large(end):  # some 40,000 hosts
        end["stats"] = {}
    pipe.send(end)


def _is_too_large(frame: wire.Frame) -> bool:
    return len(json.dumps(frame)) > wire.MAX_REPORT_BYTES - _ROOM_BYTES


def _abort(pipe: EventPipe, events: EventCallback) -> None:
    """Ends a run that will never finish, and all its processes."""
    process_tree.kill_descendants(_KILL_SECONDS)
    _send_end(pipe, events, EXIT_UNEXPECTED, STUCK)
    os._exit(EXIT_UNEXPECTED)


def _run_cli(request: wire.Frame, pipe: EventPipe) -> int:
    program = request["program"]
    argv = request["argv"]
    if request["secrets"]:
        answer_prompts(request["secrets"])
    enforcement.apply(request.get("rules"), program)
    command: type[CLI] = AdHocCLI if program == "ansible" else PlaybookCLI
    if request.get("listing"):
        command = preview_listing.preview_class(command, request["listing"], pipe)
    if request["data_only"]:
        command = _untemplated_arguments(command, request["extra_vars"])
    if request.get("launch_vars"):
        command = _untemplated_variables(command, request["launch_vars"])
    if request["secrets"] and request["secrets"].get("variables"):
        command = _untemplated_variables(command, request["secrets"]["variables"])
    # Ansible prints this as its executable location: beside the interpreter, where pip put it.
    beside = os.path.join(os.path.dirname(sys.executable), program)
    sys.argv = [beside if os.path.exists(beside) else shutil.which(program) or program]
    sys.executable = _interpreter_in_shebang(beside)
    try:
        command.cli_executor([program, *argv])
    except SystemExit as end:
        return _exit_code(end.code)
    return 0


def _interpreter_in_shebang(script: str) -> str:
    """Returns this Python's path as the script names it: Ansible prints it, and runs modules with it.

    Where `python` and `python3` are side by side, pip writes the one that it was started as into a script.
    """
    try:
        with open(script, "rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
    except OSError:
        return sys.executable
    named = os.fsdecode(first[2:].strip()) if first.startswith(b"#!") else ""
    beside = os.path.dirname(named) == os.path.dirname(sys.executable) and os.path.exists(named)
    return named if beside and os.path.samefile(named, sys.executable) else sys.executable


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _untemplated_arguments(command: type[CLI], extra_vars: list[dict[str, Any] | str]) -> type[CLI]:
    """Derives a class that does not template module arguments and extra variables: 2.19 templates trusted tags only."""

    class DataOnly(command):
        def _play_prereqs(self) -> tuple[Any, Any, Any]:
            loader, inventory, variable_manager = super()._play_prereqs()
            for part in extra_vars:
                variable_manager._extra_vars.update(_without_trust_tags(_parse_extra_vars(part, loader)))
            return loader, inventory, variable_manager

        def _play_ds(self, pattern: str, async_val: int, poll: int) -> Any:
            return _without_trust_tags(super()._play_ds(pattern, async_val, poll))

    DataOnly.__name__ = command.__name__
    return DataOnly


def _untemplated_variables(command: type[CLI], variables: dict[str, Any]) -> type[CLI]:
    """Derives a class that adds variables which override those of before: those of a launch, then `secret_vars`.

    They are never templated, not even for admin: a password may contain any delimiter, and whoever launches a
    template of admin's may send any text.
    """

    class WithVariables(command):
        def _play_prereqs(self) -> tuple[Any, Any, Any]:
            loader, inventory, variable_manager = super()._play_prereqs()
            variable_manager._extra_vars.update(_without_trust_tags(variables))
            return loader, inventory, variable_manager

    WithVariables.__name__ = command.__name__
    return WithVariables


def _parse_extra_vars(part: dict[str, Any] | str, loader: Any) -> dict[str, Any]:
    """Parses one part of the extra variables of a user other than admin; a string as `-e` does."""
    if isinstance(part, dict):
        return part
    parsed = loader.load(part) if part[0] in "[{" else parse_kv(part)
    if not isinstance(parsed, dict):
        raise AnsibleOptionsError(f"Invalid extra vars data supplied. '{part}' could not be made into a dictionary")
    # The names in objects were checked before the task was queued; those in a string are known only now.
    for name in parsed:
        if CONNECTION_VARIABLE.match(name):
            raise AnsibleOptionsError(f"{name} decides where or how Ansible connects. Only admin may set it.")
    return dict(parsed)


def _without_trust_tags(value: Any) -> Any:
    if isinstance(value, dict):
        return {_without_trust_tags(key): _without_trust_tags(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_trust_tags(item) for item in value]
    return TrustedAsTemplate.untag(value)


def _reset_exit_handlers() -> None:
    """Drops the fork server's exit handlers, and keeps the one that every interpreter has."""
    atexit._clear()
    atexit.register(multiprocessing.util._exit_function)  # type: ignore[attr-defined]


def _run_exit_handlers() -> None:
    """Does what os._exit omits at the end of `ansible`: joins threads, runs plugins' exit handlers, flushes."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
