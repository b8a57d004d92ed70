"""The lease of the process that starts schedules: of all web processes one holds it, and another one when it dies."""

from __future__ import annotations

from flansible.store import keys
from flansible.store.connection import Connection


class SchedulerLease(Connection):
    """The part of Store for this lease."""

    def hold_scheduler_lease(self, token: str, seconds: float) -> bool:
        """Takes or renews the lease; whether this process holds it now. token: that no other process has."""
        return bool(self._run("hold_lease", [keys.SCHEDULER], token, int(seconds * 1000)))
