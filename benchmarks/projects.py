"""What a project costs on top of a plain folder: a table of `make bench`.

A commit at hand is one that a ref is known to have and the worker's mirror has, whose tree is not there: its first run
writes the tree. One named by its digits is also looked for, in the remote's refs and in the mirror. Each stands beside
the first run of a folder with the same files, in turn.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import works
from benchmarks.service import INVENTORY, Running, running
from benchmarks.speed import rounds_of
from benchmarks.tables import judged, table
from benchmarks.works import Work
from flansible.projects import order, shelf

COMMITS = 9
PROJECTS = 10
_MOST_MORE_SECONDS = 0.050  # the goal


@dataclass(frozen=True)
class Pairs:
    """Seconds of runs of projects, and of folders."""

    name: str
    of_projects: Sequence[float]
    of_folders: Sequence[float]
    goal: float | None

    @property
    def cells(self) -> list[str]:
        more = statistics.median(one - other for one, other in zip(self.of_projects, self.of_folders, strict=True))
        shown = f"{more * 1000:.0f} ms"
        return [
            self.name,
            f"{statistics.median(self.of_projects):.3f}",
            f"{statistics.median(self.of_folders):.3f}",
            shown if self.goal is None else judged(more, self.goal, shown),
            "" if self.goal is None else f"≤ {self.goal * 1000:.0f} ms",
        ]


def measure(scale: float) -> list[Pairs]:
    """Measures a private service. scale: of the number of commits."""
    count = rounds_of(COMMITS, scale)
    with running() as service, service.client() as client:
        names = [f"project{number}" for number in range(PROJECTS)]
        commits = [_defined(service, client, name, count) for name in names]
        folders = [_made_folder(service, number) for number in range(2 * count + PROJECTS)]
        new = [_of_project(names[0], commit) for commit in commits[0]]
        known = [_of_project(names[0], f"b{number}") for number in range(count)]
        of_others = [_of_project(name, "b0") for name in names]
        for work in (*known, *of_others):
            works.through_the_api(client, work)
        _remove_trees(service)
        return [
            _pairs(client, "first run of a commit at hand", known, folders[:count], _MOST_MORE_SECONDS),
            _pairs(client, f"the same in {PROJECTS} projects", of_others, folders[count:], _MOST_MORE_SECONDS),
            _pairs(client, "further runs of that commit", known[:1] * count, folders[:1] * count, None),
            _pairs(client, "first run of a commit named by its digits", new, folders[count + PROJECTS :], None),
        ]


def _remove_trees(service: Running) -> None:
    shelves = [
        order.trees(order.folder_of(service.root / ".flansible", f"project{number}")) for number in range(PROJECTS)
    ]
    shelf.make_room(shelves, 0, 0.0, time.time())


def table_of(rows: Sequence[Pairs]) -> str:
    head = ("playbook `debug` of a project, compared with a folder", "project (s)", "folder (s)", "more", "goal")
    return table(head, (row.cells for row in rows))


def _pairs(
    client: httpx.Client, name: str, projects: Sequence[Work], folders: Sequence[Work], goal: float | None
) -> Pairs:
    seconds: tuple[list[float], list[float]] = ([], [])
    for number, both in enumerate(zip(projects, folders, strict=False)):
        for side in (0, 1) if number % 2 else (1, 0):
            seconds[side].append(works.through_the_api(client, both[side]))
    return Pairs(name, *seconds, goal)


def _of_project(name: str, ref: str = "") -> Work:
    body = {"project": name, "playbook": "short.yml", "inventory": "hosts", **({"ref": ref} if ref else {})}
    return Work(f"{name} at {ref[:7] or 'its ref'}", "ansibleplaybook", body, ())


def _made_folder(service: Running, number: int) -> Work:
    place = service.playbooks / f"plain-{number}"
    place.mkdir()
    _write_files(place, number)
    work = works.playbook(f"folder {number}", place, "short.yml")
    work.body["inventory"] = "hosts"
    return work


def _defined(service: Running, client: httpx.Client, name: str, count: int) -> list[str]:
    """Makes a repository whose branches b0, b1 ... are so many commits, and defines a project of it; the commits that
    only main has."""
    place = service.root / "remotes" / name
    place.mkdir(parents=True)
    _git(place, "init", "-q", "-b", "main")
    commits = []
    for number in range(2 * count):
        _write_files(place, number)
        _git(place, "add", "-A")
        _git(place, "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", str(number))
        commits.append(_git(place, "rev-parse", "HEAD"))
        if number < count:
            _git(place, "branch", f"b{number}")
    spec = {"url": f"file://{place}", "ref": "main", "allow_refs": ["b*"], "refresh": "manual"}
    client.put(f"/api/projects/{name}", json=spec).raise_for_status()
    return commits[count:]


def _git(place: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=place, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _write_files(place: Path, number: int) -> None:
    (place / "short.yml").write_text(works.SHORT.replace("localhost", "one"))
    (place / "hosts").write_text(INVENTORY)
    (place / "notes").write_text(f"{number}\n")
