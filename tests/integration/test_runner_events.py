"""The event frames of runs of real Ansible: verdicts, times, sizes, and which text belongs to which."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible import wire
from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import DirectRun
from tests.helpers.waiting import require_program

LOCAL = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"
FAR = "ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_timeout=5"
HOSTS = ("h1", "h2", "h3")


@pytest.fixture(scope="module")
def servers(_home: Path) -> Iterator[ForkServerPool]:
    require_program("ansible")
    servers = ForkServerPool(2)
    servers.warm_up("/")
    yield servers
    servers.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir(mode=0o755)
    (folder / "hosts").write_text("".join(f"{host} {LOCAL}\n" for host in HOSTS) + f"far {FAR}\n")
    return folder


def written(place: Path, plays: str) -> tuple[str, ...]:
    (place / "play.yml").write_text(plays)
    return "-i", "hosts", "play.yml"


def on_hosts(tasks: str, hosts: str = "h1,h2,h3", more: str = "") -> str:
    """A play of these play tasks."""
    body = "".join(f"    {line}\n" for line in tasks.strip("\n").splitlines())
    return f"- hosts: {hosts}\n  gather_facts: false\n{more}  tasks:\n{body}"


def ran(servers: ForkServerPool, place: Path, plays: str, *options: str) -> DirectRun:
    """The run of a playbook, once it is over."""
    with DirectRun(servers, place, *options, *written(place, plays)) as run:
        return run.wait()


def command_line(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program(argv[0]), *argv[1:]],
        cwd=place,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def verdicts(run: DirectRun, task: str) -> dict[str, str]:
    return {event["host"]: event["verdict"] for event in run.results if event["task"] == task}


# Verdicts.

NESTED = on_hosts("""
- block:
    - command: "true"
    - block:
        - name: inner
          command: "false"
          when: inventory_hostname != 'h2'
      rescue:
        - name: in the inner rescue
          fail: msg=no
          when: inventory_hostname == 'h1'
      always:
        - debug: msg=always
  rescue:
    - name: in the outer rescue
      fail: msg=no
      ignore_errors: true
- debug: msg=after
""")

LOOP = on_hosts("""
- block:
    - name: loop
      command: test {{ item }} = {{ inventory_hostname }}
      loop: [h1, h1]
  rescue:
    - command: "true"
      loop: [1, 2]
- name: loop whose items are ignored
  command: test {{ item }} = 1
  loop: [1, 2]
  ignore_errors: true
- name: skipped loop
  debug: msg={{ item }}
  loop: [1, 2]
  when: item > 2
""")

RESCUE_FAILS = on_hosts("""
- block:
    - name: first
      command: "false"
  rescue:
    - name: second
      command: "false"
      when: inventory_hostname == 'h3'
  always:
    - name: third
      command: "false"
      when: inventory_hostname == 'h2'
- command: "true"
""")

ANY_ERRORS_FATAL = on_hosts(
    """
- block:
    - name: one fails
      command: "false"
      when: inventory_hostname == 'h1'
    - command: "true"
  rescue:
    - debug: msg=rescued
- name: for good
  command: "false"
  when: inventory_hostname == 'h2'
- debug: msg=never
""",
    more="  any_errors_fatal: true\n",
)

HANDLERS = on_hosts(
    """
- command: "true"
  notify: [hand, bad hand]
- meta: flush_handlers
- block:
    - command: "true"
      notify: hand
    - command: "false"
  rescue:
    - command: "true"
      notify: bad hand
- name: at last
  command: "false"
  ignore_errors: "{{ inventory_hostname == 'h3' }}"
""",
    more="  force_handlers: true\n  handlers:\n    - {name: hand, command: 'true'}\n"
    "    - {name: bad hand, command: 'false', ignore_errors: true}\n",
)

BLOCK = """
- block:
    - command: test {{ inventory_hostname }} = h1
    - debug: msg=passed
  rescue:
    - debug: msg=rescued
- include_tasks: included.yml
- name: some fail
  fail: msg=no
  when: inventory_hostname == 'h2'
- name: once
  command: "true"
  run_once: true
