"""200 runs at once on processors that have other work too: load alone makes no task lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from scripts.flaky import busy
from tests.helpers.services import Service, started
from tests.helpers.waiting import eventually

RUNS = 200
SILENT_SECONDS = 240  # all run at the same time, and each lease has to be renewed several times


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_none_of_200_silent_runs_at_once_is_lost_on_busy_processors() -> None:
    with started(f"worker_concurrency = {RUNS}\n") as service:
        body = {"module": "command", "module_args": f"sleep {SILENT_SECONDS}"}
        with busy():
            submitted = {service.submit("ansiblecommand", body) for _ in range(RUNS)}
            eventually(lambda: of_state(service, "running") == RUNS or of_state(service, "lost"), 600)
            found = eventually(lambda: all_final(service), 900)
        assert found.keys() == submitted
        states = Counter(task["state"] for task in found.values())
        assert states == {"succeeded": RUNS}, (states, [task["description"] for task in found.values()][:5])
        assert [worker["running"] for worker in service.client().get("/api/stats").json()["workers"]] == [0]


def tasks(service: Service) -> dict[str, dict[str, Any]]:
    reply = service.client().get("/api/ansibletasks?limit=1000", timeout=120).raise_for_status()
    return {task["task_id"]: task for task in reply.json()["tasks"]}


def of_state(service: Service, state: str) -> int:
    return sum(task["state"] == state for task in tasks(service).values())


def all_final(service: Service) -> dict[str, dict[str, Any]]:
    """All tasks, once each is final; nothing before."""
    found = tasks(service)
    return found if all(task["Status"] != "PROGRESS" for task in found.values()) else {}
