"""Version 8: how each host fared last, for each group of tasks that the same users see, and its facts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # Filled by the archiver, some at a time; a worker of the version before leaves them empty too.
    op.add_column("tasks", sa.Column("scope_key", sa.BigInteger))
    op.add_column("task_hosts", sa.Column("scope_key", sa.BigInteger))
    no_scope = sa.text("scope_key IS NULL")
    op.create_index("tasks_without_scope", "tasks", ["number"], sqlite_where=no_scope, postgresql_where=no_scope)
    op.drop_index("task_hosts_host", "task_hosts")
    op.create_index("task_hosts_host", "task_hosts", ["host_key", "number", "scope_key"])
    op.create_table(
        "scopes",
        sa.Column("key", _Key, primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("visibility", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
    )
    op.create_table(
        "scope_readers",
        sa.Column("entry", sa.Text, primary_key=True),
        sa.Column("scope_key", _Key, sa.ForeignKey("scopes.key"), primary_key=True, autoincrement=False),
    )
    op.create_table(
        "host_scopes",
        *_host_and_scope(),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("host_groups", sa.Text),
        sa.Column("changed_number", sa.BigInteger),
        sa.Column("changed", sa.BigInteger),
        sa.Column("failed_number", sa.BigInteger),
        sa.Column("failed", sa.BigInteger),
    )
    op.create_table(
        "host_facts",
        *_host_and_scope(),
        sa.Column("task_key", _Key, sa.ForeignKey("tasks.key", ondelete="CASCADE"), nullable=False),
        sa.Column("gathered", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("host_facts_task", "host_facts", ["task_key"])


def _host_and_scope() -> tuple[sa.Column[int], sa.Column[int]]:
    host, scope = sa.ForeignKey("hosts.key", ondelete="CASCADE"), sa.ForeignKey("scopes.key")
    return (
        sa.Column("host_key", _Key, host, primary_key=True, autoincrement=False),
        sa.Column("scope_key", _Key, scope, primary_key=True, autoincrement=False),
    )
