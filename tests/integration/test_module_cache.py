"""Packed modules that the fork server keeps: used when nothing differs, and never in place of what a run would pack."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flansible.runner import module_cache, module_packer
from flansible.runner.module_cache import ModuleCache
from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.comparing import masked
from tests.helpers.direct_runs import DirectRun
from tests.helpers.runs import command_line
from tests.helpers.waiting import eventually

COMMAND, PING = (f"ansible.modules.{name}-ZIP_DEFLATED-none" for name in ("command", "ping"))
BYTECODE = "flansible-bytecode"
NOBODY = 2**22 + 1  # no process has this id
ASK_PING = "- ping:\n  register: answer\n- debug: msg={{ answer.ping }}"
OWN_PING = """
from ansible.module_utils.basic import AnsibleModule
AnsibleModule({'data': {}}).exit_json(ping='%s')
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the fork servers of these tests have their temp directories."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def servers(home: Path) -> Iterator[ForkServerPool]:
    servers = ForkServerPool(2, pack_usual=True)
    servers.warm_up("/")
    # As many as it keeps: one that a test needs for its configuration takes the place of another, and is no leak.
    (home / "ansible.cfg").write_text("[defaults]\n")
    servers.warm_up(str(home))
    yield servers
    servers.close()


class Project:
    """A folder with a playbook on localhost, and its runs."""

    def __init__(self, servers: ForkServerPool, folder: Path, home: Path) -> None:
        self._servers = servers
        self.folder = folder
        self._temp = home / ".ansible/tmp"
        folder.mkdir(parents=True)

    def write(self, path: str, text: str) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def start(self, tasks: str, *options: str, environment: dict[str, str] | None = None) -> DirectRun:
        body = "".join(f"    {line}\n" for line in tasks.splitlines())
        self.write("play.yml", f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{body}")
        return DirectRun(self._servers, self.folder, *options, "play.yml", environment=environment)

    def text(self, tasks: str, *options: str, environment: dict[str, str] | None = None) -> str:
        with self.start(tasks, *options, environment=environment) as run:
            return run.wait().text

    def found(self, tasks: str, *options: str, environment: dict[str, str] | None = None) -> set[str]:
        """Lists what the run's temp directory holds for its modules when the last of these play tasks has ended."""
        there, go = self.folder / "there", self.folder / "go"
        wait = f"- shell: touch {there}; until [ -e {go} ]; do sleep 0.02; done"
        with self.start(f"{tasks}\n{wait}", *options, environment=environment) as run:
            eventually(there.exists)
            folder = next(self._temp.glob(f"ansible-local-{run.keeper.pid}????????"))
            names = {path.name for path in folder.rglob("*")}
            go.touch()
            run.wait()
        there.unlink()
        go.unlink()
        return names

    def until_packed(self) -> set[str]:
        """`found`, once the fork server has packed what the run before it asked for."""
        self.text("- ping:\n- command: true")
        return eventually(
            lambda: names if {COMMAND, PING} <= (names := self.found("- ping:")) - locked(names) else None, 60
        )


def locked(names: set[str]) -> set[str]:
    """What Ansible has packed itself: it takes a lock for that."""
    return {name.removesuffix(".lock") for name in names if name.endswith(".lock")}


@pytest.fixture
def project(servers: ForkServerPool, tmp_path: Path, home: Path) -> Project:
    return Project(servers, tmp_path / "project", home)


def test_a_fork_server_that_waits_packs_what_is_usual(project: Project) -> None:
    """The first test: later ones have what earlier runs needed."""
    eventually(lambda: COMMAND not in locked(project.found("- debug:")), 60)


def test_the_second_run_finds_what_the_first_had_to_pack(project: Project) -> None:
    names = project.until_packed()
    assert {COMMAND, PING, BYTECODE} <= names and locked(names) == set()


def test_a_module_compiled_before_has_the_traceback_of_any_module(project: Project) -> None:
    shown = {"ANSIBLE_DISPLAY_TRACEBACK": "always", "ANSIBLE_NOCOLOR": "1"}
    failing = "- ping: data=crash\n  ignore_errors: true"
    eventually(lambda: BYTECODE in project.found(failing, environment=shown), 60)
    ours = project.text(failing, environment=shown)
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml"]
    environ = {**os.environ, **shown}
    theirs = subprocess.run(command, cwd=project.folder, env=environ, capture_output=True, text=True, timeout=60)

    def frames(text: str) -> list[str]:
        """Where the module's own traceback leads through its payload; what goes before is random."""
        lines = text.replace("\\n", "\n").splitlines()
        return [line.partition("_payload.zip/")[2] for line in lines if "_payload.zip/" in line]

    assert frames(ours) == frames(theirs.stdout + theirs.stderr) != []


DIES = """
from ansible.module_utils.basic import AnsibleModule
raise KeyboardInterrupt('by itself')
"""


def test_a_module_that_dies_outside_of_its_own_handling_has_the_text_of_the_command_line(
    project: Project, tmp_path: Path
) -> None:
    """The lines of Ansible's wrapper are where they are, with compiled code and without; so is a failed mkdtemp."""
    shown = {"ANSIBLE_NOCOLOR": "1"}
    project.write("library/dies.py", DIES)
    nowhere = tmp_path / "nowhere"
    # Where even the last resort of the standard library, the current folder, takes no file.
    project.write(f"{nowhere}/sitecustomize.py", "import os\nos.open = None\n")
    tasks = "- dies:\n  ignore_errors: true\n- ping:\n  environment: {{PYTHONPATH: {0}}}\n  ignore_errors: true"
    tasks = tasks.format(nowhere)
    eventually(lambda: BYTECODE in project.found(tasks, environment=shown), 60)
    ours = project.text(tasks, environment=shown)
    theirs = command_line("ansible-playbook", "play.yml", cwd=project.folder, **shown).stdout
    texts = [re.sub(r"_payload_\w+/", "_payload_T/", masked(text)) for text in (ours, theirs)]
    assert texts[0] == texts[1]
    assert ours.count("in _ansiballz_main") == 2 and "in mkdtemp" in ours


def test_a_projects_module_of_the_same_name_is_its_own(project: Project) -> None:
    project.until_packed()
    assert '"msg": "pong"' in project.text(ASK_PING)
    project.write("library/ping.py", OWN_PING % "mine")
    assert '"msg": "mine"' in project.text(ASK_PING)
    project.write("library/ping.py", OWN_PING % "edited")
    assert '"msg": "edited"' in project.text(ASK_PING)
    assert PING not in project.found("- debug:")


def test_a_folder_that_looks_like_the_installation_is_not_taken_for_it(project: Project) -> None:
    project.until_packed()
    library = project.write("other/ansible/modules/ping.py", OWN_PING % "mine").parent
    for _ in range(2):
        assert '"msg": "mine"' in project.text(ASK_PING, environment={"ANSIBLE_LIBRARY": str(library)})
    assert '"msg": "pong"' in project.text(ASK_PING)


CONFIGURED = {"ANSIBLE_MODULE_UTILS": "{folder}/elsewhere"}


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    ("place", "tasks", "environment"),
    [
        ("module_utils", "", {}),
        ("roles/own/module_utils", "- import_role: name=own\n", {}),
        ("elsewhere", "", CONFIGURED),
    ],
)
def test_a_projects_module_utils_go_into_what_is_sent(
    project: Project, place: str, tasks: str, environment: dict[str, str]
) -> None:
    project.until_packed()
    project.write("roles/own/tasks/main.yml", "- debug:\n")
    original = (Path(module_cache._MODULES).parent / "module_utils/basic.py").read_text()
    head = "def exit_json(self, **kwargs) -> t.NoReturn:\n"
    own = original.replace(head, f"{head}        kwargs['ping'] = 'mine'\n")
    assert own != original
    theirs = project.write(f"{place}/basic.py", own)
    chosen = {name: value.format(folder=project.folder) for name, value in environment.items()}
    assert '"msg": "mine"' in project.text(tasks + ASK_PING, environment=chosen)
    theirs.unlink()
    assert '"msg": "pong"' in project.text(tasks + ASK_PING, environment=chosen)


