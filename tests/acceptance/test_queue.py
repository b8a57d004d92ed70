"""The queue over real HTTP: idempotency keys, limits, locks, and workers that die."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.process_tree import detached, sleepers
from tests.helpers.services import ADMIN, DEV, Service, lay_out, start_service
from tests.helpers.waiting import eventually

# The time of a run is enough to start what is to be ended, on a busy machine too.
CONFIG = "worker_concurrency = 2\ngrace_seconds = 1\nCELERY_TASK_TIMEOUT = 20\n"


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    users = json.loads((root / "rbac.json").read_text())["rbac"]
    users[1]["limits"] = {"running": 1, "queued": 3}
    (root / "rbac.json").write_text(json.dumps({"rbac": users}))
    running = start_service(root, CONFIG)
    yield running
    assert running.stop() < 10
    lay_out(root)


def post(service: Service, body: dict[str, Any], key: str | None, auth: tuple[str, str] = ADMIN) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return service.client(auth).post("/api/ansiblecommand", json=body, headers=headers)


def sleep(seconds: float, **fields: Any) -> dict[str, Any]:
    return {"module": "command", "module_args": f"sleep {seconds}", **fields}


def dev_sleep(root: Path, seconds: float) -> dict[str, Any]:
    return sleep(seconds, host_pattern="dev1", inventory=str(root / "inventories/dev"))


def test_the_same_key_and_body_are_the_same_task(service: Service) -> None:
    body = {"module": "debug", "extra_vars": {"a": 1, "b": 2}}
    first = post(service, body, "key-1")
    again = post(service, {"extra_vars": {"b": 2, "a": 1}, "module": "debug"}, "key-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json() and again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    other = post(service, {"module": "debug"}, "key-1")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert post(service, body, "key-2").json()["task_id"] != first.json()["task_id"]
    assert post(service, body, None).json()["task_id"] != first.json()["task_id"]
    service.wait(first.json()["task_id"])
    assert post(service, body, "key-1").json() == first.json()  # final as well


def test_a_key_belongs_to_its_user_and_to_its_kind_of_request(service: Service, root: Path) -> None:
    body = {"module": "debug", "host_pattern": "dev1", "inventory": str(root / "inventories/dev")}
    assert post(service, body, "shared").json() != post(service, body, "shared", DEV).json()
    playbook = {"playbook_dir": str(root / "playbooks"), "playbook": "site.yml"}
    reply = service.client().post("/api/ansibleplaybook", json=playbook, headers={"Idempotency-Key": "shared"})
    assert reply.status_code == 409


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
def test_a_key_that_is_none_is_refused_by_name(service: Service, key: str) -> None:
    reply = service.client().post(
        "/api/ansiblecommand", json={"module": "debug"}, headers=[(b"Idempotency-Key", key.encode())]
    )
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_header")
    assert reply.json()["errors"][0]["field"] == "Idempotency-Key"


def test_of_many_equal_requests_at_once_one_runs(service: Service, tmp_path: Path) -> None:
    body = {"module": "shell", "module_args": f"echo ran >> {tmp_path}/mark"}
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: post(service, body, "race"), range(24)))
    assert {reply.status_code for reply in replies} <= {202, 409}
    assert {reply.json()["code"] for reply in replies if reply.status_code == 409} <= {"idempotency_key_in_flight"}
    ids = {reply.json()["task_id"] for reply in replies if reply.status_code == 202}
    assert len(ids) == 1
    service.wait(ids.pop())
    assert (tmp_path / "mark").read_text() == "ran\n"


@pytest.mark.nightly
def test_two_tasks_that_share_a_lock_never_run_together_and_go_in_order(service: Service, tmp_path: Path) -> None:
    script = f"echo in $(date +%s.%N) >> {tmp_path}/log; sleep 0.4; echo out $(date +%s.%N) >> {tmp_path}/log"
    locks: list[Any] = ["a", ["a", "b"], ["b", "a"], "a", ["b"]]
    ids = [service.submit("ansiblecommand", {"module": "shell", "module_args": script, "lock": x}) for x in locks[:4]]
    waiting = service.status(ids[1])
    if waiting["state"] == "queued":
        assert waiting["reason"] == f"locked_by: {ids[0]}" or waiting["reason"] in ("starting", "workers_busy")
    for task_id in ids:
        assert service.wait(task_id)["state"] == "succeeded"
    words = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert words == ["in", "out"] * 4


def test_a_task_that_waits_for_a_lock_leaves_its_place_to_others_and_says_for_whom_it_waits(service: Service) -> None:
    holder = service.submit("ansiblecommand", sleep(20, lock="one"))
    eventually(lambda: service.status(holder)["state"] == "running")
    waits = [service.submit("ansiblecommand", sleep(0, lock="one")) for _ in range(3)]
    eventually(lambda: service.status(waits[0])["reason"].startswith("locked"))
    status = service.status(waits[0])
    assert status["reason"] == f"locked_by: {holder}"
    assert status["queue_position"] == 1
    free = service.submit("ansiblecommand", {"module": "debug"})
    assert service.wait(free, seconds=20)["state"] == "succeeded"
    service.client().post(f"/api/ansibletaskcancel/{waits[1]}")
    service.client().post(f"/api/ansibletaskcancel/{holder}")
    assert service.wait(holder)["state"] == "canceled"
    assert service.wait(waits[0], seconds=20)["state"] == service.wait(waits[2], seconds=20)["state"] == "succeeded"


def test_a_queued_task_says_why_it_waits_and_when_it_is_expected(service: Service) -> None:
    busy = [service.submit("ansiblecommand", sleep(15)) for _ in range(2)]
    for task_id in busy:
        eventually(lambda task_id=task_id: service.status(task_id)["state"] == "running")
    queued = [service.submit("ansiblecommand", {"module": "debug"}) for _ in range(3)]
    found = [service.status(task_id) for task_id in queued]
    assert [status["queue_position"] for status in found] == [1, 2, 3]
    assert {status["reason"] for status in found} == {"workers_busy"}
    expected = [datetime.fromisoformat(status["expected_start"]) for status in found]
    assert expected == sorted(expected) and expected[0] >= datetime.now(UTC).replace(microsecond=0)
    running = service.status(busy[0])
    assert not {"queue_position", "reason", "expected_start", "attempt", "ended"} & running.keys()
    for task_id in busy:
        service.client().post(f"/api/ansibletaskcancel/{task_id}")
    for task_id in queued:
        assert service.wait(task_id)["state"] == "succeeded"


def test_a_user_over_their_limit_waits_and_then_is_told_to_come_again(service: Service, root: Path) -> None:
    first = service.submit("ansiblecommand", dev_sleep(root, 6), DEV)
    eventually(lambda: service.status(first)["state"] == "running")
    waiting = [service.submit("ansiblecommand", dev_sleep(root, 0), DEV) for _ in range(3)]
    eventually(lambda: service.status(waiting[0])["reason"] == "user_limit")
    refused = post(service, dev_sleep(root, 0), None, DEV)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_queued")
    assert int(refused.headers["Retry-After"]) > 0
    assert service.wait(service.submit("ansiblecommand", {"module": "debug"}))["state"] == "succeeded"  # admin goes on
    for task_id in [first, *waiting]:
        assert service.wait(task_id, DEV)["state"] == "succeeded"
    starts = [service.status(task_id) for task_id in [first, *waiting]]
    spans = sorted((status["started_at"], status["finished_at"]) for status in starts)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))


def test_a_time_limit_of_the_request_ends_it(service: Service) -> None:
    status = service.wait(service.submit("ansiblecommand", sleep(30, time_limit=5)))
    assert status["state"] == "timed_out"
    assert status["description"].startswith("ended after 5 seconds (time_limit)")
    assert any(name.startswith("sleep (") for name in status["ended"]), status["ended"]
    reply = service.client().post("/api/ansiblecommand", json=sleep(1, time_limit=10**6))
    assert reply.status_code == 400 and reply.json()["errors"][0]["field"] == "time_limit"


def test_a_run_over_the_time_of_all_runs_is_ended_with_everything_it_started(service: Service) -> None:
    mark = f"98{os.getpid()}.25"
    task_id = service.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    status = service.wait(task_id)
    assert (status["Status"], status["state"]) == ("TIMEOUT", "timed_out")
    assert "CELERY_TASK_TIMEOUT" in status["description"]
    assert sleepers(mark) == []


def worker_of(service: Service) -> psutil.Process:
    children = psutil.Process(service.process.pid).children()
    return next(child for child in children if child.cmdline()[4:5] == ["worker"])


def test_a_run_whose_worker_is_killed_begins_again_when_asked_to(service: Service, tmp_path: Path) -> None:
    """The other, which nobody asked for, is lost, and is never run again."""
    log, ran, mark = tmp_path / "log", tmp_path / "ran", f"94{os.getpid()}.25"
    script = f"echo begun >> {log}; test $(wc -l < {log}) -ge 2 || sleep 60; echo done"
    body = {"module": "shell", "module_args": script, "on_lost": "requeue", "lock": "again"}
    again = service.submit("ansiblecommand", body)
    body = {"module": "shell", "module_args": f"echo x >> {ran}; sleep {mark}"}
    lost = service.submit("ansiblecommand", body)
    eventually(lambda: log.exists() and sleepers(mark))
    os.kill(worker_of(service).pid, signal.SIGKILL)
    eventually(lambda: not sleepers(mark))  # nothing goes on unsupervised
    status = service.wait(lost, seconds=15)
    assert (status["Status"], status["state"]) == ("LOST", "lost") and "died while it ran" in status["description"]
    status = service.wait(again, seconds=40)
    assert (status["state"], status["attempt"]) == ("succeeded", 2)
    assert log.read_text() == "begun\nbegun\n"
    assert "[flansible] Attempt 2" in service.output(again)
    events = service.client().get(f"/api/ansibletaskevents/{again}").json()["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert "restart" in [event["event"] for event in events] and events[-1]["event"] == "final"
    assert service.result(again)["contacted"]["localhost"][0]["verdict"] == "changed"
    assert ran.read_text() == "x\n"
