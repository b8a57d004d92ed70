"""Where runs should be confined and cannot be: what could reach the control machine is refused.

With a sandbox these rules let everything pass, and so they do for those whom rbac.json gives the control machine.
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
    """Any playbook can work on the control machine: delegate_to, lookups, roles and plugins beside it."""
    if _is_needed(user, isolation):
        raise _refusal("playbooks", isolation)


def check_adhoc(user: User, request: AdhocRequest, vault_files: Iterable[str], isolation: Isolation) -> None:
    """Lets pass modules that work on the host alone, in the usual folder, without programs for passwords."""
    if not _is_needed(user, isolation):
        return
    if not modules.is_remote(request):
        raise _refusal(f"the module {request.module}", isolation)
    # Plugins beside playbooks, and those that an ansible.cfg names, are code for the control machine.
    for field in ("playbook_dir", "chdir", "module_path"):
        if getattr(request, field):
            raise _refusal(field, isolation)
    if any(os.access(text.partition("@")[2] or text, os.X_OK) for text in vault_files):
        raise _refusal("vault passwords from a program", isolation)


def _is_needed(user: User, isolation: Isolation) -> bool:
    return isolation.is_missing and not user.control_node


def _refusal(what: str, isolation: Isolation) -> Forbidden:
    message = f"{what} could reach the control machine, and runs cannot be confined: {isolation.why_not}; {ADVICE}"
    return Forbidden(message, code="isolation_unavailable")