"""
FREE = on_hosts(BLOCK, more="  strategy: free\n").replace("  run_once: true\n", "")
SERIAL = on_hosts(BLOCK, more="  serial: 1\n")
TWO_PLAYS = on_hosts(BLOCK) + on_hosts("- fail: msg=no\n  ignore_errors: true\n- debug:\n  when: false")
UNREACHABLE = on_hosts("- ping:\n- debug: msg=after", hosts="h1,far")
INCLUDED = on_hosts("""
- include_tasks: included.yml
- block:
    - include_tasks: included-fails.yml
  rescue:
    - debug: msg=rescued
""")

# The playbook, and what its hosts are to have of `failed` and `rescued`.
COUNTS = {
    "nested blocks": (NESTED, {}, {"h1": 2, "h3": 1}),
    "a loop": (LOOP, {}, {"h2": 1, "h3": 1}),
    "a failure in the rescue part and in the always part": (RESCUE_FAILS, {"h2": 1, "h3": 1}, dict.fromkeys(HOSTS, 1)),
    "any_errors_fatal": (ANY_ERRORS_FATAL, {"h2": 1}, {"h1": 1}),
    "force_handlers": (HANDLERS, {"h1": 1, "h2": 1}, dict.fromkeys(HOSTS, 1)),
    "strategy free": (FREE, {"h2": 1}, {"h2": 1, "h3": 1}),
    "serial": (SERIAL, {"h2": 1}, {"h2": 1, "h3": 1}),
    "two plays": (TWO_PLAYS, {"h2": 1}, {"h2": 1, "h3": 1}),
    "an unreachable host": (UNREACHABLE, {}, {}),
    "included play tasks": (INCLUDED, {}, dict.fromkeys(HOSTS, 1)),
}


@pytest.mark.by_day(3)
@pytest.mark.parametrize(("plays", "failed", "rescued"), COUNTS.values(), ids=COUNTS)
def test_the_verdicts_add_up_to_ansibles_own_counts(
    servers: ForkServerPool, place: Path, plays: str, failed: dict[str, int], rescued: dict[str, int]
) -> None:
    (place / "included.yml").write_text('- command: "true"\n- debug: msg=included\n')
    (place / "included-fails.yml").write_text('- command: "false"\n')
    run = ran(servers, place, plays)
    stats = run.end["stats"]
    assert stats, run.text
    reported = {host: Counter(event["verdict"] for event in run.results if event["host"] == host) for host in stats}
    for host, count in stats.items():
        mine = reported[host]
        assert (mine["failed"], mine["rescued"]) == (failed.get(host, 0), rescued.get(host, 0)), (host, run.text)
        assert (mine["failed"], mine["rescued"]) == (count["failures"], count["rescued"]), host
        assert (mine["unreachable"], mine["skipped"]) == (count["unreachable"], count["skipped"]), host
        # Ansible counts an ignored failure as ok and as changed too.
        assert mine["ignored"] == count["ignored"], host
        assert mine["ok"] + mine["changed"] + mine["ignored"] == count["ok"], host
        changed_and_ignored = sum(
            event["host"] == host and event["verdict"] == "ignored" and bool(event["result"].get("changed"))
            for event in run.results
        )
        assert mine["changed"] + changed_and_ignored == count["changed"], host


def test_an_unreachable_host_that_is_ignored_is_counted_as_ignored(servers: ForkServerPool, place: Path) -> None:
    tasks = "- name: try\n  ping:\n  ignore_unreachable: true\n- name: end\n  ping:"
    run = ran(servers, place, on_hosts(tasks, hosts="far"))
    assert (verdicts(run, "try"), verdicts(run, "end")) == ({"far": "ignored"}, {"far": "unreachable"})
    count = run.end["stats"]["far"]
    assert (count["unreachable"], count["ignored"], count["ok"]) == (1, 1, 1)


ODD_NAMES = """\
- name: {0}
  hosts: h1
  gather_facts: false
  tasks:
    - name: {0}
      debug:
    - name: {0}
      block:
        - name: {0}
          command: echo
          notify: told
        - name: {0}
          command: "false"
      rescue:
        - name: {0}
          debug:
      always:
        - name: {0}
          command: "false"
          ignore_errors: true
    - name: {0}
      debug:
      when: false
    - name: {0}
      include_tasks: more.yml
  handlers:
    - name: {0}
      debug:
      listen: told
- import_playbook: other.yml
  name: {0}
