"""Projects on machines that share nothing but the queue: each run is of its commit, whatever is pushed and cut off.

At night. By day there are two workers on one machine, in tests/acceptance/test_projects.py.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.conftest import Scale
from tests.chaos.installation import HOSTS, WEBS, WORKERS, Auth, Installation, Project, installation
from tests.helpers.network import Direction, Machine, require_network
from tests.helpers.services import ADMIN, DEV
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.nightly

RUNS, PROJECTS, TAGS, CLIENTS = 200, 5, 4, 8
# A login shell may say something of its own before.
_SAID = re.compile(r'playbook (\d+), variables (\d+), inventory (\d+), [^"]*?from (10\.\S+)')
# Seconds that the link of one of these is cut at most: what a worker's run does meanwhile succeeds afterwards.
_LONGEST_CUT = {"git": 12.0, **dict.fromkeys(WORKERS, 6.0)}
_OTHERS_LONGEST_CUT = 8.0


@pytest.fixture(scope="module")
def site() -> Iterator[Installation]:
    require_network()
    with installation() as found:
        yield found


def test_a_run_of_a_commit_at_hand_does_not_wait_for_a_fetch_that_hangs(site: Installation) -> None:
    project = site.project("still", "http", refresh="manual")
    at_hand = project.push("v1")

    def submit(ref: str) -> dict[str, Any]:
        return site.submit({"project": "still", "ref": ref, "queue": "dmz"})  # which has one worker

    assert site.wait(submit("v1")["task_id"])["Status"] == "SUCCESS"
    newer = project.push()
    reply = site.client(WEBS[1]).post("/api/projects/still/remote", json={})
    assert (reply.status_code, reply.json()["commit"]) == (200, newer)
    with cut_off(site.machines["git"]):
        fetching = submit("main")
        eventually(lambda: "fetching still" in site.output(fetching["task_id"]))
        again = submit("v1")
        assert (fetching["commit"], again["commit"]) == (newer, at_hand)
        assert site.wait(again["task_id"])["Status"] == "SUCCESS"
        assert numbers(site.output(again["task_id"])) == {project.numbers[at_hand]}
        assert site.status(fetching["task_id"])["state"] == "running"
    assert site.wait(fetching["task_id"])["Status"] == "SUCCESS"
    assert numbers(site.output(fetching["task_id"])) == {project.numbers[newer]}


def test_a_fetch_whose_connection_is_dead_is_given_up(site: Installation) -> None:
    project = site.project("dead", "ssh", refresh="manual")
    body = {"project": "dead", "queue": "dmz"}
    assert site.wait(site.submit(body)["task_id"])["Status"] == "SUCCESS"
    newer = project.push()
    assert site.client(WEBS[0]).post("/api/projects/dead/remote", json={}).json()["commit"] == newer
    with site.held_answers() as asked:
        fetching = site.submit(body)["task_id"]
        eventually(lambda: "fetching dead" in site.output(fetching))
        eventually(asked.exists)
        with cut_off(site.machines["git"]):
            assert site.wait(fetching)["state"] == "failed"
            assert "not responding" in site.output(fetching)
    again = site.submit(body)["task_id"]
    assert site.wait(again)["Status"] == "SUCCESS"
    assert numbers(site.output(again)) == {project.numbers[newer]}


def numbers(output: str) -> set[int]:
    """What the files of the tree say that a run was of."""
    return {int(number) for found in _SAID.findall(output) for number in found[:3]}


@dataclass(frozen=True)
class Run:
    """One that has ended. accepted, ended: when its client was told so, seconds since 1970."""

    project: Project
    queue: str
    commit: str
    status: dict[str, Any]
    output: str
    accepted: float
    ended: float


@dataclass(frozen=True)
class Cut:
    name: str
    began: float
    ended: float


@pytest.mark.timeout(2400)
def test_each_run_is_of_its_commit_while_projects_are_pushed_to_and_links_are_cut(
    site: Installation, scale: Scale
) -> None:
    projects = [site.project(f"p{number}", ("ssh", "http")[number % 2]) for number in range(PROJECTS)]
    named = {project.name: {f"v{number}": project.push(f"v{number}") for number in range(TAGS)} for project in projects}
    cuts = list[Cut]()
    with pushing(projects), cutting(site, scale.chance("machines"), cuts), ThreadPoolExecutor(CLIENTS) as clients:
        runs = list(clients.map(lambda number: one_run(site, projects, named, number), range(RUNS)))
    problems = [problem for run in runs if (problem := problem_of(run, site, cuts))]
    assert problems == [], f"CHAOS_SEED={scale.seed}\n" + "\n".join(problems)
    tasks = site.get("/api/ansibletasks?limit=1000").json()["tasks"]
    own = [task["task_id"] for task in tasks if task.get("project") in named]
    assert sorted(own) == sorted(run.status["task_id"] for run in runs), "each was accepted once"
    eventually(lambda: [load["running"] for load in site.get("/api/stats").json()["workers"]] == [0] * len(WORKERS))
    for project in projects:
        assert site.trees("w3", project.name) and site.trees("w1", project.name) | site.trees("w2", project.name)
    for web in WEBS:
        assert not (site.disks / web / "data" / "projects").exists()
    print(figures(runs, projects, cuts))


def figures(runs: list[Run], projects: list[Project], cuts: list[Cut]) -> str:
    seconds = sorted(run.ended - run.accepted for run in runs)
    began, ended = min(run.accepted for run in runs), max(run.ended for run in runs)
    states = dict(Counter(run.status["state"] for run in runs))
    return (
        f"{len(runs)} runs of {len({run.commit for run in runs})} commits in {ended - began:.0f} s, median "
        f"{seconds[len(runs) // 2]:.1f} s, longest {seconds[-1]:.1f} s: {states}; "
        f"{sum(len(project.numbers) for project in projects)} pushes; cuts: {dict(Counter(cut.name for cut in cuts))}"
    )


def one_run(site: Installation, projects: list[Project], named: dict[str, dict[str, str]], number: int) -> Run:
    """By a tag, by a commit or by the branch that is pushed to; of admin and of a confined user; in both queues."""
    project = projects[number % len(projects)]
    tag, commit = sorted(named[project.name].items())[number // len(projects) % len(named[project.name])]
    ref, wanted = ((tag, commit), (commit, commit), ("main", ""))[number % 3]
    auth: Auth = ADMIN if ref == commit or number % 2 else DEV
    queue = "dmz" if number % 4 == 3 else "default"
    body = {"project": project.name, "ref": ref, "queue": queue}
    accepted = site.submit(body, auth, number)
    began = time.time()
    assert wanted in ("", accepted["commit"])
    status = site.wait(accepted["task_id"], number)
    output = site.output(accepted["task_id"], number)
    return Run(project, queue, accepted["commit"], status, output, began, time.time())


def problem_of(run: Run, site: Installation, cuts: list[Cut]) -> str:
    """Why a run is not what it should be; empty if it is."""
    status, shown = run.status, f"{run.status['state']}: {run.status['description']}\n{run.output}"
    if status["commit"] != run.commit:
        return f"accepted as {run.commit}, and is {status['commit']}"
    if status["state"] == "failed" and "PLAY [" not in run.output and "[flansible] fetching" in run.output:
        # Its output has git's words. That takes so long that it is over before a short cut is.
        is_excused = any(
            cut.name in ("git", *WORKERS) and cut.began < run.ended and cut.ended > run.accepted for cut in cuts
        )
        return "" if is_excused else f"no fetch: {shown}"
    if status["Status"] != "SUCCESS":
        return shown
    said = _SAID.findall(run.output)
    if len(said) != len(HOSTS) or numbers(run.output) != {run.project.numbers[run.commit]}:
        return f"{run.commit} is number {run.project.numbers[run.commit]} of {run.project.name}: {shown}"
    of_queue = {site.machines[name].address for name, queue in WORKERS.items() if queue == run.queue}
    return "" if {found[3] for found in said} <= of_queue else f"not by a worker of {run.queue}: {shown}"


@contextmanager
def cut_off(machine: Machine, direction: Direction = "both") -> Iterator[None]:
    machine.cut(direction)
    try:
        yield
    finally:
        machine.heal()


@contextmanager
def pushing(projects: list[Project]) -> Iterator[None]:
    """Pushes to each project every second."""
    with repeated([lambda project=project: project.push() for project in projects], lambda: 1.0):
        yield


@contextmanager
def cutting(site: Installation, chance: random.Random, cuts: list[Cut]) -> Iterator[None]:
    """Cuts one link after the other, for some seconds."""
    names = [name for name in site.machines if name != "desk" and name not in HOSTS]

    def cut() -> None:
        name, began = chance.choice(names), time.time()
        longest = _LONGEST_CUT.get(name, _OTHERS_LONGEST_CUT)
        with cut_off(site.machines[name], chance.choice(("in", "out", "both"))):
            time.sleep(chance.uniform(longest / 3, longest))
        cuts.append(Cut(name, began, time.time()))

    with repeated([cut], lambda: chance.uniform(2.0, 6.0)):
        yield


@contextmanager
def repeated(actions: list[Any], pause_seconds: Any) -> Iterator[None]:
    """Does each of them again and again, in threads of their own; raises what they raise."""
    over = threading.Event()

    def repeat(action: Any) -> None:
        while True:
            action()
            if over.wait(pause_seconds()):
                return

    with ThreadPoolExecutor(len(actions)) as pool:
        running = [pool.submit(repeat, action) for action in actions]
        try:
            yield
        finally:
            over.set()
    for one in running:
        one.result()
