"""The detectors of tests/conftest.py detect: a guard that never barks would pass for a good one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.leaks import belongings, reap_orphans
from tests.helpers.waiting import eventually, missing, require_program


def test_a_descriptor_left_open_is_seen(tmp_path: Path) -> None:
    before = belongings(tmp_path, False)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    [line] = belongings(tmp_path, False).left_behind(before)
    os.close(descriptor)
    assert line == f"descriptor {descriptor}: {os.devnull}"
    assert belongings(tmp_path, False).left_behind(before) == []


def test_a_child_left_running_is_seen(tmp_path: Path) -> None:
    before = belongings(tmp_path, False)
    with subprocess.Popen(["sleep", "300"]) as child:
        eventually(lambda: "sleep 300" in str(belongings(tmp_path, False).left_behind(before)))
        child.kill()
    assert belongings(tmp_path, False).left_behind(before) == []


def test_a_grandchild_that_left_its_session_and_lost_its_parent_is_seen(tmp_path: Path) -> None:
    before = belongings(tmp_path, False)
    code = "import subprocess as s; print(s.Popen(['sleep', '300'], start_new_session=True, stdout=-3).pid)"
    pid = int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout)
    found = belongings(tmp_path, False).left_behind(before)
    os.kill(pid, 9)
    assert any(line.startswith(f"process {pid}:") for line in found)

    def reaped() -> bool:
        reap_orphans(before)
        return belongings(tmp_path, False).left_behind(before) == []

    eventually(reaped)


def test_a_temp_directory_of_ansible_left_over_is_seen(tmp_path: Path) -> None:
    (tmp_path / ".ansible/tmp").mkdir(parents=True)
    before = belongings(tmp_path, False)
    for place in (str(tmp_path / ".ansible/tmp"), None):
        path = tempfile.mkdtemp(prefix="ansible-local-", dir=place)
        found = belongings(tmp_path, False).left_behind(before)
        os.rmdir(path)
        assert found == [f"directory {path}"]


def test_what_is_missing_skips_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nonsense-program is missing"):
        require_program("nonsense-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nonsense-program is missing"):
        require_program("nonsense-program")
    with pytest.raises(pytest.fail.Exception):
        missing("a service")


def test_a_program_beside_the_interpreter_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert require_program(Path(sys.executable).name)