"""


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    "name", ["2024", "yes", "12.5", "2024-05-01", "0x1F", ".inf", "1:30", "'  '", "~", "'\\uD800'"]
)
def test_a_name_that_is_no_text_has_its_events_and_the_command_lines_text(
    servers: ForkServerPool, place: Path, name: str
) -> None:
    (place / "more.yml").write_text(f"- name: {name}\n  debug:\n")
    (place / "other.yml").write_text(f"- name: {name}\n  hosts: h2\n  gather_facts: false\n  tasks: [debug:]\n")
    argv = written(place, ODD_NAMES.format(name))
    run = ran(servers, place, ODD_NAMES.format(name))
    reference = command_line(place, "ansible-playbook", *argv)
    assert (run.text, run.end["returncode"]) == (reference.stdout, reference.returncode)
    count = Counter(event["event"] for event in run.events)
    assert (count["play_start"], count["task_start"]) == (
        run.text.count("\nPLAY ["),
        sum(run.text.count(f"\n{word} [") for word in ("TASK", "RUNNING HANDLER")),
    )


NOWHERE = on_hosts("- debug:", hosts="nowhere")
EMPTY = "- hosts: h1\n  gather_facts: false\n"
TAGGED = on_hosts("- debug:\n  tags: one", hosts="h1")
WITHOUT_A_RESULT: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    # play, options -> the warning
    "no host": (NOWHERE, (), wire.NO_HOSTS),
    "no host in two plays": (NOWHERE + NOWHERE, (), wire.NO_HOSTS),
    "no play task": (EMPTY, (), wire.NO_PLAY_TASKS),
    "no host, and no play task": (NOWHERE + EMPTY, (), wire.NO_PLAY_TASKS),
    "no play task with the tag": (TAGGED, ("--tags", "other"), wire.NO_PLAY_TASKS),
    "a result after a play without hosts": (NOWHERE + TAGGED, (), None),
    "a list of hosts": (NOWHERE, ("--list-hosts",), None),
    "a list of play tasks": (TAGGED, ("--list-tasks",), None),
    "a list of tags": (TAGGED, ("--list-tags",), None),
    "a syntax check": (TAGGED, ("--syntax-check",), None),
    "a syntax error": ("- hosts: h1\n  tasks: x\n", (), None),
    "a limit without a host": (TAGGED, ("--limit", "nowhere"), None),
}


@pytest.mark.parametrize(("plays", "options", "warning"), WITHOUT_A_RESULT.values(), ids=WITHOUT_A_RESULT)
def test_a_success_without_any_result_says_what_it_lacked(
    servers: ForkServerPool, place: Path, plays: str, options: tuple[str, ...], warning: str | None
) -> None:
    run = ran(servers, place, plays, *options)
    assert run.end["warning"] == warning
    assert warning is None or (run.end["returncode"], run.end["broken"]) == (0, None)


@pytest.mark.parametrize(
    ("argv", "warning"),
    [
        (("nowhere", "-i", "hosts"), wire.NO_HOSTS),
        (("all", "-i", "empty"), wire.NO_HOSTS),
        (("nowhere", "-i", "hosts", "--list-hosts"), None),
        (("h1", "-i", "hosts"), None),
    ],
    ids=str,
)
def test_an_adhoc_command_without_a_host_says_so(
    servers: ForkServerPool, place: Path, argv: tuple[str, ...], warning: str | None
) -> None:
    (place / "empty").write_text("")
    with DirectRun(servers, place, *argv, "-m", "debug", program="ansible") as run:
        run.wait()
    assert (run.end["returncode"], run.end["warning"]) == (0, warning)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("h1", "-i", "hosts", "--limit", "nowhere"), wire.EMPTY_LIMIT),
        (("h1", "-i", "hosts", "--limit", "@missing"), None),
    ],
    ids=str,
)
def test_a_limit_that_leaves_no_hosts_is_told_from_other_errors(
    servers: ForkServerPool, place: Path, argv: tuple[str, ...], reason: str | None
) -> None:
    with DirectRun(servers, place, *argv, "-m", "debug", program="ansible") as run:
        run.wait()
    assert (run.end["returncode"], run.end["reason"]) == (1, reason)


def test_a_playbook_whose_limit_leaves_no_hosts_says_so(servers: ForkServerPool, place: Path) -> None:
    run = ran(servers, place, TAGGED, "--limit", "nowhere")
    assert (run.end["returncode"], run.end["reason"]) == (1, wire.EMPTY_LIMIT)


RAW = """\
import os
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_NAME, CALLBACK_VERSION, CALLBACK_TYPE = "raw", 2.0, "aggregate"
    def v2_runner_on_ok(self, result):
        os.write(2, b"raw\\n" * 1000)
        print("kept back by Python", end="")
