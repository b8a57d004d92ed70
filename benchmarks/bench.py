"""What a run costs through the API, against the command line and ansible-runner: `make bench`.

Starts private services, measures both sides in turn, and writes the tables into docs/performance.md and the first
of them, shorter, into README (`--write`; else it prints them). Six or seven minutes on a quiet machine; on a busy one
it takes longer and means less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from benchmarks import cold, costs, footprint, growth, live, projects, speed, works
from benchmarks.costs import Costs
from benchmarks.figures import quantile
from benchmarks.growth import Growth
from benchmarks.live import Delays
from benchmarks.peers import RUNNER_VERSION
from benchmarks.projects import Pairs
from benchmarks.service import Running, Usage, machine, running
from benchmarks.speed import Row
from benchmarks.tables import TOP, judged, put, table

NAME = "make bench"
MB = footprint.MB


@dataclass
class Found:
    """What all the measuring gave."""

    rows: list[Row] = field(default_factory=list)
    against: list[Row] = field(default_factory=list)
    cold: list[Row] = field(default_factory=list)
    projects: list[Pairs] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    costs: dict[str, Costs] = field(default_factory=dict)
    cli_cpu_seconds: dict[str, float] = field(default_factory=dict)
    idle: dict[str, Usage] = field(default_factory=dict)
    delays: Delays = field(default_factory=lambda: Delays([], []))
    poll_round_trips: float = 0.0


def measure(scale: float) -> tuple[Found, footprint.Waiting]:
    found = Found()
    with running(users=speed.USERS) as service:
        found.ready_seconds.append(service.ready_seconds)
        works.lay_out(service.playbooks)
        _without_rivals(service, found)
        found.rows += speed.single_runs(service, scale)
        found.against = speed.against_ourselves(service, scale)
        found.growth = growth.measure(service, growth.COUNTS if scale >= 1 else growth.COUNTS[:2])
    with running(worker_concurrency=speed.ABREAST) as service:
        found.ready_seconds.append(service.ready_seconds)
        works.lay_out(service.playbooks)
        found.rows[3:3] = speed.many_at_once(service, scale)
    with running() as service:
        found.ready_seconds.append(service.ready_seconds)
    found.cold = cold.measure(scale)
    found.projects = projects.measure(scale)
    return found, footprint.waiting_runs(footprint.WAITING if scale >= 1 else 5)


def _without_rivals(service: Running, found: Found) -> None:
    """What is measured of the service alone, first, while it is fresh."""
    with service.client() as client:
        works.through_the_api(client, works.adhoc("debug"))
    found.idle = footprint.idle(service)
    found.delays = live.measure(service)
    found.poll_round_trips = costs.round_trips_of_a_poll(service)
    for module in ("debug", "ping"):
        work = works.adhoc(module)
        found.costs[module] = costs.per_run(service, work)
        found.cli_cpu_seconds[module] = costs.cli_cpu_seconds(service, work)
    _tell("measured: what one run costs")


def figures(found: Found, waiting: footprint.Waiting) -> str:
    rows = [*_footprint(found, waiting), *_live(found.delays), *_costs(found)]
    return table(("figure", "measured", "goal"), rows)


def _footprint(found: Found, waiting: footprint.Waiting) -> list[list[str]]:
    ready, idle = statistics.median(found.ready_seconds), footprint.total(found.idle) / MB
    roles = ", ".join(f"{role} {usage.pss / MB:.0f}" for role, usage in found.idle.items())
    of_roles = f"{judged(idle, 220, f'{idle:.0f} MB')}: {roles}"
    own, cli = waiting.own / MB, waiting.of_cli / MB
    module = f"{waiting.with_module / MB:.0f} MB, the CLI's {waiting.of_cli_with_module / MB:.0f} MB"
    return [
        ["`flansible up` is ready", judged(ready, 3, f"{ready:.1f} s"), "≤ 3 s"],
        ["memory of the idle service, all processes (PSS)", of_roles, "≤ 220 MB"],
        [
            f"memory one more waiting run takes, {waiting.count} at once on one worker (PSS)",
            f"{judged(own, 15, f'{own:.0f} MB')}; the CLI's own {cli:.0f} MB",
            "≤ 15 MB",
        ],
        ["the same with the module's Python, here on the same machine", module, ""],
        [f"until {waiting.count} runs submitted at once all wait", f"{waiting.seconds:.1f} s", ""],
    ]


def _live(delays: Delays) -> list[list[str]]:
    rows = []
    kinds = {
        "printed line to a follower of the output": delays.output,
        "event to a follower of the events": delays.events,
    }
    for name, values in kinds.items():
        half, most = (quantile(values, share) * 1000 for share in (0.5, 0.99))
        shown = f"{judged(half, 10, f'{half:.1f} ms')}, p99 {judged(most, 50, f'{most:.1f} ms')}"
        rows.append([f"from {name}, {len(values)} of them", shown, "≤ 10 ms, p99 ≤ 50 ms"])
    return rows


def _costs(found: Found) -> list[list[str]]:
    rows = []
    for module, cost in found.costs.items():
        cpu, cli = sum(cost.cpu_seconds.values()), found.cli_cpu_seconds[module]
        shares = ", ".join(f"{role} {seconds:.3f}" for role, seconds in cost.cpu_seconds.items() if role != "up")
        rows.append([f"CPU of one `{module}`, all processes", f"{cpu:.2f} s ({shares}); CLI {cli:.2f} s", ""])
    cost = found.costs["debug"]
    wire = f"{cost.bytes_in / 1000:.1f} kB in, {cost.bytes_out / 1000:.1f} kB out"
    rows += [
        [
            "Redis, one `debug` without polling",
            f"{cost.round_trips:.0f} commands ({cost.commands:.0f} with those of scripts); {wire}",
            "",
        ],
        ["stored of one `debug`: its keys in Redis' memory", f"{cost.stored_bytes / 1000:.1f} kB", ""],
        ["broker messages of one run, those for Flower among them", f"{cost.broker_messages:.0f}", ""],
        [
            "Redis commands of one status poll",
            judged(found.poll_round_trips, 1, f"{found.poll_round_trips:g}"),
            "1",
        ],
    ]
    return rows


def report(head: str, found: Found, waiting: footprint.Waiting) -> str:
    parts = (
        head,
        speed.table_of(found.rows),
        speed.table_against(found.against),
        cold.table_of_cold_starts(found.cold),
        projects.table_of(found.projects),
        growth.table_of(found.growth),
        figures(found, waiting),
    )
    return "\n\n".join(part.strip() for part in parts)


def _head(load: float, seconds: float) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    versions = f"{machine()}, ansible-runner {RUNNER_VERSION}, commit {commit or 'unknown'}"
    return f"{versions}. Load average before: {load:.1f}; it took {seconds / 60:.0f} minutes."


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rounds; below 1 for a first look")
    asked = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    found, waiting = measure(asked.scale)
    text = report(_head(load, time.monotonic() - began), found, waiting)
    print(text)
    if asked.write:
        put(TOP / "docs/performance.md", NAME, text)
        put(TOP / "README.md", NAME, speed.short_table_of(found.rows))


if __name__ == "__main__":
    main()
