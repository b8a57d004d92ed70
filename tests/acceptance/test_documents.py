"""Every command of the documents, run for real: each ```console block of a page, in order.

A page that shows `flansible init` begins in an empty folder; the others share a folder that it has set up, and a
service. Their folder (/srv/flansible), port (3000) and Flower's port stand for a temp folder and free ports. admin's
password is the one in ~/.netrc. No page counts on what another has done.
`TASK=<id>` takes the id of the last reply that had one. What a block shows must be what comes: JSON replies must have
the keys and values shown, texts the lines shown, where `...` stands for any lines. A command that only reads is asked
again until it says what is shown, as a reader would do who is told to wait.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ports import free_port
from tests.helpers.services import write
from tests.helpers.waiting import require_program

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
PASSWORD = "correct-horse"
PAGE_ROOT, PAGE_URL, PAGE_FLOWER = "/srv/flansible", "127.0.0.1:3000", "127.0.0.1:5555"
# Commands that go on until they are ended: each stands for a terminal of its own.
BACKGROUND = ("flansible up", "flansible worker", "flansible flower")
SHOWN_SECONDS = 40
ENOUGH_FAULTS = 3
STOP_SECONDS = 15

_BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A block whose first line is a comment with the name of a file is that file.
_FILE = re.compile(r"^```\w+\n# ([\w./-]+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"([A-Z]+)=[0-9a-f-]{36}")
# What no two runs share, and what stands for it in a comparison.
_VOLATILE = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "<time>"),
    (re.compile(r"\bflansible@[\w.-]+"), "flansible@<host>"),
    (re.compile(r"\b\d+ processes were ended"), "<some> processes were ended"),
    (re.compile(r"\bRevoked [0-9a-f]{12} of"), "Revoked <token> of"),
    (re.compile(r"\b\d+ records, 1 to \d+,"), "<some> records,"),
    (re.compile(r"\b\d+% used"), "<some>% used"),
    (re.compile(r'("next_before": ?)\d+'), r"\g<1>0"),
    (re.compile(r'("(?:kept|warm|forked|evicted)": ?)\d+'), r"\g<1>0"),
)


@dataclass
class Command:
    """One command of a page: where it stands, what is typed, what is shown below it."""

    line: int
    text: str
    shown: str

    @property
    def is_background(self) -> bool:
        return self.text.startswith(BACKGROUND)

    @property
    def only_reads(self) -> bool:
        return "curl" in self.text and not re.search(r" -d | -X POST ", self.text)


def commands(document: str) -> Iterator[Command]:
    """The commands of all console blocks, in order; one goes on after a backslash or an open quote at a line's end."""
    for block in _BLOCK.finditer(document):
        first = document.count("\n", 0, block.start(2)) + 1
        found: Command | None = None
        continues = False
        for number, line in enumerate(block[2].splitlines(), first):
            if continues and found is not None:
                found.text += "\n" + line
            elif line.startswith("$ "):
                if found is not None:
                    yield found
                found = Command(number, line[2:], "")
            elif found is not None:
                found.shown += line + "\n"
            continues = found is not None and not found.shown and _goes_on(found.text)
        if found is not None:
            yield found


def _goes_on(text: str) -> bool:
    return text.endswith("\\") or text.count("'") % 2 == 1


def differences(shown: Any, got: Any, where: str = "reply") -> Iterator[str]:
    """What the page shows and the reply has not: a missing key, another value. More in the reply is no difference."""
    if isinstance(shown, dict) and isinstance(got, dict):
        for key, value in shown.items():
            if key in got:
                yield from differences(value, got[key], f"{where}.{key}")
            else:
                yield f"{where} has no {key}"
    elif isinstance(shown, list) and isinstance(got, list):
        if len(shown) != len(got):
            yield f"{where} has {len(got)} items, not {len(shown)}"
        for index, (one, other) in enumerate(zip(shown, got, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
    elif isinstance(shown, float) and isinstance(got, float):
        return
    elif shown != got:
        yield f"{where} is {got!r}, not {shown!r}"


def same_text(shown: str, got: str) -> bool:
    parts = [re.escape(part) for part in re.split(r"^\.\.\.\n", shown.strip("\n") + "\n", flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts), got.strip("\n") + "\n") is not None


@dataclass
class Reader:
    """Somebody who types a page's commands into terminals in one folder."""

    root: Path
    environ: dict[str, str]
    ports: dict[str, str]
    task_id: str = ""
    running: list[tuple[Command, subprocess.Popen[str]]] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)

    def follow(self, command: Command) -> str | None:
        """Do what the page says; gives what is wrong with the outcome, None when it is as shown."""
        if assignment := _ASSIGNMENT.fullmatch(command.text):
            self.environ[assignment[1]] = self.task_id
            return None if self.task_id else "no reply before had a task_id"
        if command.is_background:
            return self._start(command)
        give_up_at = time.monotonic() + (SHOWN_SECONDS if command.only_reads else 0)
        while True:
            fault = self._run(command)
            if fault is None or time.monotonic() > give_up_at:
                return fault
            time.sleep(0.05)

    def save(self, files: dict[str, str]) -> None:
        while files:
            name, text = files.popitem()
            self.saved.append(write(self.root / name, self.here(text)))

    def stop(self) -> list[str]:
        """End what was started, the last first, and remove what was saved; gives what did not end well."""
        faults = []
        for path in self.saved:
            path.unlink()
        while self.running:
            command, process = self.running.pop()
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if process.stdout is not None:
                process.stdout.close()
            if code not in (0, -signal.SIGTERM):
                faults.append(f"line {command.line}: {command.text!r} ended with exit code {code}")
        return faults

    def _start(self, command: Command) -> str | None:
        log = self.root / f"{len(self.running)}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self.here(command.text).split(),
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.running.append((command, process))
        if not command.shown:
            return None
        assert process.stdout is not None
        said = self._there(process.stdout.readline())
        return None if same_text(command.shown, said) else f"said {said!r}, and in its log:\n{log.read_text()}"

    def _run(self, command: Command) -> str | None:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self.here(command.text)],
            cwd=self.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SHOWN_SECONDS,
        )
        if done.returncode != 0:
            return f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        if command.text.startswith("flansible init"):
            # A terminal would show the password.
            words = ["flansible", "passwd", "admin"]
            subprocess.run(words, cwd=self.root, env=self.environ, input=PASSWORD, text=True, check=True)
        found = re.search(r'"task_id":\s*"([^"]+)","status_url"', done.stdout)
        self.task_id = found[1] if found else self.task_id
        return self._compare(command.shown, self._there(done.stdout))

    def _compare(self, shown: str, got: str) -> str | None:
        for pattern, word in _VOLATILE:
            shown, got = pattern.sub(word, shown), pattern.sub(word, got)
        try:
            expected = json.loads(shown)
        except json.JSONDecodeError:
            return None if same_text(shown, got) else f"shown:\n{shown}\ngot:\n{got}"
        try:
            reply = json.loads(got)
        except json.JSONDecodeError:
            return f"is not JSON: {got}"
        return "; ".join(differences(expected, reply)) or None

    def here(self, text: str) -> str:
        for there, here in self.ports.items():
            text = text.replace(there, here)
        return text.replace(PAGE_ROOT, str(self.root))

    def _there(self, text: str) -> str:
        for there, here in self.ports.items():
            text = text.replace(here, there)
        return text.replace(str(self.root), PAGE_ROOT)


