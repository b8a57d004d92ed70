"""Version 7: what started a task, with whose rights, and the template that it was launched from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("template", sa.Text))
    op.add_column("tasks", sa.Column("origin", sa.Text))
    op.create_index("tasks_template", "tasks", ["template", "number"])