def test_what_ansible_tells_of_its_packing_is_still_told(project: Project) -> None:
    project.until_packed()
    assert "Including module_utils file" in project.text("- ping:", "-vvvvv")


def test_files_that_are_kept_are_as_ansible_makes_them(project: Project, home: Path) -> None:
    project.until_packed()
    remote = project.folder / "remote"
    kept = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_REMOTE_TEMP": str(remote)}
    project.text("- ping:", environment=kept)
    (module,) = remote.rglob("AnsiballZ_ping.py")
    assert BYTECODE not in module.read_text()


def test_runs_have_the_limits_of_a_shell_and_not_the_workers(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    servers = ForkServerPool(1, limits=(soft - 1, hard))
    with DirectRun(servers, tmp_path, "localhost", "-m", "shell", "-a", "ulimit -n", program="ansible") as run:
        run.wait()
    servers.close()
    assert run.text.splitlines()[-1] == str(soft - 1)


def test_a_file_that_has_changed_is_not_what_was_packed(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("one")
    stamps = [module_cache._stamp(str(source))]
    assert module_cache._is_current(stamps)
    time.sleep(0.01)
    source.write_text("two")
    assert not module_cache._is_current(stamps)
    source.unlink()
    assert not module_cache._is_current(stamps)


NAMES = [
    "ansible.modules.ping-ZIP_DEFLATED-none\n",
    "ansible.modules.../etc/passwd-ZIP_DEFLATED-none",
    "ansible.modules.ping-ZIP_DEFLATED-_debugpy",
    "ansible.legacy.ping-ZIP_DEFLATED-none",
    "ansible_collections.a.b.plugins.modules.ping-ZIP_DEFLATED-none",
    "ansible.modules." + "x" * 200 + "-ZIP_DEFLATED-none",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_nothing_that_is_installed_is_not_packed(name: str) -> None:
    assert not ModuleCache().is_new(name)


def test_a_name_that_could_not_be_packed_is_not_tried_again() -> None:
    known = ModuleCache()
    assert known.is_new(PING)
    known.add(PING, b"")
    assert not known.is_new(PING)


def test_a_packing_that_broke_off_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for memory, or its disk was full."""
    packer = module_packer.Packer(known := ModuleCache())
    monkeypatch.setattr(os, "fork", lambda: NOBODY)
    packer.request(PING.encode())
    packer.child_ended(signal.SIGKILL)
    assert known.is_new(PING)
    packer.request(PING.encode())
    assert packer.child is None
    monkeypatch.setattr(module_packer, "_PAUSE_SECONDS", -1)
    packer.request(PING.encode())
    assert packer.child == NOBODY
    packer.child_ended(0)


def test_when_no_process_can_be_forked_nothing_is_packed_and_what_serves_runs_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    packer = module_packer.Packer(ModuleCache())
    monkeypatch.setattr(os, "fork", fork)
    packer.request(PING.encode())
    assert packer.descriptors == ()
    monkeypatch.setattr(os, "fork", lambda: NOBODY)
    packer.request(COMMAND.encode())
    assert packer.child == NOBODY
    packer.child_ended(0)


def has_payload(process: psutil.Process) -> bool:
    return any("flansible-payload" in os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir())


@pytest.fixture
def unpacked(tmp_path: Path, home: Path) -> Iterator[Project]:
    """A project whose fork server has packed nothing yet."""
    servers = ForkServerPool(1)
    yield Project(servers, tmp_path / "project", home)
    servers.close()


def test_a_run_has_no_descriptor_of_what_is_packed_meanwhile(unpacked: Project) -> None:
    with unpacked.start("- stat: path=/") as run:
        server = run.keeper.parent()
        assert server is not None
        run.wait()
    packing = eventually(lambda: next(filter(has_payload, server.children()), None))
    packing.suspend()
    try:
        with unpacked.start("- command: sleep 1") as run:
            assert [has_payload(one) for one in (packing, run.keeper, psutil.Process(run.pid))] == [True, False, False]
            run.wait()
    finally:
        packing.resume()


def test_names_wait_for_the_child_that_packs_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(module_packer.Packer, "_start", lambda self: begun.extend(self._names))
    waiting = module_packer.Packer(ModuleCache())
    waiting.request("".join(f"ansible.modules.m{number}-ZIP_STORED-none\n" for number in range(500)).encode())
    waiting.request(b"\xff\xfe\nnonsense\n")
    assert len(set(begun)) == module_packer._MAX_WAITING
