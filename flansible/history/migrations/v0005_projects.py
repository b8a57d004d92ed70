"""Version 5: the project, ref and commit of a task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for name in ("project", "ref", "commit"):
        op.add_column("tasks", sa.Column(name, sa.Text))
