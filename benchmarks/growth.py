"""Whether a line costs the same in a short output and in a long one.

Two kinds of runs, through the API and in a shell: a loop whose items print 100 lines each, which come over the whole
time of the run, and a command whose one result is all the lines. What a run without lines takes is taken off.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks import works
from benchmarks.figures import slope
from benchmarks.service import Running
from benchmarks.tables import number, table
from benchmarks.works import Work

COUNTS = (1_000, 10_000, 100_000)
LINES_PER_ITEM = 100
_FRAME = 4  # lines that Ansible prints around the list of an item
_ROUNDS = {1_000: 5, 10_000: 3, 100_000: 1}
_LOOP = f"""\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{{{ range(0, {LINES_PER_ITEM - _FRAME}) | list }}}}"
      loop: "{{{{ range(0, items | int) | list }}}}"
      loop_control: {{label: ""}}
"""


@dataclass(frozen=True)
class Growth:
    """Seconds of whole runs by their number of lines; 0: what a run costs that prints next to nothing."""

    name: str
    api: dict[int, float]
    cli: dict[int, float]

    @property
    def rows(self) -> list[list[str]]:
        return [self._row(lines) for lines in self.api if lines]

    def _row(self, lines: int) -> list[str]:
        ours, theirs = (slope((0, side[0]), (lines, side[lines])) * 1e6 for side in (self.api, self.cli))
        seconds = [f"{side[lines]:.2f}" for side in (self.api, self.cli)]
        return [self.name, f"{lines:,}", *seconds, number(ours), number(theirs)]


def table_of(found: Sequence[Growth]) -> str:
    head = ("lines of one run", "lines", "API (s)", "CLI (s)", "API: µs a line", "CLI: µs a line")
    return table(head, (row for growth in found for row in growth.rows))


def measure(service: Running, counts: Sequence[int] = COUNTS) -> list[Growth]:
    (service.playbooks / "lines.yml").write_text(_LOOP)
    with service.client() as client:
        return [
            _grow(service, client, f"a loop, {LINES_PER_ITEM} lines an item", _loop(service, counts)),
            _grow(service, client, "a command, all lines in one result", _command(counts)),
        ]


def _loop(service: Running, counts: Sequence[int]) -> dict[int, Work]:
    works_by_lines = {}
    for lines in (0, *counts):
        items = lines // LINES_PER_ITEM
        body = {"playbook_dir": str(service.playbooks), "playbook": "lines.yml", "extra_vars": {"items": items}}
        argv = ["ansible-playbook", "-e", f"items={items}", "lines.yml"]
        works_by_lines[lines] = Work(f"a loop of {lines:,} lines", "ansibleplaybook", body, argv)
    return works_by_lines


def _command(counts: Sequence[int]) -> dict[int, Work]:
    works_by_lines = {}
    for lines in (0, *counts):
        body = {"module": "command", "module_args": f"seq 1 {lines}"}
        argv = ["ansible", "localhost", "-m", "command", "-a", f"seq 1 {lines}"]
        works_by_lines[lines] = Work(f"a command of {lines:,} lines", "ansiblecommand", body, argv)
    return works_by_lines


def _grow(service: Running, client: httpx.Client, name: str, asked: dict[int, Work]) -> Growth:
    api, cli = {}, {}
    for lines, work in asked.items():
        sides = [partial(works.through_the_api, client, work), partial(works.in_a_shell, service, work)]
        seconds = works.in_turn(sides, _ROUNDS.get(lines, max(_ROUNDS.values())), warm=lines == 0)
        api[lines], cli[lines] = (statistics.median(side) for side in seconds)
        print(f"measured: {work.name}: {api[lines]:.3f} s, CLI {cli[lines]:.3f} s", file=sys.stderr, flush=True)
    return Growth(name, api, cli)
