"""A step of a project in a run process: makes a commit ready, or looks for one (flansible.projects).

It works in the run's process so that it is supervised as every run is: cancelled, limited in time, ended with all of
its processes; its output is the task's. Ansible's part of this process is not used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys

from flansible import wire
from flansible.errors import ProjectError
from flansible.projects import prepare
from flansible.runner import private_key
from flansible.runner.callback import EventPipe

_EXIT_FAILED = 1


def run(request: wire.Frame, event_descriptor: int) -> int:
    """Carries out the order in the request; returns the exit code."""
    # Python ignores SIGPIPE; programs started from it should not.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    order, credential = request["project"], dict((request["secrets"] or {}).get("git_credential") or {})
    try:
        credential = _usable(credential)
        if order["what"] != "prepare":
            found = prepare.answer(order, credential)
            EventPipe(event_descriptor, request["colour_mark"]).send(
                {"type": "plan", "plan": found, "too_large": False}
            )
        else:
            prepare.make_ready(order, credential, _say)
    except ProjectError as error:
        _say(str(error))
        return _EXIT_FAILED
    except OSError as error:
        _say(f"this worker cannot keep the project: {error}")
        return _EXIT_FAILED
    return 0


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"[flansible] {line}")


def _usable(credential: dict[str, str]) -> dict[str, str]:
    """Returns the credential with its private key decrypted. Raises ProjectError."""
    passphrase = credential.pop("private_key_passphrase", None)
    if passphrase is not None:
        key, problem = private_key.decrypted(credential["private_key"], passphrase)
        if problem:
            raise ProjectError(problem)
        credential["private_key"] = key
    return credential


def hold_locks(paths: list[str]) -> None:
    """Keeps what this run uses of a project from being removed until its last process has ended."""
    for path in paths:
        # What is gone already is missed by Ansible, in its own words.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)  # not closed, and inherited: with the last one the lock ends
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
