"""What the sandbox of a restricted user costs: `make sandbox`.

A fork server's start with and without it, in turn; and a run of a user who has none yet, one of a user who has, and
admin's, through one service. Prints medians with their spread; not part of the tests.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import works
from benchmarks.service import INVENTORY, machine, running
from flansible.config import Settings, load
from flansible.models import Confinement
from flansible.worker import fork_server, sandbox
from flansible.worker.ansible_config import configuration_of
from flansible.worker.fork_server import ForkServer

BODY = {"host_pattern": "one", "module": "debug", "module_args": "msg=hello", "inventory": "hosts"}


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def report(name: str, measured: list[float]) -> None:
    middle = statistics.median(measured)
    print(f"{name:<46} {middle * 1000:7.0f} ms   ({min(measured) * 1000:.0f} to {max(measured) * 1000:.0f})")


def starts(rounds: int) -> None:
    """A fork server's start, to the moment when it could fork its first run."""
    with tempfile.TemporaryDirectory(prefix="flansible-bench-") as folder:
        root = Path(folder)
        (root / "playbooks").mkdir()
        (root / "playbooks/hosts").write_text(INVENTORY)
        (root / "config.ini").write_text("[Default]\n")
        settings = load(str(root / "config.ini"), {})
        plain, confined, built = [], [], []
        for _ in range(rounds):
            plain.append(start(None, root))
            built.append(seconds(lambda: build(settings)))
            confined.append(start(build(settings), root))
        report("fork server", plain)
        report("fork server in a sandbox", confined)
        report("finding out what a sandbox is to show", built)


def build(settings: Settings) -> sandbox.Sandbox:
    readable = (str(settings.playbook_root / "hosts"),)
    return sandbox.build("dev", Confinement(readable=readable), None, settings)


def start(one: sandbox.Sandbox | None, root: Path) -> float:
    servers: list[ForkServer] = []
    taken = seconds(lambda: servers.append(fork_server.start(configuration_of(str(root / "playbooks"), sandbox=one))))
    servers[0].close()
    servers[0].kill_sandbox()
    return taken


def runs(rounds: int) -> None:
    """Through the API: of users who come for the first time, of those who have come before, and of admin."""
    names = [f"user{number}" for number in range(rounds)]
    users = [{"user": name, "password": "pw", "inventories": ["playbooks/hosts"]} for name in names]
    work = works.Work("debug", "ansiblecommand", BODY, ())
    first, again, admin = [], [], []
    with running(users=users, fork_servers=rounds + 1) as service, service.client() as by_admin:
        works.through_the_api(by_admin, work)
        for name in names:
            with service.client((name, "pw")) as client:
                client.get("/api/ansibletasks").raise_for_status()  # the first check of a password takes its time
                first.append(works.through_the_api(client, work))
                admin.append(works.through_the_api(by_admin, work))
                again.append(works.through_the_api(client, work))
    report("debug, admin", admin)
    report("debug, a user who has come before", again)
    report("debug, a user's first run", first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(machine())
    starts(rounds)
    runs(rounds)


if __name__ == "__main__":
    main()
