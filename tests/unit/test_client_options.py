"""The client's side of a command line: Ansible's options and what they become, files, secrets, logins; no service."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flansible import models
from flansible.client import api, profile, replies, terminal
from flansible.client import options as client_options
from flansible.client.drop_in import prompt_for_secrets, request, withheld_variables
from flansible.client.options import EXCLUDED, OWN, TABLES, Option, Program, parse
from flansible.errors import ClientError, OptionError, ServiceRefused

PROGRAMS: tuple[Program, ...] = ("adhoc", "playbook")
MODELS = {"adhoc": models.AdhocRequest, "playbook": models.PlaybookRequest}
OPERAND = "site.yml"
HERE, ELSEWHERE = True, False

# What Ansible's own parsers have, asked of Ansible itself; it is never imported in this process.
ASK_ANSIBLE = """
import argparse, json
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI
from ansible.cli.arguments.option_helpers import PrependListAction

def described(command):
    command.init_parser()
    parser = command.parser
    options = [
        {
            "names": action.option_strings,
            "takes_value": action.nargs != 0,
            "repeats": isinstance(action, (argparse._AppendAction, PrependListAction)),
        }
        for action in parser._actions
        if action.option_strings
    ]
    groups = [
        sorted(name for action in group._group_actions for name in action.option_strings)
        for group in parser._mutually_exclusive_groups
    ]
    return {"options": options, "excluding": sorted(groups)}

