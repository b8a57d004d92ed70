"""Rights that are lost while tasks wait, run, start, or have left something: the service ends all of it soon."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.process_tree import sleeping
from tests.helpers.services import DEV, Service, child, start_service, worker_by_hand, write
from tests.helpers.waiting import eventually, require_program

OPS = ("ops", "ops secret")
CANCELED_SECONDS, ENDED_SECONDS = 10, 20  # five and ten, and as many for a busy machine
GRACE = "grace_seconds = 1\nworker_concurrency = 4\n"
Entry = dict[str, Any]
FULL: Entry = {"inventories": ["inventories/dev", "inventories/shared"], "lasting_processes": True}


class Team:
    """The service, and its users as rbac.json has them."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def grant(self, dev: Entry | None) -> None:
        """Replaces dev's entry, as an editor does; None: dev is removed."""
        users = [
            {"user": "admin", "password": "admin secret"},
            {"user": OPS[0], "password": OPS[1], "inventories": ["inventories/dev"]},
        ]
        users += [{"user": DEV[0], "password": DEV[1], **dev}] if dev is not None else []
        new = self.service.root / "new.json"
        write(new, json.dumps({"rbac": users})).chmod(0o600)
        new.replace(self.service.root / "rbac.json")

    def shell(self, script: str, who: tuple[str, str] = DEV, inventory: str = "dev") -> str:
        host = {"dev": "dev1", "shared": "tool1"}[inventory]
        body = {"module": "shell", "module_args": {"cmd": script}, "host_pattern": host}
        path = str(self.service.root / "inventories" / inventory)
        return self.service.submit("ansiblecommand", {**body, "inventory": path}, who)

    def state(self, task_id: str) -> str:
        return str(self.service.status(task_id)["state"])

    def log(self, *events: str) -> list[dict[str, Any]]:
        lines = (self.service.root / ".flansible/audit.log").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] in events]


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    require_program("bwrap")
    running = start_service(root, GRACE)
    yield running
    assert running.stop() < 10
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def team(service: Service) -> Team:
    found = Team(service)
    found.grant(FULL)
    found.service.wait(found.shell("echo warm"))
    return found


def mark() -> str:
    return f"{random.randrange(10**6, 10**7)}.5"


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    ("after", "code"),
    [
        (None, "rights_lost"),
        (FULL | {"inventories": ["inventories/shared"]}, "inventory_forbidden"),
        (FULL | {"modules": ["ping"]}, "module_forbidden"),
        (FULL | {"hosts": ["dev2"]}, "host_forbidden"),
    ],
    ids=["the account", "the inventory", "the module", "the host"],
)
def test_a_run_ends_with_all_it_has_started_when_a_right_is_lost(team: Team, after: Entry | None, code: str) -> None:
    own, ops = mark(), mark()
    running = team.shell(f"setsid nohup sleep {own} >/dev/null 2>&1 & (trap '' TERM; sleep {own}; true) & sleep {own}")
    others = team.shell(f"sleep {ops}", OPS)
    eventually(lambda: len(sleeping(own)) == 3 and sleeping(ops))
    earlier = len(team.log("cancel"))
    team.grant(after)
    eventually(lambda: len(team.log("cancel")) > earlier, CANCELED_SECONDS)
    eventually(lambda: not sleeping(own), ENDED_SECONDS)
    status = team.service.wait(running, ("admin", "admin secret"))
    assert status["state"] == "canceled" and status["description"].startswith(f"canceled by rbac.json ({code})")
    [line] = team.log("cancel")[earlier:]
    assert (line["user"], line["code"], line["task_id"]) == ("rbac.json", code, running)
    assert team.state(others) == "running" and sleeping(ops)
    team.service.client(OPS).post(f"/api/ansibletaskcancel/{others}")