"""


def test_text_that_was_written_past_python_belongs_to_the_event_it_came_before(
    servers: ForkServerPool, place: Path
) -> None:
    """A callback writes to descriptor 2 and prints half a line; a vault password program writes to standard error."""
    (place / "callback_plugins").mkdir()
    (place / "callback_plugins/raw.py").write_text(RAW)
    (place / "password").write_text("#!/bin/sh\nseq 500 >&2\necho word\n")
    (place / "password").chmod(0o755)
    tasks = "".join(f"- name: t{number}\n  debug: msg=m{number}\n" for number in range(3))
    run = ran(servers, place, on_hosts(tasks, hosts="h1"), "--vault-password-file", "password")
    texts = [text for event, text in run.texts() if event["event"] == "host_result"]
    assert [text.count("raw\n") for text in texts] == [1000] * 3
    assert [text.count("kept back by Python") for text in texts] == [1] * 3
    assert all(f'"msg": "m{number}"\n}}\n' in text for number, text in enumerate(texts))


def test_an_include_that_is_not_there_is_told_twice_as_the_text_does(servers: ForkServerPool, place: Path) -> None:
    """First that the play task was carried out, then that its file cannot be read: Ansible counts the second only."""
    run = ran(servers, place, on_hosts("- name: include\n  include_tasks: missing.yml", hosts="h1"))
    assert [event["verdict"] for event in run.results] == ["ok", "failed"]
    assert (run.end["stats"]["h1"]["ok"], run.end["stats"]["h1"]["failures"]) == (0, 1)


def test_an_include_in_a_loop_is_one_result_and_counted_by_item(servers: ForkServerPool, place: Path) -> None:
    (place / "included.yml").write_text("- debug:\n")
    plays = on_hosts("- name: include\n  include_tasks: included.yml\n  loop: [1, 2, 3]", hosts="h1")
    run = ran(servers, place, plays)
    assert [event["task"] for event in run.results] == ["include", "debug", "debug", "debug"]
    assert run.end["stats"]["h1"]["ok"] == 3 + 3


def test_a_handler_says_that_it_is_one(servers: ForkServerPool, place: Path) -> None:
    run = ran(servers, place, HANDLERS, "--limit=h1")
    starts = [event for event in run.events if event["event"] == "task_start"]
    assert {event["task"] for event in starts if event.get("handler") is True} == {"hand", "bad hand"}
    assert all("handler" not in event for event in starts if event["task"] not in ("hand", "bad hand"))
    assert "RUNNING HANDLER [bad hand]" in run.text


def test_a_result_has_its_play_task_by_the_name_under_which_it_began(servers: ForkServerPool, place: Path) -> None:
    """With its role before it, and templated, as the text has it: elsewhere Ansible has it without either."""
    for role in ("shop", "cart"):
        folder = place / f"roles/{role}"
        (folder / "tasks").mkdir(parents=True)
        (folder / "handlers").mkdir()
        (folder / "tasks/main.yml").write_text(
            "- {name: 'in {{ x }}', command: 'true', notify: told}\n- {include_tasks: more.yml}\n"
        )
        (folder / "tasks/more.yml").write_text("- {debug: msg=1}\n")
        (folder / "handlers/main.yml").write_text("- {name: told, debug: msg=2}\n")
    tasks = "- {name: 'of {{ x }} and {{ inventory_hostname }}', debug: msg=3}"
    play = on_hosts(tasks, "h1,h2", "  vars: {x: here}\n  roles: [shop, cart]\n")
    for strategy in ("linear", "free"):
        run = ran(servers, place, play.replace("  gather_facts", f"  strategy: {strategy}\n  gather_facts"))
        begun = {event["task"] for event in run.events if event["event"] == "task_start"}
        assert {event["task"] for event in run.results} <= begun
        assert {"shop : in here", "cart : in here", "cart : told", "cart : debug"} <= begun


def test_every_frame_has_its_time_and_offsets_never_go_back(servers: ForkServerPool, place: Path) -> None:
    before = time.time()
    run = ran(servers, place, TWO_PLAYS.replace("include_tasks: included.yml", "debug:"), "-v")
    times = [frame["time"] for frame in run.frames]
    assert times == sorted(times) and before <= times[0] and times[-1] <= time.time()
    assert all(isinstance(moment, float) for moment in times)
    offsets = [run.offset(frame) for frame in run.frames]
    assert offsets == sorted(offsets)
    assert offsets[-1] == len(run.output)


# Sizes.

MEGABYTES = "head -c 5000000 /dev/zero | tr '\\0' y"


def test_a_result_over_the_limit_is_left_out_and_the_text_is_the_command_lines(
    servers: ForkServerPool, place: Path
) -> None:
    plays = on_hosts(
        f"- name: much\n  shell: {MEGABYTES}; exit {{{{ 3 if inventory_hostname == 'h2' else 0 }}}}\n"
        "  register: it\n  failed_when: false\n- debug: msg={{ it.stdout | length }}",
        hosts="h1,h2",
    )
    run = ran(servers, place, plays, "--forks=1")
    expected = command_line(place, "ansible-playbook", "--forks=1", *written(place, plays))
    assert run.text == expected.stdout
    assert "WARNING" not in run.text
    for event in run.results[:2]:
        result = event["result"]
        assert result["flansible_left_out"] == "the result is over the limit of 4194304 bytes"
        rc = 3 if event["host"] == "h2" else 0
        assert set(result) == {"flansible_left_out", "changed", "rc", "msg"}
        assert (result["changed"], result["rc"], "non-zero return code" in result["msg"]) == (True, rc, rc == 3)
    assert all(len(json.dumps(frame)) < 10_000 for frame in run.frames)


def test_a_message_is_cut_where_the_result_is_left_out(servers: ForkServerPool, place: Path) -> None:
    run = ran(servers, place, on_hosts("- fail: msg={{ 'm' * 5000000 }}", hosts="h1"))
    [event] = run.results
    assert event["result"]["msg"] == "m" * 4096
    assert event["verdict"] == "failed" and "flansible_left_out" in event["result"]


def test_names_and_collected_stats_are_bounded_as_well(servers: ForkServerPool, place: Path) -> None:
    plays = on_hosts(
        "- name: \"{{ 'n' * 5000000 }}\"\n  set_stats:\n    data:\n      collected: \"{{ 's' * 5000000 }}\"", hosts="h1"
    )
    run = ran(servers, place, plays)
    assert run.exited is not None and run.exited["returncode"] == 0
    assert [len(event["task"]) for event in run.results] == [4096]
    assert set(run.end["custom_stats"]) == {"flansible_left_out"}
    assert all(len(wire.encode(frame)) < 100_000 for frame in run.frames)


DEEP = """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        deep = []
        for _ in range(int(self._task.args["depth"])):
            deep = [deep]
        return {"changed": False, "deep": deep}
