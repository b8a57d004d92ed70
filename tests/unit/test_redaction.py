"""What is shown again of a request: everything but secrets, whatever field they came in."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from flansible.authorization import authorize, redaction
from flansible.authorization.isolation import Isolation
from flansible.authorization.redaction import MASK
from flansible.client import options
from flansible.config import Settings
from flansible.identity.users import User
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest, Step
from tests.helpers.counted_names import CountedName

SECRET = "hunter2-marker"


def run(*argv: str, kind: str = "playbook", extra_vars: tuple[object, ...] = ()) -> AuthorizedRun:
    program = "ansible" if kind == "adhoc" else "ansible-playbook"
    step = Step(program=program, argv=argv, cwd="/srv/a b", extra_vars=extra_vars)  # type: ignore[arg-type]
    return AuthorizedRun(kind=kind, user="dev", summary="x", steps=(step,))  # type: ignore[arg-type]


def test_fields_made_for_secrets_are_masked_and_named() -> None:
    request = PlaybookRequest(
        playbook_dir="demo",
        playbook="site.yml",
        become_password=SECRET,
        private_key=SECRET,
        private_key_passphrase=SECRET,
        vault_password={"prod": SECRET, "dev": SECRET},
    )
    body = redaction.as_sent(request)
    assert SECRET not in json.dumps(body)
    assert sorted(redaction.masked_fields(body)) == [
        "become_password",
        "private_key",
        "private_key_passphrase",
        "vault_password.dev",
        "vault_password.prod",
    ]
    assert body["playbook"] == "site.yml" and "check" not in body  # as it was sent


@pytest.mark.parametrize(
    "given",
    [
        {"db_password": SECRET},
        {"deep": {"list": [{"API_KEY": SECRET}]}},
        [{"a": 1}, {"ansible_become_pass": SECRET}],
        f"user=x db_password={SECRET} z=1",
        f"db_password='{SECRET} with spaces'",
        f'token = "{SECRET} y"',
        json.dumps({"secret": SECRET}),
        {"passwords": [SECRET]},
        {"passwords": {"one": SECRET}},
    ],
)
def test_variables_that_are_called_secret_are_masked(given: object) -> None:
    request = PlaybookRequest(playbook_dir="demo", playbook="site.yml", extra_vars=given)  # type: ignore[arg-type]
    body = redaction.as_sent(request)
    assert SECRET not in json.dumps(body)
    assert redaction.masked_fields(body)
    parts = tuple(request.variables)
    argv = tuple(f"--extra-vars={part if isinstance(part, str) else json.dumps(part)}" for part in parts)
    for found in (run(*argv, "--", "site.yml"), run("--", "site.yml", extra_vars=parts)):
        assert SECRET not in redaction.command(found) and SECRET not in str(redaction.flansible_command(found))
        assert MASK in redaction.command(found)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "x", "password": SECRET},
        [{"arg_name": "password", "arg_value": SECRET}],
        f"name=x password={SECRET} state=present",
    ],
)
def test_module_arguments_that_are_called_secret_are_masked(arguments: object) -> None:
    request = AdhocRequest(module="user", module_args=arguments)  # type: ignore[arg-type]
    assert SECRET not in json.dumps(redaction.as_sent(request))


@pytest.mark.parametrize(
    "given", [{"no_password": True}, {"password": None}, {"password": ""}, {"compass": 1, "x": "passage"}, "a=1 b=2"]
)
def test_what_tells_nothing_is_left_as_it_is(given: object) -> None:
    request = PlaybookRequest(playbook_dir="demo", playbook="site.yml", extra_vars=given)  # type: ignore[arg-type]
    assert redaction.masked_fields(redaction.as_sent(request)) == []


def test_of_thousands_of_masked_fields_the_first_are_named_by_the_beginning_of_their_path() -> None:
    name = CountedName("x" * 1000)
    assert redaction.masked_fields({name: [0] * 10_000 + [MASK] * 10_000}) == ["x" * 299 + "…"] * 500
    assert name.copies == 500


def test_the_command_is_one_that_a_shell_takes_apart_as_it_was() -> None:
    argv = ("--inventory=/x y/hosts", "--limit=a'b;rm", "--", "site.yml")
    words = shlex.split(redaction.command(run(*argv)))
    assert words == ["cd", "/srv/a b", "&&", "ansible-playbook", *argv]
    assert shlex.split(redaction.flansible_command(run(*argv)) or "") == [
        "flansible",
        "playbook",
        "--chdir",
        "/srv/a b",
        *argv,
    ]


@pytest.mark.parametrize(
    "request_",
    [
        AdhocRequest(module="copy", module_args={"content": "a 'b'", "dest": "/x"}, host_pattern="a:&b", one_line=True),
        AdhocRequest(module="ping", inventory=["/a,", "/b c,"], verbose_level=3, become=True, forks=7, time_limit=9),
        PlaybookRequest(playbook_dir=".", playbook=["a.yml", "-b.yml"], tags=["x", "y"], lock=["l 1", "l2"]),
        PlaybookRequest(playbook_dir=".", playbook="a.yml", extra_vars=[{"n": 1}, "k=v w=2"], on_lost="requeue"),
        AdhocRequest(module="ping", exclusive="hosts"),
        PlaybookRequest(playbook_dir=".", playbook="a.yml", become_password=SECRET, environment={"ANSIBLE_X": "a b"}),
    ],
)
def test_the_command_of_flansible_says_the_same(request_: AdhocRequest | PlaybookRequest, tmp_path: Path) -> None:
    for name in ("a.yml", "-b.yml"):
        (tmp_path / name).write_text("[]")
    settings = Settings(playbook_root=tmp_path, base_dir=tmp_path)
    admin = User("admin", "", ())
    if isinstance(request_, AdhocRequest):
        run = authorize.authorize_adhoc(admin, request_, settings, Isolation("none"))
    else:
        run = authorize.authorize_playbook(admin, request_, settings, Isolation("none"))
    text = redaction.flansible_command(run)
    assert text is not None and SECRET not in text
    words = shlex.split(text.removeprefix("ANSIBLE_X='a b' "))
    assert words[:2] == ["flansible", run.kind]
    line = options.parse(run.kind, words[2:])  # type: ignore[arg-type]
    assert (line.client.chdir, line.client.time_limit) == (run.steps[-1].cwd, run.time_limit)
    assert (tuple(line.client.lock or ()), line.client.on_lost or "fail") == (run.locks, run.on_lost)
    assert line.client.exclusive == run.exclusive == request_.exclusive
    if isinstance(request_, AdhocRequest):
        assert (line.operands, line.given["module"]) == ([request_.pattern], request_.module)
    else:
        assert line.operands == request_.playbooks and line.given["tags"] == (request_.tags or None)
        assert line.given["become_password"] is (request_.become_password is not None)
        parts = [json.loads(part) if part.startswith("{") else part for part in line.given["extra_vars"] or ()]
        assert parts == request_.variables
    assert line.given["forks"] == request_.forks and line.given["verbose_level"] == request_.verbose_level


def test_what_no_command_can_say_has_none() -> None:
    for more in (
        {"update_git_repo": True},
        {"private_key": "x"},
        {"private_key_passphrase": "x"},
        {"strategy": "mitogen_free"},
    ):
        found = run("--", "a.yml").model_copy(update={"request": more})
        assert redaction.flansible_command(found) is None


def test_names_that_are_no_utf_8_are_quoted_for_the_shell_and_have_no_command_of_flansible() -> None:
    name = b"it's \\ caf\xe9 \xc3\xa9.yml"
    step = Step(program="ansible-playbook", argv=("--", os.fsdecode(name)), cwd="/" + os.fsdecode(b"\xff"))
    found = AuthorizedRun(kind="playbook", user="dev", summary="x", steps=(step,))
    change, _, words = redaction.command(found).partition(" && ")
    assert change == r"cd $'/\xff'"
    printed = subprocess.run(["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, check=True, timeout=60)
    assert printed.stdout.splitlines() == [b"ansible-playbook", b"--", name]
    assert redaction.flansible_command(found) is None
    assert redaction.flansible_command(run("--", r"looks\xE9like.yml")) is None


def test_curl_sends_the_body_and_asks_for_the_password() -> None:
    body = redaction.as_sent(AdhocRequest(module="command", module_args="echo 'it''s'", host_pattern="ü"))
    text = redaction.curl("adhoc", body, "de'v", "http://h:3000/prefix/").replace("\\\n", "")
    words = shlex.split(text)
    assert words[:3] == ["curl", "--user", "de'v"] and words[-1] == "http://h:3000/prefix/api/ansiblecommand"
    assert json.loads(words[words.index("--data") + 1]) == body


def test_git_has_no_command_of_flansible() -> None:
    step = Step(program="git", argv=("fetch", "--", "origin"), cwd="/srv")
    found = AuthorizedRun(kind="git", user="dev", summary="x", steps=(step,))
    assert redaction.flansible_command(found) is None
    assert redaction.command(found) == "cd /srv && git fetch -- origin"
    assert redaction.as_sent(GitRequest(playbook_dir="x")) == {"playbook_dir": "x"}
