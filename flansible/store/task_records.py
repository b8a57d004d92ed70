"""Task records: submitting, moving from state to state and pruning them; claims.py has how workers get them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from flansible.errors import HistoryUnavailable, IllegalMove
from flansible.models import DEFAULT_QUEUE, FINAL_STATES, STATES, AuthorizedRun, State
from flansible.store import keys
from flansible.store.connection import REPLY_TIMEOUT_SECONDS, text, translated
from flansible.store.keys import index_key, task_key, task_keys
from flansible.store.recordings import COLOURS_PER_SEGMENT, MOST_READ_SECONDS, SEGMENT_BYTES
from flansible.store.task_queries import TaskQueries
from flansible.system.timestamps import timestamp

IDEMPOTENCY_SECONDS = 24 * 3600
HIDDEN_SECONDS = 300  # a hidden task is kept so long, and so long again once it is final
_PRUNE_AT_ONCE = 100
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
            joined_places(run.places),
            1 if any_sequence else "",
        )

    def mark_enqueued(self, task_id: str) -> None:
        """Records that the task's message is on the queue. From now on its idempotency key is answered with it."""
        self._run("mark_enqueued", [task_key(task_id), keys.UNSENT])

    def discard(self, task_id: str) -> bool:
        """Deletes a task that could not be enqueued, unless a worker has claimed it meanwhile; whether it did."""
        return bool(self._run("discard", [task_key(task_id), keys.TASKS], SEGMENT_BYTES, COLOURS_PER_SEGMENT))

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
        return Transition(to, ready_tasks_of(answer[1:]))


def _visibility(run: AuthorizedRun) -> str:
    """Returns who may see the task besides, as JSON; empty: nobody by the inventories."""
    if run.visibility is None or not run.visibility.entries:
        return ""
    return json.dumps(run.visibility.model_dump(mode="json"))


def _about(run: AuthorizedRun) -> str:
    """Returns what lists show of the task, as JSON."""
    return json.dumps(run.about.model_dump(exclude_none=True) | run.origin.model_dump(exclude_none=True))


def joined_places(places: Iterable[str]) -> bytes:
    """Encodes places for scripts, each with a null byte behind it."""
    return b"".join(os.fsencode(place) + b"\0" for place in places)


def _compared(run: AuthorizedRun) -> str:
    """Returns under which key the numbers of play tasks of runs are compared; empty: not for this run."""
    is_partial = any(run.request.get(option) for option in _PARTIAL)
    return "" if run.about.playbook is None or is_partial else f"{run.user}:{run.about.playbook}"


def ready_tasks_of(flat: Any) -> tuple[ReadyTask, ...]:
    """Decodes the tasks at the end of a script's reply, three values each."""
    rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return tuple(ReadyTask(*map(text, row)) for row in rows)