"""


@pytest.mark.parametrize("depth", [50, 300])
def test_a_result_that_nests_deeply_adds_nothing_to_the_text(servers: ForkServerPool, place: Path, depth: int) -> None:
    (place / "action_plugins").mkdir()
    (place / "action_plugins" / "deep.py").write_text(DEEP)
    plays = on_hosts(f"- deep: depth={depth}\n- debug: msg=after", hosts="h1")
    run = ran(servers, place, plays)
    assert "flansible" not in run.text.replace(str(place), ""), "a warning about our callback"
    if depth == 50:
        assert run.text == command_line(place, "ansible-playbook", *written(place, plays)).stdout
    assert [event["verdict"] for event in run.results] == ["ok", "ok"]
    assert ("deep" if depth == 50 else "flansible_left_out") in run.results[0]["result"]


def test_a_run_whose_events_nobody_reads_prints_what_it_would_print(servers: ForkServerPool, place: Path) -> None:
    plays = on_hosts("- ping:\n- debug: msg=after")
    with DirectRun(servers, place, *written(place, plays), deaf=True) as run:
        run.wait()
    assert sorted(run.text.splitlines()) == sorted(
        command_line(place, "ansible-playbook", *written(place, plays)).stdout.splitlines()
    )
    assert run.exited is not None and run.exited["returncode"] == 0


# Secrecy.

MARKER = "hush-4711"
SECRETS = on_hosts(
    """
- name: hidden
  command: echo {{ word }}
  no_log: true
