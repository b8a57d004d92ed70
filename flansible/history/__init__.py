"""The history database, SQLite or PostgreSQL: finished tasks, their output, events, results and hosts.

The only place with SQL. Redis (`store`) keeps what is live; a task that is final moves here once, and what is read of
it stays the same: `Records` reads both. docs/architecture/history.md has the tables and the way of a task. Web and
worker processes use it. May import `store`, `config`, `models`, `system`, `states` and `errors`.
"""

from flansible.history.archive import Archive
from flansible.history.merged_records import Records
from flansible.history.opening import open_records, redis_retention

__all__ = ["Archive", "Records", "open_records", "redis_retention"]
