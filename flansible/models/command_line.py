"""Translates requests to command lines: which option of `ansible` and `ansible-playbook` each request field is.

Pure; called by flansible.authorization in the web process. The lines are handed to Ansible's own parser inside the run
and never appear in a process list. Values are joined with `=` and operands follow `--`, so a dash begins no option.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from flansible.models import AdhocRequest, GitRequest, PlaybookRequest, RunOptions, VariablesPart

# Request field -> long option. A boolean adds the option, a list repeats it, anything else is its value.
SHARED_OPTIONS = {
    "limit": "--limit",
    "forks": "--forks",
    "become": "--become",
    "become_method": "--become-method",
    "become_user": "--become-user",
    "remote_user": "--user",
    "check": "--check",
    "diff": "--diff",
    "timeout": "--timeout",
    "flush_cache": "--flush-cache",
    "list_hosts": "--list-hosts",
    "connection": "--connection",
    "private_key_file": "--private-key",
    "ssh_common_args": "--ssh-common-args",
    "ssh_extra_args": "--ssh-extra-args",
    "sftp_extra_args": "--sftp-extra-args",
    "scp_extra_args": "--scp-extra-args",
    "connection_password_file": "--connection-password-file",
    "become_password_file": "--become-password-file",
    "module_path": "--module-path",
}
ADHOC_OPTIONS = {
    "background": "--background",
    "poll": "--poll",
    "one_line": "--one-line",
    "task_timeout": "--task-timeout",
    "tree": "--tree",
}
PLAYBOOK_OPTIONS = {
    "tags": "--tags",
    "skip_tags": "--skip-tags",
    "start_at_task": "--start-at-task",
    "force_handlers": "--force-handlers",
    "syntax_check": "--syntax-check",
    "list_tasks": "--list-tasks",
    "list_tags": "--list-tags",
}


@dataclass(frozen=True)
class Paths:
    """The paths of a request, as authorized by rbac.json."""

    inventories: tuple[str, ...] = ()
    vault_ids: tuple[str, ...] = ()
    vault_password_files: tuple[str, ...] = ()
    playbook_dir: str | None = None


def adhoc(request: AdhocRequest, paths: Paths) -> tuple[str, ...]:
    """Returns `ansible`'s arguments, without extra variables."""
    argv = _shared(request, paths) + _options(request, ADHOC_OPTIONS)
    if paths.playbook_dir:
        argv.append(f"--playbook-dir={paths.playbook_dir}")
    argv.append(f"--module-name={request.module}")
    arguments = request.arguments
    if arguments is not None:
        argv.append(f"--args={arguments if isinstance(arguments, str) else json.dumps(arguments)}")
    return (*argv, "--", request.pattern)


def playbook(request: PlaybookRequest, paths: Paths, playbooks: Iterable[str]) -> tuple[str, ...]:
    """Returns `ansible-playbook`'s arguments, without extra variables."""
    argv = _shared(request, paths) + _options(request, PLAYBOOK_OPTIONS)
    return (*argv, "--", *playbooks)


def extra_vars(parts: Iterable[VariablesPart]) -> tuple[str, ...]:
    """Returns the `--extra-vars` options; JSON is YAML to Ansible, so any value survives."""
    return tuple(f"--extra-vars={part if isinstance(part, str) else json.dumps(part)}" for part in parts)


def git_update(request: GitRequest) -> tuple[tuple[str, ...], ...]:
    """Returns git's arguments, one tuple for each step. Names were validated before: none begins with a dash."""
    fetch = ("fetch", "--", request.remote_name, *_branch(request))
    if request.reset:
        return fetch, ("reset", "--hard", "FETCH_HEAD")
    return fetch, ("merge", "--ff-only", "FETCH_HEAD")


def git_pull() -> tuple[tuple[str, ...], ...]:
    """Returns git's arguments for `update_git_repo`: fast-forwards the checked-out branch, never merges."""
    return (("pull", "--ff-only"),)


def _branch(request: GitRequest) -> tuple[str, ...]:
    return (request.branch_name,) if request.branch_name else ()


def _shared(request: RunOptions, paths: Paths) -> list[str]:
    argv = [f"--inventory={path}" for path in paths.inventories]
    if request.verbose_level:
        argv.append("-" + "v" * request.verbose_level)
    argv += [f"--vault-id={item}" for item in paths.vault_ids]
    argv += [f"--vault-password-file={path}" for path in paths.vault_password_files]
    return argv + _prompts(request, paths) + _options(request, SHARED_OPTIONS)


def _prompts(request: RunOptions, paths: Paths) -> list[str]:
    """Returns options that make Ansible prompt for a secret; the run answers with the value of the request's field."""
    argv = []
    if request.connection_password is not None:
        argv.append("--ask-pass")
    if request.become_password is not None:
        argv.append("--ask-become-pass")
    if isinstance(request.vault_password, str):
        argv.append("--ask-vault-password")
    elif request.vault_password:
        named = {item.partition("@")[0] for item in paths.vault_ids if "@" in item}
        argv += [f"--vault-id={label}@prompt" for label in request.vault_password if label not in named]
    return argv


def _options(request: RunOptions, table: dict[str, str]) -> list[str]:
    argv: list[str] = []
    for field, option in table.items():
        value = getattr(request, field)
        if value is None or value is False:
            continue
        if value is True:
            argv.append(option)
        else:
            argv += [f"{option}={item}" for item in (value if isinstance(value, list) else [value])]
    return argv
