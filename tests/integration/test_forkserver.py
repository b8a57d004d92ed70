"""The real fork server with real Ansible, as the worker uses it: results, endings, and the traps of the design."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from flansible import wire
from flansible.models import State, Step
from flansible.runner import keeper as keeper_module
from flansible.worker.ansible_config import configuration_of
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.outcome import Observed, outcome_of
from tests.helpers.process_tree import Tree, marked, new_mark, sleeping
from tests.helpers.runs import Ended, Worker, adhoc, command_line, new_id, temp_dirs
from tests.helpers.waiting import eventually, require_program

FORK_SERVER = "flansible.runner.forkserver"
LOCAL = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for playbooks with an inventory of three local hosts; nothing in it configures Ansible."""
    folder = tmp_path / "place"
    folder.mkdir(mode=0o755)
    (folder / "hosts").write_text("".join(f"h{number} {LOCAL}\n" for number in (1, 2, 3)))
    return folder


def play(place: Path, text: str, *argv: str, **more: Any) -> Step:
    """A playbook of these play tasks, on the three hosts."""
    body = "".join(f"    {line}\n" for line in text.strip("\n").splitlines())
    (place / "play.yml").write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{body}")
    return Step(program="ansible-playbook", argv=("-i", "hosts", *argv, "play.yml"), cwd=str(place), **more)


def test_a_debug_run_succeeds_with_its_text_and_events(ansible: Worker) -> None:
    ended = ansible.run("localhost", "-m", "debug")
    assert (ended.outcome.state, ended.outcome.returncode) == (State.SUCCEEDED, 0)
    assert ended.text.endswith('localhost | SUCCESS => {\n    "msg": "Hello world!"\n}\n')
    assert ended.text == command_line("ansible", "localhost", "-m", "debug", cwd=Path("/")).stdout
    assert [event["event"] for event in ended.events] == ["play_start", "task_start", "host_result", "stats"]
    result = ended.events[2]
    assert (result["host"], result["module"], result["verdict"]) == ("localhost", "debug", "ok")
    assert result["result"]["msg"] == "Hello world!"
    assert ended.events[3]["stats"]["localhost"]["ok"] == 1


def test_a_ping_run_answers_pong(ansible: Worker) -> None:
    ended = ansible.run("localhost", "-m", "ping")
    assert ended.outcome.state is State.SUCCEEDED
    assert '"ping": "pong"' in ended.text


UNREACHABLE = "far ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_timeout=5\n"
CODES: dict[str, tuple[tuple[str, ...], str]] = {
    "fine": (("localhost", "-m", "debug"), "ansible"),
    "a module fails": (("localhost", "-m", "fail"), "ansible"),
    "a host is unreachable": (("far", "-i", "far", "-m", "ping"), "ansible"),
    "no such option": (("localhost", "--no-such-option"), "ansible"),
    "no host pattern": ((), "ansible"),
    "no such module": (("localhost", "-m", "no_such_module"), "ansible"),
    "a module without its arguments": (("localhost", "-m", "command"), "ansible"),
    "no host matches": (("nobody", "-m", "debug"), "ansible"),
    "the version": (("--version",), "ansible"),
    "a playbook that is not there": (("missing.yml",), "ansible-playbook"),
    "a playbook that is no YAML": (("broken.yml",), "ansible-playbook"),
    "a playbook that is no list": (("empty.yml",), "ansible-playbook"),
    "a syntax check": (("--syntax-check", "broken.yml"), "ansible-playbook"),
}


@pytest.mark.by_day(3)
@pytest.mark.parametrize(("argv", "program"), CODES.values(), ids=CODES)
def test_exit_codes_are_the_command_lines(ansible: Worker, place: Path, argv: tuple[str, ...], program: str) -> None:
    (place / "far").write_text(UNREACHABLE)
    (place / "broken.yml").write_text("- hosts: [\n")
    (place / "empty.yml").write_text("hosts: all\n")
    expected = command_line(program, *argv, cwd=place)
    ended = ansible.run(*argv, cwd=str(place), program=program)
    assert ended.outcome.returncode == expected.returncode
    assert ended.outcome.state is (State.FAILED if expected.returncode else State.SUCCEEDED)


