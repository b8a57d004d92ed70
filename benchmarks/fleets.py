"""Many hosts: `make fleets`. Writes the tables of fleets into docs/performance.md (`--write`; else it prints them).

Fleets of hosts that are names of this machine, through the API and in a shell in turn; the same over a real sshd, whose
hosts are addresses of this machine; what one result costs in processor time as fleets grow; and the most memory that
each role took. Half an hour on a quiet machine; `--scale 0.1` for a first look.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import works
from benchmarks.costs import cpu_by_role
from benchmarks.service import INVENTORY, Running, Sampler, Usage, machine, megabytes, running, usage_by_role
from benchmarks.speed import Row, reported, rounds_of, table_of
from benchmarks.ssh import sshd
from benchmarks.tables import TOP, judged, put, table
from benchmarks.works import Work

NAME = "make fleets"
HOSTS = {200: 5, 1_000: 3, 3_000: 1}  # and rounds of each
GROWTH = (100, 1_000, 3_000)
SSH_HOSTS = 50
RESULTS = 200_000
_GROWTH_ROUNDS = 5
_PLAY_TASKS = 3
_FAR_FROM_EACH_OTHER = 0.20  # the goal: what a result costs us at these sizes
_FLEET = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=hello
    - ansible.builtin.set_fact: seen=yes
    - ansible.builtin.debug: var=seen
"""
_MANY = """\
- hosts: all
  gather_facts: false
  tasks:
{tasks}"""
_ONE = "    - ansible.builtin.debug: msg=hello\n"
_FAR = """\
- hosts: far
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
    - ansible.builtin.command: echo hello
"""


@dataclass(frozen=True)
class Share:
    """Processor time of one result of one host, in microseconds. ours: of all processes but the run's own."""

    hosts: int
    ours: float
    run: float
    command_line: float


def measure(scale: float) -> str:
    parts = []
    with running() as service, service.client() as client:
        for count in {*HOSTS, *GROWTH}:
            _lay_out(service.playbooks, count)
        works.through_the_api(client, _work(service.playbooks, 100))
        rows = [_row(service, client, count, rounds_of(rounds, scale)) for count, rounds in HOSTS.items()]
        shares = [_share(service, client, count, rounds_of(_GROWTH_ROUNDS, scale)) for count in GROWTH]
    parts += [table_of([*rows, *_over_ssh(scale)]), _table_of_shares(shares)]
    return "\n\n".join([*parts, _table_of_memory(_memory(round(RESULTS * scale)))])


def _lay_out(place: Path, hosts: int, tasks: str = _FLEET) -> None:
    (place / "fleet-of.yml").write_text(tasks)
    names = (INVENTORY.replace("one", f"host{number}", 1) for number in range(1, hosts + 1))
    (place / f"fleet-{hosts}").write_text("".join(names))


def _work(place: Path, hosts: int) -> Work:
    inventory, forks = f"fleet-{hosts}", 20
    body = {"playbook_dir": str(place), "playbook": "fleet-of.yml", "inventory": inventory, "forks": forks}
    argv = ["ansible-playbook", "-i", inventory, "-f", str(forks), "fleet-of.yml"]
    name = f"{hosts:,} hosts, forks {forks}: `debug`, `set_fact`, `debug`"
    return Work(name, "ansibleplaybook", body, argv, 0.70)


def _row(service: Running, client: httpx.Client, hosts: int, rounds: int) -> Row:
    work = _work(service.playbooks, hosts)
    sides = [lambda: works.through_the_api(client, work), lambda: works.in_a_shell(service, work)]
    return reported(Row(work.name, works.in_turn(sides, rounds, warm=False), work.goal))


