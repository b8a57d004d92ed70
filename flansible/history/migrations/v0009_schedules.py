"""Version 9: how far schedules have come, and what became of each time at which they were due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "schedule_states",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Boolean),
        sa.Column("paused_by", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("skips", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
    )
    op.create_table(
        "schedule_occurrences",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("due", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("task_id", sa.Text),
        sa.Column("recorded", sa.BigInteger, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
    )
    is_open = sa.text("is_open")
    op.create_index(
        "schedule_occurrences_open", "schedule_occurrences", ["due"], sqlite_where=is_open, postgresql_where=is_open
    )
