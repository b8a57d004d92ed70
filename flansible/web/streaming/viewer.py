"""Who follows a reply, by rbac.json and the tokens as they are when something is sent: rights may be lost meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from flask import g

from flansible.authorization import visibility
from flansible.identity.tokens import TokenFile
from flansible.identity.users import RbacFile, User
from flansible.models import TaskStatus
from flansible.web.context import web_context


@dataclass(frozen=True)
class Viewer:
    """A user by name, and how they logged in: by the token of this id, or with this password, hashed.

    rbac: read again by the rights watcher, so that nothing here waits for the file.
    """

    rbac: RbacFile
    tokens: TokenFile
    name: str
    token_id: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, user: User) -> Viewer:
        """The user of this request."""
        return cls(web_context().rbac, web_context().tokens, user.name, g.token, user.password)

    def is_logged_in(self) -> bool:
        """Whether that login is good now: no token that was revoked or has expired, no password of before."""
        user = self.rbac.last_read.get(self.name)
        if user is None:
            return False
        if self.token_id:
            return self.tokens.is_valid(self.token_id, datetime.now(UTC))
        return user.password == self.password

    def may_see(self, task: TaskStatus) -> bool:
        """Whether the user is logged in and sees the task now."""
        user = self.rbac.last_read.get(self.name)
        return user is not None and self.is_logged_in() and visibility.may_see(user, task)

    def watching(self, task: TaskStatus) -> Callable[[], bool]:
        """Returns whether the task may go on to be followed, as a function that is called before each piece."""
        return lambda: self.may_see(task)
