"""A restricted user against the running service: everything they could try to reach what is not theirs.

Each attack is after a marker, a word that stands only where the user has no right to look, or tries to leave something
where the user has no right to write. What the rules refuse is tried with bubblewrap and without it; what only the
kernel can stop is tried with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance.attacks import CONFINED, DATA, FILES, NARROW, REFUSED, adhoc, play
from tests.helpers.ports import free_port
from tests.helpers.process_tree import Tree
from tests.helpers.services import ADMIN, DEV, LOCAL, Service, final, start_service, write
from tests.helpers.waiting import eventually, require_program

OPS = ("ops", "ops secret")
LASTING = ("lasting", "lasting secret")
DONE = 120


def marker(what: str) -> str:
    return f"marker-{what.replace(' ', '-')}-{secrets.token_hex(8)}"


@dataclass
class Target:
    """A service, what must not be learned from it, and where nothing must appear."""

    service: Service
    outside: Path
    markers: dict[str, str] = field(default_factory=dict)
    others_task: str = ""

    @property
    def root(self) -> Path:
        return self.service.root

    def filled(self, value: Any) -> Any:
        """With the paths and numbers that an attacker could know or guess."""
        if isinstance(value, dict):
            return {self.filled(key): self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        names = {"ROOT": self.root, "OUTSIDE": self.outside, "TASK": self.others_task, "UP": self.service.process.pid}
        names |= {"PORT": self.service.url.rpartition(":")[2]}
        for name, text in names.items():
            value = value.replace(f"@{name}@", str(text))
        return value

    def learned(self, text: str) -> list[str]:
        return [what for what, word in self.markers.items() if word in text]

    def told(self, task_id: str) -> str:
        """All that the API says about a task of dev's."""
        client = self.service.client(DEV)
        kinds = ("status", "output", "result", "events")
        return "".join(client.get(f"/api/ansibletask{kind}/{task_id}").text for kind in kinds)

    def traces(self) -> list[Path]:
        """What an attack has left where it may not write."""
        places = (self.root, self.root / "playbooks", self.root / "inventories", self.root / ".flansible", self.outside)
        places += (Path("/tmp"), Path("/var/tmp"), Path("/usr/bin"), Path("/etc"), Path.home(), Path("/dev/shm"))
        return [path for place in places for path in place.glob("pwned*")]


def lay_out(root: Path, outside: Path, markers: dict[str, str], **rights: Any) -> None:
    def mark(what: str) -> str:
        return markers.setdefault(what, marker(what))

    users = [
        {"user": ADMIN[0], "password": ADMIN[1]},
        {"user": DEV[0], "password": DEV[1], "inventories": ["inventories/dev"], "limits": {"forks": 20}, **rights},
        {"user": OPS[0], "password": OPS[1], "inventories": ["inventories/prod", "playbooks/site/stage"]},
        {"user": mark("rbac"), "password": "never used"},
        {"user": LASTING[0], "password": LASTING[1], "inventories": ["inventories/dev"], "lasting_processes": True},
        {"user": "reader", "password": "reader secret", "role": "viewer", "inventories": ["inventories/dev"]},
        {
            "user": "narrow",
            "password": "narrow secret",
            "inventories": ["inventories/dev"],
            "hosts": ["dev1"],
            "modules": {"deny": ["shell", "command", "raw", "script"]},
            "playbooks": ["allowed*.yml"],
            "become": False,
        },
    ]
    write(root / "rbac.json", json.dumps({"rbac": users})).chmod(0o600)
    write(root / "inventories/dev/hosts", f"[web]\ndev1 {LOCAL}\ndev2 {LOCAL}\n")
    write(root / "inventories/dev/group_vars/all.yml", "known: to dev\n")
    write(root / "inventories/prod/hosts", f"prod1 {LOCAL} word={mark('prod inventory')}\n")
    write(root / "inventories/prod/group_vars/all.yml", f"password: {mark('prod variable')}\n")
    write(root / "playbooks/site/stage/hosts", f"stage1 {LOCAL} word={mark('inventory among playbooks')}\n")
    write(root / "playbooks/inventories/other", f"other1 word={mark('hidden inventory')}\n")
    say = "- hosts: all\n  gather_facts: false\n  tasks:\n    - debug: var=given\n"
    for name in ("allowed.yml", "forbidden.yml"):
        write(root / "playbooks" / name, say)
    delegating = "    - command: echo went there\n      delegate_to: '{{ to }}'\n"
    write(
        root / "playbooks/allowed-too.yml", say.replace("all", "dev1").replace("    - debug: var=given\n", delegating)
    )
    write(outside / "secret.txt", mark("file") + "\n")
    write(outside / "evil.yml", say)
    (root / "playbooks/way-out").symlink_to(outside)
    # Without git's samples of hooks: who copies the whole folder executes a module for each file.
    subprocess.run(["git", "init", "-q", "--template=", str(root / "playbooks")], check=True)
    (root / "playbooks/.git/hooks").mkdir()


