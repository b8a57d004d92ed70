"""Makes ssh use the private key of a request: a file in memory that ends with the run process.

An encrypted key is decrypted first, by ssh-keygen, which reads what ssh reads. It takes the passphrase from a program
(SSH_ASKPASS), also a file in memory, that prints a third one: it is in no command line and no environment. Called in
the run process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

from ansible.cli import CLI

from flansible.runner.ansible_internals import replace

_WRONG = "incorrect passphrase"
_PRIVATE, _EXECUTABLE = 0o600, 0o700  # OpenSSH refuses a key that others can read


def use_private_key(text: str, passphrase: str | None, hide: Callable[[list[str]], object]) -> str:
    """Makes ssh use this key; returns why it cannot, '' if it can. hide: called with the lines of the decrypted key."""
    # OpenSSH refuses a key without a final newline.
    descriptor, path = _file_in_memory("private_key", text if text.endswith("\n") else text + "\n", _PRIVATE)
    if passphrase is not None:
        if problem := _decrypt(path, passphrase):
            os.close(descriptor)
            return problem
        with open(path, encoding="ascii") as file:
            hide(file.read().splitlines())

    def add_private_key(cli: CLI, options: Any) -> Any:
        options = post_process(cli, options)
        # Not as --private-key: Ansible would resolve the link, whose target has no path.
        options.private_key_file = path
        return options

    post_process = replace(CLI, "post_process_args", add_private_key)
    return ""


def decrypted(text: str, passphrase: str) -> tuple[str, str]:
    """Returns an encrypted key without its passphrase, and why that cannot be, '' if it can."""
    descriptor, path = _file_in_memory("private_key", text if text.endswith("\n") else text + "\n", _PRIVATE)
    try:
        problem = _decrypt(path, passphrase)
        with open(path, encoding="ascii") as file:
            return file.read(), problem
    finally:
        os.close(descriptor)


def _file_in_memory(name: str, text: str, mode: int) -> tuple[int, str]:
    """Makes a file without a name on any disk. Returns its descriptor, and a path under which our children open it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
    os.fchmod(descriptor, mode)
    return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}"


def _decrypt(path: str, passphrase: str) -> str:
    """Replaces the key in this file by the same one without a passphrase; returns why that failed, '' if it did not."""
    answer, answer_path = _file_in_memory("passphrase", f"{passphrase}\n", _PRIVATE)
    program, program_path = _file_in_memory("askpass", f"#!/bin/sh\nexec cat {answer_path}\n", _EXECUTABLE)
    # DISPLAY: without it, versions before 8.4 do not start the program.
    environment = {**os.environ, "SSH_ASKPASS": program_path, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":"}
    try:
        done = subprocess.run(
            ["ssh-keygen", "-p", "-N", "", "-f", path],
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,  # it would ask at a terminal
            check=False,
        )
    except OSError as error:
        return f"private_key_passphrase cannot be used: ssh-keygen does not start: {error.strerror}"
    finally:
        os.close(answer)
        os.close(program)
    if done.returncode == 0:
        return ""
    if _WRONG in done.stderr:
        return "private_key_passphrase is not the passphrase of private_key"
    reason = done.stderr.strip().rpartition(": ")[2]
    return f"private_key cannot be decrypted: {reason}"
