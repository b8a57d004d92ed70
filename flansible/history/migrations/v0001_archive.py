"""Version 1: finished tasks with their output, events and hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _task_key() -> sa.Column[int]:
    reference = sa.ForeignKey("tasks.key", ondelete="CASCADE")
    return sa.Column("task_key", _Key, reference, primary_key=True, autoincrement=False)


def upgrade() -> None:
    _make_tasks()
    _make_recordings()
    _make_hosts()
    op.create_table(
        "archiver",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="archiver_one_row"),
    )
    op.execute("INSERT INTO archiver (id, token) VALUES (1, 0)")


def _make_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("key", _Key, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("returncode", sa.Integer),
        sa.Column("changed", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("warning", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("ended", sa.Text),
        sa.Column("playbook", sa.Text),
        sa.Column("module", sa.Text),
        sa.Column("hosts", sa.Text),
        sa.Column("inventory", sa.Text),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("host_count", sa.Integer, nullable=False),
        sa.Column("play_task_count", sa.Integer, nullable=False),
        sa.Column("submitted", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.BigInteger, nullable=False),
        sa.Column("submitted_at", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("finished_at", sa.Text, nullable=False),
        sa.Column("run", sa.LargeBinary, nullable=False),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("colour_count", sa.BigInteger, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("stats_seq", sa.BigInteger),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("archived", sa.BigInteger, nullable=False),
        sa.Column("output_expired", sa.BigInteger),
    )
    op.create_index("tasks_number", "tasks", ["number"])
    op.create_index("tasks_user", "tasks", ["username", "number"])
    op.create_index("tasks_state", "tasks", ["state", "number"])
    op.create_index("tasks_user_state", "tasks", ["username", "state", "number"])
    op.create_index("tasks_playbook", "tasks", ["playbook", "number"])
    op.create_index("tasks_finished", "tasks", ["finished"])


def _make_recordings() -> None:
    op.create_table(
        "output_chunks",
        _task_key(),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("marks", sa.LargeBinary, nullable=False),
        sa.Column("before", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "event_segments",
        _task_key(),
        sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("verdicts", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _make_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("key", _Key, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("inventory", sa.Text, nullable=False),
        sa.UniqueConstraint("name", "inventory", name="hosts_name_inventory"),
    )
    op.create_table(
        "task_hosts",
        _task_key(),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("host_key", _Key, sa.ForeignKey("hosts.key"), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("changed", sa.Boolean, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("seqs", sa.LargeBinary, nullable=False),
    )
    op.create_index("task_hosts_host", "task_hosts", ["host_key", "number"])