def begin(isolation: str = "bwrap", **rights: Any) -> Iterator[Target]:
    """A service to attack by a user with these rights more; afterwards it is stopped, and nothing of it is left."""
    if isolation == "bwrap":
        require_program("bwrap")
    root, outside = (Path(tempfile.mkdtemp(prefix=f"flansible-{name}-")) for name in ("attack", "outside"))
    markers: dict[str, str] = {}
    lay_out(root, outside, markers, **rights)
    os.environ["MARKER_VARIABLE"] = markers["variable"] = marker("variable")
    try:
        service = start_service(root, f"isolation = {isolation}\nsecret_key_file = key\ngrace_seconds = 1\n")
    finally:
        del os.environ["MARKER_VARIABLE"]
    target = Target(service, outside, markers)
    markers["key"] = (root / "key").read_text().strip() if (root / "key").exists() else marker("no key")
    home = root / ".flansible/homes/ops/.ssh"
    write(home / "id_ed25519", markers.setdefault("ssh key", marker("ssh key")))
    assert target.traces() == []
    try:
        yield target
    finally:
        seconds = service.stop()
    assert seconds < 10
    assert target.traces() == []
    for path in (root, outside):
        shutil.rmtree(path)


attacked = contextlib.contextmanager(begin)


def with_a_task_of_ops(target: Target) -> Target:
    word = target.markers["ops task"] = marker("ops task")
    body = {"host_pattern": "prod1", "module": "debug", "inventory": "../inventories/prod"}
    target.others_task = target.service.submit("ansiblecommand", {**body, "module_args": f"msg={word}"}, OPS)
    assert target.service.wait(target.others_task, OPS)["Status"] == "SUCCESS"
    assert word in target.service.output(target.others_task, OPS)
    assert target.traces() == []
    return target


@pytest.fixture(scope="module")
def confined() -> Iterator[Target]:
    with attacked("bwrap") as found:
        yield with_a_task_of_ops(found)


@pytest.fixture(scope="module")
def unconfined() -> Iterator[Target]:
    with attacked("none") as found:
        yield with_a_task_of_ops(found)


@pytest.fixture(scope="module", params=["bwrap", pytest.param("none", marks=pytest.mark.nightly)])
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.getfixturevalue("confined" if request.param == "bwrap" else "unconfined")
    return found


# What the rules refuse.


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, target: Target) -> None:
    (route, body), code = REFUSED[name]
    sent = {key: value for key, value in target.filled(body).items() if value is not None or key == "confinement"}
    reply = target.service.client(DEV).post(f"/api/{route}", json=sent)
    assert (reply.status_code, reply.json()["code"]) == (400 if code.startswith("invalid_") else 403, code), reply.text
    assert reply.json()["errors"] and target.learned(reply.text) == []


@pytest.mark.parametrize("name", NARROW)
def test_refused_to_whom_less_is_given(name: str, target: Target) -> None:
    (route, body), code = NARROW[name]
    reply = target.service.client(("narrow", "narrow secret")).post(f"/api/{route}", json=target.filled(body))
    assert (reply.status_code, reply.json()["code"]) == (403, code), reply.text


