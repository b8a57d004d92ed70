"""Nothing stays behind: temp directories and processes of runs that were ended by force, with real Ansible.

The directories of these runs go to folders of the test: what is in one afterwards was left behind.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flansible.runner import cleanup
from flansible.system import atomic_files
from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import DirectRun
from tests.helpers.process_tree import new_mark, sleeping
from tests.helpers.waiting import eventually, require_program

FORK_SERVER = "flansible.runner.forkserver"
_PROBE = re.compile(r"[a-z0-9_]{8}")  # tempfile._get_default_tempdir makes it


@pytest.fixture(scope="module")
def servers(_home: Path) -> Iterator[ForkServerPool]:
    require_program("ansible")
    servers = ForkServerPool(2)
    servers.warm_up("/")
    yield servers
    servers.close()


@pytest.fixture
def cold() -> Iterator[ForkServerPool]:
    """For tests that need a special configuration, or kill it."""
    servers = ForkServerPool(2)
    yield servers
    servers.close()


class Place:
    """A playbook folder and the temp directories of its runs: Ansible's own, and the one of Python programs."""

    def __init__(self, folder: Path, interpreter: str, hosts: tuple[str, ...] = ("h1", "h2")) -> None:
        self.folder = folder
        self.remote_tmp = folder / "remote"
        self.tmpdir = folder / "tmp"
        self.environment = {"TMPDIR": str(self.tmpdir)}
        for path in (folder, self.remote_tmp, self.tmpdir):
            path.mkdir(exist_ok=True)
            path.chmod(0o1777)
        self.hosts = hosts
        variables = f"ansible_connection=local ansible_python_interpreter={interpreter}"
        # Jobs too: the tests' HOME is not the one Ansible finds, so that it would look for them elsewhere.
        places = f"ansible_remote_tmp={self.remote_tmp} ansible_async_dir={folder / 'jobs'}"
        (folder / "hosts").write_text("".join(f"{host} {variables} {places}\n" for host in self.hosts))

    def write(self, tasks: str, more: str = "") -> tuple[str, ...]:
        body = "".join(f"    {line}\n" for line in tasks.strip("\n").splitlines())
        (self.folder / "play.yml").write_text(f"- hosts: all\n  gather_facts: false\n{more}  tasks:\n{body}")
        return "-i", "hosts", "play.yml"

    def start(self, servers: ForkServerPool, tasks: str, *options: str, more: str = "") -> DirectRun:
        return DirectRun(servers, self.folder, *options, *self.write(tasks, more), environment=self.environment)

    @property
    def left(self) -> list[str]:
        """Temp directories that are there, and files, but not those by which Python finds out where it may write: it
        removes them at once, and whoever is killed in between leaves one."""
        found = (path for place in (self.remote_tmp, self.tmpdir) for path in place.iterdir())
        return sorted(str(path) for path in found if not _PROBE.fullmatch(path.name) or path.is_dir())

    @property
    def modules(self) -> list[str]:
        """Those of modules; from 2.21 on the command line makes one more itself."""
        return [path for path in self.left if Path(path).name.startswith("ansible")]


@pytest.fixture
def place(open_folder: Path) -> Place:
    """With one host, where another user's modules may enter."""
    return Place(open_folder / "place", sys.executable, ("h1",))


@pytest.fixture
def pair(open_folder: Path) -> Place:
    """With two hosts, whose modules run side by side."""
    return Place(open_folder / "place", sys.executable)


@pytest.fixture
def mark() -> Iterator[str]:
    mark = new_mark()
    yield mark
    for process in sleeping(mark):
        process.kill()


def local_temp_dirs(home: Path) -> list[Path]:
    return list(home.glob(".ansible/tmp/ansible-local-*"))


def python_for_others() -> str:
    """A Python that another user may start: the tests' own may lie in root's home."""
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if os.getuid() != 0 or found is None or shutil.which("su") is None:
        pytest.skip("to become another user takes root, su, and a Python for everyone")
    return found


# What a run is ended by.


def cancel(run: DirectRun) -> None:
    run.stop()


