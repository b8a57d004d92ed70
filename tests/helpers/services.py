"""A whole service, `flansible up` as a user starts it, with real Ansible; and the folder of a small team."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.history import copy_migrated
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

ADMIN = ("admin", "admin secret")
DEV = ("dev", "dev secret")
SCRIPTS = Path(sys.executable).parent
# Workers started by hand.
CELERY_WORKER = ("celery", "-A", "flansible.celery_app", "worker", "-n", "hand@%h")
FLANSIBLE_WORKER = ("flansible", "worker", "--name", "hand")
READY_SECONDS = 60
FINAL_SECONDS = 120


@dataclass
class Service:
    """One running service and the folder it was started in."""

    root: Path
    url: str
    process: subprocess.Popen[str]
    environ: dict[str, str]
    log: Path
    clients: dict[tuple[str, str], httpx.Client] = field(default_factory=dict)

    def client(self, auth: tuple[str, str] = ADMIN) -> httpx.Client:
        if auth not in self.clients:
            self.clients[auth] = httpx.Client(base_url=self.url, auth=auth, timeout=30)
        return self.clients[auth]

    def submit(self, kind: str, body: dict[str, Any], auth: tuple[str, str] = ADMIN) -> str:
        reply = self.client(auth).post(f"/api/{kind}", json=body)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["task_id"])

    def status(self, task_id: str, auth: tuple[str, str] = ADMIN) -> dict[str, Any]:
        reply = self.client(auth).get(f"/api/ansibletaskstatus/{task_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def output(self, task_id: str, auth: tuple[str, str] = ADMIN) -> str:
        reply = self.client(auth).get(f"/api/ansibletaskoutput/{task_id}")
        assert reply.status_code == 200, reply.text
        return reply.text

    def result(self, task_id: str, auth: tuple[str, str] = ADMIN) -> dict[str, Any]:
        reply = self.client(auth).get(f"/api/ansibletaskresult/{task_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def wait(self, task_id: str, auth: tuple[str, str] = ADMIN, seconds: float = FINAL_SECONDS) -> dict[str, Any]:
        """Poll as old clients do: until Status is no longer PROGRESS."""
        return eventually(lambda: final(self.status(task_id, auth)), seconds)

    def run(self, kind: str, body: dict[str, Any], auth: tuple[str, str] = ADMIN) -> tuple[dict[str, Any], str]:
        """Submit, wait; the final status and the output."""
        task_id = self.submit(kind, body, auth)
        return self.wait(task_id, auth), self.output(task_id, auth)

    def stop(self) -> float:
        """SIGTERM, as a service manager does; seconds until everything was gone."""
        for client in self.clients.values():
            client.close()
        tree = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            _, alive = psutil.wait_procs(tree, timeout=5)
            for process in alive:
                process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()
        assert not alive, f"left behind: {alive}"
        return time.monotonic() - began


def final(status: dict[str, Any]) -> dict[str, Any] | None:
    return None if status["Status"] == "PROGRESS" else status


def flansible_environ(scripts: Path = SCRIPTS) -> dict[str, str]:
    """The environment of a user's shell: none of this test run's own settings in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLANSIBLE_", "ANSIBLE_"))}
    return {**kept, "PATH": f"{scripts}{os.pathsep}{kept['PATH']}"}


def start_service(
    root: Path,
    config: str = "",
    arguments: tuple[str, ...] = (),
    scripts: Path = SCRIPTS,
    variables: Mapping[str, str] | None = None,
) -> Service:
    """Starts `flansible up` in `root` and waits until it is ready.

    scripts: the folder of the installed commands; variables: of the service's environment. ARCHIVE_AFTER_SECONDS of
    this process, if it is set, is a setting of each service.
    """
    port = free_port()
    delay = os.environ.get("ARCHIVE_AFTER_SECONDS")
    if delay is not None and "archive_after_seconds" not in config:
        config += f"archive_after_seconds = {delay}\n"
    (root / "config.ini").write_text(f"[Default]\nFlask_tcp_port = {port}\n{config}")
    if not (root / ".flansible").exists():
        # Its tables are there already, which saves a second of each start; test_first_day starts with nothing.
        (root / ".flansible").mkdir(mode=0o700)
        copy_migrated(root / ".flansible")
    log = root / "up.log"
    environ = {**flansible_environ(scripts), **(variables or {})}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [str(scripts / "flansible"), "up", *arguments],
            cwd=root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("Flansible is ready at "):
        process.wait(30)
        pytest.fail(f"flansible up said {line!r} and on standard error:\n{log.read_text()}")
    return Service(root, line.split()[-1], process, environ, log)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


