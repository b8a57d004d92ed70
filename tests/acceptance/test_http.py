"""The main use over real HTTP: submit, poll and read tasks, with real Ansible, Celery and Redis."""

from __future__ import annotations

import base64
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from flansible.authorization import isolation
from tests.helpers.services import ADMIN, DEV, Service, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True


def test_ping_succeeds_and_its_result_says_pong(service: Service) -> None:
    task_id = service.submit("ansiblecommand", {"module": "ping"})
    status = service.wait(task_id)
    assert (status["Status"], status["state"], status["returncode"]) == ("SUCCESS", "succeeded", 0)
    assert (status["user"], status["kind"]) == ("admin", "adhoc")
    assert status["submitted_at"] <= status["started_at"] <= status["finished_at"]
    assert '"ping": "pong"' in service.output(task_id)
    result = service.result(task_id)
    assert result["contacted"]["localhost"][0]["result"]["ping"] == "pong"
    assert result["dark"] == {}
    assert result["stats"]["localhost"]["ok"] == 1


def test_the_reply_to_a_submission_says_where_to_look(service: Service) -> None:
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug"})
    assert reply.status_code == 202
    body = reply.json()
    assert reply.headers["Location"] == body["status_url"] == f"/api/ansibletaskstatus/{body['task_id']}"
    assert service.client().get(body["output_url"]).headers["Content-Type"].startswith("text/plain")
    service.wait(body["task_id"])


@pytest.mark.parametrize(
    "arguments",
    [
        "echo free form",
        {"_raw_params": "echo free form"},
        {"argv": ["echo", "free form"]},
        [{"arg_name": "_raw_params", "arg_value": "echo free form"}],
    ],
)
def test_module_args_come_as_a_string_an_object_or_a_list(service: Service, arguments: object) -> None:
    status, output = service.run("ansiblecommand", {"module": "command", "module_args": arguments})
    assert status["Status"] == "SUCCESS"
    assert "free form" in output


def test_find_takes_its_arguments_as_an_object(service: Service, root: Path) -> None:
    arguments = {"paths": str(root / "playbooks"), "age": "2d", "recurse": True}
    # From 2.21 on a result has the arguments only when they are asked for.
    body = {"module": "find", "module_args": arguments, "extra_vars": {"ansible_inject_invocation": True}}
    task_id = service.submit("ansiblecommand", body)
    assert service.wait(task_id)["Status"] == "SUCCESS"
    assert (
        service.result(task_id)["contacted"]["localhost"][0]["result"]["invocation"]["module_args"]["recurse"] is True
    )


def test_both_spellings_of_a_field_mean_the_same(service: Service, root: Path) -> None:
    common = {"inventory": str(root / "inventories/dev"), "module": "debug", "module_args": "var=word"}
    old = {**common, "host_filter": "dev1", "extra_args": [{"word": "one"}, {"word": "two"}]}
    new = {**common, "host_pattern": "dev1", "extra_vars": {"word": "two"}}
    assert service.run("ansiblecommand", old)[1] == service.run("ansiblecommand", new)[1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("ansiblecommand", {"module": "ping", "host_pattern": "nobody"}),
        ("ansibleplaybook", {"playbook": "site.yml"}),
    ],
)
def test_a_success_on_no_host_says_so_in_status_and_list(service: Service, path: str, body: dict[str, Any]) -> None:
    status, _ = service.run(path, body)
    assert (status["Status"], status["returncode"]) == ("SUCCESS", 0)
    assert status["warning"] == "no hosts matched"
    assert status["description"].endswith(" ended with exit code 0: no hosts matched")
    assert status in service.client().get("/api/ansibletasks").json()["tasks"]


