"""Version 11: calls of webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "hook_calls",
        sa.Column("key", key, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("sender_id", sa.Text, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("variables", sa.Text, nullable=False),
    )
    op.create_index("hook_calls_owner", "hook_calls", ["owner", "key"])
    op.create_index("hook_calls_sender", "hook_calls", ["webhook", "sender_id", "received"])
    op.create_index("hook_calls_received", "hook_calls", ["received"])
