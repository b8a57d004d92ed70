"""Version 6: what search finds, by words; lists by a text in summaries, of a user's playbook, and of an exit code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _make_texts()
    for name in ("search_record_words", "search_output_words"):
        if op.get_bind().dialect.name == "sqlite":
            # Neither the text nor where a word stands is stored again: what is found is read from the task.
            options = "content='', detail=none, columnsize=0, tokenize='ascii'"
            op.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(words, {options})")
        else:
            op.execute(f"CREATE TABLE {name} (key BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)")
            op.execute(f"CREATE INDEX {name}_words ON {name} USING gin (words) WITH (fastupdate = off)")
    op.create_table(
        "summaries",
        sa.Column("key", _Key, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.add_column("tasks", sa.Column("summary_key", sa.BigInteger))
    op.create_index("tasks_summary", "tasks", ["summary_key", "number"])
    op.create_index("tasks_user_playbook", "tasks", ["username", "playbook", "number"])
    op.create_index("tasks_returncode", "tasks", ["returncode", "number"])


def _make_texts() -> None:
    op.create_table(
        "search_records",
        _task_key(),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "search_pieces",
        _task_key(),
        sa.Column("piece", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("first_line", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "search_backfill",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next_key", sa.BigInteger),
        sa.CheckConstraint("id = 1", name="search_backfill_one_row"),
    )
    # The archiver goes through the tasks of before, the newest first, after the start.
    op.execute("INSERT INTO search_backfill (id, next_key) SELECT 1, max(key) FROM tasks")


def _task_key() -> sa.Column[int]:
    reference = sa.ForeignKey("tasks.key", ondelete="CASCADE")
    return sa.Column("task_key", _Key, reference, primary_key=True, autoincrement=False)
