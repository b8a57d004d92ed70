"""flansible.client and the commands that are clients, against a running service: what Ansible's commands would do."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from flansible.client import Client
from flansible.errors import OptionError, ServiceRefused, ServiceUnreachable, WaitTimeout
from tests.helpers.comparing import masked
from tests.helpers.ports import free_port
from tests.helpers.process_tree import new_mark, sleeping
from tests.helpers.services import ADMIN, DEV, Service, write
from tests.helpers.waiting import eventually

SHARES_SERVICE = True
FLANSIBLE = str(Path(sys.executable).parent / "flansible")
INVENTORY = "../inventories/dev"
SECONDS = 120
MARKER = "MaRkErWoRd"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, *ADMIN) as found:
        yield found


@pytest.fixture(scope="module")
def project(root: Path) -> Path:
    """A project as people keep it: its own ansible.cfg, inventory, roles, variables in a vault."""
    directory = root / "playbooks/project"
    shutil.copytree(root / "playbooks/roles", directory / "roles")
    write(directory / "ansible.cfg", "[defaults]\ninventory = hosts\nforks = 1\nnocows = true\n")
    write(directory / "hosts", (root / "inventories/dev").read_text())
    write(directory / "group_vars/web.yml", "word: from group_vars\n")
    write(directory / "site.yml", (root / "playbooks/site.yml").read_text())
    write(directory / "fail.yml", (root / "playbooks/fail.yml").read_text())
    write(directory / "vars.yml", (root / "playbooks/vars.yml").read_text())
    write(directory / "tags.yml", TAGS)
    write(directory / "prompts.yml", PROMPTS)
    write(directory / "lines.yml", LINES)
    write(directory / "sleep.yml", "- hosts: dev1\n  gather_facts: false\n  tasks:\n    - command: sleep 100\n")
    write(directory / "given.yml", "given: {a: [1, two], when: 2024-02-29}\n")
    write(directory / "src.txt", "from the current directory\n")
    write(directory / ".pass", "the vault's word\n")
    return directory


TAGS = """\
- hosts: web
  gather_facts: false
  tasks:
    - debug: msg=one
      tags: one
    - debug: msg=two
      tags: two
    - name: Say it
      debug: msg=three
"""
PROMPTS = """\
- hosts: dev1
  gather_facts: false
  vars_prompt: [{name: who}]
  tasks:
    - debug: var=who
"""
LINES = """\
- hosts: dev1
  gather_facts: false
  tasks:
    - debug: msg="line {{ item }}"
      loop: "{{ range(25) | list }}"
      loop_control: {pause: 0.05}
