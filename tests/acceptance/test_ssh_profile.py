"""`ssh_profile = fast` against a real sshd: what is faster, what is kept for whom, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers import servers
from tests.helpers.services import ADMIN, DEV, Service, start_service, write
from tests.helpers.waiting import eventually

SLOW = "- hosts: far\n  gather_facts: false\n  tasks:\n    - command: id -un\n    - command: sleep 60.{pid}\n"


@pytest.fixture(scope="module")
def fast(root: Path, ssh: servers.SshServer) -> Iterator[Service]:
    running = start_service(root, "ssh_profile = fast\nsandbox_paths = known_hosts\n")
    yield running
    assert running.stop() < 10
    assert masters(running) == {}
    assert not (root / ".flansible/ssh").exists()


@pytest.fixture(autouse=True)
def no_masters_from_before(fast: Service) -> None:
    for process in masters(fast).values():
        process.terminate()
        process.wait(5)


@pytest.fixture
def far(root: Path, ssh: servers.SshServer) -> dict[str, Any]:
    """A request for a host that is reached by ssh alone; both users may make it."""
    known = write(root / "known_hosts", f"[127.0.0.1]:{ssh.server.port} {ssh.host_key}")
    inventory = write(
        root / "inventories/shared/far",
        f"far ansible_host=127.0.0.1 ansible_port={ssh.server.port} ansible_user={ssh.users[0]} "
        f"ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='-o UserKnownHostsFile={known}'\n",
    )
    return {"host_pattern": "far", "inventory": str(inventory), "module": "ping", "private_key": ssh.private_key}


def masters(service: Service) -> dict[str, psutil.Process]:
    """By the path of their socket, those of this service."""
    found = {}
    for process in psutil.process_iter():
        try:
            title = re.match(rf"ssh: ({service.root}/\S+) \[mux\]", " ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
        if title:
            found[title[1]] = process
    return found


def end_far_processes(ssh: servers.SshServer) -> None:
    """Without a terminal a module on a host does not learn that its connection is gone: it goes on to its own end."""

    def end_those_seen() -> bool:
        left = []
        for process in psutil.process_iter(["username", "name", "status"]):
            is_theirs = process.info["username"] == ssh.users[0] and process.info["status"] != psutil.STATUS_ZOMBIE
            if is_theirs and "sshd" not in process.info["name"]:
                left.append(process)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not left

    eventually(end_those_seen)  # one that is about to start another is seen with it the next time


def connect(service: Service, far: dict[str, Any], auth: tuple[str, str] = ADMIN, **fields: Any) -> str:
    status, output = service.run("ansiblecommand", {**far, **fields}, auth)
    assert status["Status"] == "SUCCESS", output
    return output


def test_the_next_run_of_a_user_has_the_same_master(fast: Service, far: dict[str, Any]) -> None:
    connect(fast, far)
    kept = masters(fast)
    assert len(kept) == 1
    (path,) = kept
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    connect(fast, far)
    assert masters(fast) == kept


def test_another_user_has_another_master(fast: Service, far: dict[str, Any]) -> None:
    connect(fast, far)
    (of_admin,) = masters(fast)
    connect(fast, far, DEV)
    (of_dev,) = set(masters(fast)) - {of_admin}
    assert Path(of_dev).parent != Path(of_admin).parent


def test_another_users_master_lets_nobody_in_without_a_key(fast: Service, far: dict[str, Any]) -> None:
    connect(fast, far)
    status, output = fast.run("ansiblecommand", {**far, "private_key": None}, DEV)
    assert (status["state"], status["returncode"]) == ("failed", 4), output


def test_modules_are_piped_over_ssh_and_over_nothing_else(fast: Service, far: dict[str, Any]) -> None:
    assert " PUT " not in connect(fast, far, verbose_level=3)
    local = {"host_pattern": "localhost", "module": "ping", "verbose_level": 3}
    assert " PUT " in connect(fast, local)


@pytest.mark.nightly
def test_what_ansible_cfg_says_wins(fast: Service, far: dict[str, Any], root: Path, tmp_path: Path) -> None:
    theirs = write(
        root / "playbooks/own/ansible.cfg",
        "[ssh_connection]\npipelining = False\nssh_args = -C -o ControlPersist=3s -o ControlMaster=auto\n"
        f"control_path_dir = {root}/cp\n",
    )
    output = connect(fast, far, chdir=str(theirs.parent), verbose_level=3)
    assert " PUT " in output
    assert f"{root}/cp/" in output
    assert {Path(path).parent for path in masters(fast)} == {root / "cp"}


def begin_slow_playbook(service: Service, far: dict[str, Any], root: Path) -> str:
    """Its first play task is done, so that it has a master; its second takes a minute."""
    write(root / "playbooks/far.yml", SLOW.format(pid=os.getpid()))
    kept = {name: far[name] for name in ("inventory", "private_key")}
    task_id = service.submit("ansibleplaybook", {"playbook_dir": ".", "playbook": "far.yml", **kept})
    eventually(lambda: masters(service) and "changed: [far]" in service.output(task_id))
    return task_id


@pytest.mark.nightly
def test_what_the_environment_says_wins(fast: Service, far: dict[str, Any], root: Path) -> None:
    environment = {"ANSIBLE_PIPELINING": "0", "ANSIBLE_SSH_ARGS": "-C"}
    assert " PUT " in connect(fast, far, verbose_level=3, environment=environment)
    assert masters(fast) == {}


@pytest.mark.nightly
def test_what_the_inventory_says_wins(fast: Service, far: dict[str, Any]) -> None:
    variables = {"ansible_pipelining": False, "ansible_ssh_args": "-C"}
    assert " PUT " in connect(fast, far, verbose_level=3, extra_vars=variables)
    assert masters(fast) == {}


def test_a_master_does_not_outlive_the_cancel_of_the_run_that_made_it(
    fast: Service, far: dict[str, Any], root: Path, ssh: servers.SshServer
) -> None:
    task_id = begin_slow_playbook(fast, far, root)
    fast.client().post(f"/api/ansibletaskcancel/{task_id}")
    assert fast.wait(task_id)["state"] == "canceled"
    assert masters(fast) == {}
    end_far_processes(ssh)
    connect(fast, far)  # what is left of the old socket does not stand in the way


@pytest.mark.nightly
def test_a_cancel_does_not_break_another_run_that_uses_the_same_master(
    fast: Service, far: dict[str, Any], root: Path, ssh: servers.SshServer
) -> None:
    first = begin_slow_playbook(fast, far, root)
    (master,) = masters(fast).values()
    mark = Path(tempfile.gettempdir()) / f"fl-begun-{os.getpid()}"
    command = {"module": "shell", "module_args": f"touch {mark}; sleep 5; rm {mark}; echo it went on"}
    second = fast.submit("ansiblecommand", {**far, **command})
    eventually(mark.exists)
    fast.client().post(f"/api/ansibletaskcancel/{first}")
    assert fast.wait(first)["state"] == "canceled"
    assert mark.exists()
    assert fast.wait(second)["Status"] == "SUCCESS"
    assert "it went on" in fast.output(second)
    end_far_processes(ssh)  # it goes as soon as nothing on the host holds it
    eventually(lambda: not master.is_running())


@pytest.mark.nightly
def test_the_masters_of_a_killed_worker_are_ended_by_the_next(fast: Service, far: dict[str, Any]) -> None:
    connect(fast, far)
    (master,) = masters(fast).values()
    worker = next(child for child in psutil.Process(fast.process.pid).children() if "worker" in child.cmdline())
    worker.kill()
    eventually(lambda: not master.is_running() or master.status() == psutil.STATUS_ZOMBIE)
    connect(fast, far)


def test_nothing_is_left_when_the_service_stops(fast: Service, far: dict[str, Any]) -> None:
    """The last test: there is no service afterwards."""
    connect(fast, far)
    (master,) = masters(fast).values()
    assert fast.stop() < 10
    assert not master.is_running()
    assert not (fast.root / ".flansible/ssh").exists()
