"""Play tasks that the run executes itself: the command line's text, callbacks and exit code, without a fork."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible import release
from ansible.plugins.strategy import linear

from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.comparing import masked
from tests.helpers.direct_runs import DirectRun
from tests.helpers.generated_plays import GeneratedPlay
from tests.helpers.services import write

NIGHTLY_PLAYS = 300
HOSTS = (
    "one flag=true\ntwo flag=false\nthree\n[all:vars]\nansible_connection=local\nown={{ inventory_hostname | upper }}\n"
)
# Python's number of the processes that the run has made, which Ansible's workers are.
COUNTING = """
import multiprocessing.process
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "counting"
    def v2_playbook_on_stats(self, stats):
        self._display.display(f"workers: {next(multiprocessing.process._process_counter) - 1}")
"""
INLINE = """
- debug: {msg: "hello {{ own }}"}
- set_fact: {fact: "{{ own }} is {{ hostvars['one'].own }}", other: {a: [1, "{{ own }}"]}}
- debug: {var: fact}
- assert: {that: ["fact is defined", "own | length > 2"]}
- command: /no/such/program
  when: false
- fail: {msg: "failed {{ own }}"}
  when: flag | default(false) | bool
  ignore_errors: true
- group_by: {key: "by_{{ flag | default('none') }}"}
- set_stats: {data: {mine: "{{ own }}"}, per_host: true}
- include_tasks: more.yml
- debug: {msg: "{{ absent }}"}
  ignore_errors: true
- debug: {msg: changed}
  changed_when: true
  notify: told
