"""The tables, as SQLAlchemy Core knows them. The files in `migrations/` make them; a test compares the two.

| table            | a row is                                                | key                   |
|------------------|---------------------------------------------------------|-----------------------|
| `tasks`          | a final task: what its status and the list's filters say | `key`; `id` is public |
| `output_chunks`  | a piece of a task's output, with its colours             | task, `start`         |
| `event_segments` | consecutive events of a task                             | task, `first_seq`     |
| `task_readers`   | an entry of rbac.json that sees a task of another user  | task, `entry`         |
| `task_hosts`     | a host with results in a task, and how it fared there    | task, `position`      |
| `hosts`          | a host: the inventory a task named, and its name         | `key`                 |
| `scopes`         | whose tasks, and who else sees them: seen by the same    | `key`                 |
| `scope_readers`  | an entry of rbac.json that sees the tasks of a scope     | `entry`, scope        |
| `host_scopes`    | how a host fared last in the tasks of a scope            | host, scope           |
| `host_facts`     | the latest facts of a host by the tasks of a scope       | host, scope           |
| `summaries`      | a summary that tasks have                                | `key`                 |
| `search_records` | what search finds of a task beside its output            | task                  |
| `search_pieces`  | a piece of a task's output, of whole lines, for search   | task, `piece`         |
| `search_backfill` | which tasks of before are still to be gone through      | one row               |
| `definitions`    | what is set up once and used by name                     | `kind`, `name`        |
| `schedule_states` | how far a schedule has come, and whether it is paused   | `name`                |
| `schedule_occurrences` | a time at which a schedule was due, and its outcome | schedule, `due`      |
| `deliveries`     | one event of a task for one notification                 | `key`; `id` is public |
| `hook_calls`     | a call of a webhook                                      | `key`; `id` is public |
| `archiver`       | the highest token of a worker that has archived          | one row               |

`number` is the number of the task that Redis gave it: the cursor of lists, there and here. Times are milliseconds since
1970 where they are compared, and text, as the API shows it, where they are not. Blobs are as encoding.py makes them.
The words by which `search_records` and `search_pieces` are found are in two more tables, which differ between the two
databases: search_index.py.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION = 13  # of the newest file in migrations/

metadata = MetaData()
_Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by themselves only with an INTEGER


_HAS_OUTPUT = text("output_expired IS NULL")
_NO_SCOPE = text("scope_key IS NULL")


def _task_key() -> Column[int]:
    return Column("task_key", _Key, ForeignKey("tasks.key", ondelete="CASCADE"), primary_key=True, autoincrement=False)


def _host_and_scope() -> tuple[Column[int], Column[int]]:
    host, scope = ForeignKey("hosts.key", ondelete="CASCADE"), ForeignKey("scopes.key")
    return (
        Column("host_key", _Key, host, primary_key=True, autoincrement=False),
        Column("scope_key", _Key, scope, primary_key=True, autoincrement=False),
    )


tasks = Table(
    "tasks",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("number", BigInteger, nullable=False),
    Column("username", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("returncode", Integer),
    Column("changed", Boolean, nullable=False),
    Column("description", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("warning", Text),
    Column("attempt", Integer, nullable=False),
    Column("ended", Text),  # JSON: the processes that were killed
    Column("playbook", Text),
    Column("module", Text),
    Column("hosts", Text),  # the pattern or limit of the request
    Column("inventory", Text),
    Column("template", Text),  # the template that it was launched from
    Column("origin", Text),  # JSON: what started it, and with whose rights; NULL in rows of before
    Column("counts", Text, nullable=False),  # JSON: results by verdict
    Column("host_count", Integer, nullable=False),
    Column("play_task_count", Integer, nullable=False),
    Column("submitted", BigInteger, nullable=False),
    Column("finished", BigInteger, nullable=False),
    Column("submitted_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text, nullable=False),
    Column("run", LargeBinary, nullable=False),  # the AuthorizedRun as JSON
    Column("output_bytes", BigInteger, nullable=False),
    Column("colour_count", BigInteger, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("stats_seq", BigInteger),
    Column("stored_bytes", BigInteger, nullable=False),  # what its rows take here, about
    Column("archived", BigInteger, nullable=False),
    Column("output_expired", BigInteger),  # when its output and events were deleted before it
    Column("project", Text),  # these three of a project's run
    Column("ref", Text),
    Column("commit", Text),
    Column("summary_key", BigInteger),  # in `summaries`; NULL until the archiver has gone through those of before
    Column("visibility", Text),  # JSON: by what others may see it; NULL: by nothing but `sees: all`
    Column("scope_key", BigInteger),  # NULL: its hosts are not in `host_scopes` yet
    Index("tasks_number", "number"),
    Index("tasks_user", "username", "number"),
    Index("tasks_state", "state", "number"),
    Index("tasks_user_state", "username", "state", "number"),
    Index("tasks_playbook", "playbook", "number"),
    Index("tasks_user_playbook", "username", "playbook", "number"),
    Index("tasks_returncode", "returncode", "number"),
    Index("tasks_summary", "summary_key", "number"),
    Index("tasks_template", "template", "number"),
    Index("tasks_submitted", "submitted"),
    Index("tasks_finished", "finished"),
    Index("tasks_with_output", "finished", sqlite_where=_HAS_OUTPUT, postgresql_where=_HAS_OUTPUT),
    Index("tasks_without_scope", "number", sqlite_where=_NO_SCOPE, postgresql_where=_NO_SCOPE),
)

task_readers = Table(
    "task_readers",
    metadata,
    _task_key(),
    Column("entry", Text, primary_key=True),  # `group:release`, `user:lee`
    Column("number", BigInteger, nullable=False),  # of the task
    Index("task_readers_entry", "entry", "number"),
)

output_chunks = Table(
    "output_chunks",
    metadata,
    _task_key(),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("size", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("marks", LargeBinary, nullable=False),  # those in it; in the last chunk also those at its end
    Column("before", LargeBinary, nullable=False),  # the last mark before them: in which colour the chunk begins
)

event_segments = Table(
    "event_segments",
    metadata,
    _task_key(),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
    Column("verdicts", Integer, nullable=False),  # bits of VERDICT_BITS: which results it has
    Column("data", LargeBinary, nullable=False),
)

hosts = Table(
    "hosts",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("name", Text, nullable=False),  # as encoding.host_name cuts it
    Column("inventory", Text, nullable=False),  # as the request named it; '' for none
    UniqueConstraint("name", "inventory", name="hosts_name_inventory"),
)

task_hosts = Table(
    "task_hosts",
    metadata,
    _task_key(),
    Column("position", Integer, primary_key=True, autoincrement=False),  # in the results: hosts with a failure first
    Column("host_key", _Key, ForeignKey("hosts.key"), nullable=False),
    Column("number", BigInteger, nullable=False),  # of the task
    Column("verdict", Text, nullable=False),  # the host's own, in this task: HOST_VERDICTS
    Column("changed", Boolean, nullable=False),
    Column("counts", Text, nullable=False),  # JSON: its results by verdict
    Column("seqs", LargeBinary, nullable=False),  # of its results
    Column("scope_key", BigInteger),  # of the task
    # The scope is in it: who sees few of a host's tasks has them looked for in the index alone.
    Index("task_hosts_host", "host_key", "number", "scope_key"),
)

scopes = Table(
    "scopes",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("username", Text, nullable=False),
    Column("visibility", Text, nullable=False),  # as in `tasks`; '' for none
    Column("digest", Text, nullable=False, unique=True),
)

scope_readers = Table(
    "scope_readers",
    metadata,
    Column("entry", Text, primary_key=True),
    Column("scope_key", _Key, ForeignKey("scopes.key"), primary_key=True, autoincrement=False),
)

host_scopes = Table(
    "host_scopes",
    metadata,
    *_host_and_scope(),
    Column("number", BigInteger, nullable=False),  # of the task that ended last
    Column("finished", BigInteger, nullable=False),  # of it
    Column("verdict", Text, nullable=False),  # the host's own, in it
    Column("host_groups", Text),  # JSON, as it was then; NULL: not known
    Column("changed_number", BigInteger),  # of the last task that changed the host
    Column("changed", BigInteger),
    Column("failed_number", BigInteger),  # of the last task in which it failed, or could not be reached
    Column("failed", BigInteger),
)

host_facts = Table(
    "host_facts",
    metadata,
    *_host_and_scope(),
    Column("task_key", _Key, ForeignKey("tasks.key", ondelete="CASCADE"), nullable=False),
    Column("gathered", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # JSON
    Index("host_facts_task", "task_key"),
)

summaries = Table(
    "summaries",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),  # of the text: an index of PostgreSQL takes 2,700 bytes
    Column("text", Text, nullable=False),
)

search_records = Table(
    "search_records",
    metadata,
    _task_key(),
    Column("data", LargeBinary, nullable=False),  # a list of SearchText as JSON
)

search_pieces = Table(
    "search_pieces",
    metadata,
    _task_key(),
    Column("piece", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, nullable=False),  # in the output
    Column("size", Integer, nullable=False),
    Column("first_line", BigInteger, nullable=False),
)

search_backfill = Table(
    "search_backfill",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("next_key", BigInteger),  # of the next task; NULL: none is left
    CheckConstraint("id = 1", name="search_backfill_one_row"),
)

definitions = Table(
    "definitions",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("spec", Text, nullable=False),  # JSON
    Column("sealed", LargeBinary),
    Column("sealed_names", Text, nullable=False),  # JSON
    Column("sealed_digest", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("set_name", Text),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index("definitions_set", "set_name"),
)

schedule_states = Table(
    "schedule_states",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Text, nullable=False),  # of the definition that this is about
    Column("position", BigInteger, nullable=False),  # up to when every due time has its occurrence
    Column("paused", Boolean),  # NULL: as the definition says
    Column("paused_by", Text),
    Column("note", Text),
    Column("skips", Integer, nullable=False),  # how many of the next due times are skipped
    Column("failures", Integer, nullable=False),  # tasks in a row that did not succeed
)

_IS_OPEN = text("is_open")
schedule_occurrences = Table(
    "schedule_occurrences",
    metadata,
    Column("schedule", Text, primary_key=True),
    Column("due", BigInteger, primary_key=True, autoincrement=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text),
    Column("task_id", Text),
    Column("recorded", BigInteger, nullable=False),
    Column("is_open", Boolean, nullable=False),  # whether its start, or its task, is not known to be over
    Index("schedule_occurrences_open", "due", sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("notification", Text, nullable=False),  # '' for the callback of a request
    Column("event", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("payload", Text, nullable=False),  # JSON
    Column("state", Text, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("attempts", Text, nullable=False),  # JSON: the latest
    Column("next", BigInteger, nullable=False),  # when it is due; of one that is being sent: when it is given up
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("task", "notification", "event", name="deliveries_once"),
    Index("deliveries_due", "state", "next"),
    Index("deliveries_owner", "owner", "key"),
    Index("deliveries_created", "created"),
)

hook_calls = Table(
    "hook_calls",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("webhook", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("sender_id", Text, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("task", Text),
    Column("variables", Text, nullable=False),  # JSON: those that the payload sets
    Column("commit", Text, nullable=False, server_default=""),  # that is run; '' where the template decides
    Column("repetition", Text, nullable=False, server_default=""),  # what repetitions of it have in common
    Column("due", BigInteger),  # when it starts; of one that is being started: when it is given up
    Column("merged_into", Text),  # the call that starts for it
    Index("hook_calls_owner", "owner", "key"),
    Index("hook_calls_sender", "webhook", "sender_id", "received"),
    Index("hook_calls_received", "received"),
    Index("hook_calls_repetition", "webhook", "repetition", "received"),
    Index("hook_calls_due", "due"),
    Index("hook_calls_merged", "merged_into"),
)

archiver = Table(
    "archiver",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("token", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="archiver_one_row"),
)

# The bits of `event_segments.verdicts`. What is stored counts on these numbers.
VERDICT_BITS = {
    "ok": 1,
    "changed": 2,
    "failed": 4,
    "unreachable": 8,
    "skipped": 16,
    "rescued": 32,
    "ignored": 64,
}
# A host's own verdict in a task is the first of these that one of its results has.
HOST_VERDICTS = ("unreachable", "failed", "changed", "ok", "rescued", "ignored", "skipped")
