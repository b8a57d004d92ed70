"""From nothing to the first green run, as a new user types it: `flansible init && flansible up` in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.other_user import Terminal, system_user
from tests.helpers.ports import free_port
from tests.helpers.services import SCRIPTS, flansible_environ
from tests.helpers.waiting import eventually

Type = Callable[..., Terminal]


@pytest.fixture
def typed(open_folder: Path) -> Iterator[Type]:
    """Types a command of a system user without a home, in a folder of its own."""
    environ = {**flansible_environ(), "HOME": "/nonexistent", "FLANSIBLE_FLASK_TCP_PORT": str(free_port())}
    opened: list[Terminal] = []
    with system_user() as user:
        os.chown(open_folder, user.pw_uid, user.pw_gid)

        def start(*arguments: str, **variables: str) -> Terminal:
            opened.append(Terminal(user, [str(SCRIPTS / "flansible"), *arguments], open_folder, environ | variables))
            return opened[-1]

        try:
            yield start
        finally:
            for terminal in opened:
                terminal.close()


def follow(advice: str) -> str:
    """Does as root what the message says, and returns the home that the account then has."""
    if os.geteuid() != 0:
        return os.environ["HOME"]
    [command] = re.findall(r"as root: (.*)$", advice, re.MULTILINE)
    subprocess.run(["sh", "-ec", command], check=True)
    [home] = re.findall(r"usermod --home (\S+)", command)
    return str(home)


def test_a_system_user_without_a_home_gets_to_a_green_run(typed: Type, open_folder: Path) -> None:
    init = typed("init")
    assert init.wait() == 0, init.shown
    [password] = re.findall(r"with the password (\w+)$", init.shown, re.MULTILINE)

    refused = typed("up")
    assert refused.wait() == 2, refused.shown
    assert "cannot write in /nonexistent/.ansible" in refused.shown
    assert not (open_folder / ".flansible").exists()
    home = follow(refused.shown)

    service = typed("up", HOME=home)
    service.wait_for("Flansible is ready at ")
    [url] = re.findall(r"^Flansible is ready at (\S+)$", service.shown, re.MULTILINE)
    with httpx.Client(base_url=url, auth=("admin", password), timeout=30) as client:
        health = client.get("/api/health").json()
        assert "answers" in health["parts"]["workers"]["detail"], health
        reply = client.post("/api/ansibleplaybook", json={"playbook": "site.yml"}).json()
        status = eventually(lambda: (s := client.get(reply["status_url"]).json())["Status"] != "PROGRESS" and s, 90)
        output = client.get(reply["output_url"]).text
    assert (status["Status"], status["user"]) == ("SUCCESS", "admin"), output
    assert "Hello world, this is localhost." in output and "failed=0" in output

    doctor = typed("doctor", HOME=home)
    assert doctor.wait() == 0, doctor.shown
    assert "\n0 to fix, " in doctor.shown and "answers\n" in doctor.shown

    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0, service.shown
    assert '"event"' not in service.shown, "the audit log is for the terminal only when config.ini says so"
    everything = b"".join(path.read_bytes() for path in open_folder.rglob("*") if path.is_file())
    assert password.encode() not in everything
    assert password not in refused.shown + service.shown + doctor.shown
