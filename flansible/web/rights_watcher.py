"""Watches rbac.json: cancels the tasks that it would refuse now, and publishes the users' rights to the workers.

One thread in each web process, which reads a changed file without waiting for a request. Each process does it for each
change: only so are the tasks found that it has accepted itself under the rights of before. Of several, one cancels a
task, and one gets to know that rights were lost: each audit line is written once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator, Mapping

from flansible.audit.log import AuditEvent
from flansible.authorization import confinement, lost_rights
from flansible.errors import Forbidden, RecordUnreadable, StoreUnavailable
from flansible.identity.users import User
from flansible.models import Rights, State, TaskStatus, split_principal
from flansible.system.periodic import Periodic
from flansible.web.context import WebContext

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_BY = "rbac.json"
_PAGE = 100
_LOOK_AGAIN_SECONDS = 1.0  # at running tasks, while very many queued ones are looked at
_MAY_BE_LOST_SECONDS = 10.0  # a Redis that is killed loses its last second


class RightsWatcher(Periodic):
    """The watching thread of a web process."""

    def __init__(self, context: WebContext) -> None:
        super().__init__("rights-watcher", TICK_SECONDS)
        self._rbac, self._store = context.rbac, context.store
        self._audit, self._settings = context.audit, context.settings
        self._applied: dict[str, User] | None = None
        self._applied_at = 0.0
        self._rights: dict[str, Rights] = {}

    def tick(self) -> None:
        """Applies rbac.json if it was read again, or if the store has lost what was published."""
        try:
            users = self._rbac.users()
            if users is not self._applied or self._store.rights_of(()) is None:
                self._apply(users)
                self._applied, self._applied_at = users, time.monotonic()
        except StoreUnavailable as error:
            log.debug("rbac.json is applied to tasks later: %s", error)
            if time.monotonic() - self._applied_at < _MAY_BE_LOST_SECONDS:
                self._applied, self._rights = None, {}

    def _apply(self, users: dict[str, User]) -> None:
        rights = lost_rights.rights_of(users.values())
        # What any process has applied last, and what this one has; nothing is known at the very first start.
        before = [known for known in (self._store.rights(), self._rights) if known]
        unchanged = {
            name for name, item in rights.items() if before and all(known.get(name) == item for known in before)
        }
        gone_or_changed = {name for known in before for name in known.keys() - unchanged}
        # A user whose every entry is as before: one that was gained or lost concerns all tasks of the user.
        same = users.keys() - {split_principal(name)[0] for name in (*gone_or_changed, *(rights.keys() - unchanged))}
        if not before or gone_or_changed:
            self._check_running(users, same)
            # The limits at once, for the workers. That the tasks were looked at comes last: should this process end
            # before, another one does it.
            self._publish(
                {
                    name: item if name in unchanged else item.model_copy(update={"entry": ""})
                    for name, item in rights.items()
                }
            )
            self._check_queued(users, same)
            self._check_running(users, same)
        self._publish(rights)
        self._rights = rights

    def _publish(self, rights: Mapping[str, Rights]) -> None:
        for name, before in self._store.publish_rights(rights).items():
            now = rights[name].confinement if name in rights else None
            if before.confinement and (gone := confinement.lost(before.confinement, now)):
                what = f"{name}: rbac.json does not grant {gone} any more; the sandboxes are ended"
                self._audit.note(AuditEvent("rights_lost", _BY, what=what, outcome="published"))

    def _check_queued(self, users: Mapping[str, User], same: Container[str]) -> None:
        look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        for task in self._tasks(State.QUEUED, same):
            self._check(users, task)
            if time.monotonic() > look_again_at:
                self._check_running(users, same)
                look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS

    def _check_running(self, users: Mapping[str, User], same: Container[str]) -> None:
        for task in self._tasks(State.RUNNING, same):
            self._check(users, task)

    def _tasks(self, state: State, same: Container[str]) -> Iterator[TaskStatus]:
        """Yields the tasks in a state whose user's entries are not the same as before."""
        before = None
        while True:
            page = self._store.tasks(None, state, before, _PAGE)
            yield from (task for task in page.tasks if not all(name in same for name in _concerned(task)))
            if (before := page.next_before) is None:
                return

    def _check(self, users: Mapping[str, User], task: TaskStatus) -> None:
        began = time.monotonic()
        refusal = self._refusal(users, task)
        if refusal is not None and self._store.revoke(task.task_id, f"{_BY} ({refusal.code})"):
            what = f"{refusal.message} {task.summary}"
            event = AuditEvent("cancel", _BY, what=what, outcome="canceled", code=refusal.code, task_id=task.task_id)
            self._audit.note(event)
        # Requests come first: this thread takes half of the interpreter's time at most.
        self._stopped.wait(time.monotonic() - began)

    def _refusal(self, users: Mapping[str, User], task: TaskStatus) -> Forbidden | None:
        if task.user not in users:
            return Forbidden(f"{task.user} is not in rbac.json any more.", code="rights_lost")
        try:
            if (run := self._store.authorized_run(task.task_id)) is not None:
                lost_rights.check(users.get(run.rights_user), run, self._settings)
        except Forbidden as refusal:
            return refusal
        except RecordUnreadable as error:
            log.warning("%s", error)  # no worker can run it either
        except OSError as error:
            log.error("whether task %s is still allowed cannot be said: %s", task.task_id, error)
        return None


def _concerned(task: TaskStatus) -> tuple[str, str]:
    """Returns the user of a task, and the one whose rights it has."""
    return task.user, task.run_as or task.user
