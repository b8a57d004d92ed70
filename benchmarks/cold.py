"""Runs whose configuration has no warm process, or was not used lately: the table of cold starts of `make bench`.

Each project is a folder with its own ansible.cfg and a playbook of one `debug`; each run through the API stands beside
the same in a shell, in turn. Of a rotation, the second round counts: in the first one everything is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks import works
from benchmarks.service import INVENTORY, Running, running
from benchmarks.speed import Row, reported, rounds_of, table_of

PROJECTS = 20
USERS, PROJECTS_OF_A_USER = 5, 4
_FIRST_ROUNDS = 9


def measure(scale: float) -> list[Row]:
    """Measures private services. scale: of the numbers of rounds and projects."""
    rows = []
    with running() as service, service.client() as client:
        count = rounds_of(_FIRST_ROUNDS, scale)
        works.through_the_api(client, works.adhoc("debug"))
        name = "first run in a folder with its own `ansible.cfg`"
        rows.append(reported(Row(name, _round(service, client, _projects(service, "first", count)), 0.60)))
        count = max(2, round(PROJECTS * scale))
        projects = _projects(service, "rotation", count)
        _round(service, client, projects, with_shell=False)
        name = f"{count} projects in turn, each with its own `ansible.cfg`, second round"
        rows.append(reported(Row(name, _round(service, client, projects), 0.35)))
    return [*rows, _confined(scale)]


def table_of_cold_starts(rows: Sequence[Row]) -> str:
    return table_of(rows)


def _confined(scale: float) -> Row:
    users = max(1, round(USERS * scale))
    entries = [
        {"user": f"user{number}", "password": f"user{number}", "inventories": [f"playbooks/of-user{number}-0/hosts"]}
        for number in range(users)
    ]
    for number, entry in enumerate(entries):
        found = [f"playbooks/of-user{number}-{project}/hosts" for project in range(PROJECTS_OF_A_USER)]
        entry["inventories"] = found  # type: ignore[assignment]
    with running(users=entries) as service:
        seconds: list[list[float]] = [[], []]
        places = [_projects(service, f"of-user{number}", PROJECTS_OF_A_USER) for number in range(users)]
        for with_shell in (False, True):
            for project in range(PROJECTS_OF_A_USER):
                for number in range(users):
                    with service.client((f"user{number}", f"user{number}")) as client:
                        found = _round(service, client, [places[number][project]], with_shell, inventory="hosts")
                    if with_shell:
                        for side, more in zip(seconds, found, strict=True):
                            side.extend(more)
    name = f"{users} confined users, {PROJECTS_OF_A_USER} projects each, in turn, second round"
    return reported(Row(name, seconds, 0.40))


def _projects(service: Running, name: str, count: int) -> list[Path]:
    """Makes folders of a playbook, an inventory and an ansible.cfg, no two the same."""
    found = []
    for number in range(count):
        place = service.playbooks / f"{name}-{number}"
        place.mkdir()
        (place / "short.yml").write_text(works.SHORT.replace("localhost", "one"))
        (place / "hosts").write_text(INVENTORY)
        (place / "ansible.cfg").write_text(f"[defaults]\nforks = {number + 3}\nroles_path = roles\ninventory = hosts\n")
        found.append(place)
    return found


def _round(
    service: Running,
    client: httpx.Client,
    projects: Sequence[Path],
    with_shell: bool = True,
    inventory: str = "",
) -> list[list[float]]:
    """Seconds through the API and in a shell, one of each for each project."""
    seconds: list[list[float]] = [[], []]
    for number, place in enumerate(projects):
        work = works.playbook(f"short.yml in {place.name}", place, "short.yml")
        if inventory:
            work.body["inventory"] = inventory
        sides = [lambda work=work: works.through_the_api(client, work)]
        if with_shell:
            sides.append(lambda work=work, place=place: works.in_a_shell(service, work, place))
        for index in reversed(range(len(sides))) if number % 2 else range(len(sides)):
            seconds[index].append(sides[index]())
    return seconds
