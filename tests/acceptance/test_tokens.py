"""Tokens, wrong passwords and the audit log of a service as a user runs it: `flansible up`, two web processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from flansible.client import Client
from flansible.errors import ServiceRefused
from tests.helpers.services import ADMIN, DEV, Service, write

SHARES_SERVICE = True
PING = {"module": "ping", "inventory": "../inventories/dev", "host_pattern": "dev1"}
CONNECTIONS = 12  # so many that both web processes get some


def flansible(service: Service, *words: str, code: int = 0, **environ: str) -> str:
    """Standard output of a command in the service's folder."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "flansible"), *words],
        cwd=service.root,
        env={**service.environ, "FLANSIBLE_URL": service.url, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def made(service: Service, *words: str) -> str:
    return flansible(service, "token", "create", *words).strip()


def asked(service: Service, text: str, method: str = "GET", path: str = "/api/ansibletasks", **more: Any) -> list[int]:
    """The answers on connections of their own."""
    headers = {"Authorization": f"Bearer {text}"}
    return [
        httpx.request(method, f"{service.url}{path}", headers=headers, timeout=30, **more).status_code
        for _ in range(CONNECTIONS)
    ]


def audit(service: Service, *events: str) -> list[dict[str, Any]]:
    lines = (service.root / ".flansible/audit.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] in events]


@pytest.mark.nightly
def test_a_revoked_token_is_refused_at_once_by_all_web_processes(service: Service) -> None:
    text = made(service, ADMIN[0], "--expires", "1h")
    assert set(asked(service, text)) == {200}
    flansible(service, "token", "revoke", text.split("_")[1])
    assert set(asked(service, text)) == {401}


def test_a_token_goes_as_far_as_its_user_and_its_scope(service: Service) -> None:
    reading, running = made(service, DEV[0], "--scope", "read"), made(service, DEV[0])
    post = {"method": "POST", "path": "/api/ansiblecommand"}
    assert set(asked(service, reading, **post, json=PING)) == {403}
    assert set(asked(service, running, **post, json={**PING, "inventory": "../inventories/prod"})) == {403}
    with Client(service.url, token=running) as client:
        task_id = client.adhoc("ping", host_pattern="dev1", inventory="../inventories/dev")
        assert client.wait(task_id)["returncode"] == 0
    with Client(service.url, token=reading) as client:
        assert client.status(task_id)["user"] == DEV[0]
        with pytest.raises(ServiceRefused) as refused:
            client.adhoc("ping")
        assert (refused.value.status, refused.value.code) == (403, "scope_forbidden")


def test_the_client_commands_take_a_token(service: Service) -> None:
    text = made(service, ADMIN[0])
    task_id = service.submit("ansiblecommand", {"module": "debug"})
    assert task_id in flansible(service, "tasks", FLANSIBLE_TOKEN=text)
    file = write(service.root / "kept.token", f"{text}\n")
    assert flansible(service, "tasks", "--json", "--api-token-file", str(file))
    inventory = str(service.root / "inventories/dev")
    assert "pong" in flansible(service, "adhoc", "dev1", "-i", inventory, "-m", "ping", FLANSIBLE_TOKEN=text)
    file.unlink()
    flansible(service, "token", "revoke", text.split("_")[1])
    flansible(service, "tasks", code=5, FLANSIBLE_TOKEN=text)


@pytest.mark.nightly
def test_wrong_passwords_close_the_door_for_a_user_and_not_for_its_clients(service: Service) -> None:
    path = service.root / "rbac.json"
    document = json.loads(path.read_text())
    document["rbac"].append({"user": "eve", "password": "pw"})
    write(path, json.dumps(document))
    url = f"{service.url}/api/ansibletasks"
    with httpx.Client(timeout=30) as known:  # one connection: always the same process
        assert known.get(url, auth=("eve", "pw")).status_code == 200
        answers = [httpx.get(url, auth=("eve", f"guess{n}"), timeout=30) for n in range(14)]
        codes = [reply.status_code for reply in answers]
        assert codes == [401] * 10 + [429] * 4
        assert answers[-1].json()["code"] == "too_many_logins" and 0 < int(answers[-1].headers["Retry-After"]) <= 300
        assert known.get(url, auth=("eve", "pw")).status_code == 200
    assert [line["user"] for line in audit(service, "login_locked")] == ["eve"]
    assert len([line for line in audit(service, "login_failure") if line.get("user") == "eve"]) == 10


def test_every_submission_is_in_the_log_and_on_standard_error_and_the_chain_holds(service: Service) -> None:
    task_ids = {service.submit("ansiblecommand", {"module": "debug"}) for _ in range(6)}
    for task_id in task_ids:
        service.wait(task_id)
    lines = [line for line in audit(service, "submission") if line["task_id"] in task_ids]
    assert {line["task_id"] for line in lines} == task_ids
    assert {line["user"] for line in lines} == {"admin"} and {line["address"] for line in lines} == {"127.0.0.1"}
    said = service.log.read_text()
    assert all(line["mac"] in said for line in lines)
    assert "none missing or changed" in flansible(service, "audit", "verify")
    log = service.root / ".flansible/audit.log"
    whole = log.read_bytes()
    kept = whole.splitlines(keepends=True)
    copy = write(service.root / "copy.log", "")
    copy.write_bytes(b"".join(kept[:2] + kept[3:]))
    flansible(service, "audit", "verify", str(copy), code=1)
    copy.write_bytes(b"".join(kept[:-2]))
    flansible(service, "audit", "verify", str(copy), code=1)


def test_the_log_can_be_rotated_while_the_service_runs(service: Service) -> None:
    log = service.root / ".flansible/audit.log"
    older = log.with_name("audit.log.1")
    log.rename(older)
    service.submit("ansiblecommand", {"module": "debug"})
    assert log.exists()
    assert "none missing" in flansible(service, "audit", "verify", str(older), str(log))
    assert "none missing" in flansible(service, "audit", "verify", "--partial")
    flansible(service, "audit", "verify", code=1)


def test_a_token_is_in_no_file_no_log_and_no_record(service: Service) -> None:
    text = made(service, ADMIN[0])
    secret = text.rpartition("_")[2]
    with Client(service.url, token=text) as client:
        task_id = client.adhoc("debug")
        client.wait(task_id)
    httpx.get(f"{service.url}/api/ansibletasks", auth=(text, text), timeout=30)
    httpx.get(f"{service.url}/{text}", timeout=30)
    holding = [
        path
        for path in service.root.rglob("*")
        if path.is_file() and not path.is_socket() and secret.encode() in path.read_bytes()
    ]
    assert holding == [], "among them Redis' append-only file, the logs and the audit log"
