"""Private keys in files in memory, and their passphrases taken away by ssh-keygen, which reads what ssh reads.

It takes the passphrase from a program (SSH_ASKPASS), also a file in memory, that prints a third one: it is in no
command line and no environment. Called in a run process for the key of a request, and by the worker for one that an
agent holds.
"""

from __future__ import annotations

import os
import subprocess

_WRONG = "incorrect passphrase"
_PRIVATE, _EXECUTABLE = 0o600, 0o700  # OpenSSH refuses a key that others can read
_SECONDS = 30.0


def file_in_memory(name: str, text: str, mode: int = _PRIVATE) -> tuple[int, str]:
    """Makes a file without a name on any disk. Returns its descriptor, and a path under which our children open it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
    os.fchmod(descriptor, mode)
    return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}"


def decrypt(path: str, passphrase: str) -> str:
    """Replaces the key in this file by the same one without a passphrase; returns why that failed, '' if it did not."""
    answer, answer_path = file_in_memory("passphrase", f"{passphrase}\n")
    program, program_path = file_in_memory("askpass", f"#!/bin/sh\nexec cat {answer_path}\n", _EXECUTABLE)
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
            timeout=_SECONDS,
        )
    except OSError as error:
        return f"private_key_passphrase cannot be used: ssh-keygen does not start: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"private_key_passphrase cannot be used: ssh-keygen did not end within {_SECONDS:g} seconds"
    finally:
        os.close(answer)
        os.close(program)
    if done.returncode == 0:
        return ""
    if _WRONG in done.stderr:
        return "private_key_passphrase is not the passphrase of private_key"
    reason = done.stderr.strip().rpartition(": ")[2]
    return f"private_key cannot be decrypted: {reason}"
