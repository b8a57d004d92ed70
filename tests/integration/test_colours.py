"""Colours stand beside the text: what a run prints, logs or hands to a project's callback is the command line's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import COLOUR_MARK, DirectRun
from tests.helpers.waiting import require_program

LOCAL = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
# Two diffs in one result, lines that are alike, an empty line, Windows line ends, and no line end at the end.
CHANGES = """\
- hosts: all
  gather_facts: false
  tasks:
    - differ: {before: "", after: "+a\\r\\n-b\\r\\n\\r\\n@@ c\\r\\n+a"}
    - differ: {before: "+a\\r\\n-b\\r\\n\\r\\n@@ c\\r\\n+a", after: "+a\\r\\n-b\\n\\n@@ c\\r\\nx\\n"}
    - differ: {before: "+a\\r\\n-b\\n\\n@@ c\\r\\nx\\n", after: "", mode: "0600"}
    - differ: {before: "", after: "same\\n"}
      register: it
    - debug: msg={{ it.changed }}
    - fail: msg=end
"""
# A result as `copy` has it, without the processes of its modules.
DIFFER = """\
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        before, after, mode = (self._task.args.get(name) for name in ("before", "after", "mode"))
        content = {"before": before, "after": after, "before_header": "/srv/out", "after_header": "/tmp/source"}
        modes = {"before": {"path": "/srv/out", "mode": "0644"}, "after": {"path": "/srv/out", "mode": mode}}
        diff = [content, modes] if mode else [content]
        return {"changed": before != after, "dest": "/srv/out", **({"diff": diff} if self._task.diff else {})}
"""
CALLBACK = """\
import copy, json, pickle, re
from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.color import colorize, hostcolor, stringc
DOCUMENTATION = '''
name: shape
type: stdout
description: x
extends_documentation_fragment: [default_callback, result_format_callback]
'''
class CallbackModule(Default):
    CALLBACK_NAME = "shape"
    def v2_runner_on_ok(self, result):
        name = stringc(result.host.get_name(), C.COLOR_OK)
        diff = self._get_diff(result.result.get("diff") or [])
        self._display.display(stringc("in colour", C.COLOR_CHANGED))
        self._display.display(f"{name:<20}|{len(name)}|{name[:1]}|{name.upper()}|{repr(name)}|{name + '!'}")
        # The name of a temporary file is as long as the number of a process.
        self._display.display(diff.upper() + str(len(re.sub(r'\\S*/ansible-\\S+', '', diff))))
        copies = copy.copy(name), copy.deepcopy(diff), pickle.loads(pickle.dumps(diff)), json.loads(json.dumps(name))
        for same in copies:
            self._display.display(same)
        counts = {"failures": 1, "unreachable": 0, "changed": 0}
        self._display.display(hostcolor("h", counts) + colorize("ok", 1, C.COLOR_OK))
"""


@pytest.fixture(scope="module")
def servers(_home: Path) -> Iterator[ForkServerPool]:
    """Keeps one fork server: that of a test takes the place of the one before."""
    servers = ForkServerPool(1)
    servers.warm_up("/")
    yield servers
    servers.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "hosts").write_text(f"h1 {LOCAL}\n")
    (tmp_path / "play.yml").write_text(CHANGES)
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/differ.py").write_text(DIFFER)
    (tmp_path / "callback_plugins").mkdir()
    (tmp_path / "callback_plugins/shape.py").write_text(CALLBACK)
    return tmp_path


def command_line(place: Path, program: str, *argv: str, **environment: str) -> str:
    words = [require_program(program), *argv]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    done = subprocess.run(
        words, cwd=place, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout.decode()


PLAYBOOK = "-i", "hosts", "play.yml"
ADHOC = "h1", "-i", "hosts", "-m", "copy", "-a", "dest={{ playbook_dir | default('.') }}/out content='a\\r\\nb\\r\\n'"


@pytest.mark.by_day(1)
@pytest.mark.parametrize("diff", [(), ("--diff",)], ids=["", "diff"])
@pytest.mark.parametrize("callback", ["default", "shape", "minimal"])
def test_a_playbook_prints_and_logs_what_the_command_line_does(
    servers: ForkServerPool, place: Path, callback: str, diff: tuple[str, ...]
) -> None:
    (place / "ansible.cfg").write_text(f"[defaults]\nstdout_callback = {callback}\nlog_path = ./log\n")
    expected = command_line(place, "ansible-playbook", *PLAYBOOK, *diff)
    logged = (place / "log").read_text()
    (place / "log").unlink()
    with DirectRun(servers, place, *PLAYBOOK, *diff) as run:
        assert without_times(run.wait().text) == without_times(expected)
    assert COLOUR_MARK not in (place / "log").read_text()
    assert messages((place / "log").read_text()) == messages(logged)


def test_an_adhoc_diff_is_the_command_lines(servers: ForkServerPool, place: Path) -> None:
    expected = command_line(place, "ansible", *ADHOC, "--diff")
    (place / "out").unlink()
    with DirectRun(servers, place, *ADHOC, "--diff", program="ansible") as run:
        assert without_times(run.wait().text) == without_times(expected)


def test_a_diff_has_the_colours_of_a_terminal(servers: ForkServerPool, place: Path) -> None:
    text = CHANGES.replace("\\r", "")  # with colours the command line keeps these in a diff
    (place / "play.yml").write_text(text)
    expected = command_line(place, "ansible-playbook", *PLAYBOOK, "--diff", ANSIBLE_FORCE_COLOR="1")
    with DirectRun(servers, place, *PLAYBOOK, "--diff") as run:
        shown = visible(by_line(run.wait().coloured.replace(COLOUR_MARK, "\x1b")))
    assert without_times(shown) == without_times(visible(expected))


def test_a_coloured_text_has_one_mark_however_many_lines_it_has(servers: ForkServerPool, place: Path) -> None:
    argv = ("h1", "-i", "hosts", "-m", "command", "-a", "seq 1 2000")
    with DirectRun(servers, place, *argv, program="ansible") as run:
        shown = run.wait().coloured
    assert shown.count("\n") > 2000 and shown.count(f"{COLOUR_MARK}[0") < 10


def by_line(text: str) -> str:
    """With a colour on each line of a coloured text, as the service shows it."""

    def each(found: re.Match[str]) -> str:
        return "\n".join(f"\x1b[{found[1]}m{line}\x1b[0m" for line in found[2].split("\n"))

    return re.sub(r"\x1b\[([0-9;]+)m(.*?)\x1b\[0m", each, text, flags=re.DOTALL)


def visible(text: str) -> str:
    """Without colours around nothing: the command line has one after each coloured line's end."""
    return re.sub(r"\x1b\[[0-9]+e", "", re.sub(r"\x1b\[[0-9;]+m\x1b\[0m", "", text.replace("\n\x1b[0m", "\x1b[0m\n")))


def without_times(text: str) -> str:
    return re.sub(r"(?i)\S*/ansible-\S+", "", text)


def messages(log: str) -> list[str]:
    """The lines of a log, without time and process."""
    return [without_times(line.partition("| ")[2] if "| " in line else line) for line in log.splitlines()]