- name: hidden and failing
  command: "{{ word }} {{ word }}"
  no_log: true
  ignore_errors: true
- name: hidden fail
  fail: msg={{ word }}
  no_log: true
  ignore_errors: true
- name: hidden loop
  command: echo {{ item }}
  loop: ["{{ word }}", "{{ word }}2"]
  no_log: true
- name: hidden items
  command: echo {{ item.text }}
  loop: "{{ [{'text': word, 'hide': true}, {'text': 'plain-text', 'hide': false}] }}"
  no_log: "{{ item.hide }}"
  loop_control: {label: x}
- name: hidden items that fail
  command: test {{ item.text }} = no
  loop: "{{ [{'text': word, 'hide': true}, {'text': word, 'hide': true}] }}"
  no_log: "{{ item.hide }}"
  loop_control: {label: x}
  ignore_errors: true
- block:
    - name: hidden and rescued
      shell: echo {{ word }} >&2; exit 1
      no_log: true
  rescue:
    - name: hidden in the rescue
      debug: msg={{ ansible_failed_result }}
      no_log: true
- name: hidden retries
  shell: echo {{ word }}; exit 1
  no_log: true
  retries: 2
  delay: 0
  until: false
  ignore_errors: true
- name: a module's own
  uri: url=http://127.0.0.1:1/ url_password={{ word }} url_username=me
  ignore_errors: true
""",
    hosts="h1",
    more='  vars: {word: \'{{ lookup("file", "word") }}\'}\n',
)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("verbosity", ["-v", "-vvv"])
def test_what_no_log_hides_is_in_no_frame(servers: ForkServerPool, place: Path, verbosity: str) -> None:
    (place / "word").write_text(MARKER)
    run = ran(servers, place, SECRETS, verbosity)
    assert run.exited is not None and run.exited["returncode"] == 0, run.text
    reported = {(event["task"], event["host"]): event["result"] for event in run.results}
    assert len(reported) == 10
    for (task, host), result in reported.items():
        assert MARKER not in json.dumps(result), (task, host)
    assert MARKER not in json.dumps(run.frames)
    for task in ("hidden", "hidden loop", "hidden and rescued"):
        assert "no_log" in reported[task, "h1"]["censored"]


# Which text belongs to which event.

SAID = on_hosts("""
- name: message
  debug: msg=from-{{ inventory_hostname }}
- name: command
  command: echo from-{{ inventory_hostname }}
- name: failing
  command: test {{ inventory_hostname }} = h1
  ignore_errors: true
- name: skipped
  debug:
  when: inventory_hostname == 'h1'
- name: rescued
  block:
    - name: to be rescued
      fail: msg=from-{{ inventory_hostname }}
  rescue:
    - debug: msg=rescued
- name: failing for good
  fail: msg=from-{{ inventory_hostname }}
  when: inventory_hostname == 'h3'
