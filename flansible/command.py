"""Requests to command lines: which option of `ansible` and `ansible-playbook` each request field is.

Pure; called by rbac.authorize in the web process. The lines are handed to Ansible's own parser inside the run and never
appear in a process list. Values are joined with `=` and operands follow `--`: what begins with a dash stays a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import JsonValue

from flansible.models import AdhocRequest, GitRequest, PlaybookRequest, RunOptions

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
    "task_timeout": "--task-timeout",
    "flush_cache": "--flush-cache",
}
ADHOC_OPTIONS = {"background": "--background", "poll": "--poll", "one_line": "--one-line"}
PLAYBOOK_OPTIONS = {
    "tags": "--tags",
    "skip_tags": "--skip-tags",
    "start_at_task": "--start-at-task",
    "force_handlers": "--force-handlers",
    "syntax_check": "--syntax-check",
    "list_hosts": "--list-hosts",
    "list_tasks": "--list-tasks",
    "list_tags": "--list-tags",
}


def adhoc(request: AdhocRequest, inventories: Iterable[str], vault_password_path: str | None) -> tuple[str, ...]:
    """`ansible`'s arguments, without extra variables."""
    argv = _shared(request, inventories, vault_password_path) + _options(request, ADHOC_OPTIONS)
    argv.append(f"--module-name={request.module}")
    arguments = request.arguments
    if arguments is not None:
        argv.append(f"--args={arguments if isinstance(arguments, str) else json.dumps(arguments)}")
    return (*argv, "--", request.pattern)


def playbook(
    request: PlaybookRequest, inventories: Iterable[str], vault_password_path: str | None, playbooks: Iterable[str]
) -> tuple[str, ...]:
    """`ansible-playbook`'s arguments, without extra variables."""
    argv = _shared(request, inventories, vault_password_path) + _options(request, PLAYBOOK_OPTIONS)
    return (*argv, "--", *playbooks)


def extra_vars(variables: dict[str, JsonValue]) -> tuple[str, ...]:
    """The option that sets `variables` as the command line would; JSON is YAML to Ansible, so any value survives."""
    return (f"--extra-vars={json.dumps(variables)}",) if variables else ()


def git_update(request: GitRequest) -> tuple[tuple[str, ...], ...]:
    """git's arguments, one tuple a step. Names were checked before: none begins with a dash."""
    fetch = ("fetch", "--", request.remote_name, *_branch(request))
    if request.reset:
        return fetch, ("reset", "--hard", "FETCH_HEAD")
    return fetch, ("merge", "--ff-only", "FETCH_HEAD")


def git_pull() -> tuple[tuple[str, ...], ...]:
    """What `update_git_repo` does: bring the checked-out branch up to its upstream, never merging."""
    return (("pull", "--ff-only"),)


def _branch(request: GitRequest) -> tuple[str, ...]:
    return (request.branch_name,) if request.branch_name else ()


def _shared(request: RunOptions, inventories: Iterable[str], vault_password_path: str | None) -> list[str]:
    argv = [f"--inventory={path}" for path in inventories]
    if request.verbose_level:
        argv.append("-" + "v" * request.verbose_level)
    if vault_password_path:
        argv.append(f"--vault-password-file={vault_password_path}")
    return argv + _options(request, SHARED_OPTIONS)


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
