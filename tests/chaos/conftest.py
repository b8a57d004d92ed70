"""Rounds, seeds and the table at the end of the chaos tests.

One round of each fault, and an outage of a few seconds. `--nightly` plays twenty rounds of each, four in one test, and
stays away for up to a minute; `pytest tests/chaos --rounds 20` does so in one test for each fault. CHAOS_SEED repeats
what a seed gave: the same load and the same choice of victims. CHAOS_KEEP names a folder for the log and the processes
of each round that failed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import arena as arenas
from tests.chaos.arena import Arena
from tests.chaos.load import Jobs
from tests.chaos.rounds import Fault, Figures, Round
from tests.helpers.leaks import fail_on_leaks

_SECONDS_PER_ROUND = 240
_NIGHTLY_ROUNDS = 20
_ROUNDS_A_TEST = 4
LONGEST_AWAY_SECONDS = 60.0
LONGEST_FROZEN_SECONDS = 40.0  # below lease_seconds: a server that does not answer is not known to be away
_figures: dict[str, list[Figures]] = {}
_failed: dict[str, int] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`rounds`: the numbers of the rounds that one test plays."""
    if "rounds" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("rounds")
    if asked:
        cases = [_case(range(asked))]
    else:
        blocks = [range(first, first + _ROUNDS_A_TEST) for first in range(0, _NIGHTLY_ROUNDS, _ROUNDS_A_TEST)]
        cases = [_case(range(1)), *(_case(block, pytest.mark.nightly) for block in blocks)]
    metafunc.parametrize("rounds", cases)


def _case(rounds: range, *marks: pytest.MarkDecorator) -> object:
    timeout = pytest.mark.timeout(_SECONDS_PER_ROUND * len(rounds))
    return pytest.param(rounds, id=f"rounds {rounds[0]} to {rounds[-1]}", marks=[timeout, *marks])


@dataclass(frozen=True)
class Scale:
    """How much of it: whether there is time for large loads and long outages."""

    large: bool
    seed: str

    def chance(self, *words: object) -> random.Random:
        """What the seed gives for a fault and a round, whatever was played before."""
        return random.Random("/".join(map(str, (self.seed, *words))))

    def away_seconds(self, chance: random.Random, number: int) -> float:
        """A few seconds; every fourth of many rounds a long time, the first of those the longest."""
        if self.large and number % 4 == 0:
            return LONGEST_AWAY_SECONDS if number == 0 else chance.uniform(16.0, LONGEST_AWAY_SECONDS)
        return chance.uniform(2.0, 12.0) if self.large else chance.uniform(3.0, 4.0)


_SEED = os.environ.get("CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _figures:
        return
    terminalreporter.section(f"chaos, CHAOS_SEED={_SEED}")
    terminalreporter.line("| fault | rounds | failed | tasks | lost | 503 | lines | back (s) | lost after (s) |")
    terminalreporter.line("|---|---|---|---|---|---|---|---|---|")
    for name, rows in _figures.items():
        sums = [sum(getattr(row, key) for row in rows) for key in ("tasks", "lost", "refused", "lines")]
        most = [max(getattr(row, key) for row in rows) for key in ("back_seconds", "lost_seconds")]
        cells = [name, len(rows), _failed.get(name, 0), *sums, *(f"{seconds:.1f}" for seconds in most)]
        terminalreporter.line("| " + " | ".join(map(str, cells)) + " |")


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing_behind(_home: Path, _subreaper: None) -> Iterator[None]:
    """Of each module in place of each test: its service lives from test to test, and is another one after a fault."""
    yield from fail_on_leaks(_home, False, "module")


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    option = request.config.getoption
    return Scale(bool(option("nightly")) or option("rounds") >= _NIGHTLY_ROUNDS, _SEED)


@dataclass
class Players:
    """Plays rounds on a service; where one has failed the next gets a new service."""

    start: Callable[[], Arena]
    scale: Scale
    arena: Arena | None = None

    def play(self, rounds: range, *faults: Fault, away: bool = False) -> None:
        """These rounds, of these faults in turn; fails at the end with all that did not hold."""
        violations = []
        for number in rounds:
            fault = faults[number % len(faults)]
            found = self._round(fault, number, away)
            if found:
                _failed[fault.name] = _failed.get(fault.name, 0) + 1
                violations += [f"{fault.name}, round {number}: {line}" for line in found]
        if violations:
            header = f"CHAOS_SEED={self.scale.seed}, {len(violations)} violations"
            pytest.fail("\n".join((header, *violations)), pytrace=False)

    def _round(self, fault: Fault, number: int, away: bool) -> list[str]:
        arena, scale = self.ready(), self.scale
        chance = scale.chance(fault.name, number)
        away_seconds = scale.away_seconds(chance, number) if away else 0.0
        this = Round(arena, fault, chance, away_seconds, scale.large)
        try:
            this.play()
        except Exception as error:
            this.violations.append(f"the round was not played to its end: {type(error).__name__}: {error}")
            this.violations.append(f"the end of the service's log: {arena.log_end()}")
        _figures.setdefault(fault.name, []).append(this.figures)
        if this.violations:
            arenas.keep_evidence(arena, f"{fault.name}-{number}".replace(" ", "-"))
            self.end()
        return this.violations

    def ready(self) -> Arena:
        if self.arena is None:
            self.arena = self.start()
            jobs = Jobs(self.arena.root, random.Random(0), self.scale.large)
            made = [jobs.counting(), jobs.short(), jobs.short()]
            try:
                arenas.warm_up(self.arena, [(job.route, job.body) for job in made])
            except BaseException:
                arenas.keep_evidence(self.arena, "warm-up")
                self.end()
                raise
        return self.arena

    def end(self) -> None:
        """Throw away a service that is not as it should be."""
        if self.arena is not None:
            self.arena.scrap()
            self.arena = None

    def stop(self) -> None:
        if self.arena is not None:
            arena, self.arena = self.arena, None
            try:
                assert arena.stop() < 10
            except BaseException:
                arena.scrap()
                raise


def playing(players: Players) -> Iterator[Players]:
    """The body of a module's fixture: stops what is there at the end."""
    yield players
    players.stop()