def test_a_playbook_whose_name_is_no_utf_8_runs_in_its_folder(ansible: Worker, place: Path) -> None:
    folder = place.rename(place.parent / os.fsdecode(b"caf\xe9"))
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all").write_text("beside: it\n")
    name = os.fsdecode(b"\xfc.yml")
    (folder / name).write_text("- hosts: h1\n  gather_facts: false\n  tasks: [{debug: {var: beside}}]\n")
    argv = ("-i", "hosts", "--", name)
    ended = ansible.run(*argv, cwd=str(folder), program="ansible-playbook")
    assert ended.outcome.state is State.SUCCEEDED and '"beside": "it"' in ended.text
    assert ended.text == command_line("ansible-playbook", *argv, cwd=folder).stdout


def test_a_directory_that_is_gone_is_a_failed_run_that_says_so(ansible: Worker, tmp_path: Path) -> None:
    ended = ansible.run("localhost", "-m", "debug", cwd=str(tmp_path / "gone"))
    assert (ended.outcome.state, ended.outcome.returncode) == (State.FAILED, 126)
    assert "cannot work in" in ended.text


def test_runs_side_by_side_keep_their_texts_apart(ansible: Worker, background: ThreadPoolExecutor) -> None:
    runs = [background.submit(ansible.run, "localhost", "-m", "debug", "-a", f"msg=run{n}-") for n in range(6)]
    for number, running in enumerate(runs):
        text = running.result(60).text
        assert [f"run{n}-" in text for n in range(6)] == [n == number for n in range(6)]