UP = Command(0, "flansible up", "Flansible is ready at http://127.0.0.1:3000\n")


def start_reader(is_set_up: bool = True) -> Reader:
    """A reader in a folder of `flansible init`, or in an empty one."""
    for program in ("curl", "git", "ssh"):
        require_program(program)
    # Not tmp_path: a socket's path is limited to 108 bytes.
    root = Path(os.path.realpath(tempfile.mkdtemp(prefix="fl-docs-")))
    (root / ".netrc").write_text(f"machine 127.0.0.1 login admin password {PASSWORD}\n")
    web, flower = free_port(), free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLANSIBLE_", "ANSIBLE_", "GIT_"))}
    environ = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "HOME": str(root),
        "TMPDIR": str(root),
        "FLANSIBLE_FLASK_TCP_PORT": str(web),
        "FLANSIBLE_FLOWER_TCP_PORT": str(flower),
        "no_proxy": "127.0.0.1",
    }
    reader = Reader(root, environ, {PAGE_URL: f"127.0.0.1:{web}", PAGE_FLOWER: f"127.0.0.1:{flower}"})
    if is_set_up:
        fault = reader.follow(Command(0, f"flansible init {PAGE_ROOT}", "...\n"))
        assert fault is None, fault
    return reader


def stop_reader(reader: Reader) -> None:
    faults = reader.stop()
    shutil.rmtree(reader.root)
    assert not faults, faults


@pytest.fixture(scope="module")
def shared_service() -> Iterator[Reader]:
    reader = start_reader()
    fault = reader.follow(UP)
    assert fault is None, fault
    yield reader
    stop_reader(reader)


def page_commands(page: Path) -> list[Command]:
    return list(commands(page.read_text(encoding="utf-8")))


def test_the_console_blocks_are_found() -> None:
    assert sum(len(page_commands(page)) for page in PAGES) > 50


@pytest.mark.parametrize("page", [page for page in PAGES if page_commands(page)], ids=lambda page: page.stem)
def test_every_command_of_a_page_gives_what_is_shown(
    page: Path, shared_service: Reader, request: pytest.FixtureRequest
) -> None:
    found = page_commands(page)
    if any(command.text.startswith("flansible init") for command in found):
        reader = start_reader(is_set_up=False)
        request.addfinalizer(lambda: stop_reader(reader))
    else:
        reader = Reader(shared_service.root, dict(shared_service.environ), shared_service.ports)
        request.addfinalizer(lambda: _stop_programs(reader))
        found = [command for command in found if (command.text, command.shown) != (UP.text, UP.shown)]
    files = dict(_FILE.findall(page.read_text(encoding="utf-8")))
    faults = []
    for command in found:
        if not command.text.startswith("flansible init"):
            reader.save(files)
        fault = reader.follow(command)
        if fault is not None:
            faults.append(f"{page.relative_to(TOP)}:{command.line}: $ {command.text}\n{fault}")
        if len(faults) == ENOUGH_FAULTS:
            break
    assert not faults, "\n\n".join(faults)


def _stop_programs(reader: Reader) -> None:
    faults = reader.stop()
    assert not faults, faults


def test_a_block_is_read_as_a_shell_reads_it() -> None:
    document = "x\n```console\n$ one \\\n  two\nshown\n\n$ 'three\n four'\n```\n\n```text\n$ not this\n```\n"
    assert list(commands(document)) == [Command(3, "one \\\n  two", "shown\n\n"), Command(7, "'three\n four'", "")]


def test_what_a_reply_lacks_is_a_difference_and_what_it_has_besides_is_none() -> None:
    assert list(differences({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}], "d": 3})) == []
    assert list(differences({"a": {"b": 1}}, {"a": {}})) == ["reply.a has no b"]
    assert list(differences({"a": [1]}, {"a": []})) == ["reply.a has 0 items, not 1"]
    assert same_text("one\n...\nfour\n", "one\ntwo\nthree\nfour\n")
    assert not same_text("one\nfour\n", "one\ntwo\nfour\n")
