"""Requests to command lines: every field has its option, and no value can turn into another option."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flansible.models import AdhocRequest, GitRequest, PlaybookRequest, RunOptions, command_line


def paths(request: RunOptions, playbook_dir: str | None = None) -> command_line.Paths:
    """As rbac gives them for admin: unchanged."""
    return command_line.Paths(
        tuple(request.inventories), tuple(request.vault_ids), tuple(request.vault_password_files), playbook_dir
    )


def adhoc(**fields: Any) -> tuple[str, ...]:
    request = AdhocRequest.model_validate({"module": "ping", **fields})
    return command_line.adhoc(request, paths(request, request.playbook_dir))


def playbook(**fields: Any) -> tuple[str, ...]:
    request = PlaybookRequest.model_validate({"playbook_dir": "d", "playbook": "p.yml", **fields})
    return command_line.playbook(request, paths(request), request.playbooks)


def test_an_adhoc_command_as_one_would_type_it() -> None:
    line = adhoc(
        module="command", module_args="uptime", host_pattern="web:&prod", inventory="inv", forks=5, become=True
    )
    assert line == (
        "--inventory=inv",
        "--forks=5",
        "--become",
        "--module-name=command",
        "--args=uptime",
        "--",
        "web:&prod",
    )


def test_a_playbook_as_one_would_type_it() -> None:
    line = playbook(inventory=["a", "b"], verbose_level=3, tags=["x", "y"], check=True, diff=True, playbook=["p", "q"])
    assert line == (
        "--inventory=a",
        "--inventory=b",
        "-vvv",
        "--check",
        "--diff",
        "--tags=x",
        "--tags=y",
        "--",
        "p",
        "q",
    )


SHARED = {
    "inventory": ("hosts", "--inventory=hosts"),
    "limit": ("web*", "--limit=web*"),
    "forks": (7, "--forks=7"),
    "verbose_level": (6, "-vvvvvv"),
    "become": (True, "--become"),
    "become_method": ("su", "--become-method=su"),
    "become_user": ("app", "--become-user=app"),
    "remote_user": ("me", "--user=me"),
    "check": (True, "--check"),
    "diff": (True, "--diff"),
    "timeout": (3, "--timeout=3"),
    "list_hosts": (True, "--list-hosts"),
    "connection": ("local", "--connection=local"),
    "private_key_file": ("/k", "--private-key=/k"),
    "ssh_common_args": ("-C", "--ssh-common-args=-C"),
    "ssh_extra_args": ("-C", "--ssh-extra-args=-C"),
    "sftp_extra_args": ("-C", "--sftp-extra-args=-C"),
    "scp_extra_args": ("-C", "--scp-extra-args=-C"),
    "connection_password": ("s", "--ask-pass"),
    "connection_password_file": ("/p", "--connection-password-file=/p"),
    "become_password": ("s", "--ask-become-pass"),
    "become_password_file": ("/p", "--become-password-file=/p"),
    "vault_password": ("s", "--ask-vault-password"),
    "vault_id": ("prod@/v", "--vault-id=prod@/v"),
    "module_path": (["/m", "/n"], "--module-path=/n"),
    "flush_cache": (True, "--flush-cache"),
    "vault_file": ("/v", "--vault-password-file=/v"),
    "vault_password_file": ("/v", "--vault-password-file=/v"),
}
ADHOC = {
    **SHARED,
    "background": (60, "--background=60"),
    "poll": (0, "--poll=0"),
    "task_timeout": (0, "--task-timeout=0"),
    "one_line": (True, "--one-line"),
    "tree": ("/t", "--tree=/t"),
    "playbook_dir": ("/d", "--playbook-dir=/d"),
    "module": ("setup", "--module-name=setup"),
    "module_args": ("a=b", "--args=a=b"),
    "host_pattern": ("web", "web"),
    "host_filter": ("web", "web"),
}
PLAYBOOK = {
    **SHARED,
    "playbook": ("site.yml", "site.yml"),
    "tags": ("x", "--tags=x"),
    "skip_tags": (["y"], "--skip-tags=y"),
    "start_at_task": ("Install", "--start-at-task=Install"),
    "force_handlers": (True, "--force-handlers"),
    "syntax_check": (True, "--syntax-check"),
    "list_tasks": (True, "--list-tasks"),
    "list_tags": (True, "--list-tags"),
}
# What is no option: variables travel by extra_vars(), a key by a file of the run; the rest decides where and what else
# to run.
ELSEWHERE = {"extra_vars", "extra_args", "environment", "private_key", "chdir", "update_git_repo"}
ELSEWHERE |= {"private_key_passphrase"}
ELSEWHERE |= {
    "time_limit",
    "on_lost",
    "lock",
    "exclusive",
    "queue",
    "strategy",
    "secret_vars",
    "credentials",
    "allow_missing",
}
ELSEWHERE |= {"project", "ref", "callback"}


def test_no_field_of_a_request_is_forgotten() -> None:
    """Each field is either in the tables above or known to be used elsewhere: none is accepted and then ignored."""
    assert set(AdhocRequest.model_fields) - ELSEWHERE == set(ADHOC)
    assert set(PlaybookRequest.model_fields) - ELSEWHERE - {"playbook_dir"} == set(PLAYBOOK)


@pytest.mark.parametrize("field", ADHOC)
def test_each_field_of_an_adhoc_request_is_an_option(field: str) -> None:
    value, option = ADHOC[field]
    assert option in adhoc(**{field: value})


@pytest.mark.parametrize("field", PLAYBOOK)
def test_each_field_of_a_playbook_request_is_an_option(field: str) -> None:
    value, option = PLAYBOOK[field]
    assert option in playbook(**{field: value})


def test_false_and_absent_options_are_not_given() -> None:
    assert adhoc(become=False, check=False, verbose_level=0) == ("--module-name=ping", "--", "localhost")


TEXT_OPTIONS = [
    field for field, (value, option) in ADHOC.items() if isinstance(value, str) and option.endswith(f"={value}")
]
SECRETS = ("connection_password", "become_password", "vault_password", "private_key")


@pytest.mark.parametrize("field", TEXT_OPTIONS)
def test_a_value_that_looks_like_an_option_stays_a_value(field: str) -> None:
    evil = "--connection=local"
    line = adhoc(**{field: evil})
    assert evil not in line
    assert [word for word in line if word.endswith(f"={evil}")] != []


@pytest.mark.parametrize("evil", ["--connection=local", "-vvv", "--", "-e@/etc/passwd"])
def test_operands_that_look_like_options_follow_the_double_dash(evil: str) -> None:
    assert adhoc(host_pattern=evil)[-2:] == ("--", evil)
    assert playbook(playbook=[evil, "p"])[-3:] == ("--", evil, "p")


@pytest.mark.parametrize(
    "arguments", [{"a": 1, "b": [True, None], "c": "ü 'quoted' \"twice\""}, {"paths": "/tmp", "recurse": True}]
)
def test_arguments_as_an_object_travel_as_json(arguments: dict[str, Any]) -> None:
    [word] = [word for word in adhoc(module_args=arguments) if word.startswith("--args=")]
    assert json.loads(word.removeprefix("--args=")) == arguments


def test_arguments_as_a_list_of_pairs_mean_the_object() -> None:
    pairs = [{"arg_name": "a", "arg_value": 1}, {"arg_name": "b", "arg_value": None}]
    assert adhoc(module_args=pairs) == adhoc(module_args={"a": 1, "b": None})


@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_no_arguments_in_whatever_form_are_no_option(nothing: Any) -> None:
    assert not any(word.startswith("--args") for word in adhoc(module_args=nothing))


@pytest.mark.parametrize(
    "variables", [{"quoted": 'it\'s "so"'}, {"ü": ["🎉", {"deep": None}]}, {"-e": "--x"}, {"n": 2**70, "f": 0.1}]
)
def test_extra_variables_survive_as_json(variables: dict[str, Any]) -> None:
    [word] = command_line.extra_vars([variables])
    assert json.loads(word.removeprefix("--extra-vars=")) == variables


def test_no_extra_variables_are_no_option() -> None:
    assert command_line.extra_vars([]) == ()


def test_variables_in_several_parts_are_given_in_order_and_a_string_as_it_is() -> None:
    assert command_line.extra_vars([{"a": 1}, "b=2 c='x y'", "@file"]) == (
        '--extra-vars={"a": 1}',
        "--extra-vars=b=2 c='x y'",
        "--extra-vars=@file",
    )


@pytest.mark.parametrize("field", SECRETS)
def test_no_secret_is_ever_on_the_command_line(field: str) -> None:
    for line in (adhoc(**{field: "marker-secret"}), playbook(**{field: "marker-secret"})):
        assert "marker-secret" not in " ".join(line)


def test_vault_passwords_by_name_are_asked_for_by_name() -> None:
    line = playbook(vault_password={"dev": "x", "prod": "y"}, vault_id=["prod@prompt", "other@/v"])
    assert [word for word in line if "vault" in word] == [
        "--vault-id=prod@prompt",
        "--vault-id=other@/v",
        "--vault-id=dev@prompt",
    ]


def git(**fields: Any) -> tuple[tuple[str, ...], ...]:
    return command_line.git_update(GitRequest.model_validate({"playbook_dir": "d", **fields}))


def test_a_git_update_fetches_and_then_only_fast_forwards() -> None:
    assert git() == (("fetch", "--", "origin"), ("merge", "--ff-only", "FETCH_HEAD"))
    assert git(remote_name="up", branch_name="main")[0] == ("fetch", "--", "up", "main")


def test_a_git_reset_takes_the_remotes_state() -> None:
    assert git(reset=True)[1] == ("reset", "--hard", "FETCH_HEAD")


def test_update_git_repo_never_merges() -> None:
    assert command_line.git_pull() == (("pull", "--ff-only"),)
