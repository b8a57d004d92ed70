"""The socket of a run's ssh agent: made by the keeper where the run finds it, served by the worker.

The keeper makes it and hands the listening end to the worker, over the run's channel: so the key never enters the
sandbox. Gone with the folder of the run's files.
"""

from __future__ import annotations

import os
import socket

from flansible.runner.cleanup import RunFiles

_NAME = "agent"
_BACKLOG = 512
_LONGEST_PATH_BYTES = 100  # ssh has room for 108


class AgentSocket:
    """The listening socket, until the worker has it. path: for SSH_AUTH_SOCK."""

    def __init__(self, files: RunFiles) -> None:
        """Raises OSError."""
        self._folder = os.open(files.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = os.path.join(files.folder, _NAME)
        short = f"/proc/{os.getpid()}/fd/{self._folder}/{_NAME}"
        self.path = path if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES else short
        self.listener.bind(self.path)
        self.listener.listen(_BACKLOG)