@pytest.mark.parametrize("pattern", ["all", "*", "~.*", "dev*", "all:!dev1", "web[1]", "dev[12]", "all[1]"])
def test_what_a_pattern_selects_is_cut_to_the_hosts_given(pattern: str, target: Target) -> None:
    service, narrow = target.service, ("narrow", "narrow secret")
    reply = service.client(narrow).post("/api/ansiblecommand", json=target.filled(adhoc(host_pattern=pattern)[1]))
    if reply.status_code == 202:
        task_id = reply.json()["task_id"]
        service.wait(task_id, narrow)
        assert "dev2" not in service.output(task_id, narrow)
        assert set(service.result(task_id, narrow)["contacted"]) <= {"dev1"}
    else:
        assert reply.json()["code"] == "host_forbidden"


@pytest.mark.parametrize(("to", "code"), [("dev1", 0), ("dev2", 2), ("elsewhere", 2), ("localhost", 0)])
def test_a_task_is_not_delegated_to_other_hosts(to: str, code: int, target: Target) -> None:
    body = target.filled(play(playbook="allowed-too.yml", extra_vars={"to": to})[1])
    status, output = target.service.run("ansibleplaybook", body, ("narrow", "narrow secret"))
    assert status["returncode"] == code, output
    assert ("not one of your hosts" in output) == bool(code)


def test_a_role_that_looks_starts_nothing(target: Target) -> None:
    client = target.service.client(("reader", "reader secret"))
    for route, body in (adhoc(), play(), ("git", {"playbook_dir": "."})):
        reply = client.post(f"/api/{route}", json=target.filled(body))
        assert (reply.status_code, reply.json()["code"]) == (403, "role_forbidden")
    assert client.post(f"/api/ansibletaskcancel/{target.others_task}").status_code in (403, 404)


@pytest.mark.parametrize("kind", ["status", "output", "result", "events", "cancel"])
def test_anothers_task_is_not_there(kind: str, target: Target) -> None:
    method = "POST" if kind == "cancel" else "GET"
    for task_id in (
        target.others_task,
        target.others_task.upper(),
        f"{target.others_task}%00",
        f"./{target.others_task}",
    ):
        reply = target.service.client(DEV).request(method, f"/api/ansibletask{kind}/{task_id}")
        assert reply.status_code == 404 and target.learned(reply.text) == []


@pytest.mark.parametrize("query", ["", "?user=ops", "?user=admin", "?limit=1000", "?user=*", "?user="])
def test_anothers_tasks_are_not_listed(query: str, target: Target) -> None:
    reply = target.service.client(DEV).get(f"/api/ansibletasks{query}")
    assert reply.status_code in (200, 400, 403)
    assert all(task["user"] == "dev" for task in reply.json().get("tasks", []))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Remote-User": "admin"},
        {"X-Forwarded-User": "admin", "X-Forwarded-For": "127.0.0.1"},
        {"Authorization": "Bearer admin"},
        {"Authorization": "Bearer flansible_admin_x"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic YWRtaW46"},  # admin with an empty password
        {"Authorization": "Basic YWRtaW4="},  # no password at all
        {"Authorization": "Digest username=admin"},
        {"Cookie": "session=admin; user=admin"},
        {"X-HTTP-Method-Override": "GET"},
    ],
)
def test_nobody_becomes_admin_by_a_header(headers: dict[str, str], target: Target) -> None:
    reply = httpx.get(f"{target.service.url}/api/ansibletasks", headers=headers)
    assert reply.status_code == 401 and reply.json()["code"] == "not_authenticated"


def test_anothers_idempotency_key_gives_a_task_of_ones_own(target: Target) -> None:
    service, key = target.service, secrets.token_hex(8)
    body = {"module": "debug", "module_args": f"msg={target.markers['ops task']}"}
    theirs = service.client(OPS).post(
        "/api/ansiblecommand",
        json={**body, "host_pattern": "prod1", "inventory": "../inventories/prod"},
        headers={"Idempotency-Key": key},
    )
    mine = service.client(DEV).post(
        "/api/ansiblecommand", json=target.filled(adhoc()[1]), headers={"Idempotency-Key": key}
    )
    assert (theirs.status_code, mine.status_code) == (202, 202)
    assert mine.json()["task_id"] != theirs.json()["task_id"]
    for reply, login in ((theirs, OPS), (mine, DEV)):
        service.wait(reply.json()["task_id"], login)


# What is said is data, whatever module looks at it.


