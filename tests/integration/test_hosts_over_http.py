"""Hosts over HTTP, on a PostgreSQL: who sees which, what colleagues see, and what is answered for what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from flansible.history.limits import HistoryLimits
from flansible.models import About, State
from flansible.store import Store, StoredEvent
from flansible.worker.archiver import Archiver
from tests.helpers.history import Databases, opened
from tests.helpers.redis_server import RedisServer
from tests.helpers.site import Site, served
from tests.helpers.webserver import RecordedRun, result


@pytest.fixture(scope="module")
def url(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> str:
    return databases.migrated("postgresql", tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def shared_site(shared_redis: RedisServer, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("site"), shared_redis.url, DATABASE_URL=url) as made:
        yield made


@pytest.fixture
def site(shared_site: Site, redis_url: str, url: str) -> Iterator[Site]:
    """The site of this file, whose history is empty."""
    with opened(url) as database, database.writing() as connection:
        connection.execute(text("TRUNCATE tasks, hosts, scopes, summaries CASCADE"))
    shared_site.grant()
    yield shared_site
    for client in shared_site.clients.values():
        client.close()
    shared_site.clients.clear()


@pytest.fixture
def archiver(redis_url: str, url: str) -> Iterator[Archiver]:
    archiver = Archiver(Store(redis_url), url, 0.0, HistoryLimits(365))
    yield archiver
    archiver.close()


def ended(store: Store, site: Site, user: str, *events: StoredEvent, inventory: str = "prod", **fields: Any) -> str:
    seen = site.visibility("group:ops" if inventory == "prod" else "group:web", inventory=inventory)
    run = RecordedRun(store, user, about=About(inventory=inventory), visibility=seen, **fields)
    run.write(b"text\n", *events)
    run.end(State.SUCCEEDED)
    return run.task_id


def names(client: httpx.Client, **query: Any) -> list[tuple[str, str]]:
    reply = client.get("/api/hosts", params=query)
    assert reply.status_code == 200, reply.text
    return [(host["name"], host["inventory"]) for host in reply.json()["hosts"]]


def test_hosts_are_those_of_the_tasks_that_one_sees_and_so_is_what_is_said_of_them(
    site: Site, store: Store, archiver: Archiver
) -> None:
    of_lee = ended(store, site, "lee", result("web1", "changed", task="Set", ansible_facts={}))
    of_admin = ended(store, site, "admin", result("web1", "failed"), result("db1"), inventory="dev")
    archiver.run_round()
    assert names(site.client("admin")) == [("db1", "dev"), ("web1", "dev"), ("web1", "prod")]
    assert names(site.client("lee")) == names(site.client("pat")) == [("web1", "prod")]
    assert names(site.client("eve")) == [("db1", "dev"), ("web1", "dev")]
    [host] = site.client("pat").get("/api/hosts").json()["hosts"]
    assert (host["last_task"]["task_id"], host["verdict"]) == (of_lee, "changed") and host["last_failed"] is None
    whole = site.client("admin").get("/api/hosts/web1").json()
    assert [task["task_id"] for task in whole["tasks"]] == [of_admin, of_lee]
    assert [task["verdict"] for task in whole["tasks"]] == ["failed", "changed"]
    assert whole["tasks"][1]["counts"] == {"changed": 1} and len(whole["hosts"]) == 2
    mine = site.client("eve").get("/api/hosts/web1").json()
    assert [task["task_id"] for task in mine["tasks"]] == [of_admin]
    hidden, unknown = (site.client("lee").get(f"/api/hosts/{name}") for name in ("db1", "nobody"))
    assert hidden.status_code == 404 and hidden.json() == unknown.json()
    assert hidden.json()["code"] == "host_not_found"


def test_who_loses_an_inventory_loses_its_hosts_at_once(site: Site, store: Store, archiver: Archiver) -> None:
    ended(store, site, "lee", result("web1", "ok"))
    archiver.run_round()
    live = ended(store, site, "lee", result("web1", "failed"))
    assert names(site.client("pat")) == [("web1", "prod")]
    assert site.client("pat").get("/api/hosts/web1").json()["tasks"][0]["task_id"] == live
    site.grant(ops={"inventories": ["dev"], "sees": "inventories"})
    assert names(site.client("pat")) == []
    assert site.client("pat").get("/api/hosts/web1").status_code == 404
    assert names(site.client("lee")) == [("web1", "prod")], "one's own stay"


def test_facts_are_of_the_latest_task_that_one_sees(site: Site, store: Store, archiver: Archiver) -> None:
    def setup(host: str, **facts: Any) -> StoredEvent:
        found = result(host, ansible_facts=facts)
        return StoredEvent(found.json.replace('"module": "ping"', '"module": "setup"'), host, verdict="ok")

    task_id = ended(store, site, "lee", setup("web1", of="lee"))
    ended(store, site, "admin", setup("web1", of="admin", password="********"), inventory="dev")
    archiver.run_round()
    path = "/api/hosts/web1/facts"
    assert site.client("pat").get(path).json() == {
        "name": "web1",
        "inventory": "prod",
        "gathered_at": "2026-01-31T12:00:00.000Z",
        "task_id": task_id,
        "facts": {"of": "lee"},
    }
    assert site.client("eve").get(path).json()["facts"] == {"of": "admin", "password": "********"}
    assert site.client("eve").get(path, params={"inventory": "prod"}).status_code == 404
    none = site.client("admin").get("/api/hosts/nobody/facts")
    assert (none.status_code, none.json()["code"]) == (404, "facts_not_found")


def test_pages_link_to_the_next_one_and_strange_cursors_are_refused(
    site: Site, store: Store, archiver: Archiver
) -> None:
    ended(store, site, "admin", *(result(f"web{number}") for number in range(3)))
    ended(store, site, "admin", result("web0"))
    archiver.run_round()
    client = site.client("admin")
    reply, found = client.get("/api/hosts", params={"limit": 2}), []
    while True:
        found += [host["name"] for host in reply.json()["hosts"]]
        if "next" not in reply.links:
            break
        reply = client.get(reply.links["next"]["url"])
    assert found == ["web0", "web1", "web2"]
    first = client.get("/api/hosts/web0", params={"limit": 1})
    second = client.get(first.links["next"]["url"])
    assert len(first.json()["tasks"]) == len(second.json()["tasks"]) == 1
    for wrong in ("x", "!!", "abcde", "a" * 5001):
        refused = client.get("/api/hosts", params={"after": wrong})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "after"), wrong
    for query in ({"verdict": "splendid"}, {"limit": 0}, {"stale_since": "soon"}, {"colour": "red"}):
        assert client.get("/api/hosts", params=query).status_code == 400
    assert names(client, stale_since="1d") == [] and len(names(client, stale_since="2099-01-01")) == 3
