"""Runs with `exclusive: hosts`, with real Ansible: their beats never meet on a host, whatever dies in between."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.services import FLANSIBLE_WORKER, LOCAL, Service, worker_by_hand, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True
# Each host writes when it begins, each beat, and when it ends.
BEATS = """\
- hosts: "{{ target | default('all') }}"
  gather_facts: false
  tasks:
    - ansible.builtin.shell: |
        echo "in $(date +%s.%N)" >> {{ place }}
        for beat in $(seq {{ beats }}); do sleep 0.1; echo "beat $(date +%s.%N)" >> {{ place }}; done
        echo "out $(date +%s.%N)" >> {{ place }}
      vars:
        place: "{{ folder }}/{{ inventory_hostname }}.{{ name }}"
"""


@pytest.fixture(scope="module", autouse=True)
def fleet(root: Path) -> None:
    write(root / "inventories/fleet", f"[web]\nh1 {LOCAL}\nh2 {LOCAL}\n[db]\nh3 {LOCAL}\n[other]\nh4 {LOCAL}\n")
    write(root / "playbooks/beats.yml", BEATS)
    write(root / "playbooks/own/ansible.cfg", "[defaults]\ninventory = ../../inventories/fleet\n")
    write(root / "playbooks/own/beats.yml", BEATS)


class Farm:
    """Runs that write their beats into a folder."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder = service, folder
        folder.chmod(0o777)
        self.inventory = str(service.root / "inventories/fleet")
        self.names: dict[str, str] = {}

    def submit(self, name: str, limit: str, beats: int = 8, **fields: Any) -> str:
        body: dict[str, Any] = {
            "playbook": "beats.yml",
            "inventory": self.inventory,
            "limit": limit,
            "extra_vars": {"folder": str(self.folder), "name": name, "beats": beats},
            **fields,
        }
        body = {field: value for field, value in body.items() if value is not None}
        task_id = self.service.submit("ansibleplaybook", body)
        self.names[name] = task_id
        return task_id

    def running(self, task_id: str) -> bool:
        return bool(self.service.status(task_id)["state"] == "running")

    def reason(self, task_id: str) -> str:
        """Once it waits for hosts, or is past that."""

        def found() -> str | None:
            status = self.service.status(task_id)
            reason = status.get("reason") or ""
            return reason if reason.startswith("host_held_by") or status["state"] != "queued" else None

        return str(eventually(found))

    def spans(self) -> dict[str, list[tuple[float, float, str]]]:
        """By host: first and last sign of each run on it, in order."""
        found: dict[str, list[tuple[float, float, str]]] = {}
        for path in self.folder.iterdir():
            host, _, name = path.name.partition(".")
            times = [float(line.split()[1]) for line in path.read_text().splitlines()]
            found.setdefault(host, []).append((min(times), max(times), name))
        return {host: sorted(spans) for host, spans in found.items()}

    def assert_alone(self, *names: str) -> None:
        """These runs met no other on any host."""
        for host, spans in self.spans().items():
            for (begin, end, name), (other_begin, other_end, other) in itertools.permutations(spans, 2):
                if name in names:
                    assert end <= other_begin or other_end <= begin, f"{name} and {other} met on {host}"

    def assert_succeeded(self) -> None:
        for name, task_id in self.names.items():
            status = self.service.wait(task_id)
            assert status["state"] == "succeeded", (name, status, self.service.output(task_id))


@pytest.fixture
def farm(service: Service, tmp_path: Path) -> Farm:
    return Farm(service, tmp_path)


def test_of_runs_that_overlap_no_two_are_on_one_host_at_any_moment(farm: Farm) -> None:
    first = farm.submit("first", "h1,h2", exclusive="hosts")
    eventually(lambda: farm.running(first))
    plain = farm.submit("plain", "h2,h3")
    aside = farm.submit("aside", "h4", beats=1)
    last = farm.submit("last", "web", exclusive="hosts")
    assert farm.reason(plain) == farm.reason(last) == f"host_held_by: {first}"
    assert farm.service.status(plain)["waiting_host"] == "h2"
    assert farm.service.wait(aside)["state"] == "succeeded"
    farm.assert_succeeded()
    farm.assert_alone("first", "last")
    spans = farm.spans()
    assert {host: {name for *_, name in found} for host, found in spans.items()} == {
        "h1": {"first", "last"},
        "h2": {"first", "plain", "last"},
        "h3": {"plain"},
        "h4": {"aside"},
    }
    assert spans["h4"][0][0] < spans["h1"][0][1], "what shares no host runs beside it"