def kill_run(run: DirectRun) -> None:
    assert psutil.pid_exists(run.pid), f"it has ended by itself: {run.text}"
    os.kill(run.pid, signal.SIGKILL)


def kill_keeper(run: DirectRun) -> None:
    run.keeper.kill()


def close_channel(run: DirectRun) -> None:
    """As when the worker is killed."""
    run.hang_up()


ENDINGS: dict[str, Callable[[DirectRun], None]] = {
    "a cancel": cancel,
    "a kill of the run": kill_run,
    "a kill of the keeper": kill_keeper,
    "the end of the worker": close_channel,
}

MODULE = """
from ansible.module_utils.basic import AnsibleModule
import subprocess
module = AnsibleModule({"seconds": {}})
open(module.tmpdir + "/file", "w").close()
subprocess.run(["sleep", module.params["seconds"]])
module.exit_json()
"""


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_no_temp_directory_stays_when_a_run_is_ended_by(
    servers: ForkServerPool, pair: Place, mark: str, _home: Path, end: Callable[[DirectRun], None]
) -> None:
    (pair.folder / "library").mkdir()
    (pair.folder / "library" / "slow.py").write_text(MODULE)
    with pair.start(servers, f"- slow: seconds={mark}") as run:
        eventually(lambda: len(sleeping(mark)) == 2)
        names = [Path(path).name for path in pair.left]
        assert len(names) == 4
        assert sum(name.startswith("ansible-tmp-") for name in names) == 2
        assert sum(name.startswith("ansible_slow_payload_") for name in names) == 2
        end(run)
        run.wait()
        if run.exited is not None:
            assert (pair.left, local_temp_dirs(_home)) == ([], []), "gone before the keeper has said so"
    eventually(lambda: not pair.left and not local_temp_dirs(_home) and not sleeping(mark), 5)


def test_a_run_whose_keeper_is_killed_ends_by_itself_when_nobody_else_can_end_it(
    cold: ForkServerPool, place: Place, mark: str
) -> None:
    with place.start(cold, f"- command: sleep {mark}") as run:
        eventually(lambda: sleeping(mark))
        run_process, server = psutil.Process(run.pid), run.keeper.parent()
        assert server is not None and FORK_SERVER in server.cmdline()
        server.suspend()
        run.keeper.kill()
        eventually(lambda: not run_process.is_running() or run_process.status() == psutil.STATUS_ZOMBIE, 10)
        server.resume()
        run.wait()
    eventually(lambda: not place.left and not sleeping(mark), 10)


def test_no_temp_directory_stays_of_modules_that_make_their_own(
    servers: ForkServerPool, place: Place, mark: str
) -> None:
    """With pipelining Ansible makes none, and the module makes one when it needs it."""
    (place.folder / "library").mkdir()
    (place.folder / "library" / "slow.py").write_text(MODULE)
    with place.start(servers, f"- slow: seconds={mark}", more="  vars: {ansible_pipelining: true}\n") as run:
        eventually(lambda: len(sleeping(mark)) == 1)
        assert sum("/ansible-moduletmp-" in path for path in place.left) == 1
        run.stop()
        run.wait()
        assert place.left == []


@pytest.mark.by_day(1)
@pytest.mark.parametrize("end", [cancel, kill_run])
def test_no_temp_directory_stays_of_modules_that_ran_as_another_user(
    servers: ForkServerPool, open_folder: Path, mark: str, end: Callable[[DirectRun], None]
) -> None:
    place = Place(open_folder / "others", python_for_others(), ("h1",))
    (place.folder / "library").mkdir()
    (place.folder / "library" / "slow.py").write_text(MODULE)
    variables = {
        "ansible_become_flags": "-s /bin/sh",
        # Where directories for another user are made.
        "ansible_system_tmpdirs": [str(place.tmpdir)],
    }
    more = f"  become: true\n  become_method: su\n  become_user: daemon\n  vars: {variables}\n"
    with place.start(servers, f"- slow: seconds={mark}", more=more) as run:
        eventually(lambda: run.frames and len(sleeping(mark)) == 1)
        assert {process.username() for process in sleeping(mark)} == {"daemon"}
        assert len(place.left) == 3, "of Ansible, of the wrapper and of the module"
        end(run)
        run.wait()
        assert place.left == []