def test_a_confined_run_that_finds_no_role_says_so(service: Service, root: Path) -> None:
    write(root / "playbooks/norole.yml", "- hosts: all\n  roles: [absent]\n")
    body = {"playbook": "norole.yml", "inventory": str(root / "inventories/dev")}
    hint = "The run was confined: if what it did not find is on this machine, add it to `paths` of dev in rbac.json"
    confined = isolation.of("auto").in_force
    assert (hint in service.wait(service.submit("ansibleplaybook", body, DEV), DEV)["description"]) == confined
    assert "confined" not in service.wait(service.submit("ansibleplaybook", body))["description"]


def test_a_failing_module_is_a_task_failure_with_ansibles_exit_code(service: Service) -> None:
    status, output = service.run("ansiblecommand", {"module": "command", "module_args": "ls /nowhere"})
    assert (status["Status"], status["state"], status["returncode"]) == ("FLANSIBLE_TASK_FAILURE", "failed", 2)
    assert "rc=2" in output


def test_an_unreachable_host_is_dark(service: Service, root: Path) -> None:
    body = {"module": "ping", "host_pattern": "dark1", "inventory": str(root / "inventories/dark")}
    task_id = service.submit("ansiblecommand", body)
    status = service.wait(task_id)
    assert (status["state"], status["returncode"]) == ("failed", 4)
    result = service.result(task_id)
    assert "dark1" in result["dark"]
    assert result["contacted"] == {}
    assert result["stats"]["dark1"]["unreachable"] == 1


def test_become_reaches_ansible(service: Service) -> None:
    body = {"module": "command", "module_args": "id -un", "become": True, "become_method": "no-such-method"}
    status, output = service.run("ansiblecommand", body)
    assert status["state"] == "failed"
    assert "no-such-method" in output


def test_a_playbook_with_a_role_and_a_handler_runs(service: Service, root: Path) -> None:
    body = {
        "playbook_dir": str(root / "playbooks"),
        "playbook": "site.yml",
        "inventory": str(root / "inventories/dev"),
        "extra_vars": {"word": "hi"},
    }
    task_id = service.submit("ansibleplaybook", body)
    assert service.wait(task_id)["Status"] == "SUCCESS"
    output = service.output(task_id)
    assert "RUNNING HANDLER [greeting : Take it away]" in output
    assert "dev1 says hi" in output
    result = service.result(task_id)
    modules = [item["module"] for item in result["contacted"]["dev1"]]
    assert modules == [
        "ansible.builtin.tempfile",
        "ansible.builtin.template",
        "ansible.builtin.debug",
        "ansible.builtin.file",
    ]
    assert result["stats"]["dev2"]["changed"] == 3


def test_a_failing_play_task_fails_the_task_and_failed_hosts_come_first(service: Service, root: Path) -> None:
    inventory = write(root / "inventories/mixed", "a ansible_connection=local\nz ansible_connection=local\n")
    playbook = write(
        root / "playbooks/half.yml",
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - fail: msg=no\n      when: inventory_hostname == 'z'\n",
    )
    body = {"playbook_dir": str(playbook.parent), "playbook": playbook.name, "inventory": str(inventory)}
    task_id = service.submit("ansibleplaybook", body)
    assert service.wait(task_id)["returncode"] == 2
    result = service.client().get(f"/api/ansibletaskresult/{task_id}").json()
    assert list(result["contacted"]) == ["z", "a"]
    assert [item["verdict"] for item in result["contacted"]["z"]] == ["failed"]


def test_extra_vars_keep_quotes_unicode_and_nesting(service: Service, root: Path) -> None:
    given = {
        "quotes": 'it\'s "quoted" \\ and $HOME `id`',
        "unicode": "žluťoučký 🐎",
        "nested": {"list": [1, 2.5, True, None, {"deep": "x=y z='1'"}]},
        "looks like": "{not json",
        "empty": "",
    }
    body = {
        "playbook_dir": str(root / "playbooks"),
        "playbook": "vars.yml",
        "inventory": str(root / "inventories/dev"),
        "limit": "dev1",
        "extra_vars": {"given": given},
    }
    task_id = service.submit("ansibleplaybook", body)
    assert service.wait(task_id)["Status"] == "SUCCESS"
    assert service.result(task_id)["contacted"]["dev1"][0]["result"]["given"] == given


