"""What processes of a confined run share with the service, asked of runs in real sandboxes."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.config import load
from flansible.models import Confinement
from flansible.system.session_keyring import call_in_new_session_keyring
from flansible.worker import inventory_names, sandbox
from flansible.worker.forkserver_pool import ForkServer, ForkServerPool
from tests.helpers.direct_runs import DirectRun
from tests.helpers.waiting import require_program

SESSION_KEYRING = -3
ADD_KEY = {"x86_64": 248}.get(os.uname().machine, 217)
KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
SEARCH = 10
# Prints the number of the key that is found in the session keyring, or -1.
SEARCHING = f"import ctypes; print(ctypes.CDLL(None).syscall({KEYCTL}, {SEARCH}, -3, b'user', b'flansible-test', 0))"


class Confined(ForkServerPool):
    """Starts each run in the sandbox of one user."""

    def __init__(self, place: Path, user: str = "dev") -> None:
        super().__init__(4)
        (place / "config.ini").write_text("[Default]\n")
        settings = load(str(place / "config.ini"), {})
        self._sandbox = sandbox.build(user, Confinement(readable=()), None, settings)

    def launch(
        self,
        directory: str,
        environment: object,
        channel: socket.socket,
        output: int,
        events: int,
        _sandbox: object = None,
    ) -> ForkServer:
        return super().launch(directory, {}, channel, output, events, self._sandbox)


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


def played(servers: ForkServerPool, place: Path, command: str) -> str:
    """Runs a shell line in the sandbox and returns what it prints."""
    (place / "playbooks/site.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - shell: |\n        {command}\n      register: found\n"
        "    - debug: msg='<<{{ found.stdout }}>>'\n"
    )
    with DirectRun(servers, place / "playbooks", "site.yml") as run:
        run.wait()
        return run.text.partition("<<")[2].partition(">>")[0]


def test_the_session_keyring_of_the_service_is_in_no_sandbox(place: Path) -> None:
    def of_the_service() -> tuple[int, str, bytes]:
        key = add_key()
        if key == -1:
            pytest.skip("no keyrings here")
        servers = Confined(place)
        try:
            found = played(servers, place, f'python3 -c "{SEARCHING}"')
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
