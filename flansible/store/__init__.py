"""Everything that uses Redis: task records, their output and events, indexes, leases, sessions, statistics.

| key                                 | type   | written by  | holds                                       | expiry    |
|-------------------------------------|--------|-------------|---------------------------------------------|-----------|
| flansible:task:all                  | hash   | every move  | `events`: number of the last list change    | none      |
| flansible:listed                    | stream | every move  | last 10,000 list changes: number, task id   | trimmed   |
| flansible:task:<id>                 | hash   | web, worker | the record: state, times, counts            | retention |
| flansible:task:<id>:run             | string | web         | the AuthorizedRun as JSON                   | retention |
| flansible:task:<id>:secrets         | string | web         | sealed secrets; deleted once read, or final | read once |
| flansible:task:<id>:output:<n>      | string | worker      | output bytes, 4 MiB a segment               | retention |
| flansible:task:<id>:colours:<n>     | string | worker      | colour marks, 16 bytes each: offset, code   | retention |
| flansible:task:<id>:events          | stream | worker      | events; the entry id is `<seq>-0`           | retention |
| flansible:task:<id>:hosts           | zset   | worker      | hosts with results by rank: 0 failed, 1 not | retention |
| flansible:task:<id>:by_host         | hash   | worker      | `<part>:<host>` to seqs of its results      | retention |
| flansible:idempotency:<user>:<key>  | hash   | web         | the task submitted with a client's key      | 24 hours  |
| flansible:sequence                  | string | web         | number of the last task; orders the indexes | none      |
| flansible:tasks                     | zset   | web         | all task ids by sequence                    | pruned    |
| flansible:tasks:user:<user>         | zset   | web         | a user's task ids by sequence               | pruned    |
| flansible:tasks:state:<state>       | zset   | every move  | task ids in a state                         | pruned    |
| flansible:tasks:user:<user>:<state> | zset   | every move  | a user's task ids in a state                | pruned    |
| flansible:tasks:entry:<e>           | zset   | web         | task ids that entry e of rbac.json sees     | pruned    |
| flansible:tasks:entry:<e>:<state>   | zset   | every move  | ... in a state                              | pruned    |
| flansible:visibility                | hash   | final move  | final task to its field visibility          | pruned    |
| flansible:expiring                  | zset   | final move  | final tasks by the time they expire         | pruned    |
| flansible:reading                   | zset   | web, export | final tasks that are read, and until when   | pruned    |
| flansible:stored_bytes              | string | final move  | bytes of all final tasks                    | none      |
| flansible:archiver                  | hash   | worker      | who archives, its token, and its problem    | none      |
| flansible:durations                 | hash   | final move  | mean seconds of recent runs                 | none      |
| flansible:metrics                   | hash   | many        | counters of GET /metrics                    | none      |
| flansible:outbox                    | stream | claim, move | starts and ends to notify somebody of       | 10,000    |
| flansible:notified                  | hash   | web         | what notifications ask for, and a version   | none      |
| flansible:outcomes                  | hash   | final move  | digest of what was run to its last state    | 10,000    |
| flansible:dispatcher                | hash   | web         | the process that delivers, and until when   | none      |
| flansible:play_tasks                | hash   | final move  | user:playbook to play tasks of its last run | 100 days  |
| flansible:unsent                    | zset   | web         | queued tasks, message not known to be sent  | pruned    |
| flansible:leases                    | zset   | worker      | running task ids by the end of their lease  | pruned    |
| flansible:token                     | string | claim       | the highest token of a claim                | none      |
| flansible:store                     | hash   | many        | run_id of this Redis, and when it was used  | none      |
| flansible:checked                   | string | web, doctor | nothing: shows that Redis takes writes      | a minute  |
| flansible:awaited                   | zset   | many        | workers that must report before any claim   | an hour   |
| flansible:locks                     | hash   | claim       | lock name to the running task that holds it | its end   |
| flansible:exclusive                 | zset   | claim       | tasks that want hosts alone, run or waiting | its end   |
| flansible:host_set:<digest>         | set    | worker      | hosts of runs, named by their digest        | 2 days    |
| flansible:waiting                   | set    | claim       | names of the wait queues below, none empty  | pruned    |
| flansible:waiting:lock:<name>       | zset   | claim       | queued task ids that wait for a lock        | pruned    |
| flansible:launches                  | hash   | web         | template with `at_most` to its launches     | none      |
| flansible:retries                   | zset   | final move  | failed tasks by the time of their retry     | its start |
| flansible:waiting:user:<user>       | zset   | claim       | ... for a run of their user to end          | pruned    |
| flansible:waiting:hosts:<id>        | zset   | claim       | ... for hosts that task <id> has            | pruned    |
| flansible:workers                   | zset   | worker      | workers by the time to which they are alive | an hour   |
| flansible:workers:slots             | hash   | worker      | `<slots> <runs> <queues> <lease seconds>`   | an hour   |
| flansible:workers:records           | hash   | worker      | name to process, problem, counts, time      | an hour   |
| flansible:logins:both:<u>:<address> | string | web, Flower | failed logins; u: digest of the user's name | 5 minutes |
| flansible:logins:user:<u>           | string | web, Flower | ... of a user from any address              | 5 minutes |
| flansible:logins:address:<address>  | string | web, Flower | ... from an address, or an IPv6 /64         | 5 minutes |
| flansible:scheduler                 | string | web         | who starts schedules: a token               | 6 seconds |
| flansible:rights                    | hash   | web         | user (and group) to rights, as JSON         | none      |
| flansible:stats:<day>:<user>        | hash   | final move  | counts of a user's tasks; day: since 1970   | 100 days  |
| flansible:stats:<day>               | hash   | final move  | ... of all users                            | 100 days  |
| flansible:project:<name>            | string | web         | how the last look at its remote went        | 100 days  |
| flansible:commit:<name>:<digest>    | string | web         | the commit of a ref of it, and when         | 100 days  |
| flansible:trees:<name>              | hash   | worker      | worker to the trees of it that it has       | an hour   |
| flansible:lookups:<queue>           | list   | web         | look-ups in projects that need no slot      | a minute  |
| flansible:choices:<digest>          | string | web         | choices of templates' variables, as read    | a minute  |
| flansible:session:<digest>          | string | web         | a browser session, by its cookie's digest   | idle time |

A hidden task (a preview run, an inventory listing) has only the keys of its record, which expire minutes after it was
submitted; it is in no index and no count. retention: the expiry is set when the task becomes final. pruned: an entry
is removed with its task. Each change of a task is also published on the channel `flansible:changed:<id>`.

Every step that decides something is one Lua script (scripts.py, lua/), so two processes can never both win. claim.lua
draws the state machine of a task; move.lua does all that happens in Redis when a task ends. Redis' errors become
StoreUnavailable here and nowhere else. Web and worker processes call it, from any thread. May import `models`, `system`
and `errors`.
"""

