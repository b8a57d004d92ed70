"""`strategy`: runs with Mitogen, and that one that is ended leaves nothing behind."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.services import ADMIN, Service, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True

pytest.importorskip("ansible_mitogen", reason="Mitogen is not installed; requirements-test.txt has it")

PLAY = """\
- hosts: here
  gather_facts: false
  tasks:
    - command: sleep {{ seconds }}
"""


@pytest.fixture
def body(root: Path) -> dict[str, Any]:
    # Mitogen wants the interpreter itself: a wrapper in its place ends the connection.
    python = os.path.realpath(sys.executable)
    inventory = write(root / "here", f"here ansible_connection=local ansible_python_interpreter={python}\n")
    write(root / "playbooks/mitogen.yml", PLAY)
    return {
        "playbook_dir": ".",
        "playbook": "mitogen.yml",
        "inventory": str(inventory),
        "strategy": "mitogen_linear",
    }


def of_mitogen() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if "(mitogen:" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def is_asleep(seconds: str) -> bool:
    return any(process.info["cmdline"] == ["sleep", seconds] for process in psutil.process_iter(["cmdline"]))


def test_a_run_with_mitogen_ends_well_and_leaves_no_process(service: Service, body: dict[str, Any]) -> None:
    task_id = service.submit("ansibleplaybook", {**body, "extra_vars": {"seconds": 2}})
    eventually(of_mitogen, 60)
    status = service.wait(task_id, ADMIN)
    assert status["Status"] == "SUCCESS", service.output(task_id)
    assert "changed: [here]" in service.output(task_id)
    assert of_mitogen() == []


@pytest.mark.nightly
def test_a_run_with_mitogen_that_is_canceled_leaves_nothing(service: Service, body: dict[str, Any]) -> None:
    sockets = set(Path(tempfile.gettempdir()).glob("mitogen*"))
    task_id = service.submit("ansibleplaybook", {**body, "extra_vars": {"seconds": f"61.{os.getpid()}"}})
    eventually(of_mitogen, 60)
    eventually(lambda: is_asleep(f"61.{os.getpid()}"), 60)
    service.client().post(f"/api/ansibletaskcancel/{task_id}")
    assert service.wait(task_id)["state"] == "canceled"
    assert of_mitogen() == []
    assert set(Path(tempfile.gettempdir()).glob("mitogen*")) <= sockets


def test_a_strategy_that_is_not_mitogens_is_refused(service: Service, body: dict[str, Any]) -> None:
    reply = service.client().post("/api/ansibleplaybook", json={**body, "strategy": "free"})
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (400, "strategy")
