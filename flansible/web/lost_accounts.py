"""Cancels the tasks of users whose account, or whose role to act, is gone from a changed rbac.json.

Called in the request with which a web process has read the change. Each web process does it: canceling twice is
harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flansible.audit.log import Audit, AuditEvent
from flansible.authorization.authorize import check_may_act
from flansible.errors import Forbidden, StoreUnavailable
from flansible.identity.users import User
from flansible.models import State
from flansible.store import Store

log = logging.getLogger(__name__)

_BY = "rbac.json"
_PAGE = 200


def cancel_tasks(users: Mapping[str, User], store: Store, audit: Audit) -> None:
    """Cancels queued and running tasks of all who may not act any more, each with an audit line."""
    try:
        for state in (State.QUEUED, State.RUNNING):
            before = None
            while True:
                page = store.tasks(None, state, before, _PAGE)
                for task in page.tasks:
                    if not _may_act(users.get(task.user)):
                        found = store.cancel(task.task_id, _BY)
                        outcome = found.value if found else "unknown"
                        what = f"{task.summary}: its user may not act any more"
                        audit.note(AuditEvent("cancel", _BY, what=what, outcome=outcome, task_id=task.task_id))
                if (before := page.next_before) is None:
                    break
    except StoreUnavailable as error:
        log.error("tasks of users who are gone from rbac.json are not canceled: %s", error)


def _may_act(user: User | None) -> bool:
    if user is None:
        return False
    try:
        check_may_act(user)
    except Forbidden:
        return False
    return True