from flansible.store.archive_queue import ArchiveQueue, ArchiverReport, FinalRecord, FinishedTask
from flansible.store.changes import Changes
from flansible.store.claims import AWAITS_REPORTS, HOSTS_NEEDED, LEASE_SECONDS, Claim, ClaimRefusal
from flansible.store.day_statistics import Counts, PlaybookCounts, Stats, WorkerLoad
from flansible.store.leases import MAX_ATTEMPTS, Leases, Run
from flansible.store.login_throttle import LoginThrottle
from flansible.store.logins import LoginFailures, LoginLimits
from flansible.store.metric_counts import BOUNDS as METRIC_BOUNDS
from flansible.store.metric_counts import AnsweredRequest, Durations, MetricCounts, MetricsSnapshot
from flansible.store.outbox import EVERY_EVENT, LateSchedule, Outbox, OutboxEntry
from flansible.store.project_refs import KeptTree, KnownCommit, ProjectRefs, RemoteState
from flansible.store.recordings import (
    READ_AGAIN_SECONDS,
    AppendResult,
    Batch,
    ColourMark,
    Position,
    Progress,
    Recordings,
    StoredEvent,
)
from flansible.store.redis_errors import OTHER_REFUSAL
from flansible.store.rights_records import RightsRecords
from flansible.store.scheduler_lease import SchedulerLease
from flansible.store.session_records import Session, Sessions
from flansible.store.task_queries import ListFilter, NumberedPage, NumberedTask, RecordPage
from flansible.store.task_records import Idempotency, ReadyTask, Retention, SubmitResult, Transition
from flansible.store.template_launches import TemplateLaunches
from flansible.store.worker_records import REPORT_LOST_SECONDS, WorkerRecord, WorkerRecords

__all__ = [
    "AWAITS_REPORTS",
    "EVERY_EVENT",
    "HOSTS_NEEDED",
    "LEASE_SECONDS",
    "MAX_ATTEMPTS",
    "METRIC_BOUNDS",
    "OTHER_REFUSAL",
    "READ_AGAIN_SECONDS",
    "REPORT_LOST_SECONDS",
    "AnsweredRequest",
    "AppendResult",
    "ArchiverReport",
    "Batch",
    "Changes",
    "Claim",
    "ColourMark",
    "Counts",
    "Durations",
    "FinalRecord",
    "FinishedTask",
    "Idempotency",
    "KeptTree",
    "KnownCommit",
    "LateSchedule",
    "ListFilter",
    "LoginLimits",
    "LoginThrottle",
    "MetricsSnapshot",
    "Transition",
    "NumberedPage",
    "NumberedTask",
    "OutboxEntry",
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
    "RemoteState",
    "WorkerLoad",
    "WorkerRecord",
]


class Store(
    ArchiveQueue,
    Leases,
    Recordings,
    LoginFailures,
    MetricCounts,
    ProjectRefs,
    Outbox,
    RightsRecords,
    SchedulerLease,
    Sessions,
    Stats,
    TemplateLaunches,
    WorkerRecords,
):
    """Keeps records in one Redis. Connects at the first use; threads may share it, processes after a fork may not."""

    def changes(self) -> Changes:
        """Returns a new subscription, for one thread."""
        return Changes(self._redis)