"""
FORKING = {
    "a command": "- command: 'true'",
    "a lookup with effects": "- debug: {msg: \"{{ lookup('pipe', 'echo piped') }}\"}",
    "a filter of the project": '- debug: {msg: "{{ own | shout }}"}',
    "an action of the project": "- mine: {}",
    "a time limit": "- debug: {msg: x}\n  timeout: 30",
    "retries": "- debug: {msg: x}\n  until: true\n  delay: 1",
    "another host": "- debug: {msg: x}\n  delegate_to: two",
    "an implicit localhost": "- debug: {msg: \"{{ hostvars['localhost'].inventory_hostname }}\"}",
    "another connection": "- debug: {msg: x}\n  vars: {ansible_connection: winrm}",
    "a loop that a callback of the project sees": "- debug: {msg: x}\n  loop: [1]",
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServerPool]:
    servers = ForkServerPool(2)
    with DirectRun(servers, tmp_path_factory.mktemp("warm"), "--version") as run:
        run.wait()
    yield servers
    servers.close()


def play_of(tasks: str, extra: str = "") -> str:
    indented = "".join(f"    {line}\n" for line in tasks.strip("\n").splitlines())
    return f"- hosts: all\n  gather_facts: false\n{extra}  tasks:\n{indented}"


def lay_out(place: Path, tasks: str, extra: str = "", callback: str = COUNTING) -> None:
    write(place / "hosts", HOSTS)
    write(place / "more.yml", "- debug: {msg: 'included by {{ own }}'}\n")
    write(place / "play.yml", play_of(tasks, extra))
    write(place / "callback_plugins/seen.py", callback)


def on_the_command_line(place: Path, argv: list[str], **environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *argv],
        cwd=place,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    return masked(done.stdout.decode(errors="backslashreplace")), done.returncode


def here(servers: ForkServerPool, place: Path, argv: list[str], **environment: str) -> tuple[str, int]:
    with DirectRun(servers, place, *argv, environment=environment) as run:
        run.wait(300)
    return masked(run.output.decode(errors="backslashreplace")), int(run.end["returncode"])


inline = pytest.mark.skipif(release.__version__ >= "2.21", reason="from 2.21 on, a worker asks the main process")


def workers_of(text: str) -> int:
    return int(re.findall(r"workers: (\d+)", text)[-1])


@inline
def test_what_needs_no_other_process_makes_none(servers: ForkServerPool, tmp_path: Path) -> None:
    lay_out(tmp_path, INLINE, "  handlers: [{name: told, debug: {msg: 'told {{ own }}'}}]\n")
    argv = ["-i", "hosts", "-f", "1", "play.yml"]
    (ours, returncode), theirs = here(servers, tmp_path, argv), on_the_command_line(tmp_path, argv)
    assert workers_of(ours) == 0 < workers_of(theirs[0])
    assert re.sub("workers: .*", "", ours) == re.sub("workers: .*", "", theirs[0])
    assert returncode == theirs[1]


@inline
@pytest.mark.parametrize("tasks", FORKING.values(), ids=FORKING.keys())
def test_what_needs_a_worker_gets_one_for_each_host(servers: ForkServerPool, tmp_path: Path, tasks: str) -> None:
    filters = "class FilterModule:\n    def filters(self):\n        return {'shout': lambda text: text + '!'}\n"
    action = "from ansible.plugins.action import ActionBase\nclass ActionModule(ActionBase):\n"
    write(tmp_path / "filter_plugins/own.py", filters)
    write(
        tmp_path / "action_plugins/mine.py",
        action + "    def run(self, tmp=None, task_vars=None):\n        return {}\n",
    )
    lay_out(tmp_path, tasks)
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"])
    assert workers_of(text) == 3


@pytest.mark.parametrize("name", ["debug", "set_fact"])
def test_a_project_s_own_action_of_that_name_is_used(servers: ForkServerPool, tmp_path: Path, name: str) -> None:
    action = "from ansible.plugins.action import ActionBase\nclass ActionModule(ActionBase):\n"
    body = "    def run(self, tmp=None, task_vars=None):\n        return {'msg': 'mine', 'changed': True}\n"
    write(tmp_path / f"action_plugins/{name}.py", action + body)
    lay_out(tmp_path, f"- {name}: {{msg: x}}")
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"])
    assert workers_of(text) >= 3 == text.count("changed: [")


@inline
def test_a_task_that_takes_long_is_done_by_workers_side_by_side(servers: ForkServerPool, tmp_path: Path) -> None:
    lay_out(tmp_path, '- set_fact: {n: "{{ range(2000000) | sum }}"}\n- debug: {msg: short}')
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"])
    assert 0 < workers_of(text) < 3


@inline
def test_a_result_is_kept_whatever_it_took_and_the_next_hosts_get_workers(
    servers: ForkServerPool, tmp_path: Path
) -> None:
    lay_out(tmp_path, '- set_fact: {n: "{{ range(30000000) | sum }}"}')
    argv = ["-i", "hosts", "play.yml", "-l"]
    assert [workers_of(here(servers, tmp_path, [*argv, hosts])[0]) for hosts in ("one", "all")] == [0, 2]


def without_counts(found: tuple[str, int]) -> str:
    return re.sub("workers: .*", "", found[0])


def test_a_redirected_action_is_announced_as_often_as_on_the_command_line(
    servers: ForkServerPool, tmp_path: Path
) -> None:
    lay_out(tmp_path, "- yum: {name: x}\n  when: false")
    argv = ["-i", "hosts", "-f", "1", "-vv", "play.yml"]
    ours, theirs = here(servers, tmp_path, argv), on_the_command_line(tmp_path, argv)
    assert without_counts(ours) == without_counts(theirs)
    assert "redirecting (type: action)" in ours[0]


@inline
def test_a_filter_that_has_moved_to_a_collection_gets_workers(servers: ForkServerPool, tmp_path: Path) -> None:
    filters = "class FilterModule:\n    def filters(self):\n        return {'json_query': lambda data, query: query}\n"
    write(tmp_path / "collections/ansible_collections/community/general/plugins/filter/json_query.py", filters)
    lay_out(tmp_path, "- debug: {msg: \"{{ [1] | json_query('found') }}\"}")
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"])
    assert workers_of(text) == text.count('"msg": "found"') == 3


@inline
def test_a_strategy_of_the_project_has_workers_only(servers: ForkServerPool, tmp_path: Path) -> None:
    write(tmp_path / "strategy_plugins/linear.py", Path(str(linear.__file__)).read_text())
    lay_out(tmp_path, "- debug: {msg: x}")
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"])
    assert workers_of(text) == 3


@inline
def test_a_log_of_what_each_process_loads_needs_them_all(servers: ForkServerPool, tmp_path: Path) -> None:
    lay_out(tmp_path, "- debug: {msg: x}")
    logged = {"ANSIBLE_LOG_PATH": str(tmp_path / "log"), "ANSIBLE_LOG_VERBOSITY": "4"}
    text, _ = here(servers, tmp_path, ["-i", "hosts", "play.yml"], **logged)
    assert workers_of(text) == 3


@inline
def test_hosts_do_not_each_wait_for_the_result_of_a_killed_worker(servers: ForkServerPool, tmp_path: Path) -> None:
    action = "import os\nfrom ansible.plugins.action import ActionBase\nclass ActionModule(ActionBase):\n"
    dying = "    def run(self, **_options):\n        os.kill(os.getpid(), 9)\n"
    write(tmp_path / "action_plugins/mine.py", action + dying)
    lay_out(tmp_path, "- mine: {}\n  when: inventory_hostname == 'h01'")
    write(tmp_path / "hosts", "h[01:20] ansible_connection=local\n")
    began = time.monotonic()
    text, _ = here(servers, tmp_path, ["-i", "hosts", "-f", "20", "play.yml"])
    assert "found in a dead state" in text
    assert time.monotonic() - began < 10


def test_tracebacks_are_those_of_the_command_line(servers: ForkServerPool, tmp_path: Path) -> None:
    failing = ("lookup('file', '/nope')", "1 | no_such_filter", "1 +", "lookup('vars', 'nope')", "7 / 0")
    tasks = "".join(f'- debug: {{msg: "{{{{ {one} }}}}"}}\n  ignore_errors: true\n' for one in failing)
    lay_out(tmp_path, tasks + "- debug: {msg: x}\n  vars: {ansible_connection: nope}\n")
    argv, shown = ["-i", "hosts", "-f", "1", "play.yml"], {"ANSIBLE_DISPLAY_TRACEBACK": "error"}
    ours, theirs = here(servers, tmp_path, argv, **shown), on_the_command_line(tmp_path, argv, **shown)
    assert without_counts(ours) == without_counts(theirs)
    assert ours[0].count("Traceback (most recent call last)") > len(failing)


def test_nothing_of_one_host_s_task_is_seen_by_another(servers: ForkServerPool, tmp_path: Path) -> None:
    """What a worker changes is lost with it: names, variables, lists that a template changes, warnings to come."""
    tasks = """