def test_a_place_that_a_play_task_sets_is_cleaned_too(servers: ForkServerPool, place: Place, mark: str) -> None:
    other = place.folder / "other"
    other.mkdir()
    with place.start(servers, f"- command: sleep {mark}\n  environment: {{TMPDIR: {other}}}") as run:
        eventually(lambda: len(sleeping(mark)) == 1)
        assert len(list(other.iterdir())) == 1
        run.stop()
        run.wait()
        assert list(other.iterdir()) == place.left == []


BUSY = """
- copy: content={{ inventory_hostname }} dest={{ playbook_dir }}/out-{{ inventory_hostname }}
- template: src=hosts dest={{ playbook_dir }}/template-{{ inventory_hostname }}
- command: sleep 0.05
- shell: sleep 0.2
  async: 20
  poll: 1
- lineinfile: path={{ playbook_dir }}/out-{{ inventory_hostname }} line={{ item }}
  loop: [1, 2]
- shell: sleep 30
  async: 60
  poll: 0
- get_url: url=file://{{ playbook_dir }}/hosts dest={{ playbook_dir }}/got-{{ inventory_hostname }}
- stat: path=/
"""


@pytest.mark.by_day(2)
@pytest.mark.parametrize("seconds", [0.3, 0.9, 1.6, 2.4, 3.3, 4.3])
def test_no_temp_directory_stays_whenever_the_end_comes(
    servers: ForkServerPool, pair: Place, _home: Path, seconds: float
) -> None:
    end = kill_run if int(seconds * 10) % 2 else cancel
    with pair.start(servers, BUSY + f"- command: sleep {seconds}\n" + BUSY) as run:
        time.sleep(seconds)
        assert "fatal:" not in run.text  # it is busy, and not at its end
        end(run)
        run.wait()
        assert (pair.left, local_temp_dirs(_home)) == ([], [])


@pytest.mark.parametrize("jobs", [0, 2])
def test_the_module_of_a_worker_that_was_killed_does_not_go_on(
    servers: ForkServerPool, pair: Place, mark: str, jobs: int
) -> None:
    background = f"- shell: setsid nohup sleep {mark} >/dev/null 2>&1 &\n" if jobs else ""
    with pair.start(servers, f"{background}- shell: sleep {mark}; true") as run:
        eventually(lambda: len(sleeping(mark)) == 2 + jobs)
        for worker in psutil.Process(run.pid).children():
            worker.kill()
        run.wait()
        assert run.exited is not None and run.exited["returncode"] != 0
    # What the playbook has put into the background goes on, as on the command line, and may need what is there.
    assert len(sleeping(mark)) == jobs
    if not jobs:
        assert pair.left == []


