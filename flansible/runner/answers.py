"""Answers what Ansible would ask on a terminal from the request's secret fields; called in the run process.

Asking is Ansible's own code, switched on by `--ask-pass` and its kin: what it does with a password is unchanged.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes
from ansible.parsing.vault import PromptVaultSecret

_CONNECTION_PROMPT = "SSH password: "


def answer_prompts(secrets: dict[str, Any], temp_dir: str) -> list[str]:
    """Have every prompt answered. Returns options to add: a private key goes to a file of the run's temp directory."""

    def get_secret(prompt: str) -> str:
        field = "connection_password" if prompt == _CONNECTION_PROMPT else "become_password"
        return secrets[field] or ""

    def ask_vault_passwords(prompt: PromptVaultSecret) -> bytes:
        password = secrets["vault_passwords"].get(prompt.vault_id)
        if password is None:
            raise AnsibleError(f"vault_password has no password for the vault id {prompt.vault_id}")
        return bytes(to_bytes(password)).strip()

    CLI._get_secret = staticmethod(get_secret)
    PromptVaultSecret.ask_vault_passwords = ask_vault_passwords
    return _private_key(secrets["private_key"], temp_dir) if secrets["private_key"] else []


def _private_key(text: str, temp_dir: str) -> list[str]:
    path = os.path.join(temp_dir, "private_key")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")  # OpenSSH refuses a key without its last line end
    return [f"--private-key={path}"]
