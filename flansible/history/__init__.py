"""The history database, SQLite or PostgreSQL: finished tasks, their output, events, results and hosts.

The only place with SQL. Redis (`store`) keeps what is live; a task that is final moves here once, and what is read of
it stays the same. docs/architecture/history.md has the tables and the way of a task. Web and worker processes use it.
May import `store`, `config`, `models`, `system`, `states` and `errors`.
"""
