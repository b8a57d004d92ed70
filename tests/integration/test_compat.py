"""What ansible-core does differently from one version to the next, on whichever version is installed here."""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flansible.models import State
from flansible.worker.cancel_watcher import Cancellation
from tests.helpers.process_tree import new_mark, sleeping
from tests.helpers.runs import Worker, adhoc, command_line, temp_dirs
from tests.helpers.waiting import eventually

# Played by a lookup, so in a process of Ansible's own: where its main process listens, and a digest of the key to it.
WHERE = """\
import hashlib, multiprocessing
from ansible.plugins.lookup import LookupBase
class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        process = multiprocessing.current_process()
        return [process._config.get("tempdir") or "", hashlib.sha256(bytes(process.authkey)).hexdigest()]
"""


def folders_for_sockets() -> set[str]:
    """Lists the socket folders that multiprocessing makes by default."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("pymp-")}


def test_a_run_that_is_canceled_leaves_no_socket_behind(
    ansible: Worker, background: ThreadPoolExecutor, _home: Path
) -> None:
    mark = new_mark()
    sockets_before, temp_dirs_before = folders_for_sockets(), temp_dirs(_home)
    cancellation = Cancellation()
    step = adhoc("localhost", "-m", "command", "-a", f"sleep {mark}")
    running = background.submit(ansible.run_steps, step, cancellation=cancellation)
    eventually(lambda: sleeping(mark))
    cancellation.request("dev")
    assert running.result(30).outcome.state is State.CANCELED
    os.close(cancellation.descriptor)
    assert folders_for_sockets() == sockets_before
    eventually(lambda: temp_dirs(_home) == temp_dirs_before, 3)


def test_two_runs_of_one_fork_server_share_neither_folder_nor_key(ansible: Worker, tmp_path: Path) -> None:
    (tmp_path / "lookup_plugins").mkdir()
    (tmp_path / "lookup_plugins/where.py").write_text(WHERE)
    argv = ("localhost", "-m", "debug", "-a", "msg={{ query('where') }}", "--playbook-dir", str(tmp_path))
    said = []
    for ended in (ansible.run(*argv), ansible.run(*argv)):
        assert ended.outcome.state is State.SUCCEEDED, ended.text
        folder, key = ended.events[-2]["result"]["msg"]
        assert Path(folder).name.startswith("ansible-local-") and len(key) == 64
        said.append((folder, key))
    assert set(said[0]).isdisjoint(said[1])


@pytest.mark.by_day(1)
@pytest.mark.parametrize("name", ["python", "python3"])
def test_this_python_goes_by_the_name_it_has_on_the_command_line(
    cold: Worker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An environment has several names for one Python, and pip may have written any of them into `ansible`."""
    program = Path(sys.executable).with_name("ansible")
    ours = Path(sys.executable).with_name(name)
    if not program.is_file() or not ours.exists():
        pytest.skip(f"ansible and {name} are not beside {sys.executable}")
    argv = ("localhost", "-m", "debug", "-a", "msg={{ ansible_playbook_python }}")
    theirs = command_line("ansible", *argv, cwd=Path("/"), PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(ours))
    assert cold.run(*argv).text == theirs.stdout


def test_what_python_says_while_ansible_loads_comes_first(
    cold: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible has Jinja take each path of its configuration for a literal: from Python 3.12 on some make it warn."""
    home = tmp_path / "1if"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "hosts").write_text("h1 ansible_connection=local\n")
    (tmp_path / "play.yml").write_text("- hosts: all\n  gather_facts: false\n  tasks: [debug: ]\n")
    expected = command_line("ansible-playbook", "-i", "hosts", "play.yml", cwd=tmp_path)
    assert sys.version_info < (3, 12) or expected.stdout.startswith("<unknown>:1: SyntaxWarning")
    ended = cold.run("-i", "hosts", "play.yml", cwd=str(tmp_path), program="ansible-playbook")
    assert ended.text == expected.stdout
