"""Two tasks compared: what is found is the same wherever each of them is, and page by page."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flansible.history import comparison
from flansible.history.archive import Archive
from flansible.history.baseline import last_success
from flansible.history.comparison import DifferentHost, compare_hosts
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.models import About, State
from flansible.store import ListFilter, Store, StoredEvent
from flansible.system.timestamps import timestamp
from flansible.worker.archiver import Archiver
from tests.helpers.archived_tasks import MadeTask, result
from tests.helpers.site import Site, served
from tests.helpers.waiting import eventually
from tests.helpers.webserver import RecordedRun, WebServer


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 5.0))
    yield records
    records.close()


@pytest.fixture
def archiver(redis_url: str, history_url: str) -> Iterator[Archiver]:
    archiver = Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(36500))
    archiver._stopped.wait = lambda timeout=None: False  # type: ignore[method-assign]  # without rests
    yield archiver
    archiver.close()


def of(host: str, task: str, verdict: str = "ok", seconds: float = 0.1, **of_module: Any) -> StoredEvent:
    found = {"changed": verdict == "changed", **of_module}
    return result(host, verdict, play="Site", task=task, module="command", duration_seconds=seconds, result=found)


BEFORE = [
    of("web1", "Install", "changed"),
    of("web1", "Start", msg="up"),
    of("web1", "Start", msg="up again"),
    of("web1", "Wait", seconds=2.0),
    of("web2", "Install", "changed", changed=True),
    of("web2", "Start", msg={"a": 1}),
    of("old", "Install"),
    of("same", "Install", seconds=1.0),
]
AFTER = [
    of("web1", "Install", "failed", msg="non-zero return code", stderr="no space", stdout="x"),
    of("web1", "Start", msg="up"),
    of("web1", "Start", msg="up again and again"),
    of("web1", "Wait", seconds=4.5),
    of("web1", "Check"),
    of("web2", "Install", "ok", changed=True),
    of("web2", "Start", msg={"a": 2}),
    of("new", "Install", "unreachable", msg="One or more items failed", results=[{}, {"failed": True, "msg": "item"}]),
    of("same", "Install", seconds=1.9),
]
LIVE, FINAL, ARCHIVED = "live", "final", "archived"


def made(records: Records, events: list[StoredEvent], place: str) -> str:
    task = MadeTask(records)
    task.add(b"text\n", *events)
    if place != LIVE:
        task.end()
    return task.id


def lines(found: tuple[DifferentHost, ...]) -> list[Any]:
    return [
        (
            host.host,
            host.other_verdict,
            host.verdict,
            [(one.play_task, *one.differs) for one in host.play_tasks],
        )
        for host in found
    ]


EXPECTED = [
    ("new", None, "unreachable", []),
    ("old", "ok", None, []),
    (
        "web1",
        "changed",
        "failed",
        [
            ("Install", "verdict", "changed", "message"),
            ("Start", "message"),
            ("Wait", "duration"),
            ("Check", "result"),
        ],
    ),
    ("web2", "changed", "ok", [("Install", "verdict"), ("Start", "message")]),
]


@pytest.mark.parametrize("before", [LIVE, FINAL, ARCHIVED])
@pytest.mark.parametrize("after", [LIVE, FINAL, ARCHIVED])
def test_what_differs_is_found_wherever_the_tasks_are(
    records: Records, archiver: Archiver, before: str, after: str
) -> None:
    ids = {}
    for name, events, place in sorted((("other", BEFORE, before), ("task", AFTER, after)), key=lambda one: one[2]):
        ids[name] = made(records, events, place)
        if place == ARCHIVED:
            archiver.run_round()
            assert not records.exists(ids[name])
    found = compare_hosts(records, ids["task"], ids["other"], "", 100, 10)
    assert lines(found.hosts) == EXPECTED
    assert (found.compared, found.next_after) == (5, None)
    [install, start, *_] = found.hosts[2].play_tasks
    assert install.result is not None and install.other_result is not None
    assert (install.result.message, install.other_result.message) == ("no space", "")
    assert start.result is not None and start.result.message == "up again and again", "the second with the second"
    paged: list[DifferentHost] = []
    last, count = "", 0
    while True:
        page = compare_hosts(records, ids["task"], ids["other"], last, 1, 10)
        paged += page.hosts
        count += page.compared
        if page.next_after is None:
            break
        last = page.next_after
    assert (tuple(paged), count) == (found.hosts, 5)
    assert compare_hosts(records, ids["task"], ids["task"], "", 100, 10).hosts == ()
    swapped = compare_hosts(records, ids["other"], ids["task"], "", 100, 10)
    assert [host.verdict for host in swapped.hosts] == [host.other_verdict for host in found.hosts]


def test_what_a_failed_item_says_is_the_message(records: Records) -> None:
    items = [{"failed": True, "msg": "MODULE FAILURE", "module_stderr": "Traceback"}]
    one = made(records, [of("a", "Loop", "failed", msg="One or more items failed", results=items)], FINAL)
    other = made(records, [of("a", "Loop", "ok", msg="All items completed")], FINAL)
    [host] = compare_hosts(records, one, other, "", 9, 9).hosts
    assert host.play_tasks[0].result is not None and host.play_tasks[0].result.message == "Traceback"


def test_a_host_with_very_many_results_is_compared_in_part(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MAX_RESULTS", 700)
    events = [of("a", f"Task {number}") for number in range(1500)]
    one, other = (made(records, events, FINAL) for _ in range(2))
    [host] = compare_hosts(records, one, other, "", 9, 9).hosts
    assert host.is_partial and host.play_tasks == ()


def test_a_page_ends_when_its_time_is_over_and_the_next_one_goes_on(records: Records) -> None:
    events = [of(f"h{number:03}", "Task", msg=str(number)) for number in range(300)]
    one = made(records, events, FINAL)
    other = made(records, [of(f"h{number:03}", "Task") for number in range(300)], FINAL)
    names: list[str] = []
    last: str | None = ""
    pages = 0
    while last is not None:
        page = compare_hosts(records, one, other, last, 1000, 0.0)
        names += [host.host for host in page.hosts]
        last, pages = page.next_after, pages + 1
    assert pages > 1 and names == [f"h{number:03}" for number in range(300)]


@pytest.mark.nightly
def test_two_tasks_of_200000_results_are_compared_in_little_memory(records: Records, archiver: Archiver) -> None:
    dice = random.Random(1)
    ids = []
    for _ in range(2):
        task = MadeTask(records)
        for host in range(4000):
            task.add(b"", *(of(f"h{host}", f"Task {number}", msg="x" * dice.randrange(500)) for number in range(50)))
        task.end()
        ids.append(task.id)
    while archiver.run_round():
        pass
    tracemalloc.start()
    last: str | None = ""
    compared = 0
    while last is not None:
        page = compare_hosts(records, *ids, last, 200, 2.0)
        compared += page.compared
        last = page.next_after
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert compared == 4000 and peak < 60_000_000, peak


# Which run it is compared with.


def await_millisecond() -> None:
    """What was submitted before what is known by the millisecond."""
    before = timestamp()
    eventually(lambda: timestamp() > before)


def run_of(records: Records, state: State = State.SUCCEEDED, **changes: Any) -> str:
    about = {"playbook": "site.yml", "inventory": "prod", "hosts": None, **changes.pop("about", {})}
    body = {"playbook": "site.yml", "playbook_dir": "web", **changes.pop("request", {})}
    await_millisecond()
    run = MadeTask(records, kind="playbook", about=About(**about), request=body, **changes)
    run.add(b"text\n", of("web1", "Install"))
    return run.end(state, 0 if state is State.SUCCEEDED else 2)


def baseline(records: Records, task_id: str, seen: ListFilter | None = None, **sees: Any) -> Any:
    task = records.task(task_id)
    assert task is not None
    return last_success(records, task, seen or ListFilter(), sees.get("sees", lambda found: True))


@pytest.mark.parametrize("archived", [False, True])
def test_it_is_the_last_success_of_the_same(records: Records, archiver: Archiver, archived: bool) -> None:
    expected = run_of(records)
    run_of(records, about={"inventory": "dev"})
    run_of(records, about={"hosts": "web1"})
    run_of(records, about={"playbook": "other.yml"})
    run_of(records, request={"playbook_dir": "elsewhere"})
    run_of(records, request={"check": True})
    run_of(records, State.CANCELED)
    for _ in range(2):
        run_of(records, State.FAILED)
    run_of(records, State.FAILED, about={"inventory": "dev"})
    task_id = run_of(records, State.FAILED)
    run_of(records)  # later than the task
    if archived:
        while archiver.run_round():
            pass
    found = baseline(records, task_id)
    assert found is not None and (found.task.task_id, found.failures) == (expected, 2)
    assert baseline(records, expected) is None


def test_it_is_one_that_is_seen(records: Records) -> None:
    expected = run_of(records, user="lee")
    run_of(records, user="pat")
    task_id = run_of(records, State.FAILED, user="lee")
    assert baseline(records, task_id, ListFilter(user="lee")).task.task_id == expected
    assert baseline(records, task_id, sees=lambda found: False) is None
    assert baseline(records, task_id, sees=lambda found: found.task_id == expected).task.task_id == expected


# Over HTTP.


@pytest.fixture
def client(server: WebServer, redis_url: str) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def recorded(store: Store, state: State, *events: StoredEvent, **fields: Any) -> RecordedRun:
    await_millisecond()
    about = About(playbook="site.yml", inventory="prod")
    run = RecordedRun(store, fields.pop("user", "admin"), kind="playbook", about=about, **fields)
    run.write(b"text\n", *events)
    run.end(state)
    return run


def test_a_failed_task_is_compared_with_the_last_success(client: httpx.Client, store: Store) -> None:
    body = {"playbook": "site.yml", "extra_vars": {"version": "1.2", "db_password": "********", "deep": {"a": [1]}}}
    good = recorded(store, State.SUCCEEDED, of("web1", "Install", "changed"), request=body)
    changed = {**body["extra_vars"], "version": "1.3", "deep": {"a": [2]}}
    bad = recorded(
        store,
        State.FAILED,
        of("web1", "Install", "failed", msg="No package"),
        request={**body, "extra_vars": changed, "forks": 7},
    )
    found = client.get("/api/compare", params={"task": bad.task_id})
    assert found.status_code == 200, found.text
    reply = found.json()
    assert (reply["task"]["task_id"], reply["other"]["task_id"]) == (bad.task_id, good.task_id)
    assert reply["failures_between"] == 0 and reply["masked"] == ["extra_vars.db_password"]
    assert reply["request"] == [
        {"field": "extra_vars.version", "value": "1.3", "other_value": "1.2"},
        {"field": "extra_vars.deep.a", "value": [2], "other_value": [1]},
        {"field": "forks", "value": 7, "other_value": None},
    ]
    [host] = reply["hosts"]
    assert (host["host"], host["verdict"], host["other_verdict"]) == ("web1", "failed", "changed")
    assert host["play_tasks"] == [
        {
            "play": "Site",
            "task": "Install",
            "module": "command",
            "differs": ["verdict", "changed", "message"],
            "result": {"verdict": "failed", "changed": False, "message": "No package", "duration_seconds": 0.1},
            "other_result": {"verdict": "changed", "changed": True, "message": "", "duration_seconds": 0.1},
        }
    ]
    same = client.get("/api/compare", params={"task": bad.task_id, "with": good.task_id}).json()
    assert same["failures_between"] is None and same["hosts"] == reply["hosts"]


def test_the_commit_that_a_project_was_at_is_compared(client: httpx.Client, store: Store) -> None:
    ids = []
    for commit, state in (("a" * 40, State.SUCCEEDED), ("b" * 40, State.FAILED)):
        about = About(playbook="site.yml", project="shop", ref="main", commit=commit)
        run = RecordedRun(store, kind="playbook", about=about, request={"playbook": "site.yml", "project": "shop"})
        run.end(state)
        ids.append(run.task_id)
        await_millisecond()
    found = client.get("/api/compare", params={"task": ids[1]}).json()
    assert found["other"]["task_id"] == ids[0]
    assert found["request"] == [{"field": "commit", "value": "b" * 40, "other_value": "a" * 40}]


def test_what_cannot_be_compared_is_said(client: httpx.Client, store: Store) -> None:
    only = recorded(store, State.FAILED, of("web1", "Install", "failed"))
    reply = client.get("/api/compare", params={"task": only.task_id})
    assert (reply.status_code, reply.json()["code"]) == (404, "no_earlier_success")
    assert client.get("/api/compare", params={"task": only.task_id, "if_any": True}).status_code == 204
    unknown = "00000000-0000-4000-8000-00000000dead"
    for query in ({"task": unknown}, {"task": only.task_id, "with": unknown}, {"task": "x:y", "with": only.task_id}):
        reply = client.get("/api/compare", params=query)
        assert (reply.status_code, reply.json()["code"]) == (404, "task_not_found"), query
    for wrong in ({}, {"task": only.task_id, "other": "x"}, {"task": only.task_id, "limit": 0}):
        assert client.get("/api/compare", params=wrong).status_code == 400


def test_pages_are_linked(client: httpx.Client, store: Store) -> None:
    recorded(store, State.SUCCEEDED, *(of(f"web{number}", "Install") for number in range(5)))
    bad = recorded(store, State.FAILED, *(of(f"web{number}", "Install", "failed") for number in range(5)))
    found: list[str] = []
    reply = client.get("/api/compare", params={"task": bad.task_id, "limit": 2})
    while True:
        found += [host["host"] for host in reply.json()["hosts"]]
        if "next" not in reply.links:
            break
        reply = client.get(reply.links["next"]["url"])
    assert found == [f"web{number}" for number in range(5)]


def test_a_task_that_one_does_not_see_is_compared_with_nothing(tmp_path: Path, redis_url: str, store: Store) -> None:
    def run(site: Site, user: str, state: State, inventory: str) -> str:
        seen = site.visibility("group:ops" if inventory == "prod" else "group:web", inventory=inventory)
        return recorded(store, state, of("web1", "Install"), user=user, visibility=seen).task_id

    with served(tmp_path, redis_url) as site:
        hidden = run(site, "eve", State.SUCCEEDED, "dev")
        mine = run(site, "lee", State.FAILED, "prod")
        lee = site.client("lee")
        assert lee.get("/api/compare", params={"task": mine}).json()["code"] == "no_earlier_success"
        for query in ({"task": mine, "with": hidden}, {"task": hidden, "with": mine}):
            assert lee.get("/api/compare", params=query).json()["code"] == "task_not_found"
        good = run(site, "pat", State.SUCCEEDED, "prod")
        later = run(site, "lee", State.FAILED, "prod")
        assert lee.get("/api/compare", params={"task": later}).json()["other"]["task_id"] == good
        assert lee.get("/api/compare", params={"task": later, "with": mine}).status_code == 200
