"""What is counted of tasks as they end: everybody's and each user's own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flansible.models import About, State
from flansible.store import Store
from tests.helpers.runs import make_run, new_id, token_of
from tests.helpers.webserver import ADMIN, DEV, RecordedRun, WebServer, result


@pytest.fixture
def empty(server: WebServer, store: Store) -> Store:
    """No record of an earlier test."""
    store._redis.flushall()
    return store


def stats(server: WebServer, user: tuple[str, str] = ADMIN, **query: Any) -> dict[str, Any]:
    with server.client(user) as client:
        reply = client.get("/api/stats", params=query)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def ended(store: Store, user: str, state: State, playbook: str | None, *hosts: tuple[str, str]) -> None:
    run = RecordedRun(store, user, about=About(playbook=playbook), kind="playbook")
    run.write(b"", *(result(host, verdict) for host, verdict in hosts))
    run.end(state)


def test_nothing_yet_is_zeros_for_each_day(server: WebServer, empty: Store) -> None:
    found = stats(server, days=3)
    assert [sum(value for value in day.values() if isinstance(value, int)) for day in found["days"]] == [0, 0, 0]
    assert found["days"][-1]["day"] == datetime.now(UTC).date().isoformat()
    assert (found["queued"], found["running"], found["playbooks"], found["hosts"]) == (0, 0, [], [])


def test_admin_is_told_of_all_and_others_of_their_own(server: WebServer, empty: Store) -> None:
    ended(empty, "dev", State.SUCCEEDED, "a.yml", ("web1", "ok"))
    ended(empty, "dev", State.FAILED, "a.yml", ("web1", "failed"), ("web2", "unreachable"), ("web3", "changed"))
    ended(empty, "admin", State.FAILED, "b: c.yml", ("web1", "failed"), ("h:1", "failed"))
    ended(empty, "admin", State.CANCELED, "b: c.yml")
    empty.submit(new_id(), make_run("dev"))
    RecordedRun(empty, "admin")
    every, own = stats(server, days=1), stats(server, DEV, days=1)
    assert every["everybody"] and not own["everybody"]
    today = every["days"][0]
    assert (today["succeeded"], today["failed"], today["canceled"], today["lost"]) == (1, 2, 1, 0)
    assert (own["days"][0]["succeeded"], own["days"][0]["failed"], own["days"][0]["canceled"]) == (1, 1, 0)
    assert {one["playbook"]: (one["runs"], one["failed"]) for one in every["playbooks"]} == {
        "a.yml": (2, 1),
        "b: c.yml": (1, 1),  # what was canceled says nothing about how long it takes
    }
    assert [one["playbook"] for one in own["playbooks"]] == ["a.yml"]
    assert {one["host"]: one["failed"] for one in every["hosts"]} == {"web1": 2, "h:1": 1, "web2": 1}
    assert every["hosts"][0] == {"host": "web1", "failed": 2}
    assert {one["host"]: one["failed"] for one in own["hosts"]} == {"web1": 1, "web2": 1}
    assert (every["queued"], every["running"], own["queued"], own["running"]) == (1, 1, 1, 0)


def test_a_queued_task_that_is_canceled_is_counted_once(server: WebServer, empty: Store) -> None:
    task_id = new_id()
    empty.submit(task_id, make_run("dev"))
    for _ in range(2):
        empty.cancel(task_id, "dev")
    assert stats(server, days=1)["days"][0]["canceled"] == 1


def test_workers_and_what_they_carry(server: WebServer, empty: Store) -> None:
    one, other = "vm 1-2 pid:[3] 4711 5", "vm 1-2 pid:[3] 4712 5"
    task_ids = [new_id() for _ in range(3)]
    for task_id, process in zip(task_ids, (one, one, other), strict=True):
        empty.submit(task_id, make_run("dev"))
        empty.claim(task_id, "flansible@vm", process=process)
    claims = [(task_id, token_of(empty, task_id)) for task_id in task_ids]
    empty.renew_leases(one, 8, claims[:2])
    empty.renew_leases(other, 2, claims[2:])
    assert stats(server, DEV)["workers"] == [
        {"name": "vm, process 4711", "slots": 8, "running": 2},
        {"name": "vm, process 4712", "slots": 2, "running": 1},
    ]


@pytest.mark.parametrize("days", ["0", "91", "x", "-1"])
def test_days_out_of_range_are_refused(server: WebServer, days: str) -> None:
    with server.client() as client:
        reply = client.get(f"/api/stats?days={days}")
    assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "days"


def test_names_without_end_do_not_fill_redis(server: WebServer, empty: Store) -> None:
    for number in range(3):
        ended(empty, "dev", State.FAILED, "a.yml", *((f"h{number}-{host}", "failed") for host in range(8000)))
    counts = empty.counts("dev", 1)
    assert 16000 <= len(counts.hosts) <= 28000 and counts.days.popitem()[1]["failed"] == 3


def test_times_are_the_runs_own(server: WebServer, empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(empty, "dev", State.SUCCEEDED, "a.yml", ("h", "ok"))
    [found] = stats(server)["playbooks"]
    assert 0 <= found["mean_seconds"] <= found["longest_seconds"] < 30
