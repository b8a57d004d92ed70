"""Answers Ansible's password prompts from the request's secret fields; called in the run process.

Ansible's own code, switched on by options such as `--ask-pass`, still prompts, and uses the password as always.
"""

from __future__ import annotations

from typing import Any

from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_bytes
from ansible.parsing.vault import PromptVaultSecret

from flansible.runner.ansible_internals import replace

_CONNECTION_PROMPT = "SSH password: "


def answer_prompts(secrets: dict[str, Any]) -> None:
    """Makes every prompt return the request's password."""

    def get_secret(prompt: str) -> str:
        field = "connection_password" if prompt == _CONNECTION_PROMPT else "become_password"
        return secrets[field] or ""

    def ask_vault_passwords(prompt: PromptVaultSecret) -> bytes:
        password = secrets["vault_passwords"].get(prompt.vault_id)
        if password is None:
            raise AnsibleError(f"vault_password has no password for the vault id {prompt.vault_id}")
        return bytes(to_bytes(password)).strip()

    replace(CLI, "_get_secret", staticmethod(get_secret))
    replace(PromptVaultSecret, "ask_vault_passwords", ask_vault_passwords)
