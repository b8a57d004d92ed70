"""The archive: all that is read of one history database. Empty while its tables are not made yet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from flansible.errors import HistoryUnavailable
from flansible.history.archived_hosts import ArchivedHosts
from flansible.history.archived_recordings import ArchivedRecordings
from flansible.history.archived_search import ArchivedSearch, FoundPage, SearchFilter
from flansible.history.archived_tasks import ArchivedTasks
from flansible.history.database import Database
from flansible.history.host_records import TaskViewer
from flansible.history.schema import VERSION
from flansible.models import AuthorizedRun, TaskStatus
from flansible.store import ColourMark, ListFilter, NumberedPage, NumberedTask, Position


class Archive:
    """Reads one database. Each method raises HistoryUnavailable, and returns what is empty for an unknown task."""

    def __init__(self, url: str, reply_seconds: float) -> None:
        """Opens no connection. Raises ConfigurationError for a URL that cannot be used."""
        self.database = Database(url, reply_seconds)
        self._tasks = ArchivedTasks(self.database)
        self._recordings = ArchivedRecordings(self.database)
        self._search = ArchivedSearch(self.database)
        self._is_ready = False

    def close(self) -> None:
        self.database.close()

    def require_known_version(self) -> None:
        """Raises ConfigurationError when the database belongs to a newer Flansible; it may be away.

        Leaves no connection open, for the process may fork.
        """
        try:
            self.database.require_known_version()
        except HistoryUnavailable:
            pass  # health says it
        finally:
            self.database.close()

    def description(self) -> str:
        """Returns the product and the version of the tables, for people."""
        return f"{self.database.name}, version {self.database.version()}"

    def problem(self) -> str:
        """Returns why nothing, or not all, can be read, '' when it can."""
        try:
            self._has_tables()
            self.database.version()
        except HistoryUnavailable as error:
            return str(error)
        return self.database.damage()

    def task(self, task_id: str) -> TaskStatus | None:
        return self._tasks.task(task_id) if self._has_tables() else None

    def tasks(self, task_ids: Iterable[str]) -> dict[str, NumberedTask]:
        return self._tasks.tasks(task_ids) if self._has_tables() else {}

    def authorized_run(self, task_id: str) -> AuthorizedRun | None:
        return self._tasks.authorized_run(task_id) if self._has_tables() else None

    def highest_number(self) -> int:
        return self._tasks.highest_number() if self._has_tables() else 0

    def page(self, wanted: ListFilter, before: int | None, limit: int, give_up_at: float = math.inf) -> NumberedPage:
        if not self._has_tables():
            return NumberedPage((), None)
        return self._tasks.page(wanted, before, limit, give_up_at)

    def search(self, wanted: SearchFilter, before: int | None, limit: int, give_up_at: float = math.inf) -> FoundPage:
        if not self._has_tables():
            return FoundPage((), None)
        return self._search.page(wanted, before, limit, give_up_at)

    def positions(self, task_ids: Iterable[str]) -> dict[str, Position]:
        return self._recordings.positions(task_ids) if self._has_tables() else {}

    def output(self, task_id: str, offset: int, max_bytes: int) -> bytes:
        return self._recordings.output(task_id, offset, max_bytes) if self._has_tables() else b""

    def colours(self, task_id: str, first: int, last: int, *, with_previous: bool = False) -> list[ColourMark]:
        if not self._has_tables():
            return []
        return self._recordings.colours(task_id, first, last, with_previous=with_previous)

    def event_page(self, task_id: str, after: int, limit: int, max_bytes: int, host: str = "") -> list[dict[str, Any]]:
        if not self._has_tables():
            return []
        return self._recordings.event_page(task_id, after, limit, max_bytes, host)

    def stats_event(self, task_id: str) -> dict[str, Any] | None:
        return self._recordings.stats_event(task_id) if self._has_tables() else None

    def hosts(self, task_id: str, first: int, limit: int) -> list[str]:
        return self._recordings.hosts(task_id, first, limit) if self._has_tables() else []

    def host_events(self, task_id: str, hosts: list[str], limit: int, max_bytes: int) -> list[list[dict[str, Any]]]:
        if not self._has_tables():
            return [[] for _ in hosts]
        return self._recordings.host_events(task_id, hosts, limit, max_bytes)

    def known_hosts(self, viewer: TaskViewer) -> ArchivedHosts | None:
        """Returns the hosts as one user sees them; None: nothing was archived yet."""
        return ArchivedHosts(self.database, viewer) if self._has_tables() else None

    def _has_tables(self) -> bool:
        """Whether there is anything to read: nothing was archived in a database without tables.

        Raises HistoryUnavailable while they are of another version than this program's. What they become while it runs
        it does not look at: a later version adds to them.
        """
        if self._is_ready:
            return True
        version = self.database.version()
        if version not in (0, VERSION):
            what = "waits for a worker to migrate it" if version < VERSION else "belongs to a newer Flansible"
            reason = f"{what} (it has version {version}, this program needs {VERSION})"
            raise HistoryUnavailable(f"the history database {reason}", reason)
        self._is_ready = version == VERSION
        return self._is_ready