@pytest.mark.by_day(1)
@pytest.mark.parametrize("after", [None, FULL | {"inventories": ["inventories/shared"]}, FULL | {"role": "viewer"}])
def test_what_an_earlier_run_has_left_ends_when_no_task_is_there_to_cancel(team: Team, after: Entry | None) -> None:
    left = mark()
    assert team.service.wait(team.shell(f"setsid nohup sleep {left} >/dev/null 2>&1 &"))["state"] == "succeeded"
    assert sleeping(left)
    earlier = len(team.log("rights_lost"))
    team.grant(after)
    eventually(lambda: not sleeping(left), CANCELED_SECONDS)
    [line] = team.log("rights_lost")[earlier:]
    assert line["what"].startswith("dev: ") and line["user"] == "rbac.json"
    if after == FULL | {"inventories": ["inventories/shared"]}:
        assert team.service.wait(team.shell("echo on", inventory="shared"))["state"] == "succeeded"


@pytest.mark.nightly
def test_a_new_password_ends_nothing(team: Team) -> None:
    left = mark()
    running = team.shell(f"setsid nohup sleep {left} >/dev/null 2>&1 & sleep 8")
    eventually(lambda: team.state(running) == "running" and sleeping(left))
    team.grant(FULL | {"password": "another secret"})
    assert team.service.wait(running, ("admin", "admin secret"))["state"] == "succeeded"
    assert sleeping(left)
    team.grant(None)
    eventually(lambda: not sleeping(left), CANCELED_SECONDS)


def test_no_task_starts_past_the_moment_in_which_rights_are_lost(team: Team) -> None:
    """More tasks than slots: some end, some run, some start and some wait when the file changes."""
    own = mark()
    task_ids = [team.shell(f"sleep 0.3; sleep {own} & sleep 1") for _ in range(24)]
    eventually(lambda: sum(team.state(task_id) == "succeeded" for task_id in task_ids) >= 4, 60)
    changed_at = time.time()
    team.grant(FULL | {"inventories": ["inventories/shared"]})
    states = [team.service.wait(task_id, ("admin", "admin secret"))["state"] for task_id in task_ids]
    eventually(lambda: not sleeping(own), ENDED_SECONDS)
    assert set(states) == {"succeeded", "canceled"} and time.time() - changed_at < CANCELED_SECONDS + ENDED_SECONDS
    logged = [line["task_id"] for line in team.log("cancel") if line["task_id"] in task_ids]
    canceled = [task_id for task_id, state in zip(task_ids, states, strict=True) if state == "canceled"]
    assert len(set(logged)) == len(logged) and set(canceled) <= set(logged)


def test_a_worker_that_was_stopped_meanwhile_does_it_when_it_goes_on(team: Team) -> None:
    left, own = mark(), mark()
    assert team.service.wait(team.shell(f"setsid nohup sleep {left} >/dev/null 2>&1 &"))["state"] == "succeeded"
    running = team.shell(f"sleep {own}")
    eventually(lambda: sleeping(own))
    worker = child(team.service, "worker")
    worker.send_signal(signal.SIGSTOP)
    try:
        earlier = len(team.log("cancel"))
        team.grant(None)
        eventually(lambda: len(team.log("cancel")) > earlier, CANCELED_SECONDS)
        assert sleeping(left) and sleeping(own)
    finally:
        worker.send_signal(signal.SIGCONT)
    eventually(lambda: not sleeping(left) and not sleeping(own), ENDED_SECONDS)
    assert team.service.wait(running, ("admin", "admin secret"))["state"] == "canceled"


def test_of_two_workers_each_ends_what_it_has(team: Team) -> None:
    marks = [mark() for _ in range(8)]
    with worker_by_hand(team.service, "flansible", "worker", "--name", "hand") as worker:
        eventually(lambda: "is ready" in (team.service.root / "worker.log").read_text(), 60)
        task_ids = [team.shell(f"setsid nohup sleep {one} >/dev/null 2>&1 & sleep {one}") for one in marks]
        eventually(lambda: all(len(sleeping(one)) == 2 for one in marks), 60)
        team.grant(FULL | {"inventories": ["inventories/shared"]})
        eventually(lambda: not any(sleeping(one) for one in marks), ENDED_SECONDS)
        assert {team.service.wait(task_id)["state"] for task_id in task_ids} == {"canceled"}
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


def test_the_log_is_whole(team: Team) -> None:
    done = subprocess.run(
        ["flansible", "audit", "verify"],
        cwd=team.service.root,
        env=team.service.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
