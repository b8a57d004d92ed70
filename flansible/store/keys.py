"""Names of the keys in Redis; `flansible/store/__init__.py` has their table, `lua/common/keys.lua` the names in Lua."""

from __future__ import annotations

from flansible.models import State

PREFIX = "flansible:"
CHANGED_CHANNEL = f"{PREFIX}changed:"
SEQUENCE = f"{PREFIX}sequence"
STORE = f"{PREFIX}store"
TASKS = f"{PREFIX}tasks"
LISTED = f"{PREFIX}listed"
UNSENT = f"{PREFIX}unsent"
AWAITED = f"{PREFIX}awaited"
LEASES = f"{PREFIX}leases"
LOCKS = f"{PREFIX}locks"
WAITING = f"{PREFIX}waiting"
EXPIRING = f"{PREFIX}expiring"
READING = f"{PREFIX}reading"
CHECKED = f"{PREFIX}checked"
ARCHIVER = f"{PREFIX}archiver"
METRICS = f"{PREFIX}metrics"
OUTBOX = f"{PREFIX}outbox"
NOTIFIED = f"{PREFIX}notified"
DISPATCHER = f"{PREFIX}dispatcher"
STORED_BYTES = f"{PREFIX}stored_bytes"
DURATIONS = f"{PREFIX}durations"
LAUNCHES = f"{PREFIX}launches"
RETRIES = f"{PREFIX}retries"
RIGHTS = f"{PREFIX}rights"
SCHEDULER = f"{PREFIX}scheduler"
WORKERS = f"{PREFIX}workers"
WORKER_SLOTS = f"{PREFIX}workers:slots"
WORKER_RECORDS = f"{PREFIX}workers:records"


def task_key(task_id: str, part: str = "") -> str:
    """Names a task's record, or one of its other keys."""
    return f"{PREFIX}task:{task_id}:{part}" if part else f"{PREFIX}task:{task_id}"


def task_keys(task_id: str, *parts: str) -> list[str]:
    """Names a task's record and these of its other keys."""
    return [task_key(task_id), *(task_key(task_id, part) for part in parts)]


def entry_index_key(entry: str, state: State | None) -> str:
    """Names the index of the tasks that an entry of rbac.json sees, in a state (None: any)."""
    return f"{TASKS}:entry:{entry}:{state}" if state else f"{TASKS}:entry:{entry}"


def host_set_key(digest: str) -> str:
    """Names a set of hosts by its digest."""
    return f"{PREFIX}host_set:{digest}"


def project_key(project: str) -> str:
    """Names what is known of a project's remote."""
    return f"{PREFIX}project:{project}"


def trees_key(project: str) -> str:
    """Names which workers have trees of a project's commits."""
    return f"{PREFIX}trees:{project}"


def lookups_key(queue: str) -> str:
    """Names the look-ups in projects that a queue's workers may take without a slot."""
    return f"{PREFIX}lookups:{queue}"


def commit_key(project: str, ref_digest: str) -> str:
    """Names the commit of one of a project's refs."""
    return f"{PREFIX}commit:{project}:{ref_digest}"


def choices_key(source_digest: str) -> str:
    """Names the choices that a source gave."""
    return f"{PREFIX}choices:{source_digest}"


def index_key(user: str | None, state: State | None) -> str:
    """Names the index that lists a user's tasks (None: all users') in a state (None: any)."""
    if user is None:
        return f"{TASKS}:state:{state}" if state else TASKS
    return f"{TASKS}:user:{user}:{state}" if state else f"{TASKS}:user:{user}"
