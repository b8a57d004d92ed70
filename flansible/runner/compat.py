"""What differs between the versions of ansible-core that Flansible runs with, 2.19 to 2.21, and nothing else.

The run process calls it before Ansible does anything. Everything else in this folder is the same for all of them:
`make test-matrix` says so, whose comparison with each version's own command line would find what is not.
"""

from __future__ import annotations

import multiprocessing
import os

# Linux's sun_path less its final zero, and what multiprocessing names a socket in its folder.
_SOCKET_PATH_BYTES = 107
_SOCKET_NAME_BYTES = len("/listener-") + 8


def keep_to_itself(temp_dir: str) -> None:
    """Give the run a socket and a key of its own for what its workers ask of it.

    From 2.21 on the main process answers its workers on a Unix socket (ansible._internal._rpc_host). Python puts that
    into a folder of its own in /tmp, which would stay there when the run is ended by a signal, and protects it with a
    key made at import: every run forked from one fork server would have the same. Up to 2.20 nothing uses either.
    """
    process = multiprocessing.current_process()
    process.authkey = os.urandom(32)
    # Where the path would be too long for a socket, Python's own folder serves; it is removed at a normal end.
    if len(os.fsencode(temp_dir)) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES:
        process._config["tempdir"] = temp_dir  # type: ignore[attr-defined]