"""


# The Python client


def test_an_adhoc_command_from_start_to_results(client: Client) -> None:
    task_id = client.adhoc("command", "echo hello", options={"one_line": True})
    status = client.wait(task_id)
    assert (status["Status"], status["state"], status["returncode"]) == ("SUCCESS", "succeeded", 0)
    assert client.status(task_id) == status
    result = client.result(task_id)
    assert result["contacted"]["localhost"][0]["result"]["stdout"] == "hello"
    output = client.output(task_id)
    assert b"hello" in output.data
    assert (output.final, output.next_offset) == (True, len(output.data))
    assert client.output(task_id, offset=output.next_offset - 3).data == output.data[-3:]
    assert client.output(task_id, "html").data.lstrip().lower().startswith(b"<!doctype html")


def test_a_playbook_with_variables_followed_to_its_end(client: Client, root: Path) -> None:
    task_id = client.playbook(
        "vars.yml", str(root / "playbooks"), inventory=INVENTORY, extra_vars={"given": "ž"}, options={"limit": "dev1"}
    )
    text = b"".join(client.follow(task_id))
    assert "ž".encode() in text
    assert text == client.output(task_id).data
    assert b"".join(client.follow(task_id, offset=10)) == text[10:]
    assert client.wait(task_id, timeout_seconds=30)["kind"] == "playbook"


def test_a_checkout_that_is_none_fails_as_a_task(client: Client) -> None:
    status = client.wait(client.git("."))
    assert (status["kind"], status["state"]) == ("git", "failed")


def test_tasks_are_listed_page_by_page(client: Client) -> None:
    made = [client.adhoc("debug") for _ in range(3)]
    for task_id in made:
        client.wait(task_id)
    first = client.tasks(2)
    assert [task["task_id"] for task in first["tasks"]] == [made[2], made[1]]
    assert client.tasks(1, before=first["next_before"])["tasks"][0]["task_id"] == made[0]
    assert {task["state"] for task in client.tasks(state="succeeded")["tasks"]} == {"succeeded"}


def test_a_task_is_canceled_and_a_final_one_cannot_be(client: Client) -> None:
    task_id = client.adhoc("command", "sleep 60")
    eventually(lambda: client.status(task_id)["state"] == "running")
    client.cancel(task_id)
    assert client.wait(task_id)["state"] == "canceled"
    done = client.adhoc("debug")
    client.wait(done)
    with pytest.raises(ServiceRefused) as refused:
        client.cancel(done)
    assert (refused.value.status, refused.value.code) == (409, "task_final")


def test_waiting_ends_when_its_time_is_over_and_the_task_goes_on(client: Client) -> None:
    task_id = client.adhoc("command", "sleep 60")
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=task_id):
        client.wait(task_id, timeout_seconds=0.5)
    assert time.monotonic() - began < 5
    assert client.status(task_id)["Status"] == "PROGRESS"
    client.cancel(task_id)
    client.wait(task_id)


def test_refusals_carry_what_the_service_said(service: Service, client: Client) -> None:
    with pytest.raises(ServiceRefused) as refused:
        client.adhoc("ping", options={"forks": 0, "inventorie": "x"})
    assert (refused.value.status, refused.value.code, refused.value.exit_code) == (400, "invalid_field", 5)
    assert {item.field for item in refused.value.errors} == {"forks", "inventorie"}
    with pytest.raises(ServiceRefused) as refused:
        client.status("../ansibletasks")
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    with Client(service.url, "admin", "wrong") as stranger, pytest.raises(ServiceRefused) as refused:
        stranger.tasks()
    assert (refused.value.status, refused.value.code) == (401, "not_authenticated")
    with Client(service.url, *DEV) as dev, pytest.raises(ServiceRefused, match="You may not use inventory"):
        dev.adhoc("ping", inventory="/etc/passwd")


# A connection that breaks, a service that is away


class Proxy:
    """Between a client and the service; `cut` breaks every connection there is, as a network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        with self._lock:
            broken, self._pairs = self._pairs, []
        for pair in broken:
            for end in pair:
                with contextlib.suppress(OSError):
                    # Reset, not an orderly end.
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            with self._lock:
                self._pairs.append((near, far))
            thread = threading.Thread(target=self._carry, args=(near, far))
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            while True:
                readable, _, _ = select.select([near, far], [], [])
                for end in readable:
                    try:
                        data = end.recv(65536)
                        (far if end is near else near).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    found = Proxy(int(service.url.rpartition(":")[2]))
    yield found
    found.close()


@pytest.mark.by_day(1)
@pytest.mark.parametrize("colour", [False, True], ids=["plain", "colours"])
def test_following_goes_on_where_the_connection_broke(
    client: Client, proxy: Proxy, project: Path, colour: bool
) -> None:
    task_id = client.playbook("lines.yml", str(project))
    gathered, cuts = b"", 0
    with Client(proxy.url, *ADMIN) as behind:
        for chunk in behind.follow(task_id, colour=colour):
            gathered += chunk
            if cuts < 4 and f"line {5 * cuts}".encode() in gathered:
                cuts += 1
                proxy.cut()
    assert cuts == 4
    if colour:
        whole = client.output(task_id, "ansi").data
        assert COLOUR.search(gathered.decode())
        assert once(gathered) == once(whole)
    else:
        assert gathered == client.output(task_id).data


def once(text: bytes) -> bytes:
    """Colour codes at the border of two ranges stand in both, which shows nothing."""
    return re.sub(rb"((?:\x1b\[[0-9;]*m)+)\1+", rb"\1", text)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("colour", [False, True], ids=["plain", "colours"])
