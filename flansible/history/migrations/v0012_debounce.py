"""Version 12: calls of webhooks that wait for others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("hook_calls", sa.Column("repetition", sa.Text, nullable=False, server_default=""))
    op.add_column("hook_calls", sa.Column("due", sa.BigInteger))
    op.add_column("hook_calls", sa.Column("merged_into", sa.Text))
    op.create_index("hook_calls_repetition", "hook_calls", ["webhook", "repetition", "received"])
    op.create_index("hook_calls_due", "hook_calls", ["due"])
    op.create_index("hook_calls_merged", "hook_calls", ["merged_into"])