def test_a_missing_playbook_is_404_with_its_path_and_nothing_is_queued(service: Service, root: Path) -> None:
    before = service.client().get("/api/ansibletasks?limit=1").json()["tasks"]
    directory = str(root / "playbooks")
    missing = service.client().post("/api/ansibleplaybook", json={"playbook_dir": directory, "playbook": "no.yml"})
    assert missing.status_code == 404
    assert f"{directory}/no.yml" in missing.json()["message"]
    nowhere = service.client().post("/api/ansibleplaybook", json={"playbook_dir": "/no/dir", "playbook": "no.yml"})
    assert nowhere.status_code == 404
    assert "/no/dir" in nowhere.json()["message"]
    assert service.client().get("/api/ansibletasks?limit=1").json()["tasks"] == before


def test_status_and_output_are_there_while_it_runs(service: Service, root: Path) -> None:
    body = {"playbook_dir": str(root / "playbooks"), "playbook": "slow.yml", "inventory": str(root / "inventories/dev")}
    task_id = service.submit("ansibleplaybook", body)
    assert service.status(task_id)["Status"] == "PROGRESS"
    eventually(lambda: "begun" in service.output(task_id))
    early = service.output(task_id)
    assert service.status(task_id)["Status"] == "PROGRESS"
    assert "done" not in early
    assert service.wait(task_id)["Status"] == "SUCCESS"
    whole = service.output(task_id)
    assert whole.startswith(early)
    assert "done" in whole


def test_the_list_is_newest_first_pages_by_cursor_and_filters_by_state(service: Service) -> None:
    ids = [service.submit("ansiblecommand", {"module": "debug"}) for _ in range(5)]
    for task_id in ids:
        service.wait(task_id)
    first = service.client().get("/api/ansibletasks?limit=2").json()
    second = service.client().get(f"/api/ansibletasks?limit=3&before={first['next_before']}").json()
    assert [task["task_id"] for task in first["tasks"] + second["tasks"]] == ids[::-1]
    running = service.client().get("/api/ansibletasks?state=running").json()
    assert running == {"tasks": [], "next_before": None, "changes": running["changes"]}
    assert service.client().get("/api/ansibletasks?state=finished").status_code == 400


def test_another_users_task_does_not_exist_for_a_user(service: Service, root: Path) -> None:
    admins = service.submit("ansiblecommand", {"module": "debug"})
    body = {"module": "debug", "host_pattern": "dev1", "inventory": str(root / "inventories/dev")}
    devs = service.submit("ansiblecommand", body, DEV)
    service.wait(admins)
    service.wait(devs, DEV)
    for path in ("ansibletaskstatus", "ansibletaskoutput", "ansibletaskresult"):
        reply = service.client(DEV).get(f"/api/{path}/{admins}")
        assert (reply.status_code, reply.json()["message"]) == (404, "Task not found")
        assert service.client(ADMIN).get(f"/api/{path}/{devs}").status_code == 200
    listed = service.client(DEV).get("/api/ansibletasks").json()["tasks"]
    assert {task["user"] for task in listed} == {"dev"}


def test_an_unknown_id_is_404(service: Service) -> None:
    for task_id in ("no-such-task", "00000000-0000-0000-0000-000000000000", "%00", "*"):
        reply = service.client().get(f"/api/ansibletaskstatus/{task_id}")
        assert (reply.status_code, reply.json()["code"]) == (404, "task_not_found")


def test_without_a_password_or_with_a_wrong_one_it_is_401(service: Service) -> None:
    for auth in (None, ("admin", "wrong"), ("nobody", "x"), ("", ""), ("admin", "")):
        reply = httpx.get(f"{service.url}/api/ansibletasks", auth=auth)
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"].startswith("Basic")
        assert reply.json()["code"] == "not_authenticated"


