"""Task records: submitting, claiming, moving from state to state and pruning them."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from flansible.errors import HistoryUnavailable, IllegalMove, RecordUnreadable, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, FINAL_STATES, STATES, AuthorizedRun, State
from flansible.store import keys, record_parsing
from flansible.store.connection import REPLY_TIMEOUT_SECONDS, text, translated
from flansible.store.keys import index_key, task_key, task_keys
from flansible.store.recordings import COLOURS_PER_SEGMENT, MOST_READ_SECONDS, SEGMENT_BYTES, Progress
from flansible.store.task_queries import TaskQueries
from flansible.system.timestamps import timestamp

IDEMPOTENCY_SECONDS = 24 * 3600
LEASE_SECONDS = 60
HIDDEN_SECONDS = 300  # a hidden task is kept so long, and so long again once it is final
_PRUNE_AT_ONCE = 100
AWAITS_REPORTS = "reports are awaited"
HOSTS_NEEDED = "hosts are needed"
_HOST_SET_SECONDS = 2 * 86400
_MOST_HOSTS = 20_000  # of one run; more count as all of the inventory
_READY_AT_ONCE = 100  # wait queues checked in one step
_ASKED_AGAIN_SECONDS = 5.0
# Options with which a run has other play tasks than the whole playbook.
_PARTIAL = ("tags", "skip_tags", "limit", "start_at_task", "list_hosts", "list_tasks", "list_tags", "syntax_check")


@dataclass(frozen=True)
class Retention:
    """How long and how many final tasks are kept. tasks, bytes: 0 is no limit."""

    days: int = 30
    tasks: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class SubmitResult:
    """Whether a task was recorded.

    outcome: `submitted`; `known` (the same request was sent under this idempotency key before: task_id is that task);
    `unsent` (likewise, but the process that recorded it died before it was on the queue: the caller puts it there);
    `conflict` (another request was); `in_flight` (the same request is being submitted now); `full` (the user has too
    many queued tasks).
    """

    outcome: Literal["submitted", "known", "unsent", "conflict", "in_flight", "full"]
    task_id: str


@dataclass(frozen=True)
class Idempotency:
    """Identifies repeated submissions: the client's key, and a digest of the request."""

    key: str
    digest: str


@dataclass(frozen=True)
class ReadyTask:
    """A queued task that may start now: its message has to be sent."""

    task_id: str
    summary: str
    queue: str = DEFAULT_QUEUE


@dataclass(frozen=True)
class Claim:
    """A task that this worker runs. token: proves that, and is higher than that of each earlier claim; progress: what
    earlier attempts have stored; nonce: makes repeating the claim harmless; worker, process: who claimed it."""

    run: AuthorizedRun
    token: int
    attempt: int
    progress: Progress
    nonce: str = ""
    worker: str = ""
    process: str = ""
    lease_seconds: int = LEASE_SECONDS


@dataclass(frozen=True)
class ClaimRefusal:
    """Why a task cannot be claimed: it waits (for a lock, for hosts, or for its user's other runs), it is not queued,
    its record cannot be read (it is final now), AWAITS_REPORTS: this Redis has restarted, and some worker has not
    reported yet what it runs, or HOSTS_NEEDED: `set_hosts` has to say first where it will run.

    ready: tasks that may start in its place.
    """

    reason: str
    ready: tuple[ReadyTask, ...] = ()


@dataclass(frozen=True)
class Transition:
    """A task's new state. ready: tasks that waited for what it held, and may start now."""

    state: State
    ready: tuple[ReadyTask, ...] = ()


