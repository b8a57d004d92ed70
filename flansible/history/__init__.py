"""The history database, SQLite or PostgreSQL: finished tasks, their output, events, results and hosts.

The only place with SQL. Redis (`store`) keeps what is live; a task that is final moves here once, and what is read of
it stays the same: `merged_records` reads both. docs/architecture/history.md has the tables and the way of a task. Web
processes use it, and the archiver; a worker loads `limits` alone, without SQLAlchemy, so this file stays empty.
May import `store`, `config`, `models`, `system`, `states` and `errors`.
"""