def test_listplaybooks_lists_playbooks_and_not_role_files(service: Service, root: Path) -> None:
    listed = service.client(DEV).get("/api/listplaybooks").json()["playbooks"]
    names = [item["playbook"] for item in listed]
    assert {"site.yml", "fail.yml", "slow.yml"} <= set(names)
    assert "main.yml" not in names
    assert {item["playbook_dir"] for item in listed} == {str((root / "playbooks").resolve())}


def test_twenty_tasks_at_once_all_end_well(service: Service) -> None:
    ids = [service.submit("ansiblecommand", {"module": "debug", "module_args": {"msg": f"n{i}"}}) for i in range(20)]
    for index, task_id in enumerate(ids):
        assert service.wait(task_id)["Status"] == "SUCCESS"
        assert f'"msg": "n{index}"' in service.output(task_id)


def test_health_says_ok_and_names_the_parts(service: Service) -> None:
    reply = service.client().get("/api/health")
    assert reply.status_code == 200
    confined = isolation.of("auto")
    assert reply.json()["status"] == ("degraded" if confined.is_missing else "ok")
    assert {name: part["ok"] for name, part in reply.json()["parts"].items()} == {
        "store": True,
        "broker": True,
        "workers": True,
        "rbac": True,
        "isolation": not confined.is_missing,
        "history": True,
    }


def test_a_broken_edit_of_rbac_json_keeps_the_last_good_one_and_shows_in_health(service: Service, root: Path) -> None:
    path = root / "rbac.json"
    good = path.read_text()
    try:
        path.write_text(good[:-1])
        health = eventually(lambda: not (r := service.client().get("/api/health").json())["parts"]["rbac"]["ok"] and r)
        assert health["status"] == "degraded"
        assert service.client(DEV).get("/api/ansibletasks").status_code == 200
        path.write_text(good.replace(DEV[1], "changed"))
        eventually(lambda: service.client(DEV).get("/api/ansibletasks").status_code == 401)
    finally:
        path.write_text(good)
    eventually(lambda: service.client(DEV).get("/api/ansibletasks").status_code == 200)
    assert service.client().get("/api/health").json()["parts"]["rbac"]["ok"]


def test_a_body_over_the_limit_is_413(service: Service) -> None:
    reply = service.client().post("/api/ansiblecommand", json={"module": "debug", "module_args": "x" * 5_000_000})
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_a_run_leaves_no_process_and_no_temp_directory(service: Service) -> None:
    base = Path("~/.ansible/tmp").expanduser()
    before = set(base.glob("ansible-local-*"))
    service.run("ansiblecommand", {"module": "ping"})
    eventually(lambda: set(base.glob("ansible-local-*")) <= before, 5)


def test_polling_with_a_hashed_password_is_cheap(service: Service, root: Path) -> None:
    from flansible.identity import passwords

    passwords.set_password(root / "rbac.json", "hashed", "long enough", (str(root / "inventories/dev"),))
    auth = ("hashed", "long enough")
    for _ in range(8):  # each web process verifies once
        eventually(lambda: service.client(auth).get("/api/ansibletasks?limit=1").status_code == 200)
    began = time.monotonic()
    for _ in range(50):
        service.client(auth).get("/api/ansibletasks?limit=1")
    assert time.monotonic() - began < 50 * 0.04  # one scrypt verification alone takes longer than that


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
    ],
)
def test_what_never_reaches_the_app_is_answered_in_the_one_shape_too(service: Service, raw: bytes, status: int) -> None:
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), 10) as connection:
        connection.sendall(raw)
        reply = b""
        while chunk := connection.recv(65536):
            reply += chunk
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert set(json.loads(body)) == {"message", "code", "errors"}


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n\r\n", b"2\r\n{}xx\r\n"])
def test_chunks_that_are_none_are_the_clients_fault(service: Service, chunk: bytes) -> None:
    url = httpx.URL(service.url)
    login = base64.b64encode(":".join(ADMIN).encode()).decode()
    head = f"POST /api/git HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), 10) as connection:
        connection.sendall(head.encode() + chunk)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
