"""Every option of the clients with an empty value and repeated: what Ansible gets is what its own command line gets.

Both are read by Ansible's own parser, in one process for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import authorize
from flansible.authorization.isolation import Isolation
from flansible.client import drop_in, options
from flansible.client.options import TABLES, Option, Program
from flansible.config import Settings
from flansible.identity.users import User
from flansible.models import AdhocRequest, PlaybookRequest

PROGRAMS: tuple[Program, ...] = ("adhoc", "playbook")
OPERANDS = {"adhoc": "localhost", "playbook": "site.yml"}
EXIT_USAGE = 2
PATHS = {*drop_in._PATH_FIELDS, "inventory", "module_path", "vault_id"}
ADMIN = User("admin", "", ())
# Reads lines of JSON, a program and its arguments, and answers with what Ansible makes of them, or its exit code.
ASK_ANSIBLE = """
import json, os, sys
from ansible import context
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI
def parsed(program, argv):
    command = {"adhoc": AdHocCLI, "playbook": PlaybookCLI}[program]
    try:
        command([program, *argv]).parse()
    except SystemExit as error:
        return error.code
    return {name: sorted(value) if name.endswith("tags") and isinstance(value, (list, tuple)) else value
            for name, value in context.CLIARGS.items()}
for line in sys.stdin:
    # What is parsed first is kept: later command lines of the same process would have its values.
    if os.fork() == 0:
        print(json.dumps(parsed(*json.loads(line)), default=str), flush=True)
        os._exit(0)
    os.wait()
"""


class Ansible:
    """Ansible's parsers, in a process of their own and in a folder."""

    def __init__(self, folder: Path, temp: Path) -> None:
        environ = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(temp)}
        command = [sys.executable, "-P", "-c", ASK_ANSIBLE]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd=folder, env=environ, text=True, **pipes)  # type: ignore[call-overload]

    def parse(self, program: Program, argv: list[str]) -> Any:
        self._process.stdin.write(json.dumps([program, argv]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    (folder / "site.yml").write_text("- hosts: all\n")
    for name in ("a", "b"):
        (folder / name).write_text("localhost\n")
    return folder


@pytest.fixture(scope="module")
def ansible(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ansible]:
    found = Ansible(folder, tmp_path_factory.mktemp("temp"))
    yield found
    found.close()


def values(option: Option) -> list[tuple[str, ...]]:
    """The values that an option is given in turn; none for a switch."""
    if option.how in ("switch", "count", "prompt"):
        return [(), ((),) * 2]  # type: ignore[list-item]
    one, other = ("3", "4") if option.how == "number" else ("a", "b")
    if option.field == "vault_id":
        one, other = "x@a", "y@b"
    given = [("",), ("", ""), (one,), (one, other), ("", one), (one, "")]
    # No file has a blank as its name.
    return given if option.field in PATHS else [*given, (" ",)]


def command_lines(option: Option) -> Iterator[list[str]]:
    for name in option.names:
        if option.how in ("switch", "count", "prompt"):
            yield [name]
            yield [name, name]
            continue
        for given in values(option):
            yield [word for value in given for word in (name, value)]
        if name.startswith("--"):
            yield [f"{name}="]


CASES = [
    pytest.param(program, option, id=f"{program}-{option.names[-1]}")
    for program in PROGRAMS
    for option in TABLES[program]
    if option.how != "refused"
]


@pytest.mark.by_day(8)
@pytest.mark.parametrize(("program", "option"), CASES)
def test_an_empty_or_repeated_option_means_what_it_means_to_ansible(
    program: Program, option: Option, folder: Path, ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for words in command_lines(option):
        argv = [*words, OPERANDS[program]]
        expected = ansible.parse(program, argv)
        found = as_sent(program, argv, folder)
        if isinstance(found, list):
            found = ansible.parse(program, found)
        assert normal(found, folder) == normal(expected, folder), words


# Operands as a script gives them whose variable is empty, and more or less than there should be.
LINES = {
    "adhoc": ([""], [" "], ["--", ""], ["", ""], ["localhost", ""], [], ["localhost", "localhost"], [":"], [","]),
    "playbook": (
        (
            [""],
            [" "],
            ["--", ""],
            ["", ""],
            ["site.yml", ""],
            ["", "site.yml"],
            ["site.yml"] * 3,
            [],
            ["none.yml"],
            ["."],
        )
    ),
}


@pytest.mark.by_day(6)
@pytest.mark.parametrize(
    ("program", "operands"), [(program, operands) for program in PROGRAMS for operands in LINES[program]]
)
def test_empty_and_repeated_operands_mean_what_they_mean_to_ansible(
    program: Program, operands: list[str], folder: Path, ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = as_sent(program, operands, folder, allow_missing=True)
    if isinstance(found, list):
        found = ansible.parse(program, found)
    assert normal(found, folder) == normal(ansible.parse(program, operands), folder)


def as_sent(
    program: Program, argv: list[str], folder: Path, *, allow_missing: bool = False
) -> list[str] | int | str | None:
    """The arguments that the run gets; the exit code, where the client refuses them itself.

    allow_missing: as the client asks again when the service has refused something that does not exist.
    """
    try:
        line = options.parse(program, argv)
    except SystemExit as error:
        return error.code
    body = drop_in.request(line, is_here=True, environ={}) | {"allow_missing": allow_missing}
    for option in TABLES[program]:
        if option.how == "prompt" and line.given[option.field]:
            body[option.field] = "a password"
    settings = Settings(playbook_root=folder, base_dir=folder, data_dir=folder / "data")
    ask = Isolation("none")
    if program == "adhoc":
        run = authorize.authorize_adhoc(ADMIN, AdhocRequest.model_validate(body), settings, ask)
    else:
        run = authorize.authorize_playbook(ADMIN, PlaybookRequest.model_validate(body), settings, ask)
    return list(run.steps[0].argv)


def normal(parsed: Any, folder: Path) -> Any:
    """Without differences that have no effect: an empty text or list may stand for none, a path may be absolute."""
    if not isinstance(parsed, dict):
        return parsed
    without_effect = {"subset", "start_at_task", "module_args", "module_path", "verbosity"}
    known = {name: value or None if name in without_effect else value for name, value in parsed.items()}
    known["subset"] = (parsed["subset"] or "").strip() or None
    known["extra_vars"] = [text for text in parsed["extra_vars"] if text]
    known["tree"] = str(folder / parsed["tree"]) if parsed.get("tree") else None
    sources = (value.rpartition("@") for value in parsed["vault_ids"])
    known["vault_ids"] = [f"{label}{at}{os.path.normpath(folder / source)}" for label, at, source in sources]
    return known