def _over_ssh(scale: float) -> list[Row]:
    """The same hosts over ssh, first without pipelining, then with it on both sides."""
    rows = []
    with sshd(SSH_HOSTS) as root:
        (root / "far.yml").write_text(_FAR)
        for profile, words in (("default", "no pipelining"), ("fast", "pipelining")):
            with running(ssh_profile=profile) as service, service.client() as client:
                name = f"{SSH_HOSTS} hosts over ssh, forks 20, {words}: `ping`, `command`"
                body = {"playbook_dir": str(root), "playbook": "far.yml", "inventory": str(root / "hosts"), "forks": 20}
                argv = ["ansible-playbook", "-i", str(root / "hosts"), "-f", "20", str(root / "far.yml")]
                work = Work(name, "ansibleplaybook", body, argv)
                service.environ["ANSIBLE_PIPELINING"] = "1" if profile == "fast" else "0"
                sides = [
                    lambda client=client, work=work: works.through_the_api(client, work),
                    lambda service=service, work=work: works.in_a_shell(service, work),
                ]
                rows.append(reported(Row(name, works.in_turn(sides, rounds_of(5, scale)), None)))
    return rows


def _share(service: Running, client: httpx.Client, hosts: int, rounds: int) -> Share:
    work = _work(service.playbooks, hosts)
    of_all: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        before = cpu_by_role(service.process.pid)
        # A poll costs the same whatever the run does: what grows with its results must not be hidden among hundreds.
        works.through_the_api(client, work, poll_seconds=1.0)
        spent = {role: after - before.get(role, 0.0) for role, after in cpu_by_role(service.process.pid).items()}
        run = spent.pop("run", 0.0)
        before_shell = _ended_children_cpu()
        works.in_a_shell(service, work)
        seconds = sum(spent.values()), run, _ended_children_cpu() - before_shell
        of_all.append(tuple(one * 1e6 / (hosts * _PLAY_TASKS) for one in seconds))  # type: ignore[arg-type]
        print(f"measured: {hosts:,} hosts, µs a result: {of_all[-1]}", file=sys.stderr, flush=True)
    return Share(hosts, *(statistics.median(values) for values in zip(*of_all, strict=True)))


def _ended_children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table_of_shares(shares: Sequence[Share]) -> str:
    first = shares[0].ours
    rows = []
    for share in shares:
        shown = judged(abs(share.ours / first - 1), _FAR_FROM_EACH_OTHER, f"{share.ours:,.0f}")
        rows.append([f"{share.hosts:,}", shown, f"{share.run:,.0f}", f"{share.command_line:,.0f}"])
    head = ("hosts", "µs a result, our own processes", "the run's processes", "command line")
    return table(head, rows)


def _memory(results: int) -> dict[str, Usage]:
    """The most each role takes while one run of 3,000 hosts goes on, and has so many results."""
    hosts = max(GROWTH)
    tasks = max(1, round(results / hosts))
    with running() as service, service.client() as client:
        _lay_out(service.playbooks, hosts, _MANY.format(tasks=_ONE * tasks))
        sampler = Sampler(lambda: usage_by_role(service.process.pid), interval_seconds=2.0)
        with sampler.watching():
            works.through_the_api(client, _work(service.playbooks, hosts))
        print(f"measured: memory, {hosts * tasks:,} results", file=sys.stderr, flush=True)
    return {f"{role}, {hosts * tasks:,} results": usage for role, usage in sampler.peak.items()}


def _table_of_memory(peak: dict[str, Usage]) -> str:
    rows = [[role, megabytes(usage.pss), str(usage.processes)] for role, usage in peak.items()]
    return table((f"role, {max(GROWTH):,} hosts", "MB at most (PSS)", "processes at most"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rounds and results")
    asked = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    text = measure(asked.scale)
    minutes = (time.monotonic() - began) / 60
    text = f"{machine()}. Load average before: {load:.1f}; it took {minutes:.0f} minutes.\n\n{text}"
    print(text)
    if asked.write:
        put(TOP / "docs/performance.md", NAME, text)


if __name__ == "__main__":
    main()
