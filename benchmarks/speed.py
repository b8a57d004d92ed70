"""How long runs take through the API, against the command line and ansible-runner: the first tables of `make bench`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from benchmarks import works
from benchmarks.figures import ratio
from benchmarks.peers import runner
from benchmarks.service import Running
from benchmarks.tables import judged, table
from benchmarks.works import Side, Work

ABREAST = 2
RESTRICTED = ("limited", "limited")
# What the user of the last row is: everything but admin is held to its inventories.
USERS: tuple[dict[str, object], ...] = (
    {"user": RESTRICTED[0], "password": RESTRICTED[1], "inventories": ["playbooks/hosts"]},
)
_HEAD = ("work", "API (s)", "CLI (s)", "API / CLI", "spread", "goal", "ansible-runner's API / CLI", "its command / CLI")
_AGAINST_HEAD = ("through the API", "seconds", "compared with (s)", "ratio", "spread", "goal")


@dataclass(frozen=True)
class Row:
    """seconds: ours, the other's, and then those of peers."""

    name: str
    seconds: Sequence[Sequence[float]]
    goal: float | None

    @property
    def cells(self) -> list[str]:
        ours, other, *peers = self.seconds
        found = ratio(ours, other)
        return [
            self.name,
            f"{statistics.median(ours):.3f}",
            f"{statistics.median(other):.3f}",
            judged(found.median, self.goal, f"{found.median:.2f}"),
            f"{found.low:.2f} to {found.high:.2f}",
            "" if self.goal is None else f"≤ {self.goal:.2f}",
            *(f"{ratio(peer, other).median:.2f}" for peer in peers),
        ]


def table_of(rows: Sequence[Row]) -> str:
    return table(_HEAD, ((row.cells + ["", ""])[: len(_HEAD)] for row in rows))


def short_table_of(rows: Sequence[Row]) -> str:
    """README's: without spread, goal and peers."""
    return table(_HEAD[:4], (row.cells[:3] + [row.cells[3].strip("*")] for row in rows))


def table_against(rows: Sequence[Row]) -> str:
    return table(_AGAINST_HEAD, (row.cells for row in rows))


def single_runs(service: Running, scale: float) -> list[Row]:
    """One run at a time. scale: of the numbers of rounds."""
    place = service.playbooks
    debug, ping = works.adhoc("debug", 0.12), works.adhoc("ping", 0.22, rounds=7)
    play = works.playbook("playbook: debug, ping, command", place, "play.yml", 0.50, rounds=5)
    loop = works.playbook(f"one `debug` looping over {works.ITEMS:,} items", place, "loop.yml", 0.95, rounds=3)
    with service.client() as client, runner(service) as peer:
        return [
            _measured(service, client, debug, scale, peer.module("debug")),
            _measured(service, client, ping, scale, peer.module("ping")),
            _measured(service, client, play, scale, peer.play("play.yml")),
            _measured(service, client, works.fleet(place, 0.60, rounds=3), scale),
            _measured(service, client, loop, scale),
        ]


def _measured(service: Running, client: httpx.Client, work: Work, scale: float, peers: Sequence[Side] = ()) -> Row:
    sides = [lambda: works.through_the_api(client, work), lambda: works.in_a_shell(service, work), *peers]
    # What takes long needs no warming: its start is a small part of it.
    seconds = works.in_turn(sides, rounds_of(work.rounds, scale), warm=work.rounds > 3)
    return reported(Row(work.name, seconds, work.goal))


def rounds_of(rounds: int, scale: float) -> int:
    return max(1, round(rounds * scale))


def many_at_once(service: Running, scale: float) -> list[Row]:
    """Of a service that carries two runs side by side."""
    rows = []
    for work, count, goal in ((works.adhoc("debug"), 40, 0.14), (works.adhoc("ping"), 16, 0.38)):
        name = f"{count} {work.name} at once, {ABREAST} side by side, CLI under `xargs -P{ABREAST}`"
        with service.client() as client:
            works.through_the_api(client, work)
            rows.append(reported(Row(name, _batches(service, client, work, count, rounds_of(3, scale)), goal)))
    return rows


def _batches(service: Running, client: httpx.Client, work: Work, count: int, rounds: int) -> list[list[float]]:
    sides = [
        lambda: works.through_the_api(client, work, count),
        lambda: works.abreast_in_a_shell(service, work, count, ABREAST),
    ]
    return works.in_turn(sides, rounds, warm=False)


def against_ourselves(service: Running, scale: float) -> list[Row]:
    """Runs that should cost no more than others."""
    plain = works.playbook("", service.playbooks, "short.yml")
    own = works.playbook("", service.playbooks / "own", "short.yml")
    asked = {"module": "debug", "host_pattern": "one", "inventory": "hosts"}
    debug = Work("debug", "ansiblecommand", asked, ())
    rounds = rounds_of(9, scale)
    with service.client() as admin, service.client(RESTRICTED) as limited:
        of_folders = _in_turn(admin, own, admin, plain, rounds)
        of_users = _in_turn(limited, debug, admin, debug, rounds)
    folder = "playbook `debug` in a folder with its own `ansible.cfg`, from the second on; compared with one without"
    user = "ad-hoc `debug` of a user with one inventory, from the second on; compared with admin's"
    return [reported(Row(folder, of_folders, 1.1)), reported(Row(user, of_users, 1.1))]


def _in_turn(
    client: httpx.Client, work: Work, other_client: httpx.Client, other: Work, rounds: int
) -> list[list[float]]:
    sides = [lambda: works.through_the_api(client, work), lambda: works.through_the_api(other_client, other)]
    return works.in_turn(sides, rounds)


def reported(row: Row) -> Row:
    print(f"measured: {' | '.join(row.cells)}", file=sys.stderr, flush=True)
    return row
