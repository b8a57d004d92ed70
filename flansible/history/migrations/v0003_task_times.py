"""Version 3: finds tasks by the time they were submitted, and those whose output is still there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    has_output = sa.text("output_expired IS NULL")
    op.create_index("tasks_submitted", "tasks", ["submitted"])
    op.create_index("tasks_with_output", "tasks", ["finished"], sqlite_where=has_output, postgresql_where=has_output)
