"""Cancelling: queued and running, by the owner and by admin, with everything the run has started."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.process_tree import detached, sleepers
from tests.helpers.services import ADMIN, DEV, Service
from tests.helpers.waiting import eventually

SHARES_SERVICE = True


def cancel(service: Service, task_id: str, auth: tuple[str, str] = ADMIN) -> tuple[int, dict[str, object]]:
    reply = service.client(auth).post(f"/api/ansibletaskcancel/{task_id}")
    return reply.status_code, reply.json()


def test_cancelling_a_run_ends_everything_it_started(service: Service) -> None:
    mark = f"95{os.getpid()}.25"
    task_id = service.submit("ansiblecommand", detached(mark))
    eventually(lambda: len(sleepers(mark)) >= 4)
    assert cancel(service, task_id)[0] in (200, 202)  # 200 when the end came while the request waited
    status = service.wait(task_id)
    assert (status["Status"], status["state"]) == ("CANCELED", "canceled")
    assert status["description"].startswith("canceled by admin; ")
    assert sleepers(mark) == []
    assert cancel(service, task_id) == (200, status)  # asking again changes nothing


def test_a_final_task_cannot_be_canceled(service: Service) -> None:
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    service.wait(task_id)
    code, body = cancel(service, task_id)
    assert (code, body["code"]) == (409, "task_final")


def test_a_queued_task_is_canceled_at_once_and_never_starts(service: Service, tmp_path: Path) -> None:
    busy = [service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 30"}) for _ in range(8)]
    for task_id in busy:
        eventually(lambda task_id=task_id: service.status(task_id)["state"] == "running")
    mark = tmp_path / "started"
    queued = service.submit("ansiblecommand", {"module": "file", "module_args": f"path={mark} state=touch"})
    code, body = cancel(service, queued)
    assert (code, body["state"], body["started_at"]) == (200, "canceled", None)
    for task_id in busy:
        cancel(service, task_id)
    for task_id in busy:
        assert service.wait(task_id)["state"] == "canceled"
    after = service.submit("ansiblecommand", {"module": "debug"})
    service.wait(after)
    assert not mark.exists()


def test_only_the_owner_and_admin_can_cancel(service: Service, root: Path) -> None:
    admins = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 30"})
    assert cancel(service, admins, DEV)[0] == 404
    body = {"module": "command", "module_args": "sleep 30", "host_pattern": "dev1"}
    devs = service.submit("ansiblecommand", {**body, "inventory": str(root / "inventories/dev")}, DEV)
    assert cancel(service, devs, DEV)[0] in (200, 202)
    assert cancel(service, admins)[0] in (200, 202)
    assert service.wait(devs)["state"] == service.wait(admins)["state"] == "canceled"