class Tasks(TaskQueries):
    """The part of Store for task records."""

    def __init__(
        self, url: str, retention: Retention = Retention(), reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS
    ) -> None:
        super().__init__(url, reply_timeout_seconds)
        self._retention = retention
        self._unavailable: HistoryUnavailable | None = None
        self._asked_again_at = 0.0  # then the database is asked for its highest number again

    def submit(
        self, task_id: str, run: AuthorizedRun, sealed_secrets: bytes = b"", idempotency: Idempotency | None = None
    ) -> SubmitResult:
        """Records a task as queued. Recording it twice changes nothing. Raises HistoryUnavailable when Redis is empty:
        where numbers go on is not known then."""
        answer = self._submit(task_id, run, sealed_secrets, idempotency)
        if text(answer[0]) == "no sequence":
            # An empty Redis, or one that was restarted and may have been put back. Numbers go on above those that are
            # in the history database; while that is away, above those of this Redis.
            # Each try costs a request seconds.
            unavailable = self._unavailable if time.monotonic() < self._asked_again_at else None
            if unavailable is None:
                try:
                    self.raise_sequence(self._highest_archived())
                except HistoryUnavailable as error:
                    unavailable = self._unavailable = error
                    self._asked_again_at = time.monotonic() + _ASKED_AGAIN_SECONDS
            answer = self._submit(task_id, run, sealed_secrets, idempotency, any_sequence=True)
            if text(answer[0]) == "no sequence" and unavailable is not None:
                raise unavailable
        return SubmitResult(text(answer[0]), text(answer[1]))  # type: ignore[arg-type]  # the script's words are these

    def raise_sequence(self, number: int) -> None:
        """Has the next task get a number above this one: a Redis that was emptied, or put back, begins lower."""
        self._run("raise_sequence", [keys.SEQUENCE, keys.STORE], number)

    def _highest_archived(self) -> int:
        """Returns the highest number of a task that is not in Redis any more."""
        return 0

    def _submit(
        self,
        task_id: str,
        run: AuthorizedRun,
        sealed_secrets: bytes,
        idempotency: Idempotency | None,
        any_sequence: bool = False,
    ) -> Any:
        key = [f"{keys.PREFIX}idempotency:{run.user}:{idempotency.key}"] if idempotency else []
        return self._run(
            "submit",
            [
                *task_keys(task_id, "run", "secrets"),
                keys.SEQUENCE,
                keys.TASKS,
                index_key(run.user, None),
                index_key(run.user, State.QUEUED),
                keys.UNSENT,
                keys.STORE,
                *key,
            ],
            run.user,
            json.dumps(run.model_dump(mode="json")),  # pydantic's own JSON cannot hold names that are no UTF-8
            timestamp(),
            run.kind,
            run.summary,
            sealed_secrets,
            json.dumps(run.locks),
            run.on_lost,
            run.max_queued,
            run.max_running,
            _about(run),
            HIDDEN_SECONDS if run.hidden else "",
            idempotency.digest if idempotency else "",
            IDEMPOTENCY_SECONDS,
            _compared(run),
            _visibility(run),
            "" if run.retry is None else run.retry.delay_seconds,
            1 if run.request.get("callback") else "",
            "" if run.queue == DEFAULT_QUEUE else run.queue,
            "" if run.exclusive is None else 1,
            _places(run.places),
            1 if any_sequence else "",
        )

    def mark_enqueued(self, task_id: str) -> None:
        """Records that the task's message is on the queue. From now on its idempotency key is answered with it."""
        self._run("mark_enqueued", [task_key(task_id), keys.UNSENT])

    def discard(self, task_id: str) -> bool:
        """Deletes a task that could not be enqueued, unless a worker has claimed it meanwhile; whether it did."""
        return bool(self._run("discard", [task_key(task_id), keys.TASKS], SEGMENT_BYTES, COLOURS_PER_SEGMENT))

    def claim(
        self,
        task_id: str,
        worker: str,
        nonce: str = "",
        process: str = "",
        lease_seconds: int = LEASE_SECONDS,
    ) -> Claim | ClaimRefusal:
        """Moves a task from queued to running, unless it has to wait.

        nonce: identifies the request: repeating one whose reply was lost returns the same reply. process: the worker's,
        as flansible.system.process_identity writes it.
        """
        return self._claim(task_id, worker, nonce or uuid.uuid4().hex, process, lease_seconds)

    def set_hosts(self, task_id: str, hosts: Iterable[str] | None, places: tuple[str, ...] | None = None) -> None:
        """Records on which hosts a queued task will run; None: not known, so all of its inventories. places: its
        inventories, as `AuthorizedRun.places`, where the run does not know them."""
        names = sorted({host.encode(errors="replace") for host in hosts or ()})
        # No host at all: a play may make its own hosts.
        is_known = 0 < len(names) <= _MOST_HOSTS
        digest = sha256(b"\0".join(names)).hexdigest() if is_known else ""
        self._run(
            "set_hosts",
            [task_key(task_id), keys.host_set_key(digest)],
            digest,
            _HOST_SET_SECONDS,
            "" if places is None else 1,
            _places(places or ()),
            *(names if is_known else ()),
        )

    def restore(self, task_id: str, claim: Claim) -> bool:
        """Records a claim again that this Redis has lost; whether the task is the worker's again."""
        more = (claim.token, claim.attempt)
        found = self._claim(task_id, claim.worker, claim.nonce, claim.process, claim.lease_seconds, *more)
        return isinstance(found, Claim) and found.token == claim.token

    def _claim(
        self,
        task_id: str,
        worker: str,
        nonce: str,
        process: str,
        lease_seconds: int,
        restored: int | str = "",
        attempt: int | str = "",
    ) -> Claim | ClaimRefusal:
        answer: Any = self._run(
            "claim",
            [*task_keys(task_id, "run"), keys.LEASES, keys.LOCKS, keys.WAITING],
            nonce,
            timestamp(),
            worker,
            process,
            lease_seconds,
            restored,
            attempt,
        )
        what = text(answer[0])
        if what == "claimed":
            try:
                run = record_parsing.authorized_run(task_id, answer[1])
                progress = Progress(*(int(value) for value in answer[4:8]))
            except (RecordUnreadable, ValueError, TypeError) as error:
                return self._refuse_unreadable(task_id, int(answer[2]), error)
            return Claim(run, int(answer[2]), int(answer[3]), progress, nonce, worker, process, lease_seconds)
        if what == "waits":
            return ClaimRefusal(text(answer[1]), _ready(answer[2:]))
        return ClaimRefusal(what)

    def _refuse_unreadable(self, task_id: str, token: int, error: Exception) -> ClaimRefusal:
        """Ends a task that was claimed just now and cannot be run by anybody."""
        why = error.why if isinstance(error, RecordUnreadable) else "a number in it is none"
        description = f"its record cannot be read, it may be of another version ({why}); submit it again"
        moved = self.settle(task_id, State.ERROR, description, token=token)
        return ClaimRefusal(description, moved.ready)

    def take_retry(self, seconds: int) -> str | None:
        """Returns a failed task whose hosts are to be tried again now, to one process alone for so long: then it is due
        again, unless it was ended."""
        answer: Any = self._run("take_retry", [keys.RETRIES], seconds)
        return None if answer is None else text(answer)

    def end_retry(self, task_id: str) -> None:
        """Records that the retry of a task was started, or will never be."""
        with translated():
            self._redis.zrem(keys.RETRIES, task_id)

    def count_launch(self, template: str) -> int:
        """Counts a launch of a template whose tasks share slots; returns how many there were, this one included."""
        with translated():
            return int(self._redis.hincrby(keys.LAUNCHES, template, 1))

    def lock_loads(self, locks: list[str]) -> dict[str, int]:
        """Returns how many tasks hold a lock or wait for it, for each of these; in one round trip."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for lock in locks:
                pipeline.hexists(keys.LOCKS, lock)
                pipeline.zcard(f"{keys.WAITING}:lock:{lock}")
            found = pipeline.execute()
        return {lock: int(found[2 * number]) + int(found[2 * number + 1]) for number, lock in enumerate(locks)}

    def ready_tasks(self) -> tuple[ReadyTask, ...]:
        """Returns waiting tasks that may start although their messages were not sent: the sender has died."""
        return _ready(self._run("ready_tasks", [keys.WAITING], _READY_AT_ONCE))

    def secrets(self, task_id: str) -> bytes | None:
        """Reads a task's sealed secrets. The worker that claimed it then calls `delete_secrets`."""
        with translated():
            sealed: Any = self._redis.get(task_key(task_id, "secrets"))
        return bytes(sealed) if sealed else None

    def delete_secrets(self, task_id: str) -> None:
        """Deletes a task's secrets. When Redis is away now, the task's final move deletes them."""
        try:
            with translated():
                self._redis.delete(task_key(task_id, "secrets"))
        except StoreUnavailable:
            pass

    def settle(
        self,
        task_id: str,
        state: State,
        description: str,
        returncode: int | None = None,
        ended: tuple[str, ...] = (),
        token: int | None = None,
        warning: str | None = None,
    ) -> Transition:
        """Records the task's final state. All its keys expire after the retention. Raises IllegalMove.

        ended: the processes that were killed; token: only when the task still runs under the claim with this token;
        warning: what a success lacked that did nothing on any host.
        """
        fields: dict[str, str | int] = {"description": description}
        if returncode is not None:
            fields["returncode"] = returncode
        if ended:
            fields["ended"] = json.dumps(ended)
        if warning:
            fields["warning"] = warning
        return self._move(task_id, state, fields, condition="" if token is None else f"claim:{token}")

    def cancel(self, task_id: str, user: str) -> State | None:
        """Cancels a queued task, or requests that its worker ends a running one. Returns its state; None: unknown.

        RUNNING: the worker sees the request within `CancelWatcher`'s interval. Requesting it twice is harmless.
        """
        return self._cancel(task_id, user)[0]

    def revoke(self, task_id: str, by: str) -> bool:
        """Like `cancel`; returns whether this canceled the task, or was the first request to end its run."""
        return self._cancel(task_id, by)[1]

    def _cancel(self, task_id: str, user: str) -> tuple[State | None, bool]:
        fields = {"description": f"canceled by {user} before it started"}
        while True:
            try:
                self._move(task_id, State.CANCELED, fields, only_from=State.QUEUED)
                return State.CANCELED, True
            except IllegalMove:
                answer: Any = self._run("request_cancel", [task_key(task_id)], user)
            if answer is None:
                return None, False
            state = State(text(answer[0]))
            if state is not State.QUEUED:  # it may be queued again, when its run was lost in between
                return state, bool(answer[1])

    def cancel_requests(self, task_ids: list[str]) -> dict[str, str]:
        """Returns who requested to cancel which of these tasks, by task id. One round trip."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                pipeline.hget(task_key(task_id), "cancel_by")
            found = pipeline.execute()
        return {task_id: text(user) for task_id, user in zip(task_ids, found, strict=True) if user}

    def prune(self) -> int:
        """Removes expired tasks from the indexes, and the oldest final tasks above the retention's limits.

        Returns how many it removed, a hundred at most: call again until it returns 0.
        """
        limits = self._retention
        return int(
            self._run(
                "prune",
                [keys.EXPIRING, keys.STORED_BYTES, keys.TASKS, keys.READING],
                _PRUNE_AT_ONCE,
                limits.tasks,
                limits.bytes,
                SEGMENT_BYTES,
                COLOURS_PER_SEGMENT,
                MOST_READ_SECONDS,
            )
        )

    def _move(
        self, task_id: str, to: State, fields: dict[str, Any], only_from: State | None = None, condition: str = ""
    ) -> Transition:
        legal = only_from or ",".join(state for state, facts in STATES.items() if to in facts.next_states)
        moment = timestamp()
        kept_seconds: int | str = ""
        if to in FINAL_STATES:
            fields = {**fields, "finished_at": moment}
            kept_seconds = self._retention.days * 86400
        pairs = [part for pair in fields.items() for part in pair]
        answer: Any = self._run(
            "move",
            [
                *task_keys(task_id, "run", "secrets", "events", "hosts", "by_host"),
                keys.LEASES,
                keys.LOCKS,
                keys.EXPIRING,
                keys.STORED_BYTES,
                keys.DURATIONS,
            ],
            to,
            legal,
            kept_seconds,
            condition,
            moment,
            SEGMENT_BYTES,
            COLOURS_PER_SEGMENT,
            *pairs,
        )
        if text(answer[0]) != "moved":
            raise IllegalMove(f"task {task_id} is {text(answer[0])} and cannot become {to}", text(answer[0]))
        return Transition(to, _ready(answer[1:]))


def _visibility(run: AuthorizedRun) -> str:
    """Returns who may see the task besides, as JSON; empty: nobody by the inventories."""
    if run.visibility is None or not run.visibility.entries:
        return ""
    return json.dumps(run.visibility.model_dump(mode="json"))


def _about(run: AuthorizedRun) -> str:
    """Returns what lists show of the task, as JSON."""
    return json.dumps(run.about.model_dump(exclude_none=True) | run.origin.model_dump(exclude_none=True))


def _places(places: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(place) + b"\0" for place in places)


def _compared(run: AuthorizedRun) -> str:
    """Returns under which key the numbers of play tasks of runs are compared; empty: not for this run."""
    is_partial = any(run.request.get(option) for option in _PARTIAL)
    return "" if run.about.playbook is None or is_partial else f"{run.user}:{run.about.playbook}"


def _ready(flat: Any) -> tuple[ReadyTask, ...]:
    rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return tuple(ReadyTask(*map(text, row)) for row in rows)
