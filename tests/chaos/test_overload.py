"""200 runs at once on processors that have other work too: load alone makes no task lost."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scripts.flaky import busy
from tests.helpers.services import Service, started
from tests.helpers.waiting import eventually

RUNS = 200
SILENT_SECONDS = 75.0  # longer than lease_seconds, from when all are running


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_none_of_200_silent_runs_at_once_is_lost_on_busy_processors() -> None:
    with started(f"worker_concurrency = {RUNS}\n") as service:
        gate = service.root / "gate"
        os.mkfifo(gate)
        body = {"module": "command", "module_args": f"cat {gate}"}  # until somebody has opened it for writing
        with busy():
            submitted = {service.submit("ansiblecommand", body) for _ in range(RUNS)}
            eventually(lambda: not states(service)["queued"], 900)
            time.sleep(SILENT_SECONDS)
            assert states(service) == {"running": RUNS}
            eventually(lambda: let_through(gate) and not states(service)["running"], 600)
        assert tasks(service).keys() == submitted
        assert states(service) == {"succeeded": RUNS}, [task["description"] for task in tasks(service).values()][:5]
        eventually(
            lambda: [worker["running"] for worker in service.client().get("/api/stats").json()["workers"]] == [0]
        )


def let_through(gate: Path) -> bool:
    """Lets those go on that wait at the gate now; a module that starts late comes to it after others have gone."""
    with contextlib.suppress(OSError):  # nobody waits there
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    return True


def states(service: Service) -> Counter[str]:
    return Counter(task["state"] for task in tasks(service).values())


def tasks(service: Service) -> dict[str, dict[str, Any]]:
    reply = service.client().get("/api/ansibletasks?limit=1000", timeout=120).raise_for_status()
    return {task["task_id"]: task for task in reply.json()["tasks"]}
