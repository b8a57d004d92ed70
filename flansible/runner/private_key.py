"""Makes ssh use the private key of a request, or that of a credential, which an agent of the worker holds.

That of a request is a file in memory that ends with the run process; an encrypted one is decrypted first. Of the other
the run has the public half alone: ssh finds the private one at the agent. Called in the run process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.cli import CLI

from flansible.runner.ansible_internals import replace
from flansible.system.private_key_files import decrypt, file_in_memory


def use_private_key(text: str, passphrase: str | None, hide: Callable[[list[str]], object]) -> str:
    """Makes ssh use this key; returns why it cannot, '' if it can. hide: called with the lines of the decrypted key."""
    # OpenSSH refuses a key without a final newline.
    descriptor, path = file_in_memory("private_key", text if text.endswith("\n") else text + "\n")
    if passphrase is not None:
        if problem := decrypt(path, passphrase):
            os.close(descriptor)
            return problem
        with open(path, encoding="ascii") as file:
            hide(file.read().splitlines())
    _set_key_file(path)
    return ""


def use_agent(public_key: str) -> None:
    """Makes ssh log in with the key that the agent of SSH_AUTH_SOCK has, and with no other of an agent."""
    # Named as a file: with IdentitiesOnly in a configuration ssh would not ask the agent for it otherwise.
    _set_key_file(file_in_memory("public_key", f"{public_key}\n")[1])


def _set_key_file(path: str) -> None:
    def add_private_key(cli: CLI, options: Any) -> Any:
        options = post_process(cli, options)
        # Not as --private-key: Ansible would resolve the link, whose target has no path.
        options.private_key_file = path
        return options

    post_process = replace(CLI, "post_process_args", add_private_key)


def decrypted(text: str, passphrase: str) -> tuple[str, str]:
    """Returns an encrypted key without its passphrase, and why that cannot be, '' if it can."""
    descriptor, path = file_in_memory("private_key", text if text.endswith("\n") else text + "\n")
    try:
        problem = decrypt(path, passphrase)
        with open(path, encoding="ascii") as file:
            return file.read(), problem
    finally:
        os.close(descriptor)
