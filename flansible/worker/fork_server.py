"""One fork server of the worker: a process with Ansible preloaded, under one configuration, that starts runs.

Forked from a zygote, or started by exec where that is not sound. Used by flansible.worker.forkserver_pool.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Mapping

from flansible.worker.ansible_config import Configuration
from flansible.worker.runner_process import MODULE, RunnerProcess, StartedProcess, environment_for
from flansible.worker.zygote_handle import ForkedProcess, Zygote

log = logging.getLogger(__name__)


class ForkServer:
    """Hands runs to its process."""

    def __init__(self, configuration: Configuration, process: RunnerProcess) -> None:
        self.configuration = configuration
        self._process = process
        # The latest run's directory and variables, and when that was.
        self.asked: tuple[str, Mapping[str, str]] = configuration.directory, dict(configuration.environment)
        self.used_at = -math.inf
        self.runs = 0  # that it was given to

    @property
    def was_forked(self) -> bool:
        return isinstance(self._process, ForkedProcess)

    @property
    def host(self) -> StartedProcess:
        """What was started by exec, and has the sandbox: its zygote, or its process itself."""
        if isinstance(self._process, ForkedProcess):
            return self._process.zygote
        assert isinstance(self._process, StartedProcess)
        return self._process

    @property
    def is_usable(self) -> bool:
        """Whether it is alive, and its zygote too, if it has one."""
        return self._process.alive and self.host.alive

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_sandboxed(self) -> bool:
        return self._process.is_sandboxed

    @property
    def alive(self) -> bool:
        return self._process.alive

    def launch(self, channel: socket.socket, output: int, events: int) -> None:
        """Starts a run with these descriptors. Raises OSError when the fork server is gone."""
        self._process.send_descriptors(b"R", [channel.fileno(), output, events])

    def kill_sandbox(self) -> None:
        """Kills everything in its sandbox, runs included; does nothing without a sandbox."""
        self._process.kill_sandbox()

    def kill(self) -> None:
        """Kills its process; in a sandbox everything."""
        self._process.kill()

    def hang_up(self) -> None:
        """Closes its socket, on which it ends; its runs continue."""
        self._process.hang_up()

    def close(self) -> None:
        """Closes its socket and waits for its end; its runs continue."""
        self._process.close()


def start(
    configuration: Configuration,
    module: str = MODULE,
    limits: tuple[int, int] | None = None,
    pack_usual: bool = False,
) -> ForkServer:
    """Starts a fork server by exec. Raises RunnerError; StartFailure when Ansible will not load.

    limits: soft and hard limit on open files for its runs, where the worker's differ from a shell's. pack_usual: while
    idle after its start, it packs modules that most services need.
    """
    words = [f"files={limits[0]}:{limits[1]}"] if limits else []
    words += ["usual"] if pack_usual else []
    environment = {**environment_for(configuration.sandbox), **dict(configuration.environment)}
    process = StartedProcess(configuration.directory, environment, words, configuration.sandbox, module)
    _log("started", process, process.first_frame.get("ansible_version"), configuration)
    return ForkServer(configuration, process)


def fork(configuration: Configuration, zygote: Zygote, pack_usual: bool = False) -> ForkServer:
    """Forks a fork server from a zygote. Raises NotForkable where one has to be started."""
    process = zygote.fork(configuration, pack_usual)
    _log("forked", process, process.first_frame.get("ansible_version"), configuration)
    return ForkServer(configuration, process)


def _log(how: str, process: RunnerProcess, version: object, configuration: Configuration) -> None:
    log.info("fork server %d %s: ansible-core %s, %s", process.pid, how, version, configuration)
