"""Who follows a reply, by rbac.json as it is when something is sent: rights may be lost while a task runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flansible.authorization import visibility
from flansible.identity.users import RbacFile, User
from flansible.models import TaskStatus
from flansible.web.context import web_context


@dataclass(frozen=True)
class Viewer:
    """A user by name. rbac: read again by the rights watcher, so that nothing here waits for the file."""

    rbac: RbacFile
    name: str

    @classmethod
    def of(cls, user: User) -> Viewer:
        return cls(web_context().rbac, user.name)

    def may_see(self, task: TaskStatus) -> bool:
        """Whether the user exists and sees the task now."""
        user = self.rbac.last_read.get(self.name)
        return user is not None and visibility.may_see(user, task)

    def watching(self, task: TaskStatus) -> Callable[[], bool]:
        """Returns whether the task may go on to be followed, as a function that is called before each piece."""
        return lambda: self.may_see(task)