""")
ONE_LINE = "[defaults]\nstdout_callback = ansible.builtin.oneline\n"
SIGNS = {
    "ok": "ok: [{host}]",
    "changed": "changed: [{host}]",
    "failed": "fatal: [{host}]: FAILED!",
    "ignored": "fatal: [{host}]: FAILED!",
    "rescued": "fatal: [{host}]: FAILED!",
    "skipped": "skipping: [{host}]",
}
ONE_LINE_SIGNS = {
    "ok": "{host} | SUCCESS",
    "changed": "{host} | CHANGED",
    "failed": "{host} | FAILED!",
    "ignored": "{host} | FAILED!",
    "rescued": "{host} | FAILED!",
    "skipped": "{host} | SKIPPED",
}
SAYING: dict[str, tuple[str, str, tuple[str, ...], dict[str, str]]] = {
    "plain": (SAID, "", (), SIGNS),
    "-v": (SAID, "", ("-v",), SIGNS),
    "-vvv": (SAID, "", ("-vvv",), SIGNS),
    "serial": (SAID.replace("  tasks:", "  serial: 1\n  tasks:"), "", (), SIGNS),
    "free": (SAID.replace("  tasks:", "  strategy: free\n  tasks:"), "", (), SIGNS),
    "oneline": (SAID, ONE_LINE, (), ONE_LINE_SIGNS),
    "one fork": (SAID, "", ("--forks=1",), SIGNS),
}


@pytest.fixture
def cold() -> Iterator[ForkServerPool]:
    """For tests that need a special configuration."""
    servers = ForkServerPool(2)
    yield servers
    servers.close()


@pytest.mark.by_day(2)
@pytest.mark.parametrize(("plays", "configuration", "options", "signs"), SAYING.values(), ids=SAYING)
def test_the_text_before_a_host_result_is_that_hosts(
    servers: ForkServerPool,
    cold: ForkServerPool,
    place: Path,
    plays: str,
    configuration: str,
    options: tuple[str, ...],
    signs: dict[str, str],
) -> None:
    if configuration:
        (place / "ansible.cfg").write_text(configuration)
    run = ran(cold if configuration else servers, place, plays, *options)
    results = [(event, text) for event, text in run.texts() if event["event"] == "host_result"]
    assert len(results) == 3 * 7, run.text
    for event, text in results:
        verdict, host = event["verdict"], event["host"]
        assert signs[verdict].format(host=host) in text, (event, text)
        for other in set(HOSTS) - {host}:
            assert not any(sign.format(host=other) in text for sign in signs.values()), (event, text)
        assert ("...ignoring" in text) is (verdict == "ignored" and signs is SIGNS), text
    for event, text in run.texts():
        if event["event"] == "play_start" and signs is SIGNS:
            assert "PLAY [h1,h2,h3]" in text
        if event["event"] == "task_start" and signs is SIGNS and "free" not in plays:
            assert f"TASK [{event['task']}]" in text
    assert run.output[run.offset(run.events[-1]) :].decode().count("PLAY RECAP") == (1 if signs is SIGNS else 0)


@pytest.mark.parametrize("module", ["debug", "ping", "command"])
def test_the_text_of_an_adhoc_run_is_cut_by_host(servers: ForkServerPool, place: Path, module: str) -> None:
    argv = ("-i", "hosts", "h1,h2,h3", "-m", module, "-a", "echo it" if module == "command" else "")
    with DirectRun(servers, place, *argv, program="ansible") as run:
        run.wait()
    texts = [(event["host"], text) for event, text in run.texts() if event["event"] == "host_result"]
    assert len(texts) == 3
    for host, text in texts:
        assert re.match(rf"{host} \| (SUCCESS|CHANGED)", text) and text.count(" | ") == (
            2 if module == "command" else 1
        )
    assert "".join(text for _, text in texts) == run.text


def test_the_items_of_a_loop_are_in_the_text_of_some_result_of_their_play_task(
    servers: ForkServerPool, place: Path
) -> None:
    """Ansible prints items as they come, of all hosts at once, and results afterwards: one host alone has its own."""
    plays = on_hosts("- name: loop\n  command: echo {{ item }}\n  loop: [1, 2]\n- debug: msg=after")
    run = ran(servers, place, plays)
    texts = [text for event, text in run.texts() if event["event"] == "host_result" and event["task"] == "loop"]
    assert len(texts) == 3
    for host in HOSTS:
        for item in (1, 2):
            assert "".join(texts).count(f"changed: [{host}] => (item={item})") == 1
    alone = ran(servers, place, plays, "--limit=h2").texts()
    [text] = [text for event, text in alone if event["event"] == "host_result" and event["task"] == "loop"]
    assert text == "changed: [h2] => (item=1)\nchanged: [h2] => (item=2)\n"


def test_the_counts_of_very_many_hosts_make_no_end_that_is_refused() -> None:
    script = """if True:
        import json
        from types import SimpleNamespace
        from flansible import wire
        from flansible.runner import play

        sent = []
        counts = dict.fromkeys(("ok", "failures", "unreachable", "changed", "skipped", "rescued", "ignored"), 1)
        for hosts, size in ((10, 10), (20_000, 4_000_000), (80_000, 10)):
            stats = {f"host{number}.example.org": counts for number in range(hosts)}
            events = SimpleNamespace(stats=stats, custom_stats={"text": "y" * size})
            play._send_end(SimpleNamespace(send=sent.append), events, 0, None)
        largest = max(len(json.dumps(end)) for end in sent)
        print(json.dumps([[len(end["stats"]), *end["custom_stats"]] for end in sent]), largest < wire.MAX_REPORT_BYTES)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    left_out = "flansible_left_out"
    assert done.stdout.split("\n")[0] == f"{json.dumps([[10, 'text'], [20000, left_out], [0, left_out]])} True"
