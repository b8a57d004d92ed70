"""The task list as a stream: each change, only to users who may see the task, resumed after a disconnect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from flansible.models import About, State
from flansible.store import Store
from tests.helpers.waiting import eventually
from tests.helpers.webserver import DEV, RecordedRun, WebServer, result, task_start

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def client(server: WebServer, store: Store) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def listed(client: httpx.Client, **query: Any) -> dict[str, Any]:
    reply = client.get("/api/ansibletasks", params=query)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def read(lines: Iterator[str], count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Reads events as (id, event, data)."""
    found, fields = [], {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("id", "event", "data"):
            fields[name] = value
        elif not line and "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
            fields = {}
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")


def test_each_change_of_a_task_is_told_as_it_is_then(client: httpx.Client, store: Store) -> None:
    begin = listed(client)["changes"]
    with client.stream("GET", "/api/ansibletasks", params={"after": begin}, headers=STREAM) as reply:
        lines = reply.iter_lines()
        run = RecordedRun(store, "dev", "a run", about=About(module="ping", hosts="all"))
        told = read(lines, 1)
        while told[-1][2]["state"] != "running":
            told += read(lines, 1)
        run.write(b"", result("a", "changed"), result("b", "unreachable"))
        run.end(State.FAILED)
        while told[-1][2]["state"] != "failed":
            told += read(lines, 1)
    assert {(event, data["task_id"]) for _, event, data in told} == {("task", run.task_id)}
    last = told[-1][2]
    assert (last["counts"], last["host_count"]) == ({"changed": 1, "unreachable": 1}, 2)
    assert (last["module"], last["hosts"], last["playbook"]) == ("ping", "all", None)
    assert last == listed(client)["tasks"][0]


def test_a_stream_goes_on_where_it_was_cut(client: httpx.Client, store: Store) -> None:
    begin = listed(client)["changes"]
    runs = [RecordedRun(store) for _ in range(3)]
    with client.stream("GET", "/api/ansibletasks", params={"after": begin}, headers=STREAM) as reply:
        told = read(reply.iter_lines(), 1)
    with client.stream("GET", "/api/ansibletasks", headers={**STREAM, "Last-Event-ID": told[0][0]}) as reply:
        told += read(reply.iter_lines(), 2)
    assert {data["task_id"] for _, _, data in told} == {run.task_id for run in runs}


def test_nobody_is_told_of_another_users_task(server: WebServer, client: httpx.Client, store: Store) -> None:
    begin = listed(client)["changes"]
    RecordedRun(store, "admin", "not for dev")
    own = RecordedRun(store, "dev")
    with server.client(DEV) as dev, dev.stream("GET", f"/api/ansibletasks?after={begin}", headers=STREAM) as reply:
        assert read(reply.iter_lines(), 1)[0][2]["task_id"] == own.task_id


@pytest.mark.parametrize("after", [0, 2**40])
def test_one_who_was_away_for_too_long_is_told_to_load_again(client: httpx.Client, store: Store, after: int) -> None:
    for _ in range(2):
        RecordedRun(store)
    store._redis.xtrim("flansible:listed", maxlen=1, approximate=False)
    with client.stream("GET", "/api/ansibletasks", params={"after": after}, headers=STREAM) as reply:
        lines = reply.iter_lines()
        number, event, data = read(lines, 1)[0]
        assert (event, data) == ("reset", {}) and int(number) == listed(client)["changes"]
        new = RecordedRun(store)
        assert read(lines, 1)[0][2]["task_id"] == new.task_id


def test_progress_is_told_at_most_once_a_second(client: httpx.Client, store: Store) -> None:
    run = RecordedRun(store)
    before = listed(client)["changes"]
    for number in range(50):
        run.write(b"", result(f"h{number}"))
    assert listed(client)["changes"] - before <= 2
    assert listed(client)["tasks"][0]["counts"] == {"ok": 50}
    # Should there be no further result for long, its worker tells of the last ones.
    before = listed(client)["changes"]
    store.renew_leases("worker", 1, [(run.task_id, run.token)])
    store.renew_leases("worker", 1, [(run.task_id, run.token)])
    assert listed(client)["changes"] == before + 1


def test_the_list_can_be_asked_for_a_playbook_and_for_a_host(client: httpx.Client, store: Store) -> None:
    one = RecordedRun(store, about=About(playbook="demo/site.yml"))
    RecordedRun(store, about=About(playbook="demo/site.yml2"))
    other = RecordedRun(store)
    one.write(b"", result("web1"))
    other.write(b"", result("web1"), result("web2"))
    assert [task["task_id"] for task in listed(client, playbook="demo/site.yml")["tasks"]] == [one.task_id]
    found = [task["task_id"] for task in listed(client, host="web1")["tasks"]]
    assert found == [other.task_id, one.task_id]
    assert [task["task_id"] for task in listed(client, host="web2")["tasks"]] == [other.task_id]
    assert listed(client, host="web")["tasks"] == []


def test_counts_of_a_run_that_begins_again_begin_again(client: httpx.Client, store: Store) -> None:
    run = RecordedRun(store, on_lost="requeue")
    run.write(b"", result("a"), result("b", "failed"))
    store._move(run.task_id, State.QUEUED, {"description": "lost"})
    assert eventually(
        lambda: listed(client)["tasks"][0]["counts"] == {} and listed(client)["tasks"][0]["host_count"] == 0
    )


def test_a_run_tells_its_play_task_and_how_many_are_expected(client: httpx.Client, store: Store) -> None:
    def status(run: RecordedRun) -> dict[str, Any]:
        return dict(client.get(f"/api/ansibletaskstatus/{run.task_id}").json())

    about = {"about": About(playbook="demo/site.yml"), "kind": "playbook"}
    first = RecordedRun(store, **about)
    first.write(b"", task_start("Install"), result("a"), task_start("Start"), result("a"))
    found = status(first)
    assert (found["play_task_count"], found["counts"]) == (2, {"ok": 2}) and "expected_play_tasks" not in found
    assert found["play_task"] == "Start"
    first.end()
    found = status(first)
    assert found["play_task_count"] == 2 and "play_task" not in found
    second = RecordedRun(store, **about)
    assert (status(second)["play_task_count"], status(second)["expected_play_tasks"]) == (0, 2)
    assert listed(client)["tasks"][0] == status(second)
    second.write(b"", task_start("Install"))
    second.end(State.FAILED)  # its number of play tasks is none to expect
    assert "expected_play_tasks" not in status(second)
    assert status(RecordedRun(store, **about))["expected_play_tasks"] == 2


def expected(store: Store, run: RecordedRun) -> int | None:
    found = store.task(run.task_id)
    assert found
    return found.expected_play_tasks


@pytest.mark.parametrize(
    "part",
    [
        {"tags": ["x"]},
        {"skip_tags": ["x"]},
        {"limit": "a"},
        {"start_at_task": "Start"},
        {"list_tasks": True},
        {"syntax_check": True},
    ],
    ids=str,
)
def test_part_of_a_playbook_is_not_compared_with_the_whole(store: Store, part: dict[str, Any]) -> None:
    about = {"about": About(playbook="site.yml"), "kind": "playbook"}
    whole, of_part = (RecordedRun(store, **about), RecordedRun(store, **about, request=part))
    whole.write(b"", task_start("Install"), task_start("Start"))
    of_part.write(b"", task_start("Install"))
    for run in (whole, of_part):
        run.end()
    assert expected(store, RecordedRun(store, **about, request={"tags": None, "syntax_check": False})) == 2
    assert expected(store, RecordedRun(store, **about, request=part)) is None


def test_runs_of_a_playbook_are_compared_with_those_of_the_same_user(store: Store) -> None:
    about = {"about": About(playbook="site.yml"), "kind": "playbook"}
    run = RecordedRun(store, "admin", **about)
    run.write(b"", task_start("Install"))
    run.end()
    assert [expected(store, RecordedRun(store, user, **about)) for user in ("admin", "dev")] == [1, None]


def test_a_user_is_not_told_which_task_of_another_holds_a_lock(
    server: WebServer, client: httpx.Client, store: Store
) -> None:
    holder, *waiting = (RecordedRun(store, user, locks=("database",)) for user in ("admin", "admin", "dev"))
    paths = [f"/api/ansibletaskstatus/{run.task_id}" for run in waiting]
    found = [client.get(path).json() for path in paths]
    assert [one["reason"] for one in found] == [f"locked_by: {holder.task_id}"] * 2
    assert [one["description"] for one in found] == ["waiting for a lock that another task holds"] * 2
    with server.client(DEV) as dev:
        assert dev.get(paths[1]).json()["reason"] == "locked_by: another user"
        holder.end()
        own = RecordedRun(store, "dev", locks=("shared",))
        waits = RecordedRun(store, "dev", locks=("shared",))
        assert dev.get(f"/api/ansibletaskstatus/{waits.task_id}").json()["reason"] == f"locked_by: {own.task_id}"
