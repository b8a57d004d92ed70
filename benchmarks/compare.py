"""Whether one commit is slower than another: `make bench-compare BASE=commit [HEAD=commit]`.

Each gets a git worktree, an environment in a temporary folder, and a service; both services are up at
once and asked in turn, so that a noisy machine is noisy for both. Works that the older commit cannot do fail it. Ends
with 1 when something became slower: when the whole spread of the ratios is above 1.05.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import footprint, works
from benchmarks.figures import Ratio, steady_ratio
from benchmarks.service import Running, machine, running
from benchmarks.tables import TOP, table
from benchmarks.works import Side, in_turn

_HEAD = ("what", "base", "head", "head / base", "spread", "")
_AT_ONCE = 20
_POLLS = 100
_STARTS = 5


@dataclass(frozen=True)
class Compared:
    name: str
    base: float
    head: float
    ratio: Ratio

    @property
    def cells(self) -> list[str]:
        spread = f"{self.ratio.low:.2f} to {self.ratio.high:.2f}"
        verdict = self.ratio.verdict
        word = {"slower": "**slower**", "same": ""}.get(verdict, verdict)
        return [self.name, f"{self.base:.3f}", f"{self.head:.3f}", f"{self.ratio.median:.2f}", spread, word]


def commit_of(name: str) -> str:
    """The full id. Exits when there is no such commit."""
    found = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
    if not found:
        sys.exit(f"there is no commit {name!r} here")
    return found


def _git(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=TOP, stdout=subprocess.PIPE, text=True, check=check)
    return done.stdout.strip()


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The programs of an environment in which that commit is installed, as its own Makefile does it."""
    print(f"installing {commit[:10]}", file=sys.stderr, flush=True)
    _git("worktree", "add", "--quiet", "--detach", str(folder), commit)
    try:
        # The variables of a `make` around us would be taken for its own.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(
            ["make", "-s", f"PYTHON={sys.executable}", "VENV=.venv", "venv"],
            cwd=folder,
            env={name: value for name, value in environ.items() if name not in ("MFLAGS", "VENV", "PYTHON")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{commit[:10]} cannot be installed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        yield folder / ".venv/bin"
    finally:
        _git("worktree", "remove", "--force", str(folder), check=False)


def compare(base: Running, head: Running, rounds: int) -> list[Compared]:
    """Seconds, and megabytes of the idle services."""
    for service in (base, head):
        works.lay_out(service.playbooks)
    with base.client() as base_client, head.client() as head_client:
        pairs = [_sides(service, client) for service, client in ((base, base_client), (head, head_client))]
        found = [_compared(name, [pair[name] for pair in pairs], rounds) for name in pairs[0]]
    before, after = (footprint.total(footprint.idle(service)) / footprint.MB for service in (base, head))
    found.append(Compared("memory when idle (MB), once", before, after, steady_ratio([after], [before])))
    return found


def compare_starts(programs: Sequence[Path]) -> Compared:
    """Before anything else is up."""
    return _compared("`flansible up` is ready (s)", [partial(_start, bin) for bin in programs], _STARTS)


def _start(bin: Path) -> float:
    with running(bin) as service:
        return service.ready_seconds


def _sides(service: Running, client: httpx.Client) -> dict[str, Side]:
    place = service.playbooks
    debug, play = works.adhoc("debug"), works.playbook("", place, "play.yml")
    asked: dict[str, Callable[[], float]] = {
        "ad-hoc `debug` (s)": partial(works.through_the_api, client, debug),
        "ad-hoc `ping` (s)": partial(works.through_the_api, client, works.adhoc("ping")),
        "playbook: debug, ping, command (s)": partial(works.through_the_api, client, play),
        f"{_AT_ONCE} ad-hoc `debug` at once (s)": partial(works.through_the_api, client, debug, _AT_ONCE),
        f"{_POLLS} status polls, one after the other (s)": partial(_polls, client, works.submit(client, debug)),
    }
    return asked


def _polls(client: httpx.Client, task_id: str) -> float:
    return works.seconds_of(lambda: [client.get(f"/api/ansibletaskstatus/{task_id}") for _ in range(_POLLS)])


def _compared(name: str, sides: Sequence[Side], rounds: int) -> Compared:
    base, head = in_turn(sides, rounds)
    found = Compared(name, statistics.median(base), statistics.median(head), steady_ratio(head, base))
    print(f"measured: {' | '.join(found.cells)}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    commits = [commit_of(asked.base), commit_of(asked.head)]
    with tempfile.TemporaryDirectory(prefix="flansible-compare-") as folder, ExitStack() as stack:
        programs = [
            stack.enter_context(checked_out(commit, Path(folder) / name))
            for commit, name in zip(commits, ("base", "head"), strict=True)
        ]
        starts = compare_starts(programs)
        base, head = (stack.enter_context(running(bin)) for bin in programs)
        found = [*compare(base, head, asked.rounds), starts]
    print(f"{machine()}; base {commits[0][:10]}, head {commits[1][:10]}, {asked.rounds} pairs\n")
    print(table(_HEAD, (row.cells for row in found)))
    slower = [row.name for row in found if row.ratio.verdict == "slower"]
    if slower:
        sys.exit(f"slower: {', '.join(slower)}")


if __name__ == "__main__":
    main()