HALF_AN_ANSWER = """
import gc, os, signal
from ansible.executor.task_queue_manager import FinalQueue
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        queue = next(one for one in gc.get_objects() if isinstance(one, FinalQueue))
        os.write(queue._writer.fileno(), b"\\0\\0\\1\\0half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_worker_was_killed_in_the_middle_of_its_answer_comes_to_an_end(
    cold: ForkServerPool, place: Place
) -> None:
    (place.folder / "action_plugins").mkdir()
    (place.folder / "action_plugins/half.py").write_text(HALF_AN_ANSWER)
    with place.start(cold, "- half:") as run:
        run.wait(40)
        assert run.exited is not None and run.exited["returncode"] == 250
        assert "worker process" in run.end["broken"]


def test_a_module_that_is_killed_leaves_nothing_once_its_run_is_over(
    servers: ForkServerPool, place: Place, mark: str
) -> None:
    with place.start(servers, f"- command: sleep {mark}\n  ignore_errors: true") as run:
        for process in eventually(lambda: found if len(found := sleeping(mark)) == 1 else None):
            process.parent().kill()
            process.kill()
        run.wait()
        assert run.exited is not None and run.exited["returncode"] == 0
    eventually(lambda: place.left == [], 5)


def test_a_job_that_goes_on_after_its_run_keeps_its_directories(
    servers: ForkServerPool, place: Place, _home: Path
) -> None:
    """An asynchronous job that is never polled removes them itself, as with the command line."""
    gate, done = place.folder / "gate", place.folder / "done"
    task = f"- shell: until test -e {gate}; do sleep 0.05; done; echo >> {done}\n  async: 60\n  poll: 0"
    with place.start(servers, task) as run:
        run.wait()
        assert run.exited is not None and run.exited["returncode"] == 0
    eventually(lambda: local_temp_dirs(_home) == [])
    assert len(place.left) >= 1, "of the job"
    gate.touch()
    eventually(lambda: done.exists() and len(done.read_text()) == 1)
    # Its watcher looks every five seconds.
    eventually(lambda: place.left == [], 15)


def test_what_others_have_is_not_touched(
    servers: ForkServerPool,
    open_folder: Path,
    mark: str,
    background_ansible: Callable[[Place, str], subprocess.Popen[str]],
) -> None:
    """A command line run and another run of ours, side by side in the same temp directories."""
    place, other = (Place(open_folder / "place", sys.executable, ("h1",)) for _ in range(2))
    gate = place.folder / "gate"
    waiting = f"- wait_for: path={gate} timeout=60 sleep=1\n- copy: content=done dest={place.folder}/done"
    command = background_ansible(other, waiting)
    eventually(lambda: len(other.modules) == 2)
    with other.start(servers, waiting) as neighbour:
        eventually(lambda: len(other.modules) == 4)
        before = other.left
        for end in (cancel, kill_run, kill_keeper):
            with place.start(servers, f"- command: sleep {mark}") as run:
                eventually(lambda: len(sleeping(mark)) == 1)
                assert len(place.modules) == 6
                end(run)
                run.wait()
            eventually(lambda: place.left == before, 5)
        gate.touch()
        neighbour.wait()
        assert neighbour.exited is not None and neighbour.exited["returncode"] == 0, neighbour.text
    assert command.wait(60) == 0, command.stdout.read() if command.stdout else ""
    eventually(lambda: other.left == [], 5)


@pytest.fixture
def background_ansible() -> Iterator[Callable[[Place, str], subprocess.Popen[str]]]:
    """Starts `ansible-playbook` by hand."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Place, tasks: str) -> subprocess.Popen[str]:
        argv = [require_program("ansible-playbook"), *place.write(tasks)]
        environment = {**os.environ, **place.environment}
        process = subprocess.Popen(argv, cwd=place.folder, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        for descendant in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            descendant.kill()
        process.kill()
        process.communicate()


def test_files_that_are_to_be_kept_are_kept(cold: ForkServerPool, place: Place, mark: str) -> None:
    place.environment["ANSIBLE_KEEP_REMOTE_FILES"] = "1"
    with place.start(cold, f"- command: sleep {mark}") as run:
        eventually(lambda: len(sleeping(mark)) == 1)
        run.stop()
        run.wait()
        assert sum("/ansible-tmp-" in path for path in place.left) == 1


# What shows of it.


def test_what_modules_see_and_what_is_printed_has_the_command_lines_shape(
    servers: ForkServerPool, place: Place
) -> None:
    tasks = "- command: env\n- shell: ls -d $TMPDIR/ansible*\n- debug: msg=after"
    with place.start(servers, tasks, "-vvv") as run:
        run.wait()
    argv = ["ansible-playbook", "-vvv", *place.write(tasks)]
    expected = subprocess.run(
        [require_program(argv[0]), *argv[1:]],
        cwd=place.folder,
        env={**os.environ, **place.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    alike = [
        (r"ansible-tmp-\d{10}\.\d+-\d+-\d{9,15}\b", "ansible-tmp-*"),
        (r"_payload_(\d{15}_)?[a-z0-9_]{8}\b", "_payload_*"),
        (r"ansible-local-\d+[a-z0-9_]{8}/tmp[a-z0-9_]{8}", "ansible-local-*"),
        (r'"(start|end|delta)": "[^"]*"', r"\1"),
        (r"\b(_|SHLVL|OLDPWD|PWD|PYTEST_CURRENT_TEST)=.*", ""),
    ]

    def normal(text: str) -> list[str]:
        for pattern, to in alike:
            text = re.sub(pattern, to, text)
        # The banner and what it says of programs; the environment in any order.
        return sorted(line for line in text.splitlines() if line.strip())

    text = normal(run.text)
    assert "<h1> EXEC" in run.text and "ansible-tmp-*" in "".join(text) and "_payload_*" in "".join(text)
    known = set(normal(expected.stdout + expected.stderr))
    assert [line for line in text if line not in known and "TMPDIR" not in line] == []


SSH = """#!/bin/sh
# Stands for ssh: its last argument is the command, for this machine.
for last; do :; done
case "$*" in *-V*) echo OpenSSH_9 >&2; exit 0;; esac
exec /bin/sh -c "$last"
"""


def test_other_machines_get_what_ansible_would_send_them(servers: ForkServerPool, place: Place, mark: str) -> None:
    ssh = place.folder / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    variables = {
        "ansible_connection": "ssh",
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_transfer_method": "piped",
        "ansible_host": "elsewhere",
    }
    tasks = f"- ping:\n  vars: {{ansible_connection: local}}\n- command: sleep {mark}"
    with place.start(servers, tasks, more=f"  vars: {variables}\n") as run:
        eventually(lambda: len(sleeping(mark)) == 1)
        base = Path(run.keeper.environ()["HOME"]) / ".ansible/tmp"
        (folder,) = base.glob(f"ansible-local-{run.keeper.pid}*")
        assert cleanup.files_of_killed_keeper(str(base), run.keeper.pid) == []  # it is locked
        number = cleanup.RunFiles.at(str(folder)).number
        assert number is not None
        assert len(place.left) == 2
        assert not any(str(number) in path for path in place.left)
        assert all(re.search(r"(_payload_[a-z0-9_]{8}|-\d+)$", path) for path in place.left)


# A crash of everything, and what the next fork server finds.


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_next_fork_server_removes_what_a_crash_of_everything_has_left(
    cold: ForkServerPool, place: Place, mark: str, _home: Path
) -> None:
    """Every process of ours is killed at once; the modules keep running."""
    with place.start(cold, f"- shell: (trap '' TERM; sleep {mark}) & sleep {mark}") as run:
        eventually(lambda: len(sleeping(mark)) == 2)
        server = run.keeper.parent()
        assert server is not None
        program = server.exe()
        victims = [
            process
            for process in (server, *server.children(recursive=True))
            if process.exe() == program and FORK_SERVER in process.cmdline()
        ]
        # At once: whoever is alive for a moment longer than the others cleans up after them.
        for sent in signal.SIGSTOP, signal.SIGKILL:
            for process in victims:
                process.send_signal(sent)
        run.wait()
        # While the server is still dying, the pool would take it for the one that is wanted.
        eventually(lambda: not any(is_alive(process) for process in victims))
    assert len(sleeping(mark)) == 2
    assert len(place.left) == 2 and len(local_temp_dirs(_home)) == 1
    others = [_home / ".ansible" / "tmp" / name for name in ("ansible-local-1abcdefgh", "ansible-local-x")]
    for folder in others:
        folder.mkdir()
    try:
        cold.warm_up("/")  # a server in the place of the one that died
        eventually(lambda: not sleeping(mark) and not place.left, 10)
        eventually(lambda: sorted(local_temp_dirs(_home)) == sorted(others), 5)
    finally:
        for folder in others:
            folder.rmdir()


def test_a_sweep_leaves_alone_what_lives(
    servers: ForkServerPool, cold: ForkServerPool, place: Place, _home: Path
) -> None:
    gate = place.folder / "gate"
    with place.start(servers, f"- wait_for: path={gate} sleep=1\n- command: 'true'") as run:
        eventually(lambda: len(place.left) == 2)
        before = (place.left, local_temp_dirs(_home))
        cold.warm_up("/")
        time.sleep(0.5)
        assert (place.left, local_temp_dirs(_home)) == before
        gate.touch()
        run.wait()
        assert run.exited is not None and run.exited["returncode"] == 0, run.text


def test_a_fork_server_that_is_killed_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    """Ansible makes its temp directory as it is imported; of one without a record nobody knows whose it is."""
    program = """
import os, signal
from flansible.runner import forkserver
print(forkserver.play.local_tmp_base(), flush=True)
forkserver.preload.load()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-P", "-c", program]
    environ = {**os.environ, "HOME": str(tmp_path)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout == f"{tmp_path}/.ansible/tmp\n" and list((tmp_path / ".ansible/tmp").iterdir()) == []


def test_what_another_run_leaves_while_a_killed_keepers_run_is_ended_lives(tmp_path: Path) -> None:
    """The killed run is in a system call, and takes its time: here no signal is sent."""
    program = """
import os, signal, types
from flansible.runner import forkserver, process_tree

def start(line):
    return os.posix_spawn("/bin/sh", ["sh", "-c", line], os.environ)

process_tree.become_subreaper()
killed = set()
process_tree.kill = lambda found: killed.update(process.pid for process in found)
forkserver._END_SECONDS = 1.0
children = forkserver._Children(types.SimpleNamespace(child=None))
of_killed, keeper = start("sleep 60; true"), start("sleep 0.2; sleep 60 &")
children.keepers.add(keeper)
children._end_orphans()
os.waitpid(keeper, 0)
[left] = set(process_tree.children()) - {of_killed}
print(of_killed in killed, left in killed)
for process in process_tree.descendants():
    process.kill()
"""
    command = [sys.executable, "-P", "-c", program]
    environ = {**os.environ, "HOME": str(tmp_path)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "True False\n", ended.stderr


def test_a_sweep_takes_what_runs_left_that_never_began(tmp_path: Path) -> None:
    """On a full disk, or since their keeper was killed just then; an older version left them under another name."""
    old = time.time() - 100
    folders = {
        "flansible-new-12-abcdefgh": (None, old),
        "flansible-new-13-abcdefgh": ("flansible-run", old),
        "ansible-local-14abcdefgh": ("flansible-run.new", old),
        "flansible-new-15-abcdefgh": (None, time.time()),  # its keeper may be about to go on
        "ansible-local-16abcdefgh": (None, old),  # somebody's `ansible`
        "ansible-local-17abcdefgh": ("other", old),
    }
    for name, (file, moment) in folders.items():
        (tmp_path / name).mkdir()
        if file:
            (tmp_path / name / file).touch()
        os.utime(tmp_path / name, (moment, moment))
    cleanup.sweep(str(tmp_path))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["ansible-local-16abcdefgh", "ansible-local-17abcdefgh", "flansible-new-15-abcdefgh"]


@pytest.mark.parametrize("find", [cleanup.sweep, lambda base: cleanup.files_of_killed_keeper(base, 1)])
def test_a_keeper_that_is_killed_as_it_makes_its_files_leaves_nothing(
    find: Callable[[str], object], tmp_path: Path
) -> None:
    program = f"""
import os, signal
from flansible.runner.cleanup import RunFiles
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
RunFiles.make({str(tmp_path)!r})
"""
    with atomic_files.new_folder(tmp_path, "flansible-new-") as of_a_live_one:
        ended = subprocess.run([sys.executable, "-P", "-c", program], check=False, timeout=60)
        assert ended.returncode == -signal.SIGKILL and len(list(tmp_path.glob("flansible-new-*"))) == 2
        find(str(tmp_path))
        assert list(tmp_path.iterdir()) == [of_a_live_one]


def test_files_of_a_run_that_cannot_be_made_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(OSError, match=str(folder)):
        cleanup.RunFiles.make(str(folder))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # nothing can be written, as on a full disk
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            cleanup.RunFiles.make(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_among_many_directories_of_others_costs_next_to_nothing(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"ansible-tmp-1795299649.64-{number}-190591010849100").mkdir()
    for number in range(50):
        (tmp_path / f"ansible-local-{number}abcdefgh").mkdir()
    began = time.process_time()
    cleanup.sweep(str(tmp_path))
    assert time.process_time() - began < 0.02
    assert len(list(tmp_path.iterdir())) == 550


# Keeper and fork server killed at once: only the run is left.

STUBBORN = """\
- shell: |
    setsid sleep {mark} </dev/null >/dev/null 2>&1 &
    (trap '' TERM; sleep {mark}) &
    exec sleep {mark}
"""


def test_nothing_goes_on_when_keeper_and_fork_server_are_killed_at_once(
    cold: ForkServerPool, place: Place, mark: str, _home: Path
) -> None:
    with place.start(cold, STUBBORN.format(mark=mark)) as run:
        eventually(lambda: len(sleeping(mark)) == 3)
        server = run.keeper.parent()
        assert server is not None
        # Or it may begin to end the run itself, and be killed before it has removed its files: the next one does, then.
        server.suspend()
        for process in (run.keeper, server):
            process.kill()
        run.wait()
        eventually(lambda: not sleeping(mark), 10)
        eventually(lambda: not place.left and not local_temp_dirs(_home), 5)


def test_nothing_goes_on_when_the_run_is_killed_with_them(
    cold: ForkServerPool, place: Place, mark: str, _home: Path
) -> None:
    with place.start(cold, STUBBORN.format(mark=mark)) as run:
        eventually(lambda: len(sleeping(mark)) == 3)
        server = run.keeper.parent()
        assert server is not None
        main = psutil.Process(run.pid)
        workers = main.children()
        for process in (run.keeper, server, main):
            process.kill()
        run.wait()
        eventually(lambda: not sleeping(mark), 10)
        # The next fork server leaves the files of a run alone of which one process lives.
        assert psutil.wait_procs(workers, 30)[1] == []
    cold.warm_up("/")
    eventually(lambda: not place.left and not local_temp_dirs(_home), 5)


# What the keeper says it has ended, and what ends by itself.


def test_the_keeper_names_what_it_has_ended_and_no_command_line(
    servers: ForkServerPool, place: Place, mark: str
) -> None:
    with place.start(servers, f"- shell: for i in $(seq 260); do sleep {mark} & done; wait") as run:
        eventually(lambda: len(sleeping(mark)) == 260)
        expected = {process.pid for process in sleeping(mark)}
        run.stop()
        run.wait()
        frame = run.exited
    assert frame is not None
    assert frame["stopped_count"] >= 260 + 4
    assert len(frame["stopped"]) == 200
    assert frame["stopped"][0]["pid"] == run.pid
    assert {entry["name"] for entry in frame["stopped"]} >= {"sleep", "sh"}
    slept = {entry["pid"] for entry in frame["stopped"] if entry["name"] == "sleep"}
    assert slept <= expected
    assert mark not in str(frame)


def test_a_run_that_ends_by_itself_had_nothing_ended(servers: ForkServerPool, place: Place) -> None:
    with place.start(servers, "- ping:") as run:
        run.wait()
    assert run.exited == {"type": "exited", "returncode": 0, "signal": None, "stopped": [], "stopped_count": 0}


def test_daemons_that_end_before_their_run_do_not_pile_up(servers: ForkServerPool, place: Place) -> None:
    gate = place.folder / "gate"
    tasks = (
        "- shell: for i in $(seq 40); do setsid sleep 0.01 </dev/null >/dev/null 2>&1 & done\n"
        f"- wait_for: path={gate} sleep=1\n- command: exit 3"
    )
    with place.start(servers, tasks) as run:
        keeper = run.keeper
        eventually(lambda: any(event.get("task") == "wait_for" for event in run.events))
        eventually(lambda: [child.pid for child in keeper.children()] == [run.pid], 5)
        used = sum(keeper.cpu_times()[:2])
        time.sleep(0.5)
        assert sum(keeper.cpu_times()[:2]) - used <= 0.02, "it waits without working"
        gate.touch()
        run.wait()
        assert run.exited is not None and run.exited["returncode"] == 2, run.text