@pytest.mark.parametrize("name", DATA)
def test_arguments_are_data(name: str, target: Target) -> None:
    module, arguments = DATA[name]
    body = target.filled(adhoc(module=module, module_args=arguments)[1])
    reply = target.service.client(DEV).post("/api/ansiblecommand", json=body)
    if reply.status_code == 202:
        target.service.wait(reply.json()["task_id"], DEV)
    assert reply.status_code in (202, 403)
    assert target.traces() == []


def test_variables_are_data(target: Target) -> None:
    word = "{{ lookup('pipe', 'touch @OUTSIDE@/pwned') }}"
    status, output = target.service.run("ansibleplaybook", target.filled(play(extra_vars={"given": word})[1]), DEV)
    assert status["Status"] == "SUCCESS" and "lookup" in output
    assert target.traces() == []


# What only the kernel can stop.


ATTACKS_A_RUN = 8


@dataclass(frozen=True)
class Said:
    """What the attacks of one run printed, and all that the API says about that run."""

    of_each: dict[str, str]
    told: str


@pytest.fixture(scope="module")
def said(confined: Target) -> dict[str, Said]:
    """By the names of the attacks. Eight in one run, one after the other: a run costs more than most of them."""
    names = list(CONFINED)
    groups = [names[first : first + ATTACKS_A_RUN] for first in range(0, len(names), ATTACKS_A_RUN)]
    ids = [confined.service.submit("ansiblecommand", confined.filled(attacks(group)), DEV) for group in groups]
    found = {}
    for group, task_id in zip(groups, ids, strict=True):
        assert confined.service.wait(task_id, DEV)["Status"] == "SUCCESS"  # they ran, as far as they came
        stdout = confined.service.result(task_id, DEV)["contacted"]["dev1"][0]["result"]["stdout"]
        of_each = dict(zip(group, stdout.split(END)[:-1], strict=True))
        found.update(dict.fromkeys(group, Said(of_each, confined.told(task_id))))
    return found


TOKEN = secrets.token_hex(8)
END = f"end of {TOKEN}"


def attacks(names: list[str]) -> dict[str, Any]:
    """What is read may be no text, and Ansible would fail over it before anybody has looked for a marker.

    END itself is not in the script: some print command lines, and this one among them.
    """
    end = f"echo 'end of' '{TOKEN}'"
    script = "".join(f"({CONFINED[name]}) 2>&1 | LC_ALL=C tr -cd '[:print:][:space:]'; {end}\n" for name in names)
    return adhoc(module="shell", module_args={"cmd": script})[1]


@pytest.mark.parametrize("name", CONFINED)
def test_confined(name: str, confined: Target, said: dict[str, Said]) -> None:
    found = said[name]
    assert confined.learned(found.of_each[name]) == []
    assert "pwned" not in found.of_each[name].splitlines()
    assert confined.learned(found.told) == []
    assert confined.traces() == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_control_machine(name: str, confined: Target) -> None:
    module, arguments = FILES[name]
    body = confined.filled(adhoc(module=module, module_args=arguments)[1])
    reply = confined.service.client(DEV).post("/api/ansiblecommand", json=body)
    if reply.status_code == 202:
        task_id = reply.json()["task_id"]
        confined.service.wait(task_id, DEV)
        assert confined.learned(confined.told(task_id)) == []
        assert f'"path": "{confined.root}/rbac.json"' not in confined.service.output(task_id, DEV)
    else:
        assert reply.status_code == 403, reply.text
    assert confined.traces() == []


def shell(target: Target, script: str, **fields: Any) -> str:
    """The output of a script of dev's, which has to succeed."""
    body = target.filled(adhoc(module="shell", module_args={"cmd": script}, **fields)[1])
    status, output = target.service.run("ansiblecommand", body, DEV)
    assert status["Status"] == "SUCCESS", output
    return output


def test_the_attacks_would_be_seen(confined: Target) -> None:
    """What admin sees is what the others are after: the markers are where they are said to be."""
    body = confined.filled(adhoc(module="shell", module_args={"cmd": CONFINED["all inventories"]})[1])
    _, output = confined.service.run("ansiblecommand", body)
    assert confined.learned(output) == ["prod inventory", "prod variable"]
    assert "dev1 " in shell(confined, "cat @ROOT@/inventories/dev/hosts")


