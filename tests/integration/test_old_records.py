"""Records of the first version, as it wrote them, and damaged ones: read, or refused with a reason; always ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flansible.broker.recovery import Recovery
from flansible.config import Settings
from flansible.models import State
from flansible.store import Claim, ClaimRefusal, Store
from flansible.store.export import export, parse_moment
from flansible.web import create_app
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id
from tests.helpers.webserver import ADMIN

SUBMITTED = "2026-11-21T22:06:49.000Z"
ADHOC = {"program": "ansible", "argv": ["--module-name=debug", "--", "localhost"], "cwd": "/", "extra_vars": None}
VARIABLES = {"colour": "blue"}
OUTPUT = b"localhost | SUCCESS => {}\n"
EVENT = {"event": "host_result", "host": "localhost", "play": "p", "task": "debug", "module": "debug", "verdict": "ok"}


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


@pytest.fixture
def client(make_settings: Callable[..., Settings], redis_url: str, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "rbac.json").write_text(json.dumps({"rbac": [{"user": ADMIN[0], "password": ADMIN[1]}]}))
    app = create_app(make_settings(CELERY_RESULT_BACKEND=redis_url))
    with app.test_client() as found:
        assert found.get("/api/ansibletasks", auth=ADMIN).status_code == 200
        yield found
    app.extensions["flansible"].store.close()


def first_version(
    raw: redis.Redis, state: str = "queued", user: str = "admin", step: dict[str, Any] | None = None
) -> str:
    """Writes a task as the first landed version did (its scripts `_SUBMIT`, `_MOVE` and `_APPEND`)."""
    task_id = new_id()
    key, seq = f"flansible:task:{task_id}", raw.incr("flansible:sequence")
    run = {
        "kind": "adhoc",
        "user": user,
        "summary": f"{user}: adhoc debug on localhost",
        "steps": [{**ADHOC, "data_only": user != "admin", **(step or {})}],
    }
    record = {
        "seq": seq,
        "user": user,
        "kind": "adhoc",
        "summary": run["summary"],
        "state": state,
        "description": "waiting for a worker",
        "submitted_at": SUBMITTED,
        "output_bytes": 0,
        "events": 0,
    }
    raw.set(f"{key}:run", json.dumps(run))
    if state != "queued":
        record |= {"started_at": SUBMITTED, "worker": "flansible@here", "description": "running on flansible@here"}
        record |= {"output_bytes": len(OUTPUT), "events": 1}
        raw.setrange(f"{key}:output", 0, OUTPUT)
        raw.xadd(f"{key}:events", {"event": json.dumps(EVENT)}, id="1-0")
    if state == "succeeded":
        record |= {"finished_at": SUBMITTED, "description": "ansible ended with exit code 0", "returncode": 0}
        raw.zadd("flansible:expiring", {f"{task_id} {user} {state}": 4e9})
        for part in ("", ":run", ":output", ":events"):
            raw.expireat(key + part, 4_000_000_000)
    raw.hset(key, mapping=record)
    for index in ("tasks", f"tasks:user:{user}", f"tasks:state:{state}", f"tasks:user:{user}:{state}"):
        raw.zadd(f"flansible:{index}", {task_id: seq})
    return task_id


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
@pytest.mark.parametrize("user", ["admin", "dev"])
def test_every_reply_about_a_task_of_the_first_version_is_well(
    client: Any, raw: redis.Redis, store: Store, state: str, user: str
) -> None:
    task_id = first_version(raw, state, user, {"extra_vars": VARIABLES} if user == "dev" else None)
    for path in ("ansibletaskstatus", "ansibletaskoutput", "ansibletaskevents", "ansibletaskresult"):
        reply = client.get(f"/api/{path}/{task_id}", auth=ADMIN)
        assert reply.status_code == 200, reply.get_data()
    assert client.get(f"/api/ansibletaskoutput/{task_id}", auth=ADMIN).get_data() == (
        b"" if state == "queued" else OUTPUT
    )
    asked = client.get(f"/api/ansibletaskrequest/{task_id}", auth=ADMIN)
    assert asked.status_code == 200 and "--module-name=debug" in asked.get_json()["command"]
    assert ("colour" in asked.get_json()["command"]) == (user == "dev")
    listed = client.get("/api/ansibletasks", auth=ADMIN).get_json()["tasks"]
    assert [task["task_id"] for task in listed] == [task_id]
    canceled = client.post(f"/api/ansibletaskcancel/{task_id}?wait=0", auth=ADMIN)
    assert canceled.status_code == {"queued": 200, "running": 202, "succeeded": 409}[state], canceled.get_data()


def test_a_queued_task_of_admin_is_run_as_it_was_meant(raw: redis.Redis, store: Store) -> None:
    plain, with_variables = first_version(raw), first_version(raw, step={"extra_vars": VARIABLES})
    for task_id, variables in ((plain, ()), (with_variables, (VARIABLES,))):
        claim = store.claim(task_id, "worker")
        assert isinstance(claim, Claim) and claim.run.has_rights
        assert claim.run.steps[0].extra_vars == variables
        store.settle(task_id, State.SUCCEEDED, "", 0, token=claim.token)
        assert raw.ttl(f"flansible:task:{task_id}:run") > 0


def test_a_queued_task_of_another_user_has_no_rights_with_it_and_says_so(raw: redis.Redis, store: Store) -> None:
    claim = store.claim(first_version(raw, user="dev"), "worker")
    assert isinstance(claim, Claim) and not claim.run.has_rights
    git = {"program": "git", "argv": ["pull"], "data_only": False}
    claim = store.claim(first_version(raw, user="dev", step=git), "worker")
    assert isinstance(claim, Claim) and not claim.run.has_rights


def test_a_running_task_of_the_first_version_ends_and_takes_all_of_it_along(raw: redis.Redis, store: Store) -> None:
    task_id = first_version(raw, "running")
    recovery = Recovery(store)
    recovery.run_round()
    [run] = store.runs()
    assert run.task_id == task_id and 50 < run.seconds_left <= 60
    raw.zadd("flansible:leases", {task_id: 1})
    store.mark_lost(task_id, "its worker is gone")
    found = store.task(task_id)
    assert found is not None and found.state is State.LOST
    assert {raw.ttl(key) > 0 for key in raw.keys(f"flansible:task:{task_id}*")} == {True}


def test_an_export_has_tasks_of_the_first_version(raw: redis.Redis, store: Store, tmp_path: Path) -> None:
    first_version(raw, "succeeded")
    with (tmp_path / "tasks").open("w+") as file:
        assert export(store, parse_moment("2026-01-01"), None, True, file) == (1, 0)
        file.seek(0)
        [line] = map(json.loads, file)
    assert line["output"] == OUTPUT.decode() and line["request"]["steps"][0]["extra_vars"] == []


DAMAGE: dict[str, tuple[Callable[[redis.Redis, str], Any], str]] = {
    "no request": (lambda raw, key: raw.delete(f"{key}:run"), "its request is missing"),
    "half a request": (lambda raw, key: raw.set(f"{key}:run", '{"kind": "adh'), "its request is no JSON"),
    "a later version": (
        lambda raw, key: raw.set(f"{key}:run", json.dumps({**make_run().model_dump(mode="json"), "planet": "marker"})),
        "planet: Extra inputs are not permitted",
    ),
    "a number that is none": (lambda raw, key: raw.hset(key, "colours", "many"), "a number in it is none"),
    "no size": (lambda raw, key: raw.hdel(key, "output_bytes"), "a number in it is none"),
    "no sequence": (lambda raw, key: (raw.hdel(key, "seq"), raw.delete(f"{key}:run")), "its request is missing"),
    "locks that are none": (lambda raw, key: (raw.hset(key, "locks", "{"), raw.delete(f"{key}:run")), "is missing"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_record_ends_with_its_reason_at_the_first_claim(
    client: Any, raw: redis.Redis, store: Store, what: str
) -> None:
    damage, reason = DAMAGE[what]
    task_id = new_id()
    store.submit(task_id, make_run(on_lost="requeue", locks=("db",) if "locks" not in what else ()))
    damage(raw, f"flansible:task:{task_id}")
    refusal = store.claim(task_id, "worker")
    assert isinstance(refusal, ClaimRefusal) and reason in refusal.reason
    status = client.get(f"/api/ansibletaskstatus/{task_id}", auth=ADMIN).get_json()
    assert status["state"] == "error" and reason in status["description"] and "attempt" not in status
    assert "marker" not in status["description"]
    assert client.get(f"/api/ansibletaskevents/{task_id}", auth=ADMIN).get_json()["final"]
    assert store.runs() == [] and raw.hgetall("flansible:locks") == {}


def test_a_request_that_cannot_be_read_is_a_404_that_says_why(client: Any, raw: redis.Redis, store: Store) -> None:
    task_id = new_id()
    store.submit(task_id, make_run())
    raw.set(f"flansible:task:{task_id}:run", json.dumps({**make_run().model_dump(mode="json"), "steps": "marker"}))
    reply = client.get(f"/api/ansibletaskrequest/{task_id}", auth=ADMIN)
    assert (reply.status_code, reply.get_json()["code"]) == (404, "record_unreadable")
    assert "marker" not in reply.get_json()["message"] and "steps" in reply.get_json()["message"]


def test_a_status_that_cannot_be_read_is_a_404_and_costs_the_list_nothing(
    client: Any, raw: redis.Redis, store: Store
) -> None:
    odd, sound = [new_id() for _ in range(4)], new_id()
    for task_id in (*odd, sound):
        store.submit(task_id, make_run())
    raw.hset(f"flansible:task:{odd[0]}", "state", "teleported")
    raw.hset(f"flansible:task:{odd[1]}", "attempt", "many")
    raw.hset(f"flansible:task:{odd[2]}", "about", '{"planet": "mars"}')
    raw.hdel(f"flansible:task:{odd[3]}", "submitted_at")
    for task_id in odd:
        reply = client.get(f"/api/ansibletaskstatus/{task_id}", auth=ADMIN)
        assert (reply.status_code, reply.get_json()["code"]) == (404, "record_unreadable"), reply.get_data()
    listed = client.get("/api/ansibletasks", auth=ADMIN).get_json()["tasks"]
    assert [task["task_id"] for task in listed] == [sound]