def test_others_variables_are_data_and_not_templates(ansible: Worker, place: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    evil = f"{{{{ lookup('pipe', 'touch {touched}') }}}}"
    step = play(place, "- debug: var=given", "-l", "h1", extra_vars=[{"given": evil}], data_only=True)
    ended = ansible.run_steps(step)
    assert ended.outcome.state is State.SUCCEEDED
    assert "touch" in ended.text and not touched.exists()


def test_others_module_arguments_are_data_and_not_templates(ansible: Worker, place: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    evil = f"{{{{ lookup('pipe', 'touch {touched}') }}}}"
    for arguments in (json.dumps({"msg": evil}), f"msg={evil}", f'msg="{evil}"'):
        step = adhoc("-i", "hosts", "h1", "-m", "debug", "-a", arguments, cwd=str(place), data_only=True)
        ended = ansible.run_steps(step)
        assert "touch" in ended.text, arguments
    assert not touched.exists()


def test_others_variables_in_a_string_cannot_redirect_the_connection(ansible: Worker, place: Path) -> None:
    """Objects are checked before they are queued; a string has names only when it is parsed."""
    for text in ("inventory_hostname=far", "a=1 ansible_host=far", '{"ansible_connection": "ssh"}', "_ansible_x=1"):
        step = play(place, "- ping:", "-l", "h1", extra_vars=(text,), data_only=True)
        ended = ansible.run_steps(step)
        assert ended.outcome.state is State.FAILED, text
        assert "Only admin may set it" in ended.text
        assert "pong" not in ended.text


def test_each_run_has_a_temp_directory_of_its_own_while_it_lasts(
    ansible: Worker, place: Path, _home: Path, background: ThreadPoolExecutor
) -> None:
    gate = place / "gate"
    step = play(place, f"- wait_for: path={gate}", "-l", "h1")
    runs = [background.submit(ansible.run_steps, step) for _ in range(3)]
    places = eventually(lambda: found if len(found := temp_dirs(_home)) == 3 else None)
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in places)
    gate.touch()
    assert all(running.result(60).outcome.state is State.SUCCEEDED for running in runs)
    eventually(lambda: temp_dirs(_home) == [], 3)


# The daemonic trap: in a daemonic process Ansible cannot start its workers, says nothing, and exits with 0.

DAEMONIC = """
import json, multiprocessing, os, sys
if sys.argv[1] == "daemonic":
    multiprocessing.current_process()._config["daemon"] = True
from flansible.runner import cleanup
from flansible.runner.cleanup import RunFiles
with cleanup.without_own_temp_dir():
    from flansible.runner import play
    from flansible.runner.module_cache import ModuleCache
os._exit(play.run(json.loads(sys.argv[2]), int(sys.argv[3]), RunFiles.make(sys.argv[4]), ModuleCache()))
"""


def run_in_process(how: str, step: Step, temp_dir: Path) -> tuple[dict[str, Any] | None, int, str]:
    """Runs play.run in a new process: its end frame, exit code and text."""
    request = {"type": "run", "grace_seconds": 1, "colour_mark": "\U00100000", "secrets": None}
    request.update(step.model_dump(mode="json"))
    events, events_end = os.pipe()
    with open(events, "rb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", DAEMONIC, how, json.dumps(request), str(events_end), str(temp_dir)],
            pass_fds=(events_end,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.close(events_end)
        text, _ = process.communicate(timeout=60)
        frames = list(wire.FrameReader().feed(stream.read()))
    ends = [frame for frame in frames if frame["type"] == "end"]
    return (ends[0] if ends else None), process.returncode, text


@pytest.mark.parametrize("how", ["ordinary", "daemonic"])
@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
def test_a_run_in_a_daemonic_process_is_no_success(place: Path, tmp_path: Path, kind: str, how: str) -> None:
    step = adhoc("localhost", "-m", "ping") if kind == "adhoc" else play(place, "- ping:", "-l", "h1")
    temp_dir = tmp_path / "temp"
    temp_dir.mkdir()
    end, code, text = run_in_process(how, step, temp_dir)
    exited = {"type": "exited", "returncode": code, "signal": None, "stopped": [], "stopped_count": 0}
    outcome = outcome_of(step, Observed(exited=exited, end=end), 60)
    if how == "ordinary":
        assert outcome.state is State.SUCCEEDED, text
    else:
        assert outcome.state is State.ERROR
        assert "pong" not in text
        assert "worker process" in outcome.description or "executed none" in outcome.description


# The setsid trap: Ansible's workers are session leaders, and so may be what they start.

STUBBORN = """\
- shell: |
    setsid sleep {mark} &
    ({python} -c "import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp('sleep', ['sleep', '{mark}'])
    " </dev/null >/dev/null 2>&1 &)
    (trap '' TERM; sleep {mark}) &
    exec sleep {mark}
"""
PROCESSES_A_HOST = 4


def hanging(worker: Worker, pool: ThreadPoolExecutor, step: Step, mark: str, count: int, **more: Any) -> Future[Ended]:
    """A run under way, once so many of its processes sleep."""
    running = pool.submit(worker.run_steps, step, **more)
    try:
        eventually(lambda: running.done() or len(sleeping(mark)) >= count, 30)
    except AssertionError:
        for process in marked(mark):
            process.kill()
        raise
    if running.done():
        pytest.fail(running.result().text)
    return running


@pytest.fixture
def mark() -> Iterator[str]:
    """The mark of this test's processes. Asked for after `background`: they are ended before their runs are awaited."""
    mark = new_mark()
    yield mark
    for process in marked(mark):
        process.kill()


def stubborn(place: Path, mark: str) -> Step:
    return play(place, STUBBORN.format(mark=mark, python=sys.executable), "--forks=3")


def test_a_deadline_ends_every_process_of_the_run_whatever_session_it_moved_to(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str, _home: Path
) -> None:
    ansible.timeout_seconds = 6
    running = hanging(ansible, background, stubborn(place, mark), mark, 3 * PROCESSES_A_HOST)
    ended = running.result(60)
    assert marked(mark) == []
    assert (ended.outcome.state, ended.outcome.returncode) == (State.TIMED_OUT, None)
    assert int(ended.outcome.description.split("; ")[1].split()[0]) >= 3 * PROCESSES_A_HOST
    eventually(lambda: temp_dirs(_home) == [], 3)


def test_a_cancel_ends_every_process_of_the_run(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str
) -> None:
    cancellation = Cancellation()
    step = stubborn(place, mark)
    running = hanging(ansible, background, step, mark, 3 * PROCESSES_A_HOST, cancellation=cancellation)
    cancellation.request("dev")
    ended = running.result(30)
    os.close(cancellation.descriptor)
    assert marked(mark) == []
    assert ended.outcome.state is State.CANCELED
    assert "canceled by dev" in ended.outcome.description


def test_a_run_that_was_killed_is_lost_and_leaves_nothing(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str, _home: Path
) -> None:
    running = hanging(ansible, background, stubborn(place, mark), mark, 3 * PROCESSES_A_HOST)
    [keeper] = keepers()
    # What the run has orphaned is the keeper's child too.
    [run] = [child for child in keeper.children() if child in marked(FORK_SERVER)]
    run.kill()
    ended = running.result(30)
    assert marked(mark) == []
    assert ended.outcome.state is State.LOST
    assert "SIGKILL" in ended.outcome.description
    eventually(lambda: temp_dirs(_home) == [], 3)


def test_a_killed_run_that_does_not_end_leaves_its_keeper_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a system call lives on: its file system is away."""
    kills: list[int] = []
    monkeypatch.setattr(keeper_module, "_kill", kills.append)
    handler = signal.getsignal(signal.SIGCHLD)
    ours, theirs = socket.socketpair()
    run = os.posix_spawn("/bin/sleep", ["sleep", "0.5"], os.environ)
    try:
        keeper_module._watch(theirs, run, 0.0, keeper_module._Termination(stopping=True, grace_ends_at=0.0))
    finally:
        signal.signal(signal.SIGCHLD, handler)
        ours.close()
        theirs.close()
    assert 1 < len(kills) < 100


def keepers() -> list[psutil.Process]:
    return [keeper.process for keeper in Tree().keepers()]


@pytest.mark.nightly
def test_a_run_whose_keeper_was_killed_is_lost_and_does_not_go_on(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str
) -> None:
    running = hanging(ansible, background, play(place, f"- command: sleep {mark}", "--forks=3"), mark, 3)
    [keeper] = keepers()
    keeper.kill()
    assert running.result(30).outcome.state is State.LOST
    eventually(lambda: not marked(mark), 10)


def test_a_killed_keeper_does_not_set_free_what_had_moved_to_other_sessions(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str
) -> None:
    running = hanging(ansible, background, stubborn(place, mark), mark, 3 * PROCESSES_A_HOST)
    [keeper] = keepers()
    keeper.kill()
    assert running.result(30).outcome.state is State.LOST
    eventually(lambda: not marked(mark), 10)


def slow(place: Path) -> tuple[Step, Path]:
    """A run that waits for a file."""
    gate = place / "gate"
    return play(place, f"- debug: msg=begun\n- wait_for: path={gate} timeout=30\n- debug: msg=done", "-l", "h1"), gate


def begin(worker: Worker, pool: ThreadPoolExecutor, step: Step) -> Future[Ended]:
    task_id = new_id()
    running = pool.submit(worker.run_steps, step, task_id=task_id)
    eventually(lambda: b"begun" in worker.output_of(task_id), 30)
    return running


def test_a_fork_server_that_is_killed_does_not_take_its_run_with_it(
    cold: Worker, place: Path, background: ThreadPoolExecutor
) -> None:
    step, gate = slow(place)
    running = begin(cold, background, step)
    [keeper] = keepers()
    os.kill(keeper.ppid(), signal.SIGKILL)
    gate.touch()
    ended = running.result(30)
    assert ended.outcome.state is State.SUCCEEDED
    assert '"msg": "done"' in ended.text


def test_a_fork_server_that_is_dropped_does_not_take_its_run_with_it(
    cold: Worker, place: Path, background: ThreadPoolExecutor
) -> None:
    step, gate = slow(place)
    running = begin(cold, background, step)
    cold.fork_servers.close()
    gate.touch()
    ended = running.result(30)
    assert ended.outcome.state is State.SUCCEEDED
    assert '"msg": "done"' in ended.text


def test_an_end_of_the_worker_ends_its_runs(
    ansible: Worker, place: Path, background: ThreadPoolExecutor, mark: str
) -> None:
    """A worker that is killed says nothing: its channels just end. Here a process of ours holds them."""
    code = (
        "import os, socket, sys\n"
        "from flansible import wire\n"
        "from flansible.worker.forkserver_pool import ForkServerPool\n"
        "channel, theirs = socket.socketpair()\n"
        "null = os.open(os.devnull, os.O_WRONLY)\n"
        "ForkServerPool(1).launch(sys.argv[1], {}, theirs, null, null)\n"
        "channel.sendall(wire.encode(__import__('json').loads(sys.argv[2])))\n"
        "print('launched', flush=True)\n"
        "sys.stdin.read()\n"
    )
    step = stubborn(place, mark)
    request = {"type": "run", "grace_seconds": 0.2, "colour_mark": "\U00100000", "secrets": None}
    request.update(step.model_dump(mode="json"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place), json.dumps(request)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"launched\n"
        eventually(lambda: len(sleeping(mark)) >= 3 * PROCESSES_A_HOST, 30)
        process.kill()
    eventually(lambda: not marked(mark), 10)


# Configuration.

INTRUDER = "open({path!r}, 'a').write(__name__ + ' ')\nraise ImportError('an intruder was imported')\n"


def test_modules_beside_a_playbook_are_not_imported_in_place_of_ours(cold: Worker, place: Path) -> None:
    witness = place / "witness"
    for name in ("json", "socket", "select", "ansible", "yaml", "jinja2", "psutil", "flansible", "sitecustomize"):
        (place / f"{name}.py").write_text(INTRUDER.format(path=str(witness)))
    (place / "ansible.cfg").write_text("[defaults]\n")  # the fork server starts in this directory
    ended = cold.run_steps(play(place, "- ping:", "-l", "h1"))
    assert ended.outcome.state is State.SUCCEEDED, ended.text
    assert not witness.exists()


BROKEN_CONFIGURATIONS = {
    "no section": "forks = 5\n",
    "an open bracket": "[defaults\nforks = 5\n",
    "a word for a number": "[defaults]\nforks = many\n",
    "no such callback": "[defaults]\nstdout_callback = no_such_callback\n",
    "no such strategy": "[defaults]\nstrategy = no_such_strategy\n",
}


@pytest.mark.by_day(1)
@pytest.mark.parametrize("text", BROKEN_CONFIGURATIONS.values(), ids=BROKEN_CONFIGURATIONS)
def test_a_broken_configuration_gives_the_command_lines_text_and_exit_code(
    cold: Worker, place: Path, text: str
) -> None:
    (place / "ansible.cfg").write_text(text)
    step = play(place, "- debug: msg=hello", "-l", "h1")
    expected = command_line("ansible-playbook", *step.argv, cwd=place)
    ended = cold.run_steps(step)
    assert ended.outcome.returncode == expected.returncode
    assert ended.text == expected.stdout


def test_git_can_mend_a_checkout_whose_configuration_is_broken(cold: Worker, place: Path) -> None:
    require_program("git")
    (place / "ansible.cfg").write_text("[defaults\n")
    ended = cold.run_steps(Step(program="git", argv=("--version",), cwd=str(place)))
    assert ended.outcome.state is State.SUCCEEDED, ended.text
    assert ended.text.startswith("git version")


def test_a_git_step_runs_in_its_directory_and_its_exit_code_counts(ansible: Worker, place: Path) -> None:
    require_program("git")
    ended = ansible.run_steps(Step(program="git", argv=("init", "-q", "."), cwd=str(place)))
    assert ended.outcome.state is State.SUCCEEDED and (place / ".git").is_dir()
    ended = ansible.run_steps(Step(program="git", argv=("fetch", "--", "nowhere"), cwd=str(place)))
    assert (ended.outcome.state, ended.outcome.returncode) == (State.FAILED, 128)
    assert "nowhere" in ended.text


def test_git_and_its_hooks_inherit_nothing_of_ours(ansible: Worker) -> None:
    require_program("git")
    alias = "alias.descriptors=!ls /proc/self/fd"
    ended = ansible.run_steps(Step(program="git", argv=("-c", alias, "descriptors"), cwd="/"))
    assert ended.text.split() == ["0", "1", "2", "3"], "the standard ones, and the directory that ls reads"


CONFIGURATIONS = {
    "a": "[defaults]\nstdout_callback = minimal\n",
    "b": "[defaults]\ncallback_result_format = yaml\ndisplay_skipped_hosts = false\n",
    "c": None,
}


@pytest.mark.nightly
def test_directories_with_different_configurations_never_mix(cold: Worker, tmp_path: Path) -> None:
    steps: dict[str, Step] = {}
    for name, text in CONFIGURATIONS.items():
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        (folder / "hosts").write_text(f"h1 {LOCAL}\n")
        if text is not None:
            (folder / "ansible.cfg").write_text(text)
        steps[name] = play(folder, "- debug: msg={{ {'x': [1, 2]} }}\n- debug:\n  when: false")
    expected = {name: command_line("ansible-playbook", *step.argv, cwd=Path(step.cwd)) for name, step in steps.items()}
    assert len({result.stdout for result in expected.values()}) == 3, "or there would be nothing to mix up"
    for name in "abcabcbaca":
        ended = cold.run_steps(steps[name])
        assert (ended.outcome.returncode, ended.text) == (expected[name].returncode, expected[name].stdout), name


def test_an_edited_configuration_is_in_force_with_the_next_run(cold: Worker, place: Path) -> None:
    step = play(place, "- debug: msg=x", "-l", "h1")
    for text in ("[defaults]\n", "[defaults]\nstdout_callback = minimal\n"):
        (place / "ansible.cfg").write_text(text)
        assert cold.run_steps(step).text == command_line("ansible-playbook", *step.argv, cwd=place).stdout


ORACLE = """
import json, os, sys
from ansible.config.manager import find_ini_config_file
answers = []
for directory, environ in json.loads(sys.argv[1]):
    os.environ.pop("ANSIBLE_CONFIG", None)
    os.environ.update(environ)
    os.chdir(directory)
    answers.append(find_ini_config_file())
print(json.dumps(answers))
"""


def test_the_configuration_file_is_the_one_ansible_would_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asks Ansible itself, about every combination of directory, home and ANSIBLE_CONFIG."""
    for name in ("plain", "own", "open", "open-plain", "home", "home-cfg", "named", "unreadable"):
        (tmp_path / name).mkdir(mode=0o755)
    for name in ("own/ansible.cfg", "open/ansible.cfg", "home-cfg/.ansible.cfg", "named/x.cfg", "named/ansible.cfg"):
        (tmp_path / name).write_text("[defaults]\n")
    (tmp_path / "own/x.cfg").write_text("[defaults]\n")
    (tmp_path / "unreadable/ansible.cfg").symlink_to("missing")
    for name in ("open", "open-plain"):
        (tmp_path / name).chmod(0o777)
    monkeypatch.setenv("NAMED", str(tmp_path / "named"))
    values = ["", "x.cfg", ".", "~/.ansible.cfg", "$NAMED/x.cfg", "../named", "missing.cfg", "/dev/null"]
    values += [str(tmp_path / name) for name in ("named/x.cfg", "named", "named/", "plain", "missing", "own/../named")]
    variables: list[dict[str, str]] = [{}, *({"ANSIBLE_CONFIG": value} for value in values)]
    cases = [
        (str(tmp_path / directory), {"HOME": str(tmp_path / home), **variable})
        for directory in ("plain", "own", "open", "open-plain", "unreadable")
        for home in ("home", "home-cfg")
        for variable in variables
    ]
    code = [sys.executable, "-P", "-c", ORACLE, json.dumps(cases)]
    answers = json.loads(subprocess.run(code, capture_output=True, text=True, check=True, timeout=60).stdout)
    for (directory, environ), answer in zip(cases, answers, strict=True):
        monkeypatch.setenv("HOME", environ["HOME"])
        found = configuration_of(directory, environ={**os.environ, **environ}).config_file
        same = found == answer or (found and answer and os.path.realpath(found) == os.path.realpath(answer))
        assert same, (directory, environ, found, answer)
