"""What processes of a confined run share with the service, and what they leave, asked of runs in real sandboxes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.identity import users
from flansible.models import Confinement
from flansible.system.session_keyring import call_in_new_session_keyring
from flansible.worker import inventory_names, sandbox
from tests.helpers.confined_runs import ConfinedPool, played
from tests.helpers.process_tree import sleeping
from tests.helpers.waiting import eventually, require_program

SESSION_KEYRING = -3
ADD_KEY = {"x86_64": 248}.get(os.uname().machine, 217)
KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
SEARCH = 10
# Prints the number of the key that is found in the session keyring, or -1.
SEARCHING = f"import ctypes; print(ctypes.CDLL(None).syscall({KEYCTL}, {SEARCH}, -3, b'user', b'flansible-test', 0))"


@pytest.fixture
def place() -> Iterator[Path]:
    require_program("bwrap")
    path = Path(tempfile.mkdtemp(prefix="flansible-confined-"))
    (path / "playbooks").mkdir()
    yield path
    shutil.rmtree(path)


def add_key() -> int:
    number: int = ctypes.CDLL(None).syscall(ADD_KEY, b"user", b"flansible-test", b"secret", 6, SESSION_KEYRING)
    return number


def search_key() -> int:
    number: int = ctypes.CDLL(None).syscall(KEYCTL, SEARCH, SESSION_KEYRING, b"user", b"flansible-test", 0)
    return number


def test_the_session_keyring_of_the_service_is_in_no_sandbox(place: Path) -> None:
    def of_the_service() -> tuple[int, str, bytes]:
        key = add_key()
        if key == -1:
            pytest.skip("no keyrings here")
        servers = ConfinedPool(place)
        try:
            text = played(servers, place, f'python3 -c "{SEARCHING}"').text
            found = text.partition("<<")[2].partition(">>")[0]
        finally:
            servers.close()
        said = inventory_names._output_of(["python3", "-c", SEARCHING], dict(os.environ), "")
        assert search_key() == key, "the service keeps its own"
        return key, found, said

    key, found, said = call_in_new_session_keyring(of_the_service)
    assert key > 0 and found == "-1" and said == b"-1\n"


def test_what_a_call_raises_is_raised(place: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        call_in_new_session_keyring(lambda: 1 // 0)


LEFT = (
    "setsid nohup sleep {mark} >/dev/null 2>&1 &\n        "
    "bash -c 'exec -a \"ssh: /home/flansible-user/x [mux]\" sleep {mark}' >/dev/null 2>&1 &"
)


@pytest.mark.parametrize("ends", [True, False], ids=["by default", "lasting_processes"])
def test_nothing_that_a_confined_run_leaves_goes_on_unless_that_is_granted(ends: bool, place: Path) -> None:
    mark = f"{random.randrange(10**6, 10**7)}.5"
    servers = ConfinedPool(place)
    try:
        run = played(servers, place, LEFT.format(mark=mark), ends)
        assert run.exited is not None and run.exited["returncode"] == 0
        names = sorted(process["name"] for process in run.exited["stopped"])
        assert (names, len(sleeping(mark))) == ((["sleep", "sleep"], 0) if ends else ([], 2))
    finally:
        servers.close()
    eventually(lambda: not sleeping(mark))


# What ssh executes for a run, or what is executed in ssh itself; and a connection, which may stay.
CODE = "int pause(void); __attribute__((constructor)) static void begin(void) { for (;;) pause(); }"
AS_SSH = {
    "a library": "LD_PRELOAD=$PWD/code.so exec -a 'ssh: /x/{mark} [mux]' ssh -V",
    "options": "exec -a 'ssh: /x/{mark} [mux]' ssh -o ConnectTimeout=100 -p {port} 127.0.0.1",
}


@pytest.mark.parametrize("how", AS_SSH)
def test_code_that_a_confined_run_hides_in_ssh_does_not_go_on(how: str, place: Path) -> None:
    require_program("ssh")
    require_program("cc")
    mark = str(random.randrange(10**6, 10**7))
    silent = socket.create_server(("127.0.0.1", 0))
    command = AS_SSH[how].format(mark=mark, port=silent.getsockname()[1])
    servers = ConfinedPool(place)
    try:
        make = f"cd /tmp; echo '{CODE}' | cc -shared -fPIC -x c - -o code.so"
        hide = f'bash -c "{command}" >/dev/null 2>&1 &'
        started = "until grep -qsx ssh /proc/$!/comm; do sleep 0.1; done"
        run = played(servers, place, "\n        ".join((make, hide, started)))
        assert run.exited is not None and run.exited["returncode"] == 0, run.text
        assert "ssh" in {process["name"] for process in run.exited["stopped"]}
    finally:
        servers.close()
        silent.close()


@pytest.mark.parametrize("lasting", [True, False])
def test_the_right_to_leave_processes_comes_from_rbac_json(lasting: bool) -> None:
    require_program("bwrap")
    entries = [{"user": "dev", "password": "x", **({"lasting_processes": True} if lasting else {})}]
    user = users.parse(json.dumps({"rbac": entries}), Path("/srv/rbac.json"))["dev"]
    assert user.lasting_processes == lasting
    confinement = Confinement(readable=(), lasting_processes=user.lasting_processes)
    for mode, ends in (("auto", not lasting), ("none", False)):
        rules = sandbox.Sandboxes(Settings.model_validate({"isolation": mode})).rules(confinement)
        assert rules["ends_processes"] == ends
