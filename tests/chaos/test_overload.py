"""200 runs at once on processors that have other work too: load alone makes no task lost."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from scripts.flaky import busy
from tests.helpers.services import Service, started

RUNS = 200
SILENT_SECONDS = 120  # each lease has to be renewed


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_none_of_200_silent_runs_at_once_is_lost_on_busy_processors() -> None:
    with started(f"worker_concurrency = {RUNS}\n") as service:
        body = {"module": "command", "module_args": f"sleep {SILENT_SECONDS}"}
        with busy():
            submitted = {service.submit("ansiblecommand", body) for _ in range(RUNS)}
            most, found = 0, tasks(service)
            while any(task["Status"] == "PROGRESS" for task in found.values()):
                most = max(most, sum(task["state"] == "running" for task in found.values()))
                time.sleep(2)
                found = tasks(service)
        assert found.keys() == submitted
        states = Counter(task["state"] for task in found.values())
        assert states == {"succeeded": RUNS}, (states, [task["description"] for task in found.values()][:5])
        assert most > RUNS / 2
        assert [worker["running"] for worker in service.client().get("/api/stats").json()["workers"]] == [0]


def tasks(service: Service) -> dict[str, dict[str, Any]]:
    reply = service.client().get("/api/ansibletasks?limit=1000", timeout=120).raise_for_status()
    return {task["task_id"]: task for task in reply.json()["tasks"]}
