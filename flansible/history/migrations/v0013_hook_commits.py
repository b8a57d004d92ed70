"""Version 13: the commits that calls of webhooks run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("hook_calls", sa.Column("commit", sa.Text, nullable=False, server_default=""))