- block:
    - debug: {msg: "{{ shared.append(own) }}{{ shared }}"}
    - debug: {msg: "{{ shared }} {{ loop_var | default('unset') }}"}
    - debug: {msg: "{{ item }}"}
      loop: [1, 2]
      loop_control: {label: "of {{ own }}"}
    - include_tasks: more.yml
      vars: {loop_var: "{{ own }}"}
  name: block of {{ own }}
"""
    lay_out(tmp_path, tasks, "  vars: {shared: [1]}\n")
    argv = ["-i", "hosts", "-f", "1", "play.yml", "-v"]
    ours, theirs = here(servers, tmp_path, argv), on_the_command_line(tmp_path, argv)
    assert re.sub("workers: .*", "", ours[0]) == re.sub("workers: .*", "", theirs[0])


def test_hosts_do_not_see_each_other_s_results_while_workers_would_be_busy(
    servers: ForkServerPool, tmp_path: Path
) -> None:
    tasks = "- set_fact: {count: \"{{ hostvars.values() | map(attribute='count', default=0) | sum + 1 }}\"}\n"
    lay_out(tmp_path, tasks + "- debug: {var: count}")
    text, _ = here(servers, tmp_path, ["-i", "hosts", "-f", "3", "play.yml"])
    assert re.findall(r'"count": "?(\d+)', text) == ["1", "1", "1"]


def sections(text: str) -> list[list[str]]:
    """The lines of each play task, in any order: that of hosts is not determined with several forks."""
    # `included: <what> for <hosts>` names them in the order in which their workers ended.
    text = re.sub(r"(?m)^(included: .* for )(\w+(?:, \w+)+)", _sort_hosts, text)
    return [sorted(part.splitlines()) for part in re.split(r"(?m)^(?=(?:TASK|PLAY|RUNNING HANDLER) )", text)]


def _sort_hosts(found: re.Match[str]) -> str:
    return found[1] + ", ".join(sorted(found[2].split(", ")))


def notes(path: Path) -> list[list[str]]:
    """The calls of callback methods by play task; the start of a host and the end of another are in any order."""
    found: list[list[str]] = [[]]
    for line in path.read_text().splitlines() if path.exists() else []:
        if json.loads(line)[0] in ("task", "handler"):
            found.append([])
        found[-1].append(masked(line))
    return [sorted(part) for part in found]


def compare(servers: ForkServerPool, place: Path, seed: int) -> None:
    play = GeneratedPlay(seed, notes=seed % 3 == 0)
    play.lay_out(place)
    ours = here(servers, place, play.argv, NOTED=str(place / "ours"))
    theirs = on_the_command_line(place, play.argv, NOTED=str(place / "theirs"))
    assert ours[1] == theirs[1], play.text
    if play.forks == 1:
        assert ours[0] == theirs[0], play.text
    else:
        assert sections(ours[0]) == sections(theirs[0]), play.text
    assert notes(place / "ours") == notes(place / "theirs"), play.text


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.nightly)])
def test_generated_plays_are_the_command_line_s(servers: ForkServerPool, tmp_path: Path, seed: int) -> None:
    compare(servers, tmp_path, seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(100, 100 + NIGHTLY_PLAYS))
def test_many_generated_plays_are_the_command_line_s(servers: ForkServerPool, tmp_path: Path, seed: int) -> None:
    compare(servers, tmp_path, seed)