def test_an_inventory_that_ansible_cfg_names_is_known_as_well(farm: Farm) -> None:
    own: dict[str, Any] = {"inventory": None, "playbook_dir": "own"}
    first = farm.submit("first", "h1", exclusive="hosts", **own)
    eventually(lambda: farm.running(first))
    named, other = farm.submit("named", "h1"), farm.submit("unnamed", "h1", **own)
    elsewhere = farm.submit("aside", "h4", beats=1, **own)
    assert farm.reason(named) == farm.reason(other) == f"host_held_by: {first}"
    assert farm.service.wait(elsewhere)["state"] == "succeeded"
    farm.assert_succeeded()
    farm.assert_alone("first")


def test_a_template_has_its_hosts_for_itself(farm: Farm, service: Service) -> None:
    request = {"playbook": "beats.yml", "inventory": farm.inventory, "limit": "db"}
    values = {"folder": str(farm.folder), "beats": 3}
    body = {"kind": "playbook", "exclusive": "hosts", "request": {**request, "extra_vars": values}}
    body["open"] = ["extra_vars.name"]
    assert service.client().put("/api/templates/alone", json=body).status_code == 201
    for number in range(3):
        reply = service.client().post("/api/templates/alone/launch", json={"extra_vars": {"name": f"run{number}"}})
        assert reply.status_code == 202, reply.text
        farm.names[f"run{number}"] = reply.json()["task_id"]
    farm.submit("plain", "db", beats=3)
    farm.assert_succeeded()
    farm.assert_alone("run0", "run1", "run2")
    assert {name for *_, name in farm.spans()["h3"]} == {"run0", "run1", "run2", "plain"}


@pytest.mark.nightly
def test_a_worker_that_is_killed_frees_the_hosts_of_its_run(farm: Farm, service: Service) -> None:
    with worker_by_hand(service, *FLANSIBLE_WORKER, "--queues", "dmz") as worker:
        first = farm.submit("first", "h1,h2", beats=600, exclusive="hosts", queue="dmz")
        eventually(lambda: (farm.folder / "h1.first").exists(), 60)
        waits = [farm.submit(f"run{number}", "h1", beats=2, exclusive="hosts") for number in range(2)]
        plain = farm.submit("plain", "h2", beats=2)
        assert {farm.reason(one) for one in (plain, *waits)} == {f"host_held_by: {first}"}
        worker.kill()
        worker.wait()
        assert service.wait(first)["state"] == "lost"
        for one in (plain, *waits):
            assert service.wait(one)["state"] == "succeeded"
    farm.assert_alone("first", "run0", "run1")
    spans = farm.spans()
    assert [[name for *_, name in spans[host]] for host in ("h1", "h2")] == [
        ["first", "run0", "run1"],
        ["first", "plain"],
    ]


def test_a_canceled_one_whose_inventory_program_hangs_gives_its_slot_back(farm: Farm, service: Service) -> None:
    """Its preview went on to its time limit of two minutes."""
    program, begun = service.root / "inventories/hung", farm.folder / "pid"
    write(program, f"#!/bin/sh\necho $$ > {begun}.new; mv {begun}.new {begun}\nexec sleep 300\n")
    program.chmod(0o755)
    task_id = service.submit("ansiblecommand", {"module": "debug", "inventory": str(program), "exclusive": "hosts"})
    eventually(begun.exists, 30)
    pid = int(begun.read_text())
    assert service.client().post(f"/api/ansibletaskcancel/{task_id}").json()["state"] == "canceled"
    eventually(lambda: not psutil.pid_exists(pid), 20)
    eventually(lambda: [one["running"] for one in service.client().get("/api/stats").json()["workers"]] == [0])