LOCAL = 'ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"'


def lay_out(root: Path) -> None:
    """Users, inventories and playbooks as a small team has them."""
    users = [
        {"user": ADMIN[0], "password": ADMIN[1], "inventories": []},
        {"user": DEV[0], "password": DEV[1], "inventories": ["inventories/dev", "inventories/shared"]},
    ]
    write(root / "rbac.json", json.dumps({"rbac": users})).chmod(0o600)
    write(root / "inventories/dev", f"[web]\ndev1 {LOCAL}\ndev2 {LOCAL}\n")
    write(root / "inventories/shared/hosts", f"[tools]\ntool1 {LOCAL}\n")
    write(root / "inventories/prod", f"[web]\nprod1 {LOCAL}\nprod2 {LOCAL}\n")
    write(root / "inventories/dev-prod", f"prod3 {LOCAL}\n")
    write(root / "inventories/dark", "dark1 ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_timeout=5\n")
    playbooks = root / "playbooks"
    write(playbooks / "site.yml", SITE)
    write(playbooks / "fail.yml", FAIL)
    write(playbooks / "vars.yml", VARS)
    write(playbooks / "slow.yml", SLOW)
    write(playbooks / "roles/greeting/tasks/main.yml", ROLE)
    write(playbooks / "roles/greeting/handlers/main.yml", ROLE_HANDLERS)
    write(playbooks / "roles/greeting/templates/greeting.j2", "Hello {{ inventory_hostname }}\n")
    write(root / "outside/evil.yml", SITE)


SITE = """\
- name: Greet
  hosts: all
  gather_facts: false
  roles: [greeting]
  tasks:
    - name: Say it
      ansible.builtin.debug:
        msg: "{{ inventory_hostname }} says {{ word | default('nothing') }}"
"""
ROLE = """\
- name: Make a place
  ansible.builtin.tempfile:
    state: directory
  register: place
- name: Write the greeting
  ansible.builtin.template:
    src: greeting.j2
    dest: "{{ place.path }}/greeting"
    mode: "0644"
  notify: Take it away
"""
ROLE_HANDLERS = """\
- name: Take it away
  ansible.builtin.file:
    path: "{{ place.path }}"
    state: absent
"""
FAIL = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Works
      ansible.builtin.debug: msg=fine
    - name: Breaks
      ansible.builtin.command: "false"
    - name: Never
      ansible.builtin.debug: msg=unreached
"""
VARS = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Show them
      ansible.builtin.debug: var=given
"""
SLOW = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: First
      ansible.builtin.debug: msg=begun
    - name: Wait
      ansible.builtin.command: sleep {{ seconds | default(3) }}
    - name: Last
      ansible.builtin.debug: msg=done
"""

AUDITOR = ("eve", "eve secret")


@contextmanager
def started(config: str, *arguments: str) -> Iterator[Service]:
    """A service in a folder of its own."""
    root = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(root)
    service = start_service(root, config, arguments)
    try:
        yield service
    except BaseException:
        service.stop()  # or the tests that follow fail as well
        raise
    assert service.stop() < 10
    shutil.rmtree(root)


def child(service: Service, role: str) -> psutil.Process:
    """The process of one role that `flansible up` has started."""
    for process in psutil.Process(service.process.pid).children():
        try:
            words = process.cmdline()
        except psutil.ZombieProcess:  # left to `up` by one that was killed, and about to be taken note of
            continue
        if (role in words) if role != "redis" else ("unixsocket" in " ".join(words)):
            return process
    raise AssertionError(f"no {role}")


@contextmanager
def worker_by_hand(service: Service, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker started beside the service's own; killed in the end should it still be there."""
    log = service.root / "worker.log"
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [str(SCRIPTS / command[0]), *command[1:]],
            cwd=service.root,
            env=service.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
    assert "Traceback" not in log.read_text()
