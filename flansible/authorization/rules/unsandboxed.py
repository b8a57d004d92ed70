"""Rules for runs that should be sandboxed and cannot be: whatever could reach the control machine is refused.

They allow everything where sandboxes work, and for users to whom rbac.json grants the control machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from flansible.authorization.isolation import ADVICE, Isolation
from flansible.authorization.rules import modules
from flansible.errors import Forbidden
from flansible.identity.users import User
from flansible.models import AdhocRequest


def check_playbook(user: User, isolation: Isolation) -> None:
    """Refuses playbooks: any can reach the control machine, by delegate_to, lookups, roles or plugins beside it."""
    if _applies(user, isolation):
        raise _refusal("a playbook", isolation)


def check_adhoc(user: User, request: AdhocRequest, vault_files: Iterable[str], isolation: Isolation) -> None:
    """Allows only modules that work on the host alone, in the default folder, without vault password programs."""
    if not _applies(user, isolation):
        return
    if not modules.is_remote(request):
        raise _refusal(f"module {request.module}", isolation)
    # Plugins beside playbooks, and those that an ansible.cfg names, are code for the control machine.
    for field in ("playbook_dir", "chdir", "module_path"):
        if getattr(request, field):
            raise _refusal(field, isolation)
    if any(os.access(text.partition("@")[2] or text, os.X_OK) for text in vault_files):
        raise _refusal("a vault password program", isolation)


def _applies(user: User, isolation: Isolation) -> bool:
    return isolation.is_missing and not user.control_node


def _refusal(what: str, isolation: Isolation) -> Forbidden:
    why = f"it could reach the control machine, and runs cannot be sandboxed: {isolation.why_not}; {ADVICE}"
    return Forbidden(f"You may not use {what}: {why}", code="isolation_unavailable")
