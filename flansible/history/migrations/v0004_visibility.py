"""Version 4: by what others may see a task, and the entries of rbac.json that do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("tasks", sa.Column("visibility", sa.Text))
    op.create_table(
        "task_readers",
        sa.Column(
            "task_key", key, sa.ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        sa.Column("entry", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_index("task_readers_entry", "task_readers", ["entry", "number"])
