"""The API over both places, over a PostgreSQL that a test may stop: expired output, outages, followers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from sqlalchemy import text

from flansible.history.limits import HistoryLimits
from flansible.store import Store
from flansible.worker.archiver import Archiver
from tests.helpers.history import Databases, opened
from tests.helpers.postgresql import PostgresqlServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, RecordedRun, WebServer, counts, result, task_start


@pytest.fixture
def postgresql() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def url(postgresql: PostgresqlServer) -> str:
    return postgresql.url(postgresql.new_database())


@pytest.fixture
def server(redis_url: str, url: str, tmp_path: Path) -> Iterator[WebServer]:
    running = WebServer(tmp_path, redis_url, DATABASE_URL=url)
    yield running
    running.stop()


def new_archiver(redis_url: str, url: str) -> Archiver:
    return Archiver(Store(redis_url), url, 0.0, HistoryLimits(365, output_days=7))


@pytest.fixture
def archiver(redis_url: str, url: str) -> Iterator[Archiver]:
    archiver = new_archiver(redis_url, url)
    yield archiver
    archiver.close()


@pytest.fixture
def client(server: WebServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def ended(store: Store, **fields: Any) -> RecordedRun:
    run = RecordedRun(store, **fields)
    run.write(b"one\n", task_start("ping"), result("web1"), result("web2", "changed"))
    run.write(b"two\n", counts(web1=1, web2=1))
    run.end()
    return run


def test_output_that_has_expired_is_gone_and_the_record_is_not(
    store: Store, redis_url: str, databases: Databases, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    url = databases.migrated("postgresql", tmp_path)
    transport = httpx.WSGITransport(make_app(DATABASE_URL=url))
    with (
        closing(new_archiver(redis_url, url)) as archiver,
        httpx.Client(transport=transport, base_url="http://here", auth=ADMIN) as client,
    ):
        check_that_only_output_expires(ended(store), archiver, client, url)


def check_that_only_output_expires(run: RecordedRun, archiver: Archiver, client: httpx.Client, url: str) -> None:
    paths = [run.output_path, run.events_path, f"/api/ansibletaskresult/{run.task_id}"]
    assert archiver.run_round() == 1
    assert [client.get(path).status_code for path in paths] == [200] * 3
    with opened(url) as database, database.writing() as connection:
        connection.execute(text("UPDATE tasks SET finished = finished - 8 * 86400000"))
    archiver._prune_at = 0.0
    archiver.run_round()
    at = client.get(f"/api/ansibletaskstatus/{run.task_id}").json()["output_expired_at"]
    assert at.startswith("20")
    for path in (*paths, f"{run.output_path}?follow=true", f"{run.output_path}?format=html"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["code"]) == (410, "output_expired"), path
        assert at in reply.json()["message"]
    stream = client.get(run.events_path, headers={"Accept": "text/event-stream"})
    assert stream.status_code == 410
    assert client.get(f"/api/ansibletaskrequest/{run.task_id}").status_code == 200
    assert client.post(f"/api/ansibletaskcancel/{run.task_id}").status_code == 409
    [listed] = [one for one in client.get("/api/ansibletasks").json()["tasks"] if one["task_id"] == run.task_id]
    assert listed["output_expired_at"] == at and listed["changed"] is True


def read_all(client: httpx.Client, path: str, got: dict[str, str], name: str, **headers: str) -> threading.Thread:
    def read() -> None:
        with client.stream("GET", path, headers=headers, timeout=60) as reply:
            got[name] = ""
            for piece in reply.iter_text():
                got[name] += piece

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_while_the_database_is_away_what_is_live_goes_on_and_health_says_how_many_wait(
    store: Store, archiver: Archiver, client: httpx.Client, postgresql: PostgresqlServer
) -> None:
    archived = ended(store)
    assert archiver.run_round() == 1
    live = RecordedRun(store)
    live.write(b"before\n")
    got: dict[str, str] = {}
    follower = read_all(client, f"{live.output_path}?follow=true", got, "live")
    eventually(lambda: got.get("live") == "before\n")
    postgresql.stop()
    try:
        waits = [ended(store).task_id for _ in range(2)]
        archiver.tick()
        for path in (archived.output_path, f"/api/ansibletaskstatus/{archived.task_id}", "/api/ansibletasks"):
            reply = client.get(path)
            assert (reply.status_code, reply.json()["code"]) == (503, "history_unavailable"), path
            assert reply.headers["Retry-After"] == "5" and "does not answer" in reply.json()["message"]
        live.write(b"meanwhile\n")
        eventually(lambda: got["live"] == "before\nmeanwhile\n")
        for task_id in (live.task_id, *waits):
            assert client.get(f"/api/ansibletaskstatus/{task_id}").status_code == 200
        assert client.get(f"/api/ansibletaskoutput/{waits[0]}").text == "one\ntwo\n"
        assert client.get("/api/ansibletasks?state=running").json()["tasks"][0]["task_id"] == live.task_id
        health = client.get("/api/health").json()["parts"]["history"]
        assert not health["ok"] and "does not answer" in health["detail"]
        assert health["detail"].endswith("2 finished tasks wait in Redis")
    finally:
        postgresql.start()
    eventually(lambda: client.get(archived.output_path).status_code == 200)
    live.end()
    follower.join()
    eventually(lambda: archiver.tick() or store.finished_count() == 0)
    listed = [task["task_id"] for task in client.get("/api/ansibletasks?limit=4").json()["tasks"]]
    assert sorted(listed) == sorted([live.task_id, *waits, archived.task_id])
    assert client.get(live.output_path).text == got["live"] == "before\nmeanwhile\n"
    assert client.get("/api/health").json()["parts"]["history"]["ok"]


def test_a_follower_of_an_archived_task_that_waits_for_the_database_delays_no_other(
    store: Store, archiver: Archiver, client: httpx.Client, server: WebServer, postgresql: PostgresqlServer
) -> None:
    """It is connected, and has read a part, when the database goes away."""
    big = RecordedRun(store)
    for _ in range(20):
        big.write(b"x" * 1_000_000)
    big.end()
    slow = server.connect(f"{big.output_path}?follow=true", "Connection: close")
    assert slow.recv(1000)
    eventually(lambda: archiver.tick() or not store.exists(big.task_id), 60)
    live, got = RecordedRun(store), {"live": ""}
    follower = read_all(client, f"{live.output_path}?follow=true", got, "live")
    live.write(b"first\n")
    eventually(lambda: got["live"] == "first\n")
    postgresql.stop()
    try:
        read = 0
        slow.settimeout(0.5)
        try:
            while True:
                read += len(slow.recv(1 << 20))
        except TimeoutError:
            pass  # what was read before, and nothing of the database
        for number in range(20):
            began = time.monotonic()
            live.write(f"{number}\n".encode())
            eventually(lambda number=number: got["live"].endswith(f"\n{number}\n"), 5)
            assert time.monotonic() - began < 2
        assert read < 20_000_000
    finally:
        postgresql.start()
    slow.settimeout(30)
    while piece := slow.recv(1 << 20):
        read += len(piece)
    assert read > 20_000_000, "it goes on when the database is back"
    slow.close()
    live.end()
    follower.join()


def test_a_redis_of_ones_own_without_a_database_is_said(make_app: Callable[..., Flask]) -> None:
    health = make_app().test_client().get("/api/health", auth=ADMIN).get_json()["parts"]["history"]
    assert not health["ok"] and "DATABASE_URL" in health["detail"]
