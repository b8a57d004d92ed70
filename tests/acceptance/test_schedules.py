"""Schedules of a whole service: each due time once, while the processes that start them are killed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.services import Service, child, started
from tests.helpers.waiting import eventually

SHARES_SERVICE = True
ROUNDS = 3


def put(service: Service, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = service.client().put(f"/api/{path}", json=body)
    assert reply.status_code in (200, 201), reply.text
    return dict(reply.json())


def occurrences(service: Service, name: str) -> list[dict[str, Any]]:
    reply = service.client().get(f"/api/schedules/{name}/occurrences", params={"limit": 1000})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"])[::-1]


def define_ping(service: Service) -> None:
    request = {"module": "ping", "host_pattern": "dev1", "inventory": str(service.root / "inventories/dev")}
    put(service, "templates/ping", {"kind": "adhoc", "request": request})


def test_a_schedule_runs_the_template_for_real(service: Service) -> None:
    define_ping(service)
    shown = put(service, "schedules/often", {"template": "ping", "every": "2s", "timezone": "Europe/Berlin"})
    assert len(shown["next"]) == 5 and shown["words"].startswith("Every 2 seconds")
    first = eventually(lambda: next(iter(occurrences(service, "often")), None), 30)
    assert first["outcome"] in ("starting", "started")
    updated = datetime.fromisoformat(service.client().get("/api/schedules/often").json()["updated_at"])
    assert abs((datetime.fromisoformat(first["due_at"]) - updated).total_seconds() - 2) < 0.01
    started = eventually(lambda: [one for one in occurrences(service, "often") if one["task_id"]], 30)
    status = service.wait(started[0]["task_id"])
    assert (status["state"], status["trigger"], status["template"]) == ("succeeded", "schedule", "ping")
    assert service.client().delete("/api/schedules/often").status_code == 204


@pytest.mark.nightly
def test_when_the_process_that_starts_them_is_killed_each_time_is_started_once() -> None:
    with started("web_workers = 2\n") as service:
        define_ping(service)
        survive_deaths(service)


def survive_deaths(service: Service) -> None:
    body = {"template": "ping", "every": "1s", "timezone": "UTC", "overlap": "allow"}
    put(service, "schedules/each", body)
    for _ in range(ROUNDS):
        eventually(lambda: occurrences(service, "each"), 30)
        for process in psutil.Process(child(service, "web").pid).children():
            seen = len(occurrences(service, "each"))
            process.kill()
            eventually(lambda seen=seen: _count(service) > seen + 2, 60)
    service.client().post("/api/schedules/each/pause", json={})
    eventually(lambda: all(one["outcome"] != "starting" for one in occurrences(service, "each")), 60)
    found = [one for one in occurrences(service, "each") if one["outcome"] != "skipped: paused"]
    dues = [datetime.fromisoformat(one["due_at"]) for one in found]
    steps = {round((later - earlier).total_seconds(), 3) for earlier, later in zip(dues, dues[1:], strict=False)}
    assert steps == {1.0} and {one["outcome"] for one in found} == {"started"}
    tasks: list[dict[str, Any]] = []
    before: int | None = None
    while True:
        query = {"template": "ping", "limit": 1000} | ({"before": before} if before else {})
        page = service.client().get("/api/ansibletasks", params=query).json()
        tasks += page["tasks"]
        if (before := page["next_before"]) is None:
            break
    ids = {one["task_id"] for one in found}
    assert len(ids) == len(found) and ids <= {task["task_id"] for task in tasks}
    mine = [task for task in tasks if task["submitted_at"] >= found[0]["due_at"][:19]]
    assert len({task["task_id"] for task in mine}) == len(found), "none was started that has no record"
    service.client().delete("/api/schedules/each")


def _count(service: Service) -> int:
    try:
        return len(occurrences(service, "each"))
    except httpx.TransportError:  # the process that answered was killed
        return 0
