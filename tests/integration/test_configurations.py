"""Configurations drawn at random, in random order, in fork servers of one zygote: each run has its own, and no other's.

Compared with the command line in that folder and environment: each setting with its origin, as `ansible-config dump`
has them, and the text and exit code of a playbook.
"""

from __future__ import annotations

import configparser
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flansible.models import Step
from flansible.store import Store
from tests.helpers.configurations import as_variable, definitions, in_file, of_this_version, value_of
from tests.helpers.runs import Ended, Worker, command_line
from tests.helpers.waiting import require_program

FEW, MANY = 3, 200
KEYS = 10
SEED = int(os.environ.get("FLANSIBLE_TEST_SEED", "1912"))
# Differs in each process.
OWN = {"DEFAULT_LOCAL_TMP"}

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - debug: {msg: "forks {{ ansible_forks }}, {{ inventory_hostname }}"}
    - set_fact: {seen: "{{ {'a': 1} | combine({'b': 2}) }}"}
    - debug: {var: seen}
    - debug: {var: seen}
      when: inventory_hostname == 'h2'
    - assert: {that: seen.a == 1}
    - command: echo {{ inventory_hostname }}
      check_mode: true
    - debug: {msg: "{{ query('config', *settings, show_origin=true, on_missing='skip') }}"}
      run_once: true
"""


@dataclass(frozen=True)
class Drawn:
    """One configuration: a folder with or without a file, and variables."""

    place: Path
    environment: dict[str, str]

    @property
    def argv(self) -> tuple[str, ...]:
        return ("-i", "hosts", "-e", "@settings.yml", "play.yml")


def draw(parent: Path, number: int, chance: random.Random) -> Drawn:
    place = parent / f"p{number}"
    place.mkdir(mode=0o755)
    # One host: the order of two is chance.
    (place / "hosts").write_text(
        "h1 ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n"
    )
    (place / "play.yml").write_text(PLAY)
    (place / "settings.yml").write_text(yaml.safe_dump({"settings": sorted({*definitions()} - OWN)}))
    kind = chance.choice(("file", "variables", "both", "both"))
    parser, environment = configparser.RawConfigParser(), {}
    for name in chance.sample(of_this_version(), KEYS) if kind != "variables" else ():
        if found := in_file(name):
            section, key = found
            if not parser.has_section(section):
                parser.add_section(section)
            parser.set(section, key, value_of(name, chance))
    for name in chance.sample(of_this_version(), KEYS) if kind != "file" else ():
        if variable := as_variable(name):
            environment[variable] = value_of(name, chance)
    if kind != "variables":
        with (place / "ansible.cfg").open("w") as file:
            parser.write(file)
    return Drawn(place, environment)


@pytest.fixture
def worker(store: Store) -> Iterator[Worker]:
    require_program("ansible-config")
    worker = Worker(store)
    yield worker
    worker.close()


def run(worker: Worker, drawn: Drawn) -> Ended:
    step = Step(program="ansible-playbook", argv=drawn.argv, cwd=str(drawn.place), environment=drawn.environment)
    return worker.run_steps(step)


def dumped(drawn: Drawn) -> dict[str, tuple[Any, str]]:
    """Each setting as the command line has it, and where from."""
    printed = command_line("ansible-config", "dump", "--format=json", cwd=drawn.place, **drawn.environment).stdout
    # Warnings come first.
    found, _ = json.JSONDecoder().raw_decode(printed[printed.index("[\n") :])
    return {one["name"]: (one["value"], one["origin"]) for one in found if "name" in one}


def settings_of(ended: Ended) -> dict[str, tuple[Any, str]]:
    """Each setting as the run has it."""
    [result] = [
        event["result"]["msg"]
        for event in ended.events
        if event["event"] == "host_result" and isinstance(event["result"].get("msg"), list)
    ]
    names = sorted({*definitions()} - OWN)
    return {name: (value, origin) for name, (value, origin) in zip(names, result, strict=True)}


def same(ours: tuple[Any, str], theirs: tuple[Any, str]) -> bool:
    """A variable of the play, which a dump knows nothing of, goes before the configuration."""
    return ours[1].startswith("var: ") or _plain(ours[0]) == _plain(theirs[0]) and ours[1] == theirs[1]


def _plain(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)


def compare(worker: Worker, configurations: list[Drawn], chance: random.Random) -> None:
    expected = {}
    for drawn in configurations:
        by_hand = command_line("ansible-playbook", *drawn.argv, cwd=drawn.place, **drawn.environment)
        expected[drawn.place] = by_hand.stdout, by_hand.returncode, dumped(drawn)
    # Each twice, other ones between.
    order = configurations * 2
    chance.shuffle(order)
    for drawn in order:
        ended = run(worker, drawn)
        text, returncode, settings = expected[drawn.place]
        about = (
            f"{drawn}\n{(drawn.place / 'ansible.cfg').read_text() if (drawn.place / 'ansible.cfg').exists() else ''}"
        )
        assert (ended.text, ended.outcome.returncode) == (text, returncode), about
        if returncode == 0:
            found = settings_of(ended)
            differing = {
                name: (found[name], settings[name])
                for name in found
                if name in settings and not same(found[name], settings[name])
            }
            assert differing == {}, about
    assert all(server.was_forked for server in worker.fork_servers._servers.values())


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.nightly)])
@pytest.mark.timeout(3600)
def test_random_configurations_in_random_order_are_the_command_lines(
    worker: Worker, tmp_path: Path, count: int
) -> None:
    chance = random.Random(SEED + count)
    worker.fork_servers._limit = count - 1  # so that some are ended, and needed again
    compare(worker, [draw(tmp_path, number, chance) for number in range(count)], chance)
