"""The only package that speaks Redis: task records, their output and events, and the indexes that list them.

| key                                 | type   | written by  | holds                                       | expiry    |
|-------------------------------------|--------|-------------|---------------------------------------------|-----------|
| flansible:task:all                  | hash   | every move  | how many changes of lists there were        | none      |
| flansible:listed                    | stream | every move  | ids of the last 10,000 tasks that changed   | trimmed   |
| flansible:task:<id>                 | hash   | web, worker | the record: state, times, counts            | retention |
| flansible:task:<id>:run             | string | web         | the AuthorizedRun as JSON                   | retention |
| flansible:task:<id>:secrets         | string | web         | sealed secrets; gone once read, or final    | read once |
| flansible:task:<id>:output:<n>      | string | worker      | output bytes, 4 MiB a segment               | retention |
| flansible:task:<id>:colours:<n>     | string | worker      | 16 bytes a colour: offset, SGR code         | retention |
| flansible:task:<id>:events          | stream | worker      | events; the entry id is `<seq>-0`           | retention |
| flansible:task:<id>:hosts           | zset   | worker      | hosts with results; those that failed first | retention |
| flansible:task:<id>:by_host         | zset   | worker      | `<length>:<host>\\0<seq>` of each result    | retention |
| flansible:idempotency:<user>:<key>  | hash   | web         | the task that a client's key stands for     | 24 hours  |
| flansible:sequence                  | string | web         | counter of tasks; orders the indexes        | none      |
| flansible:tasks                     | zset   | web         | every task id by sequence                   | pruned    |
| flansible:tasks:user:<user>         | zset   | web         | a user's task ids                           | pruned    |
| flansible:tasks:state:<state>       | zset   | every move  | task ids in a state                         | pruned    |
| flansible:tasks:user:<user>:<state> | zset   | every move  | a user's task ids in a state                | pruned    |
| flansible:expiring                  | zset   | final move  | final task ids by when they expire          | pruned    |
| flansible:stored_bytes              | string | final move  | bytes of all final tasks                    | none      |
| flansible:durations                 | hash   | final move  | mean seconds of the latest runs             | none      |
| flansible:unsent                    | zset   | web         | queued tasks not known to be on the queue   | pruned    |
| flansible:leases                    | zset   | worker      | running task ids by when they lapse         | pruned    |
| flansible:locks                     | hash   | claim       | lock name to the running task that has it   | its end   |
| flansible:waiting                   | set    | claim       | names of the lines below that are not empty | pruned    |
| flansible:waiting:lock:<name>       | zset   | claim       | queued task ids that wait for a lock        | pruned    |
| flansible:waiting:user:<user>       | zset   | claim       | ... for a run of their user to end          | pruned    |
| flansible:workers                   | zset   | worker      | workers by when they lapse                  | an hour   |
| flansible:workers:slots             | hash   | worker      | worker to how many runs it carries          | an hour   |
| flansible:logins:both:<u>:<address> | string | web         | wrong passwords, u: the user's name hashed  | 5 minutes |
| flansible:logins:user:<u>           | string | web         | ... for a user from anywhere                | 5 minutes |
| flansible:logins:address:<address>  | string | web         | ... from an address, or an IPv6 /64         | 5 minutes |
| flansible:stats:<day>:<user>        | hash   | final move  | counts of a user's tasks; day: since 1970   | 100 days  |
| flansible:stats:<day>               | hash   | final move  | ... of everybody's                          | 100 days  |
| flansible:session:<digest>          | string | web         | who is logged in with a browser's cookie    | idle time |

A hidden task (a preview, a look at an inventory) has its record alone, with an expiry of minutes from the start: none
of the indexes and counts knows it. retention: set when the task becomes final. pruned: entries go when their task does.
Beside the keys, each change is told on the channel `flansible:changed:<id>`.

Every step that decides something is one Lua script, so two processes can never both win. Redis' errors become
StoreUnavailable here and nowhere else. Called by web (any thread) and by the worker's threads. May import
`models`, `errors` and `system`.
"""

from flansible.store.changes import Changes
from flansible.store.day_statistics import Counts, PlaybookCounts, Stats, WorkerLoad
from flansible.store.leases import MAX_ATTEMPTS, Leases, Run
from flansible.store.logins import LoginFailures, LoginLimits
from flansible.store.recordings import (
    AppendResult,
    Batch,
    ColourMark,
    Position,
    Progress,
    Recordings,
    StoredEvent,
)
from flansible.store.session_records import Session, Sessions
from flansible.store.task_records import (
    LEASE_SECONDS,
    Claim,
    ClaimRefusal,
    Idempotency,
    ReadyTask,
    RecordPage,
    Retention,
    SubmitResult,
    Transition,
)

__all__ = [
    "LEASE_SECONDS",
    "MAX_ATTEMPTS",
    "AppendResult",
    "Batch",
    "Changes",
    "Claim",
    "ColourMark",
    "Counts",
    "Idempotency",
    "LoginLimits",
    "Transition",
    "PlaybookCounts",
    "Position",
    "Progress",
    "ClaimRefusal",
    "Retention",
    "Run",
    "Session",
    "Store",
    "StoredEvent",
    "SubmitResult",
    "RecordPage",
    "ReadyTask",
    "WorkerLoad",
]


class Store(Leases, Recordings, LoginFailures, Sessions, Stats):
    """Records in one Redis. Opens no connection until first used; safe to share between threads, not across a fork."""

    def changes(self) -> Changes:
        """A subscription of its own, for one thread."""
        return Changes(self._redis)