print(json.dumps({"adhoc": described(AdHocCLI(["ansible"])), "playbook": described(PlaybookCLI(["ansible-playbook"]))}))
"""


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each program: its options, and the sets of names that exclude each other."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK_ANSIBLE],
        cwd=tmp_path_factory.mktemp("ansible"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(json.loads(done.stdout))


def ours(program: Program) -> dict[str, Option]:
    return {name: option for option in TABLES[program] for name in option.names}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_ansibles_is_accepted_or_excluded_with_a_reason(
    program: Program, ansible: dict[str, Any]
) -> None:
    theirs = {name for option in ansible[program]["options"] for name in option["names"]}
    assert len(theirs) > 40
    assert theirs - set(ours(program)) - set(EXCLUDED) == set()
    assert all(EXCLUDED.values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_option_is_there_that_ansible_does_not_have(program: Program, ansible: dict[str, Any]) -> None:
    theirs = {name for option in ansible[program]["options"] for name in option["names"]}
    assert set(ours(program)) - theirs == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_ansibles_is_a_request_field_or_excluded_with_a_reason(
    program: Program, ansible: dict[str, Any]
) -> None:
    for option in ansible[program]["options"]:
        for name in set(option["names"]) - set(EXCLUDED):
            assert ours(program)[name].field in MODELS[program].model_fields, name


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_are_given_as_to_ansible(program: Program, ansible: dict[str, Any]) -> None:
    for option in ansible[program]["options"]:
        for name in set(option["names"]) - set(EXCLUDED):
            how = ours(program)[name].how
            assert option["takes_value"] == (how in ("text", "number", "repeated")), name
            assert option["repeats"] == (how == "repeated"), name


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_options_exclude_each_other(program: Program, ansible: dict[str, Any]) -> None:
    groups: dict[str, list[str]] = {}
    for option in TABLES[program]:
        if option.excludes:
            groups.setdefault(option.excludes, []).extend(option.names)
    assert sorted(sorted(names) for names in groups.values()) == ansible[program]["excluding"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_abbreviations_mean_what_they_mean_to_ansible(program: Program, ansible: dict[str, Any]) -> None:
    names = {name for option in ansible[program]["options"] for name in option["names"] if name.startswith("--")}
    tried = 0
    for name in names - set(EXCLUDED):
        value = {"number": ["7"], "text": ["x"], "repeated": ["x"]}.get(ours(program)[name].how, [])
        for length in range(3, len(name)):
            if [other for other in names if other.startswith(name[:length])] == [name]:
                abbreviated = parse(program, [name[:length], *value, OPERAND])
                assert abbreviated == parse(program, [name, *value, OPERAND])
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_of_our_own_are_long_and_are_none_of_ansibles(program: Program, ansible: dict[str, Any]) -> None:
    mine = {name for option in OWN for name in option.names}
    theirs = {name for option in ansible[program]["options"] for name in option["names"]}
    assert mine & theirs == set()
    assert all(name.startswith("--") for name in mine)


def test_an_option_of_our_own_is_never_an_abbreviation() -> None:
    line = parse("playbook", ["--ch", "--us", "me", OPERAND])
    assert (line.given["check"], line.given["remote_user"], line.client.chdir) == (True, "me", None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with an inventory and a few files that exist."""
    for name in ("hosts", "vault-pass", "key", "library/one", "library/two"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(
    program: Program, *arguments: str, is_here: bool = HERE, environ: dict[str, str] | None = None
) -> dict[str, Any]:
    """The request body, which must be one that the service takes."""
    body = request(parse(program, arguments), is_here, environ or {})
    MODELS[program].model_validate(body)
    return body


BOTH = [
    (["-i", "hosts"], {"inventory": ["{place}/hosts"]}),
    (["-ihosts"], {"inventory": ["{place}/hosts"]}),
    (["--inventory=hosts", "--inventory-file", "b,"], {"inventory": ["{place}/hosts", "b,"]}),
    (["-i", "a,b"], {"inventory": ["a,b"]}),
    (["-i", "nowhere"], {"inventory": ["nowhere"]}),
    (["-i", "/no/such"], {"inventory": ["/no/such"]}),
    (["-i", "./library/../hosts"], {"inventory": ["{place}/hosts"]}),
    (["-i", "$HERE_/hosts"], {"inventory": ["{place}/hosts"]}),
    (["-l", "web:!db"], {"limit": "web:!db"}),
    (["--limit", "@retry"], {"limit": "@retry"}),
    (["-l", ""], {}),
    (["-e", "a=1 b='2 3'"], {"extra_vars": ["a=1 b='2 3'"]}),
    (["-e", "a=1", "--extra-vars={\"b\": 2}"], {"extra_vars": ["a=1", '{"b": 2}']}),
    (["-ea=1", "-e", ""], {"extra_vars": ["a=1"]}),
    (["-f", "20"], {"forks": 20}),
    (["-f20"], {"forks": 20}),
    (["-v"], {"verbose_level": 1}),
    (["-vvv"], {"verbose_level": 3}),
    (["-v", "-vv", "--verbose"], {"verbose_level": 4}),
    (["-vvvvvvvvv"], {"verbose_level": 6}),
    (["-b"], {"become": True}),
    (["-bCD"], {"become": True, "check": True, "diff": True}),
    (["-bvvu", "me"], {"become": True, "verbose_level": 2, "remote_user": "me"}),
    (["--become", "--become-method=su", "--become-user", "root"],
     {"become": True, "become_method": "su", "become_user": "root"}),
    (["--become-password-file", "key"], {"become_password_file": "{place}/key"}),
    (["--become-pass-file", "/x/y"], {"become_password_file": "/x/y"}),
    (["--connection-password-file=key"], {"connection_password_file": "{place}/key"}),
    (["--conn-pass-file", "key"], {"connection_password_file": "{place}/key"}),
    (["-C", "--diff"], {"check": True, "diff": True}),
    (["-c", "local"], {"connection": "local"}),
    (["-T", "9"], {"timeout": 9}),
    (["--private-key", "key"], {"private_key_file": "{place}/key"}),
    (["--key-file=~/none"], {"private_key_file": "~/none"}),
    (["--ssh-common-args=-o A=b", "--ssh-extra-args", "-R 1:a:2"],
     {"ssh_common_args": "-o A=b", "ssh_extra_args": "-R 1:a:2"}),
    (["--sftp-extra-args=-f", "--scp-extra-args=-l 1"], {"sftp_extra_args": "-f", "scp_extra_args": "-l 1"}),
    (["-M", "library"], {"module_path": "{place}/library"}),
    (["-M", "a:library", "-M", "c:d"], {"module_path": "c:d:a:{place}/library"}),
    (["--flush-cache", "--list-hosts"], {"flush_cache": True, "list_hosts": True}),
    (["--vault-id", "dev@vault-pass", "--vault-id", "vault-pass", "--vault-id", "ops@/etc/p"],
     {"vault_id": ["dev@{place}/vault-pass", "{place}/vault-pass", "ops@/etc/p"]}),
    (["--vault-id", "dev@prompt", "--vault-id", "prompt"], {"vault_id": ["dev@prompt", "default@prompt"]}),
    (["--vault-password-file", "vault-pass", "--vault-pass-file=b"],
     {"vault_password_file": ["{place}/vault-pass", "b"]}),
    (["--inventory", "a,", "--lim", "x", "--fork", "3"], {"inventory": ["a,"], "limit": "x", "forks": 3}),
]  # fmt: skip
ONLY_ADHOC = [
    (["-m", "ping"], {"module": "ping"}),
    (["-m", "shell", "-a", "echo $HOME | wc"], {"module": "shell", "module_args": "echo $HOME | wc"}),
    (["--module-name=debug", "--args", "msg=a"], {"module": "debug", "module_args": "msg=a"}),
    (["-a", "ls -la"], {"module_args": "ls -la"}),
    (["-a", ""], {}),
    (["-B", "60", "-P0"], {"background": 60, "poll": 0}),
    (["-o", "-t", "out"], {"one_line": True, "tree": "out"}),
    (["--one-line", "--tree=library"], {"one_line": True, "tree": "{place}/library"}),
    (["--task-timeout", "0"], {"task_timeout": 0}),
    (["--playbook-dir", "library"], {"playbook_dir": "{place}/library"}),
]
ONLY_PLAYBOOK = [
    (["-t", "a,b", "--tags=c"], {"tags": ["a,b", "c"]}),
    (["--skip-tags", "x", "--skip-tags", "y"], {"skip_tags": ["x", "y"]}),
    (["--start-at-task", "Say it"], {"start_at_task": "Say it"}),
    (["--force-handlers", "--syntax-check"], {"force_handlers": True, "syntax_check": True}),
    (["--list-tasks", "--list-tags"], {"list_tasks": True, "list_tags": True}),
]


def filled(value: Any, place: Path) -> Any:
    if isinstance(value, list):
        return [filled(item, place) for item in value]
    return value.replace("{place}", str(place)) if isinstance(value, str) else value


@pytest.mark.parametrize(("arguments", "fields"), BOTH + ONLY_ADHOC)
def test_an_adhoc_command_line_becomes_a_request(
    arguments: list[str], fields: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE_", str(place))
    expected = {"module": "command", **{name: filled(value, place) for name, value in fields.items()}}
    expected |= {"host_pattern": "web", "chdir": str(place)}
    assert made("adhoc", "web", *arguments) == expected
    assert made("adhoc", *arguments, "web") == expected
    assert made("adhoc", *arguments, "--", "web") == expected


@pytest.mark.parametrize(("arguments", "fields"), BOTH + ONLY_PLAYBOOK)
def test_a_playbook_command_line_becomes_a_request(
    arguments: list[str], fields: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE_", str(place))
    expected = {name: filled(value, place) for name, value in fields.items()}
    expected |= {"playbook": ["a.yml", "b.yml"], "playbook_dir": str(place)}
    assert made("playbook", "a.yml", "b.yml", *arguments) == expected
    assert made("playbook", *arguments, "--", "a.yml", "b.yml") == expected


def test_every_field_of_the_tables_has_a_case() -> None:
    """A new option must not go untested; what is asked for is below."""
    tried = {name for _, fields in BOTH + ONLY_ADHOC + ONLY_PLAYBOOK for name in fields}
    known = {
        option.field for program in PROGRAMS for option in TABLES[program] if option.how not in ("prompt", "refused")
    }
    assert known - tried == set()


def test_options_of_our_own_may_stand_anywhere_but_after_the_dashes(place: Path) -> None:
    given = ["--json", "site.yml", "--url=http://x", "-l", "a", "--api-user", "me", "--api-password-file", "f"]
    line = parse("playbook", [*given, "--no-wait", "--chdir", "d"])
    assert line.client == client_options.ClientOptions("http://x", "me", "f", "d", no_wait=True, json=True)
    assert (line.operands, line.given["limit"]) == (["site.yml"], "a")
    assert parse("adhoc", ["--", "--json"]).operands == ["--json"]


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [
        ("adhoc", [], "pattern"),
        ("adhoc", ["a", "b"], "unrecognized arguments: b"),
        ("playbook", [], "playbook"),
        ("playbook", ["a.yml", "-f"], "expected one argument"),
        ("playbook", ["a.yml", "-f", "x"], "invalid int value"),
        ("playbook", ["a.yml", "-f", "0"], "--forks"),
        ("playbook", ["a.yml", "-m", "ping"], "-m"),
        ("playbook", ["a.yml", "--bogus"], "--bogus"),
        ("playbook", ["a.yml", "--list"], "ambiguous"),
        ("playbook", ["a.yml", "-J", "--vault-password-file", "f"], "not allowed with"),
        ("playbook", ["a.yml", "-k", "--conn-pass-file", "f"], "not allowed with"),
        ("adhoc", ["a", "-K", "--become-pass-file", "f"], "not allowed with"),
        ("adhoc", ["a", "--url"], "--url"),
    ],
)
def test_wrong_usage_ends_as_with_ansible(
    program: Program, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(program, arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--step", "--ste"])
def test_what_needs_a_terminal_is_refused_and_says_why(word: str) -> None:
    with pytest.raises(OptionError, match="--step prompts at a terminal"):
        parse("playbook", ["site.yml", word])


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_ansibles_options_and_ours(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(program, ["-i", "x", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [name for option in (*TABLES[program], *OWN) for name in option.names if name not in shown] == []
    assert "exit codes" in shown


def test_with_chdir_paths_go_as_they_are(place: Path) -> None:
    options = ["-i", "hosts", "--private-key=key", "-M", "library", "--vault-id", "a@key", "--chdir"]
    body = made("playbook", "site.yml", *options, "team")
    assert (body["playbook_dir"], body["inventory"], body["private_key_file"]) == ("team", ["hosts"], "key")
    assert (body["module_path"], body["vault_id"]) == ("library", ["a@key"])
    assert made("adhoc", "all", "--chdir=team")["chdir"] == "team"


def test_a_service_elsewhere_is_told_the_directory_only_where_a_playbook_needs_one(place: Path) -> None:
    assert made("playbook", "site.yml", is_here=ELSEWHERE)["playbook_dir"] == str(place)
    assert "chdir" not in made("adhoc", "all", is_here=ELSEWHERE)


def test_a_directory_that_is_gone_asks_for_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OptionError, match="--chdir"):
        made("playbook", "site.yml")
    monkeypatch.chdir(tmp_path)


FILES = [
    ('{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
    ("a: 1\nb: {c: text}\n", {"a": 1, "b": {"c": "text"}}),
    ("---\nč: ž\n", {"č": "ž"}),
    ("when: 2024-02-29\n", "{when: 2024-02-29}"),
    ("1: one\n", "{1: one}"),
    ("big: .inf\n", "{big: .inf}"),
    ("{}\n", None),
]


@pytest.mark.parametrize(("text", "sent"), FILES)
def test_a_file_of_variables_is_read_here(text: str, sent: Any, place: Path) -> None:
    (place / "vars.yml").write_text(text, encoding="utf-8")
    body = made("playbook", "site.yml", "-e", "first=1", "-e@vars.yml", "-e", f"@{place}/vars.yml", is_here=ELSEWHERE)
    expected = {} if sent is None else sent
    assert body["extra_vars"] == ["first=1", expected, expected]


ONLY_ANSIBLE_READS = [
    ("$ANSIBLE_VAULT;1.1;AES256\n3061\n", "encrypted with ansible-vault"),
    ("a: 1\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3061\n", "'!vault', line 2"),
    ("a: !unsafe '{{ b }}'\n", "!unsafe"),
]


@pytest.mark.parametrize(("text", "why"), ONLY_ANSIBLE_READS)
def test_what_only_ansible_can_read_is_left_to_it_where_it_sees_the_file(text: str, why: str, place: Path) -> None:
    (place / "vars.yml").write_text(text)
    assert made("playbook", "site.yml", "-e", "@vars.yml")["extra_vars"] == [f"@{place}/vars.yml"]
    with pytest.raises(OptionError, match="the service is on another machine") as refused:
        made("playbook", "site.yml", "-e", "@vars.yml", is_here=ELSEWHERE)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1, 2]", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"a: [", "is not YAML"),
        (b"a: 1\n---\nb: 2\n", "is not YAML"),
        (b"a: \x01", "is not YAML"),
    ],
)
def test_a_file_of_variables_that_is_none_is_named(content: bytes | None, why: str, place: Path) -> None:
    if content is not None:
        (place / "vars.yml").write_bytes(content)
    with pytest.raises(OptionError, match=why) as refused:
        made("playbook", "site.yml", "-e", "@vars.yml")
    assert "vars.yml" in str(refused.value)
    assert refused.value.exit_code == 5


def test_variables_of_ansibles_go_with_the_request_but_secrets_do_not(place: Path) -> None:
    environ = {
        "ANSIBLE_STDOUT_CALLBACK": "json",
        "ANSIBLE_VAULT_PASSWORD_FILE": "/p",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "1",
        "ANSIBLE_ASK_PASS": "1",
        "ANSIBLE_HASHI_VAULT_TOKEN": "s.1",
        "ANSIBLE_NET_PASSWORD": "secret",
        "FLANSIBLE_PASSWORD": "secret",
        "HOME": "/root",
    }
    body = made("adhoc", "all", environ=environ)
    assert body["environment"] == {"ANSIBLE_STDOUT_CALLBACK": "json", "ANSIBLE_VAULT_PASSWORD_FILE": "/p"}
    assert withheld_variables(environ) == ["ANSIBLE_HASHI_VAULT_TOKEN", "ANSIBLE_NET_PASSWORD"]
    assert "environment" not in made("adhoc", "all")


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody at the terminal who answers each prompt in turn; returns the prompts that were shown."""

    def answer(*answers: str | None) -> list[str]:
        left: Iterator[str | None] = iter(answers)
        prompts: list[str] = []

        def getpass_(prompt: str) -> str:
            prompts.append(prompt)
            given = next(left)
            if given is None:
                raise EOFError
            return given

        monkeypatch.setattr(getpass, "getpass", getpass_)
        return prompts

    return answer


def asked(program: Program, *arguments: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    line = parse(program, [OPERAND, *arguments])
    body = request(line, HERE, {})
    before = set(body)
    prompt_for_secrets(line, body, environ or {})
    MODELS[program].model_validate(body)
    return {name: value for name, value in body.items() if name not in before}


Person = Callable[..., list[str]]


@pytest.mark.parametrize("program", PROGRAMS)
def test_passwords_are_asked_for_in_ansibles_words_and_order(program: Program, person: Person) -> None:
    prompts = person("one", "two", "three")
    given = asked(program, "-kKJ")
    assert prompts == ["SSH password: ", "BECOME password[defaults to SSH password]: ", "Vault password: "]
    assert given == {
        "connection_password": "one",
        "become_password": "two",
        "vault_password": "three",
    }


def test_an_empty_become_password_is_the_ssh_password(person: Person) -> None:
    person("one", "")
    assert asked("adhoc", "-k", "-K") == {"connection_password": "one", "become_password": "one"}


def test_become_alone_is_asked_for_without_a_default(person: Person) -> None:
    prompts = person("")
    assert asked("adhoc", "--ask-become-pass") == {}
    assert prompts == ["BECOME password: "]


def test_each_vault_id_that_prompts_is_asked_for_once(person: Person) -> None:
    prompts = person("one", "two", "three")
    options = ["--vault-id", "dev@prompt", "--vault-id", "dev@prompt", "--vault-id", "prompt", "--vault-id", "ops@f"]
    assert asked("playbook", *options)["vault_password"] == {"dev": "one", "default": "two"}
    assert prompts == ["Vault password (dev): ", "Vault password (default): "]
    person("one", "two")
    assert asked("playbook", "--vault-id", "dev@prompt", "-J")["vault_password"] == {"dev": "one", "default": "two"}


def test_a_listing_asks_only_for_vaults(person: Person) -> None:
    prompts = person("one")
    assert asked("playbook", "-kKJ", "--list-tasks") == {"vault_password": "one"}
    assert prompts == ["Vault password: "]


def test_variables_ask_as_switches_do(person: Person) -> None:
    person("one", "two", "three")
    environ = {"ANSIBLE_ASK_PASS": "yes", "ANSIBLE_BECOME_ASK_PASS": "True", "ANSIBLE_ASK_VAULT_PASS": "1"}
    assert len(asked("playbook", environ=environ)) == 3


def test_no_answer_leaves_passwords_out_but_not_a_vaults(person: Person) -> None:
    person(None)
    assert asked("adhoc", "-kK") == {}
    person(None)
    with pytest.raises(OptionError, match="EOFError"):
        asked("adhoc", "-J")
    person(" ")
    with pytest.raises(OptionError, match="empty"):
        asked("adhoc", "-J")


def test_a_password_file_that_is_standard_input_is_read_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path
) -> None:
    for text, expected in (("word\n", "word"), ("\n", None)):
        (tmp_path / "stdin").write_text(text)
        with (tmp_path / "stdin").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            line = parse("playbook", [OPERAND, "--become-password-file", "-"])
            body = request(line, HERE, {})
            if expected is None:
                with pytest.raises(OptionError, match="Empty password"):
                    prompt_for_secrets(line, body, {})
            else:
                prompt_for_secrets(line, body, {})
                assert (body["become_password"], "become_password_file" in body) == (expected, False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def client_ini(home: Path, text: str, mode: int = 0o600) -> Path:
    path = home / ".config/flansible/client.ini"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


KEPT = "[client]\nurl = http://kept:1\nuser = kept\npassword = kept 100%\n"
ENVIRON = {"FLANSIBLE_URL": "http://env:1", "FLANSIBLE_USER": "env", "FLANSIBLE_PASSWORD": "env word"}


def test_a_login_is_found_in_options_then_variables_then_the_file(home: Path) -> None:
    client_ini(home, KEPT)
    (home / "word").write_text("file word\nmore\n")
    given = profile.Given("http://option:1", "option", str(home / "word"))
    assert profile.find(given, ENVIRON) == profile.Profile("http://option:1", "option", "file word")
    assert profile.find(profile.Given(), ENVIRON) == profile.Profile("http://env:1", "env", "env word")
    assert profile.find(profile.Given(), {}) == profile.Profile("http://kept:1", "kept", "kept 100%")


def test_without_a_url_the_service_is_on_this_machine(home: Path) -> None:
    found = profile.find(profile.Given(), {"FLANSIBLE_USER": "me", "FLANSIBLE_PASSWORD": "x"})
    assert (found.url, found.is_here) == ("http://127.0.0.1:3000", True)
    assert "x" not in repr(found).replace("http://127.0.0.1:3000", "")


TOKEN = {"FLANSIBLE_TOKEN": "env token"}


@pytest.mark.parametrize(
    ("given", "environ", "kept", "expected"),
    [
        ({}, TOKEN, KEPT, "env token"),
        ({}, TOKEN | ENVIRON, "", "env token"),
        ({"token_file": "word"}, TOKEN, KEPT, "file token"),
        ({"user": "me", "password_file": "word"}, TOKEN, KEPT, ""),
        ({}, ENVIRON, KEPT + "token = kept token\n", ""),
        ({}, {}, KEPT + "token = kept token\n", "kept token"),
        ({}, {}, KEPT, ""),
    ],
)
def test_a_token_takes_the_place_of_user_and_password_where_it_is_named_first(
    given: dict[str, str], environ: dict[str, str], kept: str, expected: str, home: Path
) -> None:
    client_ini(home, kept)
    (home / "word").write_text("file token\n")
    paths = {name: str(home / value) if name.endswith("file") else value for name, value in given.items()}
    found = profile.find(profile.Given(**paths), environ)
    assert found.token == expected and bool(found.user) == (expected == "")
    assert expected == "" or expected not in repr(found)


def test_a_token_and_a_user_cannot_both_be_given(home: Path) -> None:
    with pytest.raises(OptionError, match="leave out --api-user"):
        profile.find(profile.Given(user="me", token_file="x"), {})
    with pytest.raises(OptionError, match="--api-token-file /no/such cannot be read"):
        profile.find(profile.Given(token_file="/no/such"), {})


@pytest.mark.parametrize("token", ["MARKü", "MARK\udcff", "MARK\n", "MARK a"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(OptionError, match="one word (?!.*MARK)"):
        api.Client("http://127.0.0.1:1", token=token)


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://localhost", True),
        ("https://[::1]:8", True),
        ("http://127.9.9.9", True),
        ("http://10.0.0.1", False),
        ("https://flansible.example.org/x", False),
    ],
)
def test_a_loopback_address_is_this_machine(url: str, is_here: bool) -> None:
    assert profile.Profile(url, "u", "p").is_here is is_here


def test_one_users_kept_password_is_not_tried_for_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client_ini(home, KEPT)
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(OptionError, match="no password"):
            profile.find(profile.Given(user="other"), {})
    assert profile.find(profile.Given(user="kept"), {}).password == "kept 100%"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(mode: int, home: Path) -> None:
    path = client_ini(home, KEPT, mode)
    with pytest.raises(OptionError, match=f"chmod 600 {path}"):
        profile.find(profile.Given(), ENVIRON)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[client]\npasword = MARK\n", "pasword is unknown"),
        ("[clients]\nuser = MARK\n", "clients is unknown"),
        ("user = MARK\n", "is not of the form"),
        ("[client]\nMARK\n", "is not of the form"),
    ],
)
def test_a_broken_file_is_named_and_its_lines_are_not_shown(text: str, says: str, home: Path) -> None:
    path = client_ini(home, text)
    with pytest.raises(OptionError, match=says) as refused:
        profile.find(profile.Given(), ENVIRON)
    assert str(path) in str(refused.value)
    assert "MARK" not in str(refused.value)


def test_what_is_missing_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(OptionError, match="--api-user"):
            profile.find(profile.Given(), {})
        with pytest.raises(OptionError, match="FLANSIBLE_PASSWORD"):
            profile.find(profile.Given(user="me"), {})
    with pytest.raises(OptionError, match="cannot be read"):
        profile.find(profile.Given(user="me", password_file="/no/such"), {})
    with pytest.raises(OptionError, match="no password in its first line"):
        profile.find(profile.Given(user="me", password_file=os.devnull), {})


def test_a_url_with_a_password_is_refused_without_showing_it(home: Path) -> None:
    with pytest.raises(OptionError, match="other users can read a URL") as refused:
        profile.find(profile.Given("http://me:MARK@host/"), ENVIRON)
    assert "MARK" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "ftp://host", "http://", "", "/x", "http://[::1", "http://h:x", "http://h:99999", "a@b"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="is not a valid URL of a service"):
        api.Client(url, "u", "p")
    if url:
        with pytest.raises(OptionError, match="is not a valid URL of a service"):
            profile.find(profile.Given(url), {"FLANSIBLE_USER": "u", "FLANSIBLE_PASSWORD": "p"})


def test_a_field_cannot_be_given_twice() -> None:
    with api.Client("http://127.0.0.1:1", "u", "p") as one, pytest.raises(OptionError, match="inventory"):
        one.adhoc("ping", options={"inventory": "x"})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", "\udcff"])
def test_what_json_cannot_say_is_refused_before_it_is_sent(value: Any) -> None:
    with api.Client("http://127.0.0.1:1", "u", "p") as one, pytest.raises(OptionError, match="JSON"):
        one.adhoc("debug", extra_vars={"a": value})


@pytest.mark.parametrize(
    ("environ", "terminal_there", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "x"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "xterm", "ANSIBLE_NOCOLOR": "yes"}, True, False),
        ({"TERM": "xterm", "ANSIBLE_NOCOLOR": "0"}, True, True),
        ({"ANSIBLE_FORCE_COLOR": "true", "NO_COLOR": "1"}, False, True),
    ],
)
def test_colours_are_shown_when_ansible_would_show_them(
    environ: dict[str, str], terminal_there: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal_there)
    assert terminal.wants_colour(environ) is expected


@pytest.mark.parametrize(
    ("status", "expected"), [(400, 5), (401, 5), (403, 5), (404, 5), (409, 5), (429, 1), (500, 1), (503, 1)]
)
def test_a_refusal_ends_a_command_with_5_and_a_service_that_is_not_well_with_1(status: int, expected: int) -> None:
    refused = ServiceRefused("no", status=status, code="x", errors=[], retry_after_seconds=None)
    assert refused.exit_code == expected
    assert ClientError.exit_code == 1


@pytest.mark.parametrize(
    ("record", "model"),
    [
        (replies.TaskStatusReply, models.TaskStatus),
        (replies.EventReply, models.Event),
        (replies.TaskResultReply, models.TaskResult),
        (replies.PlayTaskResultReply, models.PlayTaskResult),
        (replies.TaskPageReply, models.TaskList),
    ],
)
def test_the_clients_records_are_the_services(record: type, model: type[models.Record]) -> None:
    assert set(record.__annotations__) == set(model.model_fields)


def test_when_and_how_often_it_may_run_goes_with_the_request() -> None:
    given = ["--lock", "db", "--time-limit=60", "--lock=web", "--on-lost", "requeue", "all", "-m", "ping"]
    given += ["--credential", "web-key", "--credential=team-vault", "--exclusive=hosts"]
    body = request(parse("adhoc", given), is_here=False, environ={})
    assert (body["lock"], body["time_limit"], body["on_lost"]) == (["db", "web"], 60, "requeue")
    assert (body["credentials"], body["exclusive"]) == (["web-key", "team-vault"], "hosts")
    assert (
        not {"lock", "time_limit", "on_lost", "exclusive", "credentials"}
        & request(parse("adhoc", ["all"]), False, {}).keys()
    )


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "flansible.client.api, flansible.client, flansible.client.terminal, flansible.client.drop_in, "
            "flansible.client.profile",
            (),
        ),
        ("flansible.cli", ("httpx", "yaml", "argparse")),
    ],
    ids=["the client", "the command line"],
)
def test_the_client_needs_nothing_of_the_service(modules: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys, json, {modules}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    service = {"flask", "celery", "redis", "ansible", "pydantic", "kombu", "gunicorn", "werkzeug"}
    assert loaded & service.union(absent) == set()
