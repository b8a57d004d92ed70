"""Templates that are compiled once say what templates say that are compiled each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import DirectRun

PLAY = """\
- hosts: localhost
  gather_facts: false
  vars:
    inner: "{{ item }}-{{ 999999999999 | random }}"
  tasks:
    - debug: msg={{ inner }}/{{ 999999999998 | random }}
      loop: [1, 2, 3]
    - debug: msg={{ 'a' | shout }}
    - include_role: name=loud
    - debug: msg={{ 'a' | shout }}
    - debug: msg={{ "a\\tb" }}
    - template: src=lines.j2 dest={{ playbook_dir }}/lines.txt
    - debug: msg={{ lookup('template', 'lines.j2', variable_start_string='[[', variable_end_string=']]') }}
    - debug: msg={{ lookup('template', 'lines.j2') }}
"""
FILTERS = """
from jinja2 import pass_environment
{decorator}
def shout(*words):
    return words[-1].upper() + "{mark}"
class FilterModule:
    def filters(self):
        return {{"shout": shout}}
"""


@pytest.fixture
def servers() -> Iterator[ForkServerPool]:
    servers = ForkServerPool(1)
    yield servers
    servers.close()


def test_each_item_is_rendered_anew_and_each_role_has_its_own_filters(servers: ForkServerPool, tmp_path: Path) -> None:
    for path, text in {
        "play.yml": PLAY,
        "lines.j2": "{{ 1 + 1 }} [[ 2 + 2 ]]\n",
        "filter_plugins/own.py": FILTERS.format(decorator="", mark="!"),
        "roles/loud/filter_plugins/own.py": FILTERS.format(decorator="@pass_environment", mark="!!"),
        "roles/loud/tasks/main.yml": "- debug: msg={{ 'a' | shout }}\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with DirectRun(servers, tmp_path, "play.yml") as run:
        run.wait()
    ours, theirs = messages(run.text), messages(on_the_command_line(tmp_path))
    assert [message[0] for message in ours[:3]] == ["1", "2", "3"]
    parts = [part for message in ours[:3] for part in message.split("/")]
    assert len(set(parts)) == len(parts) == 6
    assert ours[3:] == theirs[3:] and len(ours) == 9, run.text


def messages(text: str) -> list[str]:
    return [json.loads("{" + line + "}")["msg"] for line in re.findall(r'"msg": .*', text)]


def on_the_command_line(place: Path) -> str:
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60).stdout