def test_lines_come_as_they_are_printed(client: Client, project: Path, colour: bool) -> None:
    task_id = client.playbook("lines.yml", str(project))
    seen: dict[int, float] = {}
    text = b""
    for chunk in client.follow(task_id, colour=colour):
        text += chunk
        for number in range(25):
            if f'line {number}"'.encode() in text:
                seen.setdefault(number, time.monotonic())
    assert len(seen) == 25
    # The pauses between them are 1.2 s in all; what is held back would come at once.
    assert seen[24] - seen[0] > 0.6


def test_a_quiet_run_is_followed_to_its_end(
    service: Service, client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the other side had gone without a word: what is quiet for long is asked for anew."""
    monkeypatch.setattr("flansible.client.http_connection._QUIET_SECONDS", 0.5)
    task_id = client.adhoc("command", "sleep 2")
    with Client(service.url, *ADMIN) as impatient:
        text = b"".join(impatient.follow(task_id))
    assert text == client.output(task_id).data
    assert b"CHANGED" in text


@dataclass
class Stub:
    """A server that gives scripted answers: (status, headers, body), the last one again and again; 0 hangs up."""

    answers: list[tuple[int, dict[str, str], bytes]]
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def stub() -> Iterator[Callable[..., Stub]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> Stub:
        script = Stub(list(answers))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script.asked.append(f"{self.command} {self.path}")
                script.keys.append(self.headers["Idempotency-Key"])
                status, headers, body = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        script.url = f"http://127.0.0.1:{server.server_port}"
        return script

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(status: int, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


AWAY = {"message": "Redis does not answer", "code": "store_unavailable", "errors": []}
DONE = {"task_id": "x", "Status": "SUCCESS", "state": "succeeded", "returncode": 0}


def test_waiting_asks_again_when_the_service_said(stub: Callable[..., Stub]) -> None:
    script = stub(answer(503, AWAY, Retry_After="1"), answer(429, AWAY), answer(200, DONE))
    began = time.monotonic()
    with Client(script.url, "u", "p") as one:
        assert one.wait("x")["state"] == "succeeded"
    assert time.monotonic() - began >= 1
    assert len(script.asked) == 3


def test_patience_has_an_end(stub: Callable[..., Stub]) -> None:
    script = stub(answer(503, AWAY))
    with Client(script.url, "u", "p", patience_seconds=0.5) as one:
        with pytest.raises(ServiceRefused, match="Redis does not answer"):
            one.wait("x")
        with pytest.raises(ServiceRefused, match="Redis does not answer"):
            list(one.follow("x"))
    with Client(f"http://127.0.0.1:{free_port()}", "u", "p", patience_seconds=0.3) as one:
        with pytest.raises(ServiceUnreachable, match="is the service up"):
            one.wait("x")
        with pytest.raises(ServiceUnreachable):
            list(one.follow("x", colour=True))


def test_where_there_is_no_place_to_follow_ranges_are_asked_for(stub: Callable[..., Stub]) -> None:
    full = answer(503, {**AWAY, "code": "too_many_followers"}, Retry_After="5")
    first = (200, {"Flansible-Next-Offset": "4", "Flansible-Final": "false"}, b"one\n")
    last = (200, {"Flansible-Next-Offset": "8", "Flansible-Final": "true"}, b"two\n")
    script = stub(full, first, full, last)
    with Client(script.url, "u", "p") as one:
        assert b"".join(one.follow("x")) == b"one\ntwo\n"
    assert [line.rpartition("offset=")[2] for line in script.asked] == ["0", "0", "4", "4"]


def test_a_submission_whose_answer_is_lost_is_sent_again_under_the_same_key(stub: Callable[..., Stub]) -> None:
    gone = (0, {}, b"")
    busy = answer(409, {"message": "wait", "code": "idempotency_key_in_flight", "errors": []}, Retry_After="0")
    script = stub(gone, busy, gone, answer(202, {"task_id": "x"}))
    with Client(script.url, "u", "p") as one:
        assert one.adhoc("ping") == "x"
        assert len(set(script.keys)) == 1 and script.keys[0]
        one.adhoc("ping")
        one.submit("adhoc", {}, "of my own")
    assert script.keys[4:] == [script.keys[4], "of my own"] and script.keys[4] != script.keys[0]


def test_a_submission_that_reached_nobody_is_not_tried_for_long() -> None:
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{free_port()}", "u", "p") as one, pytest.raises(ServiceUnreachable):
        one.adhoc("ping")
    assert time.monotonic() - began < 2


def test_a_submission_that_is_refused_is_sent_once(stub: Callable[..., Stub]) -> None:
    script = stub(answer(503, AWAY, Retry_After="1"))
    with Client(script.url, "u", "p") as one, pytest.raises(ServiceRefused) as refused:
        one.adhoc("ping")
    assert (refused.value.retry_after_seconds, refused.value.exit_code) == (1, 1)
    assert script.asked == ["POST /api/ansiblecommand"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((200, {}, b"<html>"), "replied 200 OK, which is not a reply of Flansible"),
        ((200, {}, b"[1]"), "replied 200 OK"),
        ((404, {}, b"<html>"), "replied 404 Not Found"),
        ((301, {"Location": "https://there/"}, b""), "redirects to https://there/"),
        ((500, {}, b'{"message": 1}'), "replied 500"),
        ((400, {}, b'{"message": "a", "code": "b", "errors": [1]}'), "replied 400"),
    ],
)
def test_what_is_not_flansible_is_told(stub: Callable[..., Stub], given: Any, says: str) -> None:
    script = stub(given)
    with Client(script.url, "u", "p") as one:
        for ask in (one.tasks, lambda: one.adhoc("ping"), lambda: one.output("x")):
            with pytest.raises(ServiceRefused, match=re.escape(says)) as refused:
                ask()
            assert refused.value.code == "unexpected_reply"


# The commands


def environ(service: Service, auth: tuple[str, str] = ADMIN, **more: str) -> dict[str, str]:
    login = {"FLANSIBLE_URL": service.url, "FLANSIBLE_USER": auth[0], "FLANSIBLE_PASSWORD": auth[1]}
    return {**service.environ, **login, **more}


def flansible(
    service: Service, cwd: Path, *arguments: str, auth: tuple[str, str] = ADMIN, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLANSIBLE, *arguments],
        cwd=cwd,
        env=environ(service, auth, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def task_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


JOBS = [
    ("adhoc", "all -m ping --one-line", 0),
    ("adhoc", "web -m debug -a var=word", 0),
    ("adhoc", "dev1 -m command -a false", 2),
    ("adhoc", "localhost -m copy -a 'src=src.txt dest=/tmp/never' -CD", 0),
    ("adhoc", "dark1 -i ../../inventories/dark -m ping", 4),
    ("adhoc", "localhost -a 'echo a'", 0),
    ("adhoc", "all --list-hosts -l dev2", 0),
    ("adhoc", "nobody -m ping", 0),
    ("adhoc", "dev1 -m command", 5),
    ("adhoc", "dev1 -vvv -m ping -bl dev2", 1),
    ("playbook", "site.yml", 0),
    ("playbook", "./site.yml -v --limit=dev1", 0),
    ("playbook", "fail.yml -i hosts", 2),
    ("playbook", "-l dev1 -e@given.yml vars.yml", 0),
    ("playbook", 'vars.yml -l dev1 -e given=1 -e \'{"given": {"x": [1]}}\'', 0),
    ("playbook", "tags.yml -t one,two --skip-tags two -l dev1", 0),
    ("playbook", "tags.yml --start-at-task 'Say it' -l dev1", 0),
    ("playbook", "tags.yml site.yml --list-tasks", 0),
    ("playbook", "tags.yml --list-tags --list-hosts -l dev1", 0),
    ("playbook", "site.yml --syntax-check", 0),
    ("playbook", "-i ../../inventories/dark site.yml", 4),
    ("playbook", "site.yml -l nobody", 1),
    ("playbook", "vault.yml --vault-password-file .pass -l dev1", 0),
    ("playbook", "vault.yml --vault-id x@.pass -l dev1", 0),
    ("playbook", "vars.yml -e @secret.yml --vault-pass-file=.pass -l dev1", 0),
    ("playbook", "vault.yml -l dev1", 1),
    ("adhoc", "localhost -i /no/hosts -m ping", 0),
    ("playbook", "-i missing site.yml", 0),
    ("playbook", "-i hosts -i ~/none prompts.yml -l dev1", 0),
    ("adhoc", "'' -m ping", 4),
    ("adhoc", "' ' -m ping", 4),
    ("adhoc", "'' --list-hosts", 0),
    ("adhoc", "dev1 -m ''", 250),
    ("adhoc", "dev1 -m '' -a x", 250),
    ("adhoc", "dev1 -m ' '", 250),
    ("adhoc", "dev1 -m ping -T 0", 0),
    ("playbook", "''", 1),
    ("playbook", "' ' -l dev1", 1),
    ("playbook", "site.yml '' -l dev1", 1),
    ("playbook", "'' --syntax-check", 1),
    ("playbook", "missing.yml", 1),
    ("playbook", ".", 1),
    ("playbook", "missing.yml -i missing", 1),
    ("playbook", "tags.yml tags.yml -l dev1", 0),
]


@pytest.fixture(scope="module")
def vaulted(service: Service, project: Path) -> Path:
    """The project with variables encrypted: a text within a file, and a whole file."""
    for name, text in (("secret.yml", "given: from the vault\n"), ("inner.yml", "given: shown\n")):
        write(project / name, text)
        command = ["ansible-vault", "encrypt", "--vault-password-file", ".pass", name]
        subprocess.run(command, cwd=project, env=service.environ, capture_output=True, check=True)
    play = "- hosts: dev1\n  gather_facts: false\n  vars_files: [inner.yml]\n  tasks:\n    - debug: var=given\n"
    write(project / "vault.yml", play)
    return project


@pytest.mark.by_day(4)
@pytest.mark.parametrize(("program", "arguments", "returncode"), JOBS, ids=[f"{job[0]} {job[1]}" for job in JOBS])
def test_a_command_prints_and_returns_what_ansibles_does(
    service: Service, vaulted: Path, program: str, arguments: str, returncode: int
) -> None:
    name = {"adhoc": "ansible", "playbook": "ansible-playbook"}[program]
    shell = f'{name}() {{ flansible {program} "$@"; }}; {name} {arguments}'
    theirs = subprocess.run(
        ["bash", "-c", f"exec {name} {arguments}"],
        cwd=vaulted,
        env={**service.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    ours = subprocess.run(
        ["bash", "-c", shell],
        cwd=vaulted,
        env=environ(service),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert masked(ours.stdout) == masked(theirs.stdout)
    assert ours.stderr == ""
    assert ours.returncode == theirs.returncode == returncode


def test_variables_of_ansibles_are_obeyed(service: Service, project: Path) -> None:
    done = flansible(service, project, "playbook", "tags.yml", ANSIBLE_STDOUT_CALLBACK="minimal", ANSIBLE_NET_TOKEN="x")
    assert (done.returncode, "PLAY" in done.stdout) == (0, False)
    assert done.stderr.startswith("flansible: ANSIBLE_NET_TOKEN is not sent")


def test_no_wait_prints_the_task_id_alone(service: Service, client: Client, project: Path) -> None:
    done = flansible(service, project, "playbook", "fail.yml", "--no-wait")
    assert client.wait(task_of(done))["state"] == "failed"
    assert done.stderr == ""


def test_json_prints_the_results_alone(service: Service, project: Path) -> None:
    done = flansible(service, project, "adhoc", "web", "-m", "command", "-a", "false", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr, document["returncode"]) == (2, "", 2)
    assert document["contacted"]["dev1"][0]["verdict"] == "failed"
    done = flansible(service, project, "playbook", "site.yml", "-l", "nobody", "--json")
    assert (done.returncode, json.loads(done.stdout)["contacted"]) == (1, {})
    assert "no hosts to target" in done.stderr  # without results, what Ansible said is the cause


def test_records_are_shown(service: Service, project: Path) -> None:
    task_id = task_of(flansible(service, project, "adhoc", "dev1", "-a", "echo hello", "--no-wait"))
    followed = flansible(service, project, "output", "--follow", task_id)
    assert (followed.returncode, "hello" in followed.stdout) == (0, True)
    assert flansible(service, project, "output", task_id).stdout == followed.stdout
    assert COLOUR.search(flansible(service, project, "output", task_id, "--format", "ansi").stdout)
    shown = flansible(service, project, "status", task_id).stdout
    assert re.search(r"^state +succeeded$", shown, re.MULTILINE)
    assert json.loads(flansible(service, project, "status", task_id, "--json").stdout)["returncode"] == 0
    assert json.loads(flansible(service, project, "result", task_id).stdout)["contacted"]["dev1"]
    listed = flansible(service, project, "tasks", "--limit", "1", "--state", "succeeded").stdout
    assert listed.startswith(task_id)
    assert json.loads(flansible(service, project, "tasks", "--json").stdout)["tasks"][0]["task_id"] == task_id
    assert flansible(service, project, "output", "--follow", "--format", "html", task_id).returncode == 2


def test_what_differs_is_shown(service: Service, client: Client, project: Path) -> None:
    good, bad = (
        task_of(flansible(service, project, "adhoc", "dev1", "-m", "debug", "-a", f"msg={word}", "--no-wait"))
        for word in ("fine", "\x1b]0;x")
    )
    for task_id in (good, bad):
        client.wait(task_id)
    shown = flansible(service, project, "compare", bad, good)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"- {good}") and lines[1].startswith(f"+ {bad}")
    assert '  module_args: "msg=fine" -> ' in shown.stdout and "1 of 1 hosts differs" in shown.stdout
    assert "debug: message" in shown.stdout
    found = json.loads(flansible(service, project, "compare", "--json", bad, good).stdout)
    assert [host["host"] for host in found["hosts"]] == ["dev1"] and found["failures_between"] is None
    none = flansible(service, project, "compare", good)
    assert (none.returncode, "No earlier run of the same" in none.stderr) == (5, True)


def test_cancel_ends_a_task(service: Service, client: Client, project: Path) -> None:
    task_id = client.adhoc("command", "sleep 60")
    eventually(lambda: client.status(task_id)["state"] == "running")
    said = flansible(service, project, "cancel", task_id).stdout
    assert said.startswith("canceled by admin; ") or said == "running; it is being canceled\n"
    assert client.wait(task_id)["state"] == "canceled"
    assert flansible(service, project, "cancel", task_id).stdout.startswith("canceled by admin; ")
    again = flansible(service, project, "cancel", task_of(flansible(service, project, "adhoc", "all", "--no-wait")))
    assert again.returncode in (0, 5)  # queued, running or over by now


def test_refusals_are_one_line_and_exit_code_5(service: Service, project: Path) -> None:
    for arguments, says in (
        (("adhoc", "all", "-T", "-1"), "timeout: "),
        (("playbook", "missing.yml", "--chdir", "missing"), "does not exist"),
        (("playbook", "site.yml", "--step"), "prompts at a terminal"),
        (("playbook", "site.yml", "-e", "@missing.yml"), "missing.yml cannot be read"),
        (("status", "unknown"), "Task not found"),
        (("status", "x", "--api-password-file", "/no/such"), "cannot be read"),
    ):
        done = flansible(service, project, *arguments)
        assert (done.returncode, done.stdout) == (5, ""), arguments
        assert done.stderr.startswith("flansible: ") and done.stderr.count("\n") == 1
        assert says in done.stderr


def test_a_wrong_password_and_a_service_that_is_down(service: Service, project: Path) -> None:
    done = flansible(service, project, "adhoc", "all", FLANSIBLE_PASSWORD=MARKER)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"flansible: {service.url} does not accept this password for the user admin\n"
    down = f"http://127.0.0.1:{free_port()}"
    done = flansible(service, project, "playbook", "site.yml", FLANSIBLE_URL=down)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"flansible: {down} does not answer") and done.stderr.count("\n") == 1


def test_a_restricted_user_is_told_of_chdir_and_helped_by_it(service: Service, root: Path, tmp_path: Path) -> None:
    arguments = ("adhoc", "dev1", "-m", "debug", "-i", str(root / "inventories/dev"))
    done = flansible(service, tmp_path, *arguments, auth=DEV)
    assert (done.returncode, "--chdir" in done.stderr) == (5, True)
    assert flansible(service, tmp_path, *arguments, "--chdir", ".", auth=DEV).returncode == 0


def test_an_output_whose_reader_leaves_is_waited_for(service: Service, project: Path) -> None:
    line = f"{FLANSIBLE} playbook fail.yml | head -n 2; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=project, env=environ(service), capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (2, "")


# Signals


@contextlib.contextmanager
def running(service: Service, cwd: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the foreground of nobody; ended, whatever happens."""
    process = subprocess.Popen(
        [FLANSIBLE, *arguments],
        cwd=cwd,
        env=environ(service),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(stream: Any, word: bytes) -> bytes:
    """What comes on a pipe or a terminal, up to a word."""
    text = b""
    give_up_at = time.monotonic() + SECONDS
    while word not in text:
        readable, _, _ = select.select([stream], [], [], max(0.0, give_up_at - time.monotonic()))
        data = os.read(stream if isinstance(stream, int) else stream.fileno(), 4096) if readable else b""
        assert data, f"{word!r} is not in {text!r}"
        text += data
    return text


def newest(client: Client) -> str | None:
    return next((task["task_id"] for task in client.tasks(1)["tasks"]), None)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_task_and_says_so(
    service: Service, client: Client, project: Path, number: signal.Signals
) -> None:
    with running(service, project, "playbook", "sleep.yml") as process:
        assert process.stdout is not None and process.stderr is not None
        text = read_until(process.stdout, b"TASK [command]")
        task_id = newest(client)
        process.send_signal(number)
        rest, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 99
    assert f"canceling task {task_id}" in said.decode()
    status = client.status(task_id)
    assert (status["state"], status["description"].split(";")[0]) == ("canceled", "canceled by admin")
    assert status["description"] in said.decode()
    assert text + rest == client.output(task_id).data


def test_a_second_interrupt_leaves_at_once(service: Service, client: Client, project: Path) -> None:
    mark = new_mark()
    with running(service, project, "adhoc", "dev1", "-m", "raw", "-a", f"trap '' TERM; sleep {mark}") as process:
        assert process.stderr is not None
        task_id = eventually(lambda: running_raw(client))
        eventually(lambda: sleeping(mark))  # from then on it does not listen
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, b"canceling task")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
        left = time.time()
    assert process.returncode == 130
    assert b"stopped waiting; flansible status " + task_id.encode() in said
    final = client.wait(task_id)
    assert final["state"] == "canceled"
    assert left < datetime.fromisoformat(final["finished_at"]).timestamp(), "it waited: the run has 5 seconds of grace"


def running_raw(client: Client) -> str | None:
    found = client.tasks(state="running")["tasks"]
    return next((task["task_id"] for task in found if "adhoc raw" in task["summary"]), None)


def test_leaving_an_output_leaves_the_task(service: Service, client: Client, project: Path) -> None:
    task_id = client.playbook("sleep.yml", str(project))
    with running(service, project, "output", "--follow", task_id) as process:
        assert process.stdout is not None
        read_until(process.stdout, b"TASK [command]")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (130, b"")
    assert client.status(task_id)["state"] == "running"
    client.cancel(task_id)
    client.wait(task_id)


def test_no_password_is_ever_in_a_command_line(service: Service, client: Client, project: Path) -> None:
    with running(service, project, "playbook", "sleep.yml") as process:
        assert process.stdout is not None
        read_until(process.stdout, b"TASK [command]")
        lines = [" ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"])]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert any("sleep.yml" in line for line in lines)
    assert [line for line in lines if ADMIN[1] in line] == []


