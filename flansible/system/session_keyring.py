"""Runs a call in a thread with an empty session keyring, which every process that it starts inherits.

The kernel's keyrings are in no namespace: a process started by the service could read and replace what is in the
service's session keyring (Kerberos tickets, keys of encrypted folders), and leave there what the next user's finds.
Used by the worker to start sandboxes. In a thread, because a session keyring belongs to one: the service keeps its own,
and nothing has to be called between fork and exec.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Returned = TypeVar("Returned")
_JOIN_SESSION_KEYRING = 1
# keyctl(2) by machine; others have the number of the newer ones.
_KEYCTL = {"x86_64": 250, "i686": 288, "armv7l": 311, "ppc64le": 271, "s390x": 280}
_KEYCTL_OF_OTHERS = 219
# A kernel without keyrings, or a container whose filter refuses them to all its processes: nothing can be shared.
_NO_KEYRINGS = (errno.ENOSYS, errno.EPERM)


def call_in_new_session_keyring(call: Callable[[], Returned]) -> Returned:
    """Calls it in a thread and returns its result, or raises what it raises. Raises OSError without a new keyring."""
    thread = _Thread(call)
    thread.start()
    thread.join()
    if thread.error is not None:
        raise thread.error
    return thread.results[0]


class _Thread(threading.Thread, Generic[Returned]):
    def __init__(self, call: Callable[[], Returned]) -> None:
        super().__init__(name="new-session-keyring")
        self._call = call
        self.results: list[Returned] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            _join_new_session_keyring()
            self.results.append(self._call())
        except BaseException as error:
            self.error = error


def _join_new_session_keyring() -> None:
    number = _KEYCTL.get(os.uname().machine, _KEYCTL_OF_OTHERS)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _JOIN_SESSION_KEYRING, None) == -1 and ctypes.get_errno() not in _NO_KEYRINGS:
        why = os.strerror(ctypes.get_errno())
        raise OSError(ctypes.get_errno(), f"no session keyring can be made: {why} (sysctl kernel.keys)")