def test_what_a_user_puts_into_the_home_leads_nowhere(confined: Target) -> None:
    links = "; ".join(f"ln -sfnT @ROOT@ ~/{name}" for name in (".ansible", ".ssh", ".ansible/tmp", ".config"))
    shell(confined, f"mv ~/.ansible ~/kept; {links}; true")
    before = sorted(confined.root.iterdir())
    body = confined.filled(adhoc(environment=None)[1])
    body.pop("environment")
    status, _ = confined.service.run("ansiblecommand", body, DEV)
    assert status["state"] in ("succeeded", "failed", "error")
    assert sorted(confined.root.iterdir()) == before and confined.traces() == []
    home = confined.root / ".flansible/homes/dev"
    assert (home / ".ansible").is_dir() and not (home / ".ansible").is_symlink()
    shell(confined, "rm -rf ~/.ansible/tmp")


PLANTED = {
    ".ansible/plugins/action/ping.py": "from ansible.plugins.action import ActionBase\n"
    "class ActionModule(ActionBase):\n    def run(self, *_, **__): return {'msg': 'planted'}\n",
    ".ansible/plugins/modules/ping.py": '#!/bin/sh\n# WANT_JSON\necho \'{"msg": "planted"}\'\n',
    ".ansible/plugins/callback/planted.py": "from ansible.plugins.callback import CallbackBase\nprint('planted')\n"
    "class CallbackModule(CallbackBase):\n    CALLBACK_NAME = 'planted'\n",
    ".ansible.cfg": "[defaults]\nnocows = planted\naction_plugins = ~\n",
    ".local/lib/python{0}.{1}/site-packages/planted.pth": "import sys; sys.stderr.write('planted')\n",
}


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", PLANTED)
def test_what_a_run_writes_into_the_home_is_no_code_of_the_next(name: str, confined: Target) -> None:
    user = ("narrow", "narrow secret")
    text, name = PLANTED[name], name.format(*sys.version_info)
    for module, args in (
        ("file", {"path": f"~/{os.path.dirname(name)}", "state": "directory"}),
        ("copy", {"dest": f"~/{name}", "content": text}),
    ):
        body = {"module": module, "module_args": args, "host_pattern": "dev1", "inventory": "../inventories/dev"}
        confined.service.run("ansiblecommand", body, user)
    body = {"module": "ping", "host_pattern": "dev1", "inventory": "../inventories/dev", "verbose_level": 1}
    status, output = confined.service.run("ansiblecommand", body, user)
    assert (status["Status"], "planted" in output) == ("SUCCESS", False), output


def test_one_user_does_not_see_anothers_run(confined: Target) -> None:
    word = marker("running")
    body = {"host_pattern": "prod1", "module": "shell", "inventory": "../inventories/prod"}
    theirs = confined.service.submit("ansiblecommand", {**body, "module_args": f"echo {word}; sleep 4.5"}, OPS)
    eventually(lambda: "4.5" in _sleeping())
    script = (
        f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '{word[:12]}[-]{word[13:]}'; ls ~/.ansible/tmp /tmp; true"
    )
    assert word not in shell(confined, script)
    confined.service.wait(theirs, OPS)


