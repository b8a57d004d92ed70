"""Fork servers that are forked from the zygote: that they are, when they are not, and how they end without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flansible.models import State
from flansible.store import Store
from flansible.worker.fork_server import ForkServer
from flansible.worker.zygote_handle import Zygote
from tests.helpers.process_tree import Tree, reap_orphans
from tests.helpers.runs import Worker, adhoc, command_line
from tests.helpers.waiting import eventually, require_program

SHOW = ("localhost", "-m", "debug", "-a", "msg={{ ansible_forks }}|{{ lookup('config', 'DEFAULT_ROLES_PATH') }}")


@pytest.fixture
def worker(store: Store) -> Iterator[Worker]:
    require_program("ansible")
    worker = Worker(store)
    worker.fork_servers._limit = 20
    yield worker
    worker.close()
    reap_orphans([])  # of a zygote that was killed


@pytest.fixture
def calm(ansible: Worker) -> Iterator[Worker]:
    """For tests that end no process: a worker of all of them, whose zygote is there already."""
    ansible.fork_servers._limit = 20
    before = servers(ansible)
    yield ansible
    for server in servers(ansible):
        if server not in before:
            ansible.fork_servers.discard(server)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return project(tmp_path, "place", "[defaults]\nforks = 7\nroles_path = roles\n")


def project(parent: Path, name: str, text: str) -> Path:
    folder = parent / name
    folder.mkdir(mode=0o755)
    (folder / "ansible.cfg").write_text(text)
    return folder


def servers(worker: Worker) -> list[ForkServer]:
    return list(worker.fork_servers._servers.values())


def zygote(worker: Worker) -> Zygote:
    [found] = worker.fork_servers._zygotes.all()
    return found


PLACE = "<place>"
_by_configuration: dict[str, tuple[str, int]] = {}  # what the command line prints with it


def check(worker: Worker, place: Path) -> None:
    ended = worker.run(*SHOW, cwd=str(place))
    file = place / "ansible.cfg"
    configuration = file.read_text() if file.exists() else ""
    if configuration not in _by_configuration:
        done = command_line("ansible", *SHOW, cwd=place)
        _by_configuration[configuration] = done.stdout.replace(str(place), PLACE), done.returncode
    text, code = _by_configuration[configuration]
    assert (ended.text, ended.outcome.returncode) == (text.replace(PLACE, str(place)), code)


def test_fork_servers_of_several_configurations_are_forked_from_one_process(worker: Worker, tmp_path: Path) -> None:
    for number in (3, 4, 5):
        place = project(tmp_path, f"p{number}", f"[defaults]\nforks = {number}\nroles_path = r{number}\n")
        check(worker, place)
    check(worker, tmp_path)
    assert [server.was_forked for server in servers(worker)] == [True] * 4
    tree = Tree()
    [parent] = tree.zygotes()
    assert parent.pid == zygote(worker).pid
    assert {server.pid for server in servers(worker)} == {item.pid for item in tree.fork_servers()}


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", ["HOME", "LC_TIME", "PYTHONUTF8", "TZ"])
def test_what_python_reads_as_it_starts_makes_it_start(calm: Worker, place: Path, tmp_path: Path, name: str) -> None:
    values = {"HOME": str(tmp_path), "LC_TIME": "C.UTF-8", "PYTHONUTF8": "1", "TZ": "Asia/Kathmandu"}
    step = adhoc(*SHOW, cwd=str(place), environment={name: values[name]})
    before = servers(calm)
    ended = calm.run_steps(step)
    assert ended.outcome.state is State.SUCCEEDED, ended.text
    [server] = [one for one in servers(calm) if one not in before]
    assert not server.was_forked


def test_fragments_of_documentation_make_it_start(calm: Worker, tmp_path: Path) -> None:
    before = servers(calm)
    place = project(tmp_path, "place", "[defaults]\ndoc_fragment_plugins = fragments\n")
    check(calm, place)
    (place / "fragments").mkdir()
    (place / "ansible.cfg").write_text("[defaults]\ndoc_fragment_plugins = ./fragments\n")
    check(calm, place)
    assert [server.was_forked for server in servers(calm) if server not in before] == [False]


def test_a_log_file_is_written_from_the_first_run_on(calm: Worker, tmp_path: Path) -> None:
    logging = project(tmp_path, "logging", "[defaults]\nlog_path = ./log\n")
    silent = project(tmp_path, "silent", "[defaults]\nforks = 3\n")
    for place in (logging, silent, logging):
        check(calm, place)
    lines = (logging / "log").read_text().splitlines()
    assert sum("localhost | SUCCESS" in line for line in lines) == 3  # of the command line, too
    assert not (silent / "log").exists()


def test_warnings_about_a_configuration_come_with_each_run(calm: Worker, tmp_path: Path) -> None:
    place = project(tmp_path, "place", "[defaults]\njinja2_extensions = jinja2.ext.do\nlog_path = /not/there\n")
    for _ in range(2):
        check(calm, place)
    assert "DEPRECATION WARNING" in calm.run(*SHOW, cwd=str(place)).text


def test_a_forked_fork_server_has_no_descriptor_of_the_zygote_or_of_another(calm: Worker, tmp_path: Path) -> None:
    started = []
    for number in (3, 4, 5):
        check(calm, project(tmp_path, f"p{number}", f"[defaults]\nforks = {number}\n"))
        started.append(servers(calm)[-1].pid)
    kinds = [sorted(target(pid, name) for name in os.listdir(f"/proc/{pid}/fd")) for pid in started]
    assert kinds[0] == kinds[1] == kinds[2]
    assert sum(kind == "socket" for kind in kinds[0]) == 1


def target(pid: int, name: str) -> str:
    """Its kind, without the number of a socket, a pipe or a file that has no name."""
    return re.sub(r":.*|#\d+", "", os.readlink(f"/proc/{pid}/fd/{name}"))


def test_a_killed_zygote_is_replaced_and_so_are_its_fork_servers(worker: Worker, place: Path) -> None:
    check(worker, place)
    first, [orphan] = zygote(worker), servers(worker)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not first.alive)
    check(worker, place)
    [server] = servers(worker)
    assert server is not orphan and server.was_forked and zygote(worker) is not first
    eventually(lambda: not orphan.alive)


def test_a_run_goes_on_when_its_zygote_is_killed(worker: Worker, place: Path) -> None:
    gate = place / "gate"
    (place / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - debug: msg=begun\n    - wait_for: path={gate} timeout=30\n    - debug: msg=done\n"
    )
    kill = (
        "import os, signal, sys, time, pathlib\n"
        "time.sleep(1.5)\n"
        f"os.kill(int(sys.argv[1]), signal.SIGKILL)\n"
        f"pathlib.Path({str(gate)!r}).touch()\n"
    )
    worker.fork_servers.warm_up(str(place))
    with subprocess.Popen([sys.executable, "-c", kill, str(zygote(worker).pid)]):
        ended = worker.run("play.yml", cwd=str(place), program="ansible-playbook")
    assert ended.outcome.state is State.SUCCEEDED and '"msg": "done"' in ended.text
    assert not zygote(worker).alive


def test_a_stopped_zygote_keeps_no_run_waiting_for_long(worker: Worker, place: Path, tmp_path: Path) -> None:
    check(worker, tmp_path)
    os.kill(zygote(worker).pid, signal.SIGSTOP)
    check(worker, place)
    assert [server.was_forked for server in servers(worker)] == [True, False]


def test_a_fork_server_that_was_killed_is_reaped_and_replaced(worker: Worker, place: Path) -> None:
    check(worker, place)
    [first] = servers(worker)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(first.pid))
    assert not first.alive
    check(worker, place)
    [second] = servers(worker)
    assert second.was_forked and second.pid != first.pid


def test_closing_ends_the_zygote_and_all_fork_servers(worker: Worker, place: Path, tmp_path: Path) -> None:
    for folder in (place, tmp_path):
        check(worker, folder)
    pids = [zygote(worker).pid, *(server.pid for server in servers(worker))]
    worker.fork_servers.close()
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_the_end_of_the_worker_ends_the_zygote_and_all_fork_servers(place: Path) -> None:
    code = (
        "import sys\n"
        "from flansible.worker.forkserver_pool import ForkServerPool\n"
        "pool = ForkServerPool(5)\n"
        "for place in sys.argv[1:]:\n"
        "    pool.warm_up(place)\n"
        "started = (*pool._zygotes.all(), *pool._servers.values())\n"
        "print(*(process.pid for process in started), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, "/", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 3
    eventually(lambda: not any(psutil.pid_exists(pid) and is_alive(pid) for pid in pids), 10)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
