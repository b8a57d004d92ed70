"""Runs in the real sandbox of one user, each by a fork server of its own pool, without supervisor or store."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from flansible.config import load
from flansible.models import Confinement
from flansible.worker import sandbox
from flansible.worker.fork_server import ForkServer
from flansible.worker.forkserver_pool import ForkServerPool
from tests.helpers.direct_runs import DirectRun


class ConfinedPool(ForkServerPool):
    """Starts each run in the sandbox of one user."""

    def __init__(self, place: Path, user: str = "dev", confinement: Confinement | None = None) -> None:
        super().__init__(4)
        (place / "config.ini").write_text("[Default]\n")
        self._settings = load(str(place / "config.ini"), {})
        self._user = user
        self.confine(confinement or Confinement(readable=()))

    def confine(self, confinement: Confinement) -> None:
        """Under these limits the next runs start."""
        self._sandbox = sandbox.build(self._user, confinement, None, self._settings)

    def launch(
        self,
        directory: str,
        environment: object,
        channel: socket.socket,
        output: int,
        events: int,
        _sandbox: object = None,
        _is_ansible: bool = True,
    ) -> ForkServer:
        return super().launch(directory, {}, channel, output, events, self._sandbox)


def begin(
    servers: ForkServerPool, place: Path, command: str, ends_processes: bool = True, folder: str = "playbooks"
) -> DirectRun:
    """Starts a shell line in the sandbox, which prints between << and >>."""
    (place / folder / "site.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - shell: |\n        {command}\n      register: found\n"
        "    - debug: msg='<<{{ found.stdout }}>>'\n"
    )
    rules = {"hosts": None, "control_node": False, "remote_only": False, "ends_processes": ends_processes}
    return DirectRun(servers, place / folder, "site.yml", rules=rules)


def played(servers: ForkServerPool, place: Path, command: str, *more: Any) -> DirectRun:
    """Runs a shell line to its end, as `begin` starts it."""
    with begin(servers, place, command, *more) as run:
        return run.wait()
