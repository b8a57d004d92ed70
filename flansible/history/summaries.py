"""The summaries of tasks, each once: many tasks have the same one, so a text in one of them is looked for among few.

`text` of a list is any part of a summary, not words of it. Written by the archiver alone, whose transactions exclude
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from flansible.history import schema

RARE = 500  # tasks that are read by their keys; more are found soon enough among the newest


def digest_of(summary: str) -> str:
    return sha256(summary.encode()).hexdigest()


def key_of(connection: Connection, summary: str) -> int:
    """Returns the key of a summary; makes it if it is new."""
    table, digest = schema.summaries, digest_of(summary)
    found = connection.execute(select(table.c.key).where(table.c.digest == digest)).scalar()
    if found is None:
        made = connection.execute(insert(table).values(digest=digest, text=summary)).inserted_primary_key
        assert made is not None
        found = made[0]
    return int(found)


def delete_unused(connection: Connection, task_keys: Sequence[int], delete_tasks: Any) -> None:
    """Runs the statement that deletes these tasks, then deletes the summaries that no task has any more."""
    table, tasks = schema.summaries, schema.tasks
    wanted = select(tasks.c.summary_key).where(tasks.c.key.in_(task_keys), tasks.c.summary_key.is_not(None))
    keys = [key for (key,) in connection.execute(wanted.distinct())]
    connection.execute(delete_tasks)
    is_used = select(tasks.c.key).where(tasks.c.summary_key == table.c.key).exists()
    connection.execute(delete(table).where(table.c.key.in_(keys), ~is_used))


def tasks_with(connection: Connection, contains: Any) -> list[int] | None:
    """Returns the keys of the tasks whose summary fulfils a condition; None where they are many, or not known because
    the tasks of an earlier version are still being gone through."""
    progress, table, tasks = schema.search_backfill, schema.summaries, schema.tasks
    if connection.execute(select(progress.c.next_key)).scalar() is not None:
        return None
    matching = [key for (key,) in connection.execute(select(table.c.key).where(contains).limit(RARE))]
    if len(matching) == RARE:
        return None
    found: list[int] = []
    for key in matching:
        wanted = select(tasks.c.key).where(tasks.c.summary_key == key).limit(RARE - len(found))
        found += [int(task_key) for (task_key,) in connection.execute(wanted)]
        if len(found) == RARE:
            return None
    return found