# A terminal


@dataclass
class Terminal:
    """A command on a terminal of its own."""

    process: subprocess.Popen[bytes]
    descriptor: int
    text: bytes = b""

    def expect(self, word: str) -> None:
        self.text += read_until(self.descriptor, word.encode())

    def type(self, text: str) -> None:
        # As a person would: only once the prompt has turned the echo off.
        eventually(lambda: not termios.tcgetattr(self.descriptor)[3] & termios.ECHO)
        os.write(self.descriptor, f"{text}\n".encode())

    def finish(self) -> str:
        """The rest, until the other side of the terminal is closed."""
        with contextlib.suppress(OSError):  # EIO is a terminal's end of file
            while data := os.read(self.descriptor, 4096):
                self.text += data
        self.process.wait(SECONDS)
        return self.text.decode().replace("\r\n", "\n")


@contextlib.contextmanager
def on_a_terminal(cwd: Path, environment: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [FLANSIBLE, *arguments],
        cwd=cwd,
        env={"TERM": "xterm", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_gets_colours_and_its_wish_to_have_none_is_obeyed(service: Service, project: Path) -> None:
    with on_a_terminal(project, environ(service), "playbook", "fail.yml") as shown:
        text = shown.finish()
    assert shown.process.returncode == 2
    assert "\x1b[0;31m" in text
    plain = flansible(service, project, "playbook", "fail.yml")
    assert masked(COLOUR.sub("", text)) == masked(plain.stdout)
    for wish in ({"NO_COLOR": "1"}, {"ANSIBLE_NOCOLOR": "1"}):
        with on_a_terminal(project, environ(service, **wish), "playbook", "tags.yml") as shown:
            assert "\x1b" not in shown.finish()
    assert "\x1b" in flansible(service, project, "playbook", "tags.yml", ANSIBLE_FORCE_COLOR="1").stdout


def test_passwords_are_asked_for_on_the_terminal_and_open_the_vault(
    service: Service, vaulted: Path, root: Path
) -> None:
    for option, prompt in (("-J", "Vault password: "), ("--vault-id=x@prompt", "Vault password (x): ")):
        with on_a_terminal(vaulted, environ(service), "playbook", "vault.yml", option) as asked:
            asked.expect(prompt)
            asked.type("the vault's word")
            text = asked.finish()
        assert asked.process.returncode == 0
        assert '"given": "shown"' in COLOUR.sub("", text)
        assert "the vault's word" not in text


def test_a_password_for_become_is_sealed_and_never_shown(service: Service, project: Path) -> None:
    with on_a_terminal(project, environ(service), "adhoc", "dev1", "-m", "debug", "-kK") as asked:
        asked.expect("SSH password: ")
        asked.type(MARKER)
        asked.expect("BECOME password[defaults to SSH password]: ")
        asked.type("")
        text = asked.finish()
    assert asked.process.returncode == 0, text
    assert MARKER not in text
    assert MARKER not in service.log.read_text()


def test_an_interrupted_prompt_sends_nothing(service: Service, client: Client, project: Path) -> None:
    before = newest(client)
    with on_a_terminal(project, environ(service), "adhoc", "dev1", "-K") as asked:
        asked.expect("BECOME password: ")
        asked.process.send_signal(signal.SIGINT)
        text = asked.finish()
    assert asked.process.returncode == 99
    assert "nothing was sent" in text
    assert newest(client) == before


def test_the_services_own_password_is_asked_for_when_it_is_nowhere_else(service: Service, project: Path) -> None:
    known = environ(service)
    del known["FLANSIBLE_PASSWORD"]
    with on_a_terminal(project, known, "tasks", "--limit", "1") as asked:
        asked.expect(f"Password of admin at {service.url}: ")
        asked.type(ADMIN[1])
        text = asked.finish()
    assert asked.process.returncode == 0
    assert ADMIN[1] not in text
    done = subprocess.run(
        [FLANSIBLE, "tasks"], env=known, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, "no password" in done.stderr) == (OptionError.exit_code, True)
