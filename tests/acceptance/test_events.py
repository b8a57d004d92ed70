"""What a run's events say, on real Ansible: all that happened, once and in order, however they are asked for."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.services import DEV, Service, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True
STREAM = {"Accept": "text/event-stream"}
PLAY = """\
- name: First play
  hosts: all
  gather_facts: false
  tasks:
    - name: Say it
      ansible.builtin.debug: msg={{ inventory_hostname }}
    - name: Break on one
      ansible.builtin.command: "false"
      when: inventory_hostname == 'dev2'
    - name: Secret
      ansible.builtin.debug: msg=hush-hush
      no_log: true
"""


@pytest.fixture(scope="module")
def played(service: Service, root: Path) -> str:
    """A playbook in which one of two hosts fails; it has ended."""
    write(root / "playbooks/events.yml", PLAY)
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "events.yml", "inventory": "../inventories/dev"}
    task_id = service.submit("ansibleplaybook", body)
    assert service.wait(task_id)["state"] == "failed"
    return task_id


def page(service: Service, task_id: str, **query: Any) -> dict[str, Any]:
    reply = service.client().get(f"/api/ansibletaskevents/{task_id}", params=query)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def stream(service: Service, task_id: str, last_event_id: int | None = None, **query: Any) -> list[dict[str, Any]]:
    """The events of one connection, as long as it lasts."""
    headers = STREAM if last_event_id is None else {**STREAM, "Last-Event-ID": str(last_event_id)}
    found = []
    path = f"/api/ansibletaskevents/{task_id}"
    with (
        contextlib.suppress(httpx.TransportError),
        service.client().stream("GET", path, params=query, headers=headers) as reply,
    ):
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
    return found


def test_the_events_of_a_playbook_are_all_that_happened_in_order(service: Service, played: str) -> None:
    whole = page(service, played)
    events = whole["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (whole["state"], whole["final"], whole["next_after"]) == ("failed", True, len(events))
    assert [event["event"] for event in events if event["event"] != "host_result"] == [
        "play_start",
        "task_start",
        "task_start",
        "task_start",
        "stats",
        "final",
    ]
    results = {(event["task"], event["host"]): event for event in events if event["event"] == "host_result"}
    assert {key: event["verdict"] for key, event in results.items()} == {
        ("Say it", "dev1"): "ok",
        ("Say it", "dev2"): "ok",
        ("Break on one", "dev1"): "skipped",
        ("Break on one", "dev2"): "failed",
        ("Secret", "dev1"): "ok",
    }
    said = results["Say it", "dev1"]
    assert (said["play"], said["module"], said["result"]["msg"]) == ("First play", "ansible.builtin.debug", "dev1")
    assert "hush-hush" not in json.dumps(events)
    assert (events[-1]["state"], events[-1]["returncode"]) == ("failed", 2)
    assert events[-2]["stats"]["dev2"]["failures"] == 1


def test_each_event_names_the_bytes_of_output_that_belong_to_it(service: Service, played: str) -> None:
    output = service.output(played).encode()
    events = page(service, played)["events"]
    at = 0
    for event in events:
        assert event["output_start"] <= event["output_end"]
        assert event["output_start"] == at, event
        at = event["output_end"]
    assert at == len(output)
    for event in events:
        text = output[event["output_start"] : event["output_end"]].decode()
        if event["event"] == "task_start":
            assert f"TASK [{event['task']}]" in text
        elif event["event"] == "host_result" and event["verdict"] != "skipped":
            assert f"[{event['host']}]" in text


def test_a_stream_a_page_and_many_pages_say_the_same(service: Service, played: str) -> None:
    events = page(service, played)["events"]
    assert stream(service, played) == events
    gathered: list[dict[str, Any]] = []
    while len(gathered) < len(events):
        gathered += page(service, played, limit=2, after=len(gathered))["events"]
    assert gathered == events
    assert stream(service, played, last_event_id=4) == events[4:]


def test_filters_hold_for_pages_and_streams(service: Service, played: str) -> None:
    failed = page(service, played, verdict="failed")
    assert [(event["host"], event["task"]) for event in failed["events"]] == [("dev2", "Break on one")]
    of_host = page(service, played, host="dev1")["events"]
    assert {event["host"] for event in of_host} == {"dev1"} and len(of_host) == 3
    streamed = stream(service, played, host="dev1")
    assert streamed[:-1] == of_host and streamed[-1]["event"] == "final"


def test_results_and_events_agree(service: Service, played: str) -> None:
    result = service.result(played)
    assert list(result["contacted"]) == ["dev2", "dev1"]
    events = page(service, played)["events"]
    for host, items in result["contacted"].items():
        told = [event for event in events if event.get("host") == host]
        assert [(item["task"], item["verdict"], item["result"]) for item in items] == [
            (event["task"], event["verdict"], event["result"]) for event in told
        ]


def test_events_come_while_it_runs_and_what_is_final_is_whole(service: Service, root: Path) -> None:
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "slow.yml", "inventory": "../inventories/dev"}
    task_id = service.submit("ansibleplaybook", {**body, "extra_vars": {"seconds": 2}})
    came: dict[str, float] = {}
    after, final = 0, False
    while not final:
        found = page(service, task_id, after=after, wait=20)
        assert found["events"] or found["final"]
        for event in found["events"]:
            assert event["seq"] == after + 1
            after = event["seq"]
            came.setdefault(f"{event.get('task')} {event['event']}", time.monotonic())
        final = found["final"]
    assert came["Last host_result"] - came["First host_result"] > 1
    assert service.status(task_id)["Status"] == "SUCCESS"


def test_a_stream_that_is_cut_at_random_gives_each_event_once(service: Service, root: Path) -> None:
    """The client's side of the connection is broken off; where, is chance."""
    loop = [{"name": f"Number {number}", "ansible.builtin.debug": {"msg": "x" * 200}} for number in range(30)]
    write(root / "playbooks/many.yml", json.dumps([{"hosts": "all", "gather_facts": False, "tasks": loop}]))
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "many.yml", "inventory": "../inventories/dev"}
    task_id = service.submit("ansibleplaybook", body)
    got: list[dict[str, Any]] = []
    cuts = 0
    while not got or got[-1]["event"] != "final":
        headers = {**STREAM, "Last-Event-ID": str(got[-1]["seq"])} if got else STREAM
        wanted = random.randrange(1, 8) if cuts < 20 else 1000
        with service.client().stream("GET", f"/api/ansibletaskevents/{task_id}", headers=headers) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    got.append(json.loads(line.removeprefix("data: ")))
                    wanted -= 1
                    if not wanted:
                        break
        cuts += 1
    assert cuts > 10
    assert [event["seq"] for event in got] == list(range(1, len(got) + 1))
    assert got == page(service, task_id, limit=5000)["events"]


def test_a_canceled_run_has_a_final_event_that_says_so(service: Service) -> None:
    task_id = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 600"})
    eventually(lambda: service.status(task_id)["state"] == "running")
    following: list[list[dict[str, Any]]] = []
    follower = threading.Thread(target=lambda: following.append(stream(service, task_id)))
    follower.start()
    reply = service.client().post(f"/api/ansibletaskcancel/{task_id}", params={"wait": 30})
    assert (reply.status_code, reply.json()["state"]) == (200, "canceled")
    follower.join()
    [events] = following
    assert (events[-1]["event"], events[-1]["state"]) == ("final", "canceled")
    again = service.client().post(f"/api/ansibletaskcancel/{task_id}")
    assert (again.status_code, again.json()) == (200, reply.json())


def test_what_is_anothers_has_no_events_for_a_user(service: Service, played: str) -> None:
    for headers in ({}, STREAM):
        reply = service.client(DEV).get(f"/api/ansibletaskevents/{played}", headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (404, "task_not_found")
