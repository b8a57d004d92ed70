"""Tasks of colleagues through the API: what is shown by inventories, listed, followed and canceled, and what is not."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from flansible.models import AuthorizedRun, State, TaskStatus
from flansible.store import Claim, ListFilter, Retention, Store
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id
from tests.helpers.site import Entry, Site, served
from tests.helpers.waiting import eventually
from tests.helpers.webserver import RecordedRun, result

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def served_site(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("site"), shared_redis.url) as made:
        yield made


@pytest.fixture
def site(served_site: Site, redis_url: str) -> Iterator[Site]:
    """With the rights of the beginning."""
    served_site.grant()
    yield served_site
    served_site.hang_up()


def test_a_colleague_reads_all_of_a_run_and_nobody_else_does(site: Site, store: Store) -> None:
    run = RecordedRun(
        store, "lee", visibility=site.visibility(), request={"module": "ping", "become_password": "********"}
    )
    run.write(b"hello\n", result("web1", "failed"))
    run.end(State.FAILED)
    assert {user: site.statuses(user, run.task_id) for user in ("lee", "pat", "admin", "eve")} == {
        **{user: {200} for user in ("lee", "pat", "admin")},
        "eve": {404},
    }
    assert site.client("pat").get(run.output_path).text == "hello\n"
    assert site.client("pat").get(f"/api/ansibletaskresult/{run.task_id}").json()["contacted"]["web1"]
    none = site.client("eve").get(f"/api/ansibletaskstatus/{new_id()}").json()
    assert site.client("eve").get(f"/api/ansibletaskstatus/{run.task_id}").json() == none, "in the same words"


def test_what_is_masked_stays_masked_for_a_colleague(site: Site, store: Store) -> None:
    body = {"module": "ping", "become_password": "********", "extra_vars": {"db_password": "********", "stage": "prod"}}
    run = RecordedRun(store, "lee", visibility=site.visibility(), request=body)
    found = site.client("pat").get(f"/api/ansibletaskrequest/{run.task_id}").json()
    assert found["masked"] == ["become_password", "extra_vars.db_password"] and found["body"] == body
    assert found["curl"].startswith("curl --user pat "), "who sends it again does so as themselves"


def test_running_it_again_is_judged_by_the_own_rights(site: Site) -> None:
    """A colleague who may look may not do it for that."""
    site.grant(pat={"role": "viewer", "inventories": ["prod"], "sees": "inventories"})
    body = {"module": "ping", "host_pattern": "all", "inventory": str(site.folder / "prod"), "extra_vars": {"a": "b"}}
    task_id = site.client("lee").post("/api/ansiblecommand", json=body).json()["task_id"]
    again = site.client("pat").get(f"/api/ansibletaskrequest/{task_id}").json()
    reply = site.client("pat").post(again["path"], json=again["body"])
    assert (reply.status_code, reply.json()["code"]) == (403, "role_forbidden")
    site.grant(pat={"inventories": ["dev"], "groups": ["ops"]}, ops=site.ops | {"modules": ["setup"]})
    reply = site.client("pat").post(again["path"], json=again["body"])
    assert (reply.status_code, reply.json()["code"]) == (403, "module_forbidden")


def test_a_submission_records_who_sees_it(site: Site, store: Store) -> None:
    body = {"module": "ping", "host_pattern": "all", "inventory": str(site.folder / "prod")}
    task_id = site.client("lee").post("/api/ansiblecommand", json=body).json()["task_id"]
    task = store.task(task_id)
    assert task is not None and task.visibility == site.visibility("group:ops")
    hidden = site.client("lee").get("/api/listinventories", params={"inventory": body["inventory"]})
    assert hidden.status_code == 200 and site.listed("pat") == [task_id]


# Canceling.


def test_a_colleague_cancels_by_cancels_alone(site: Site, store: Store) -> None:
    run = RecordedRun(store, "lee", visibility=site.visibility())
    path = f"/api/ansibletaskcancel/{run.task_id}?wait=0"
    reply = site.client("pat").post(path)
    assert (reply.status_code, reply.json()["code"]) == (403, "cancel_forbidden")
    assert "lee" in reply.json()["message"] and store.cancel_requests([run.task_id]) == {}
    assert site.client("eve").post(path).status_code == 404
    site.grant(looks={"sees": "all"})
    assert site.client("looks").post(path).json()["code"] == "cancel_forbidden"
    site.grant(ops=site.ops | {"cancels": "inventories"})
    assert site.client("pat").post(path).status_code == 202
    assert store.cancel_requests([run.task_id]) == {run.task_id: "pat"}
    lines = map(json.loads, (site.folder / "data/audit.log").read_text().splitlines())
    assert [line["user"] for line in lines if line["event"] == "cancel" and line["task_id"] == run.task_id] == ["pat"]


@pytest.mark.parametrize(
    ("entry", "sees", "has_team"),
    [
        ({}, "own", False),
        ({"groups": ["ops"]}, "inventories", True),
        ({"sees": "all"}, "all", False),
        ({"sees": "all", "groups": ["ops"]}, "all", True),
    ],
)
def test_a_session_says_whose_lists_there_are(site: Site, entry: Entry, sees: str, has_team: bool) -> None:
    site.grant(pat=entry)
    session = site.client("pat").get("/api/session").json()
    assert (session["sees"], session["has_team"]) == (sees, has_team)


# Lists.


def queued(store: Store, run: AuthorizedRun) -> str:
    task_id = new_id()
    store.submit(task_id, run)
    return task_id


def test_lists_have_the_own_and_the_teams_tasks_in_order_and_no_hole(site: Site, store: Store) -> None:
    dice = random.Random(7)
    site.grant(pat={"inventories": ["dev"], "sees": "inventories", "groups": ["ops"]})
    kinds = {
        "own": ("pat", None),
        "own and team": ("pat", site.visibility("group:ops")),
        "team": ("lee", site.visibility("group:ops")),
        "both entries": ("lee", site.visibility("group:ops", "user:pat")),
        "other team": ("eve", site.visibility("group:web", inventory="dev")),
        "nobody": ("lee", None),
    }
    made = []
    for number in range(120):
        name = dice.choice([*kinds])
        user, found = kinds[name]
        made.append((queued(store, make_run(user, visibility=found, summary=f"task {number}")), name))
    mine = [task_id for task_id, name in reversed(made) if name.startswith("own")]
    team = [task_id for task_id, name in reversed(made) if name not in ("other team", "nobody")]
    for limit in (1, 7, 50, 1000):
        assert site.listed("pat", limit=limit) == team, limit
    assert site.listed("pat", whose="team") == team and site.listed("pat", whose="mine", limit=50) == mine
    by_lee = [task_id for task_id, name in reversed(made) if name in ("team", "both entries")]
    assert site.listed("pat", user="lee", limit=50) == by_lee
    assert site.listed("pat", user="pat", limit=50) == mine
    assert site.listed("admin", limit=50) == [task_id for task_id, _ in reversed(made)]
    assert site.listed("admin", whose="mine") == []
    assert site.listed("pat", text="task 1", limit=20) == [
        task_id for task_id, name in reversed(made) if task_id in team and number_of(made, task_id).startswith("1")
    ]


def number_of(made: list[tuple[str, str]], task_id: str) -> str:
    return str([one for one, _ in made].index(task_id))


def test_a_list_by_state_has_the_teams_tasks_of_that_state(site: Site, store: Store) -> None:
    waiting = queued(store, make_run("lee", visibility=site.visibility()))
    running, ended = (RecordedRun(store, "lee", visibility=site.visibility()) for _ in range(2))
    ended.end()
    for state, task_id in (("queued", waiting), ("running", running.task_id), ("succeeded", ended.task_id)):
        assert site.listed("pat", state=state) == [task_id]
        assert site.listed("eve", state=state) == []


def test_lists_that_are_not_seen_are_refused(site: Site) -> None:
    site.grant(plain={"inventories": ["prod"]})
    for query, user in (
        ("whose=all", "pat"),
        ("whose=all", "plain"),
        ("user=lee", "plain"),
        ("user=lee&whose=mine", "pat"),
    ):
        reply = site.client(user).get(f"/api/ansibletasks?{query}")
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), query
    assert site.listed("plain", whose="team") == site.listed("plain", user="plain") == []


def test_rights_that_changed_afterwards_count_in_lists_and_for_each_task(site: Site, store: Store) -> None:
    run = RecordedRun(store, "lee", visibility=site.visibility())
    other = RecordedRun(store, "lee", visibility=site.visibility("group:web"))

    def seen_by(user: str) -> tuple[list[str], set[int]]:
        return site.listed(user), site.statuses(user, run.task_id)

    assert seen_by("pat") == ([run.task_id], {200})
    assert seen_by("eve") == ([], {404}), "it has prod, which the group has not"
    site.grant(ops={"inventories": ["dev"], "sees": "inventories"})
    assert seen_by("pat") == ([], {404})
    site.grant(pat={})
    assert seen_by("pat") == ([], {404})
    site.grant(eve={"inventories": ["prod"], "sees": "inventories"}, ops={"inventories": ["prod"]})
    assert seen_by("eve") == seen_by("pat") == ([], {404}), "granted later, and no more seen"
    site.grant()
    assert seen_by("pat") == ([run.task_id], {200}) and site.statuses("eve", other.task_id) == {404}


def test_the_holder_of_a_lock_and_of_a_host_is_named_to_a_colleague(site: Site, store: Store) -> None:
    holder = RecordedRun(store, "lee", locks=("db",), visibility=site.visibility())
    waiting = {user: RecordedRun(store, user, locks=("db",)) for user in ("pat", "eve")}
    reasons = {
        user: site.client(user).get(f"/api/ansibletaskstatus/{run.task_id}").json()["reason"]
        for user, run in waiting.items()
    }
    assert reasons == {"pat": f"locked_by: {holder.task_id}", "eve": "locked_by: another user"}
    holder.end()
    on_host = new_id()
    store.submit(on_host, make_run("lee", exclusive="hosts", visibility=site.visibility()))
    store.set_hosts(on_host, ["web1"])
    assert isinstance(store.claim(on_host, "worker"), Claim)
    found = {}
    for user in ("pat", "eve"):
        waiter = new_id()
        store.submit(waiter, make_run(user, visibility=site.visibility("nobody")))
        store.set_hosts(waiter, ["web1", "web2"])
        store.claim(waiter, "worker")
        reply = site.client(user).get(f"/api/ansibletaskstatus/{waiter}").json()
        found[user] = (reply["reason"], reply["waiting_host"])
    assert found == {"pat": (f"host_held_by: {on_host}", "web1"), "eve": ("host_held_by: another user", "web1")}


# Following.


def test_the_stream_of_the_list_tells_of_what_is_seen_at_that_moment(site: Site, store: Store) -> None:
    begin = site.client("admin").get("/api/ansibletasks").json()["changes"]
    with site.client("pat").stream("GET", f"/api/ansibletasks?after={begin}", headers=STREAM) as reply:
        lines = (line for line in reply.iter_lines() if line.startswith('data: {"task_id'))
        first = queued(store, make_run("lee", visibility=site.visibility()))
        queued(store, make_run("lee"))
        assert json.loads(next(lines)[6:])["task_id"] == first
        site.grant(ops={"inventories": ["prod"]})
        eventually(lambda: site.client("pat").get(f"/api/ansibletaskstatus/{first}").status_code == 404)
        queued(store, make_run("lee", visibility=site.visibility()))
        own = queued(store, make_run("pat"))
        assert json.loads(next(lines)[6:])["task_id"] == own


@pytest.mark.parametrize("what", ["events", "output"])
@pytest.mark.parametrize("lost", ["the view", "the account"])
def test_what_is_followed_ends_with_the_right_to_see_it(site: Site, store: Store, what: str, lost: str) -> None:
    run = RecordedRun(store, "lee", visibility=site.visibility())
    run.write(b"before\n", result("web1"))
    path = run.events_path if what == "events" else f"{run.output_path}?follow=true"
    got = b""
    with site.client("pat").stream("GET", path, headers=STREAM if what == "events" else {}) as reply:
        pieces = reply.iter_raw()
        while b"web1" not in got and b"before" not in got:
            got += next(pieces)
        if lost == "the view":
            site.grant(pat={})
            eventually(lambda: site.client("pat").get(run.output_path).status_code == 404)
        else:
            site.grant(pat={"groups": []}, **{"lee": {"groups": ["ops"]}})
            remove(site, "pat")
            eventually(lambda: site.client("pat").get(run.output_path).status_code == 401)
        run.write(b"after\n", result("web2"))
        with pytest.raises(httpx.RemoteProtocolError):
            while True:
                got += next(pieces)
    assert b"after" not in got and b"web2" not in got
    assert run.task_id in site.listed("lee")


def remove(site: Site, user: str) -> None:
    path = site.folder / "rbac.json"
    document = json.loads(path.read_text())
    document["rbac"] = [entry for entry in document["rbac"] if entry["user"] != user]
    new = site.folder / "new.json"
    new.write_text(json.dumps(document))
    new.chmod(0o600)
    new.replace(path)


def test_a_long_poll_of_a_colleague_gets_nothing_after_the_right_is_lost(
    tmp_path: Path, store: Store, redis_url: str
) -> None:
    with served(tmp_path, redis_url, max_followers_per_user=1) as site, ThreadPoolExecutor(1) as pool:
        run = RecordedRun(store, "lee", visibility=site.visibility())
        waiting = [pool.submit(site.client("pat").get, f"{run.events_path}?wait=15")]

        def is_followed() -> bool:
            """Refused as long as the other one waits; that one is sent again, where it was refused itself."""
            if waiting[0].done():
                waiting[0] = pool.submit(site.client("pat").get, f"{run.events_path}?wait=15")
            return site.client("pat").get(f"{run.events_path}?wait=0.01").status_code == 429

        eventually(is_followed)
        site.grant(pat={})
        eventually(lambda: site.client("pat").get(run.output_path).status_code == 404)
        run.write(b"", result("web1"))
        assert isinstance(waiting[0].exception(30), httpx.RemoteProtocolError)


# How it is kept.


def mentions(client: redis.Redis, task_id: str) -> list[str]:
    """The indexes that have the task, and the record beside it."""
    indexes = [key.decode() for key in client.keys("flansible:tasks*")]
    found = [key for key in indexes if client.zscore(key, task_id) is not None]
    return found + (["flansible:visibility"] if client.hexists("flansible:visibility", task_id) else [])


@pytest.mark.parametrize("way", ["expired", "deleted", "discarded"])
def test_a_task_that_is_gone_leaves_all_indexes(site: Site, store: Store, shared_redis: RedisServer, way: str) -> None:
    client = shared_redis.client()
    try:
        found = site.visibility("group:ops", "user:pat")
        if way == "discarded":
            task_id = queued(store, make_run("lee", visibility=found))
            assert len(mentions(client, task_id)) == 8
            store.discard(task_id)
        else:
            run = RecordedRun(store, "lee", visibility=found)
            run.end()
            task_id = run.task_id
            assert len(mentions(client, task_id)) == 9
            member = next(one for one in client.zrange("flansible:expiring", 0, -1) if task_id.encode() in one)
            if way == "expired":
                for key in client.keys(f"flansible:task:{task_id}*"):
                    client.delete(key)
                client.zadd("flansible:expiring", {member: 1})
                assert store.prune() == 1
            else:
                with contextlib.closing(Store(shared_redis.url, Retention(tasks=1))) as small:
                    RecordedRun(small, "eve").end()
                    client.zadd("flansible:expiring", {member: client.zscore("flansible:expiring", member) - 60})
                    assert small.prune() == 1
        assert mentions(client, task_id) == []
    finally:
        client.close()


def test_a_damaged_visibility_keeps_no_task_from_its_end(store: Store, shared_redis: RedisServer) -> None:
    client = shared_redis.client()
    for damaged in ('{"entries": 5}', '{"entries": [{}]}', "[", '{"entries": {"a": "b"}}'):
        run = RecordedRun(store, "lee")
        client.hset(f"flansible:task:{run.task_id}", "visibility", damaged)
        run.end()
        assert client.hget(f"flansible:task:{run.task_id}", "state") == b"succeeded"
    client.close()


def test_a_status_carries_what_decides_through_the_store(site: Site, store: Store) -> None:
    found = site.visibility("group:ops", hosts=(("web*",), ("web1", "web2")))
    task_id = queued(store, make_run("lee", visibility=found))
    task = store.task(task_id)
    page = store.search(ListFilter(user="pat", entries=("group:ops",)), None, 10)
    assert isinstance(task, TaskStatus) and task.visibility == found
    assert [one.visibility for one in page.tasks] == [found]
