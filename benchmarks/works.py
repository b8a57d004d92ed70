"""Pieces of work, and how long each takes through the API and in a shell.

Through the API: wall seconds from submission to the final state, seen by a client that polls every 10 ms.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service import INVENTORY, Running

POLL_SECONDS = 0.01
HOSTS = 50
ITEMS = 3_000
PLAY = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=hello
    - ansible.builtin.ping:
    - ansible.builtin.command: echo hello
"""
SHORT = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=hello
"""
FLEET = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=hello
    - ansible.builtin.command: echo hello
"""
LOOP = f"""\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: line {{{{ item }}}}
      loop: "{{{{ range(0, {ITEMS}) | list }}}}"
"""


@dataclass(frozen=True)
class Work:
    """body and argv mean the same, one to the API and one in a shell. goal: for the ratio API / CLI."""

    name: str
    route: str
    body: dict[str, Any]
    argv: Sequence[str]
    goal: float | None = None
    rounds: int = 9


def lay_out(playbooks: Path) -> None:
    """The files that the works below name."""
    for name, text in {"play.yml": PLAY, "short.yml": SHORT, "fleet.yml": FLEET, "loop.yml": LOOP}.items():
        (playbooks / name).write_text(text)
    fleet = (INVENTORY.replace("one", f"host{number}", 1) for number in range(1, HOSTS + 1))
    (playbooks / "fleet").write_text("".join(fleet))
    own = playbooks / "own"
    own.mkdir()
    (own / "short.yml").write_text(SHORT)
    (own / "ansible.cfg").write_text("[defaults]\nforks = 7\n")


def adhoc(module: str, goal: float | None = None, rounds: int = 9) -> Work:
    argv = ["ansible", "localhost", "-m", module]
    return Work(f"ad-hoc `{module}`", "ansiblecommand", {"module": module}, argv, goal, rounds)


def playbook(name: str, place: Path, file: str, goal: float | None = None, rounds: int = 9) -> Work:
    body = {"playbook_dir": str(place), "playbook": file}
    return Work(name, "ansibleplaybook", body, ["ansible-playbook", file], goal, rounds)


def fleet(place: Path, goal: float, rounds: int) -> Work:
    body = {"playbook_dir": str(place), "playbook": "fleet.yml", "inventory": "fleet", "forks": 20}
    argv = ["ansible-playbook", "-i", "fleet", "-f", "20", "fleet.yml"]
    name = f"{HOSTS} hosts (local), forks 20: debug, command"
    return Work(name, "ansibleplaybook", body, argv, goal, rounds)


def submit(client: httpx.Client, work: Work) -> str:
    return str(client.post(f"/api/{work.route}", json=work.body).raise_for_status().json()["task_id"])


def await_success(client: httpx.Client, task_id: str, name: str, poll_seconds: float = POLL_SECONDS) -> None:
    while (status := client.get(f"/api/ansibletaskstatus/{task_id}").json())["Status"] == "PROGRESS":
        time.sleep(poll_seconds)
    if status["Status"] != "SUCCESS":
        sys.exit(f"{name} did not succeed: {status['description']}")


def through_the_api(client: httpx.Client, work: Work, count: int = 1, poll_seconds: float = POLL_SECONDS) -> float:
    """Seconds until all of `count` are final, submitted at once."""
    began = time.perf_counter()
    for task_id in [submit(client, work) for _ in range(count)]:
        await_success(client, task_id, work.name, poll_seconds)
    return time.perf_counter() - began


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_a_shell(service: Running, work: Work, place: Path | None = None) -> float:
    """place: where, if not in the folder of playbooks."""
    return _seconds(service, [str(service.bin / work.argv[0]), *work.argv[1:]], "", place)


def abreast_in_a_shell(service: Running, work: Work, count: int, abreast: int) -> float:
    """Seconds of `xargs -P`, which keeps so many commands going side by side."""
    command = [str(service.bin / work.argv[0]), *work.argv[1:]]
    return _seconds(service, ["xargs", f"-P{abreast}", "-I{}", *command], "next\n" * count)


def _seconds(service: Running, command: Sequence[str], given: str, place: Path | None = None) -> float:
    cwd, env = place or service.playbooks, service.environ
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=env, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return time.perf_counter() - began


Side = Callable[[], float]


def in_turn(sides: Sequence[Side], rounds: int, warm: bool = True) -> list[list[float]]:
    """Seconds of each side, one list a side. A noisy machine is noisy for all: each round asks every side once.

    Every second round goes backwards, so that none is always first.
    """
    if warm:
        for side in sides:
            side()
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides))
        for index in reversed(order) if number % 2 else order:
            seconds[index].append(sides[index]())
    return seconds