def _sleeping() -> set[str]:
    """What every `sleep` of this machine was asked to sleep."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.update(process.cmdline()[1:2] if process.name() == "sleep" else ())
    return found


def test_whoever_stops_the_keeper_is_ended_with_the_sandbox(confined: Target) -> None:
    """A run can reach the process that is to end it; then the kernel ends them both."""
    stop = "for one in /proc/[0-9]*; do p=${one#/proc/}; [ $p -gt 2 ] && [ $p != $$ ] && kill -STOP $p; done; sleep 60"
    body = confined.filled(adhoc(module="shell", module_args={"cmd": stop})[1])
    task_id = confined.service.submit("ansiblecommand", {**body, "time_limit": 1}, DEV)
    assert confined.service.wait(task_id, DEV, 60)["state"] in ("timed_out", "lost")
    assert "dev1" in shell(confined, "echo dev1 again")


def test_a_lying_run_lies_about_itself_alone(confined: Target) -> None:
    """Whatever is written into the pipes of a run, its worker goes on, and other tasks are what they were."""
    into = "case $(readlink $one) in pipe:*|socket:*) timeout 1 head -c 70000 /dev/urandom > $one;; esac"
    lie = f"for one in /proc/[0-9]*/fd/*; do {into}; done"
    body = confined.filled(adhoc(module="shell", module_args={"cmd": f"({lie}) 2>/dev/null; true"})[1])
    task_id = confined.service.submit("ansiblecommand", {**body, "time_limit": 20}, DEV)
    assert final(confined.service.wait(task_id, DEV, 90))
    assert "dev1" in shell(confined, "echo dev1 again")
    assert confined.service.status(confined.others_task, OPS)["state"] == "succeeded"


# Stops the fork server of the sandbox, of which processes 1 is bubblewrap and 2 the fork server.
# The zygote is process 2 of the sandbox.
STOP_THE_FORK_SERVER = (
    "for one in /proc/[0-9]*; do"
    ' if [ "$(cut -d" " -f4 $one/stat 2>/dev/null)" = 2 ]; then kill -STOP ${one#/proc/}; fi; done; kill -STOP 2'
)


def test_a_request_that_nobody_reads_holds_no_worker(confined: Target) -> None:
    """A stopped fork server takes no request; one that is larger than a socket holds must not be waited for."""
    shell(confined, STOP_THE_FORK_SERVER)
    large = {f"x{number}": "y" * 1000 for number in range(900)}
    body = confined.filled(adhoc(extra_vars=large, time_limit=1)[1])
    with fork_servers_stay_stopped():
        task_id = confined.service.submit("ansiblecommand", body, DEV)
        assert confined.service.wait(task_id, DEV, 60)["state"] == "timed_out"
    assert "dev1" in shell(confined, "echo dev1 again")


@contextlib.contextmanager
def fork_servers_stay_stopped() -> Iterator[None]:
    """Those below this test, whose worker continues them every few seconds."""
    is_over = threading.Event()
    pids = [item.pid for item in Tree().seen.values() if item.is_runner and item.leads_session]

    def stop() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def work() -> None:
        while not is_over.wait(0.005):
            stop()

    stop()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_what_a_user_leaves_running_ends_with_the_service_even_when_the_worker_was_killed(confined: Target) -> None:
    """The last one that needs this service."""
    number = f"8{secrets.randbelow(10**6):06d}"
    body = adhoc(module="shell", module_args={"cmd": f"setsid sleep {number} >/dev/null 2>&1 & true"})[1]
    confined.service.run("ansiblecommand", confined.filled(body), LASTING)
    eventually(lambda: number in _sleeping())
    children = psutil.Process(confined.service.process.pid).children()
    next(child for child in children if "worker" in child.cmdline()).kill()
    assert confined.service.stop() < 10
    assert number not in _sleeping()


def test_what_users_leave_running_ends_with_the_service_soon_whatever_they_have_stopped() -> None:
    """Of ops the keeper of a run is stopped; of dev, beside it, the fork servers."""
    with attacked(lasting_processes=True) as target:
        numbers = [f"7{secrets.randbelow(10**6):06d}" for _ in range(5)]
        shell(target, f"setsid sleep {numbers[0]} >/dev/null 2>&1 & disown -a 2>/dev/null; true")
        for name, number in zip(("one", "two", "three"), numbers[1:4], strict=True):
            write(target.root / "playbooks" / name / "ansible.cfg", "[defaults]\n")  # so that each has one of its own
            if name == "three":
                begin_to_stop_its_keeper(target, numbers[4])
            shell(target, f"setsid sleep {number} >/dev/null 2>&1 & {STOP_THE_FORK_SERVER}", chdir=name)
        eventually(lambda: _sleeping() >= set(numbers))
        time.sleep(0.3)
        assert target.service.stop() < 10  # one after the other they would take 15
        assert _sleeping().isdisjoint(numbers)


def begin_to_stop_its_keeper(target: Target, number: str) -> None:
    """A run of ops that stops all that is in its sandbox, as soon as it has left a sleeper there."""
    stop = "for one in /proc/[0-9]*; do p=${one#/proc/}; [ $p -gt 1 ] && [ $p != $$ ] && kill -STOP $p; done"
    script = f"setsid sleep {number} >/dev/null 2>&1 & sleep 0.2; {stop}; sleep 60"
    body = adhoc(
        module="shell", module_args={"cmd": script}, host_pattern="prod1", inventory="@ROOT@/inventories/prod"
    )[1]
    target.service.submit("ansiblecommand", target.filled(body), OPS)
    eventually(lambda: number in _sleeping())


# Without bubblewrap, where it is wanted.


@pytest.fixture(scope="module")
def without_bwrap() -> Iterator[Target]:
    """`isolation = auto` on a machine that has no bubblewrap."""
    programs = Path(tempfile.mkdtemp(prefix="flansible-path-"))
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*") if Path(folder).is_dir() else ():
            if program.name != "bwrap" and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    before = os.environ["PATH"]
    os.environ["PATH"] = str(programs)
    try:
        yield from _begin_unconfinable()
    finally:
        os.environ["PATH"] = before
        shutil.rmtree(programs)


def _begin_unconfinable() -> Iterator[Target]:
    root, outside = (Path(tempfile.mkdtemp(prefix=f"flansible-{name}-")) for name in ("attack", "outside"))
    markers: dict[str, str] = {}
    lay_out(root, outside, markers)
    target = Target(start_service(root), outside, markers)
    yield target
    assert target.service.stop() < 10
    for path in (root, outside):
        shutil.rmtree(path)


@pytest.mark.parametrize("module", ["copy", "template", "script", "fetch", "include_vars", "unarchive", "set_fact"])
def test_without_the_sandbox_nothing_reaches_for_the_control_machine(module: str, without_bwrap: Target) -> None:
    body = without_bwrap.filled(adhoc(module=module, module_args={"src": "/etc/hostname", "dest": "/tmp/x"})[1])
    reply = without_bwrap.service.client(DEV).post("/api/ansiblecommand", json=body)
    assert (reply.status_code, reply.json()["code"]) == (403, "isolation_unavailable"), reply.text
    assert "bwrap" in reply.json()["message"]


def test_without_the_sandbox_no_playbook_is_started(without_bwrap: Target) -> None:
    reply = without_bwrap.service.client(DEV).post("/api/ansibleplaybook", json=without_bwrap.filled(play()[1]))
    assert (reply.status_code, reply.json()["code"]) == (403, "isolation_unavailable"), reply.text


def test_without_the_sandbox_a_local_connection_is_not_used(without_bwrap: Target) -> None:
    body = without_bwrap.filled(adhoc(module="shell", module_args="touch @OUTSIDE@/pwned")[1])
    reply = without_bwrap.service.client(DEV).post("/api/ansiblecommand", json=body)
    if reply.status_code == 202:
        status = without_bwrap.service.wait(reply.json()["task_id"], DEV)
        assert status["Status"] == "FLANSIBLE_TASK_FAILURE"
        assert "control machine" in without_bwrap.service.output(reply.json()["task_id"], DEV)
    assert without_bwrap.traces() == []


def test_without_the_sandbox_admin_goes_on(without_bwrap: Target) -> None:
    status, _ = without_bwrap.service.run("ansiblecommand", without_bwrap.filled(adhoc()[1]))
    assert status["Status"] == "SUCCESS"


def test_health_and_a_start_that_insists_say_what_is_missing(without_bwrap: Target) -> None:
    health = without_bwrap.service.client().get("/api/health").json()
    assert "bwrap" in health["parts"]["isolation"]["detail"]
    root = without_bwrap.root
    environ = {**os.environ, "FLANSIBLE_ISOLATION": "bwrap", "FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    environ["FLANSIBLE_DATA_DIR"] = str(root / "other")
    for role in ("up", "worker"):
        ended = subprocess.run(
            [Path(sys.executable).parent / "flansible", role],
            cwd=root,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 2 and "bwrap is not installed" in ended.stderr, ended.stderr


def test_there_are_at_least_eighty_attacks() -> None:
    assert len(REFUSED) + len(NARROW) + len(DATA) + len(CONFINED) + len(FILES) >= 80
