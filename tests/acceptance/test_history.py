"""Finished tasks move to the history database at once: what the API says of them stays the same, for followers too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from flansible.history import encoding, schema
from tests.helpers.history import opened
from tests.helpers.services import ADMIN, Service, start_service
from tests.helpers.waiting import eventually

TOP = Path(__file__).parents[2]
FILTERS = ("", "state=failed", "changed=true", "changed=false", "returncode=2", "kind=adhoc", "text=PING", "host=dev1")


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    running = start_service(root, "archive_after_seconds = 0\n")
    yield running
    assert running.stop() < 10


def waiting(service: Service) -> str:
    parts = service.client().get("/api/health").json()["parts"]
    return str(parts["history"]["detail"])


def archived(service: Service) -> bool:
    return waiting(service).endswith("; 0 finished tasks wait in Redis")


def pages(service: Service, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before = ""
    while True:
        page = service.client().get(f"/api/ansibletasks?limit=2&{query}{before}").json()
        found += page["tasks"]
        if page["next_before"] is None:
            return found
        before = f"&before={page['next_before']}"


def all_of(service: Service, task_id: str) -> dict[str, Any]:
    """Everything that the API says of a final task."""
    client, found = service.client(), {}
    for path in (
        f"ansibletaskstatus/{task_id}",
        f"ansibletaskrequest/{task_id}",
        f"ansibletaskresult/{task_id}?limit=1",
        f"ansibletaskresult/{task_id}",
        f"ansibletaskevents/{task_id}",
        f"ansibletaskevents/{task_id}?limit=2&after=1",
        f"ansibletaskevents/{task_id}?verdict=changed,failed",
        f"ansibletaskevents/{task_id}?host=dev1&results=false",
        f"ansibletaskoutput/{task_id}",
        *(f"ansibletaskoutput/{task_id}?format={form}&offset=7" for form in ("txt", "ansi", "html", "fragment")),
        f"ansibletaskoutput/{task_id}?offset=3&end=20",
        f"ansibletaskoutput/{task_id}?follow=true",
    ):
        reply = client.get(f"/api/{path}")
        headers = {name: reply.headers.get(name) for name in ("Flansible-Next-Offset", "Flansible-Final", "Link")}
        found[path] = (reply.status_code, headers, reply.text.replace(service.url, ""))
    refused = client.post(f"/api/ansibletaskcancel/{task_id}")
    found["cancel"] = (refused.status_code, refused.json().get("code"))
    return found


@pytest.mark.nightly
def test_a_task_is_the_same_before_and_after_it_moves(root: Path) -> None:
    """One service that keeps tasks in Redis for long, then the same one that moves them at once."""
    slow = start_service(root, "archive_after_seconds = 3600\nretention_days = 99\n")
    playbook = {"playbook_dir": ".", "playbook": "site.yml", "inventory": str(root / "inventories/dev")}
    tasks = [
        slow.submit("ansibleplaybook", playbook),
        slow.submit("ansibleplaybook", {**playbook, "playbook": "fail.yml"}),
        slow.submit(
            "ansiblecommand", {"module": "ping", "inventory": str(root / "inventories/dev"), "host_pattern": "all"}
        ),
        slow.submit("ansiblecommand", {"module": "command", "module_args": "echo hello"}),
    ]
    for task_id in tasks:
        slow.wait(task_id)
    before = [all_of(slow, task_id) for task_id in tasks]
    lists = {query: pages(slow, query) for query in FILTERS}
    assert {task["changed"] for task in lists[""]} == {True, False}
    assert len(lists["changed=true"]) + len(lists["changed=false"]) == len(lists[""]) == 4
    assert waiting(slow).endswith("; 4 finished tasks wait in Redis")
    slow.stop()
    quick = start_service(root, "archive_after_seconds = 0\n")
    eventually(lambda: archived(quick))
    assert [all_of(quick, task_id) for task_id in tasks] == before
    assert {query: pages(quick, query) for query in FILTERS} == lists
    exported = subprocess.run(
        ["flansible", "export", "--since", "1d"],
        cwd=root,
        env=quick.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    written = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [line["task"]["task_id"] for line in written] == tasks
    assert [line["output"] for line in written] == [quick.output(task_id) for task_id in tasks]
    assert [line["events"][-1]["event"] for line in written] == ["final"] * 4
    quick.stop()


@pytest.mark.parametrize("rounds", (1, pytest.param(3, marks=pytest.mark.nightly)))
def test_followers_see_no_end_that_is_none_while_the_task_moves(service: Service, rounds: int) -> None:
    body = {"module": "shell", "module_args": "for i in $(seq 1 300); do echo line $i; done; sleep 1; echo the end"}
    for _ in range(rounds):
        task_id = service.submit("ansiblecommand", body)
        got: dict[str, str] = {}

        def follow(name: str, path: str, accept: str, task_id: str = task_id, got: dict[str, str] = got) -> None:
            with service.client().stream("GET", f"/api/{path}", headers={"Accept": accept}, timeout=60) as reply:
                got[name] = reply.read().decode()

        followers = [
            threading.Thread(target=follow, args=("output", f"ansibletaskoutput/{task_id}?follow=true", "*/*")),
            threading.Thread(target=follow, args=("events", f"ansibletaskevents/{task_id}", "text/event-stream")),
        ]
        for follower in followers:
            follower.start()
        service.wait(task_id)
        for follower in followers:
            follower.join()
        eventually(lambda: archived(service))
        assert got["output"] == service.output(task_id) and "line 300" in got["output"] and "the end" in got["output"]
        seqs = [int(line[4:]) for line in got["events"].splitlines() if line.startswith("id: ")]
        assert seqs == list(range(1, len(seqs) + 1)) and "event: final" in got["events"]
        last = {"Accept": "text/event-stream", "Last-Event-ID": str(seqs[-3])}
        again = service.client().get(f"/api/ansibletaskevents/{task_id}", headers=last)
        assert again.text.count("\nid: ") == 2 and "event: final" in again.text
        at_end = {**last, "Last-Event-ID": str(seqs[-1])}
        assert service.client().get(f"/api/ansibletaskevents/{task_id}", headers=at_end).status_code == 204


def test_a_moment_that_is_none_is_refused_and_others_are_understood(service: Service) -> None:
    client = service.client()
    task_id = service.submit("ansiblecommand", {"module": "ping"})
    service.wait(task_id)

    def ids(query: str) -> list[str]:
        return [task["task_id"] for task in client.get(f"/api/ansibletasks?{query}").json()["tasks"]]

    assert task_id in ids("since=1h") and task_id not in ids("until=1h") and task_id in ids("since=2026-01-01")
    assert task_id in ids("until=2999-01-01T00:00:00Z") and ids("since=2999-01-01T00:00:00%2B02:00") == []
    for value in ("yesterday", "2026-13-01", "9999999w", ""):
        reply = client.get("/api/ansibletasks", params={"since": value})
        assert (reply.status_code, reply.json()["code"]) == (400, "invalid_field"), value


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seconds", ["0", "3600"])
@pytest.mark.parametrize("name", ["test_output", "test_events", "test_http", "test_client", "test_cancel", "test_git"])
def test_the_tests_of_what_is_read_pass_wherever_tasks_are(name: str, seconds: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/acceptance/{name}.py"]
    # SHARD is of the nightly run around this one.
    environ = {**os.environ, "ARCHIVE_AFTER_SECONDS": seconds, "SHARD": "1/1"}
    ended = subprocess.run(command, cwd=TOP, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-8000:]


def stored(service: Service) -> str:
    """All that the history database has, unpacked."""
    found = []
    with opened(f"sqlite:///{service.root}/.flansible/history.sqlite3") as database, database.reading() as connection:
        for table in schema.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                found += [encoding.unpack(value).decode() if isinstance(value, bytes) else str(value) for value in row]
    return "\n".join(found)


def test_no_secret_of_a_request_is_in_the_database(service: Service) -> None:
    marker, body = "Zauberwort7", {"module": "command", "module_args": "echo shown"}
    task_id = service.submit("ansiblecommand", {**body, "connection_password": marker, "become_password": marker})
    service.wait(task_id)
    text = eventually(lambda: task_id in (found := stored(service)) and found)
    assert "echo shown" in text and "********" in text and marker not in text


def test_the_command_line_finds_a_task_by_what_it_has_printed(service: Service) -> None:
    body = {"module": "command", "module_args": "echo a haystack with a NEEDLE9 in it"}
    task_id = service.submit("ansiblecommand", body)
    service.wait(task_id)
    eventually(lambda: archived(service))
    environ = {
        **service.environ,
        "FLANSIBLE_URL": service.url,
        "FLANSIBLE_USER": ADMIN[0],
        "FLANSIBLE_PASSWORD": ADMIN[1],
    }

    def search(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["flansible", "search", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    found = search("--in-output", "haystack", "needle9")
    assert found.returncode == 0, found.stderr
    first, place = found.stdout.splitlines()
    assert first.startswith(task_id) and "a haystack with a NEEDLE9 in it" in place and "line " in place
    [line] = search("--in-output", "--json", "needle9").stdout.splitlines()
    assert json.loads(line)["task"]["task_id"] == task_id
    assert task_id in search("localhost").stdout
    nothing = search("--in-output", "no", "such", "needle9")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    refused = search("!!!")
    assert refused.returncode == 5 and "must have a letter or a digit" in refused.stderr
