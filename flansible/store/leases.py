"""Leases: until when a running task is surely its worker's, and what happens to a task whose lease is over.

docs/architecture/fencing.md has the protocol and why it holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flansible.errors import IllegalMove
from flansible.models import DEFAULT_QUEUE, State
from flansible.store.claims import LEASE_SECONDS, Claims
from flansible.store.connection import text, translated
from flansible.store.keys import AWAITED, LEASES, WORKER_SLOTS, WORKERS, index_key, task_key
from flansible.store.task_records import Transition

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Run:
    """A running task. token: its claim's; worker: its Celery name; process: its process, as
    flansible.system.process_identity writes it; seconds_left: of its lease; seconds_silent: since its last renewal;
    is_silent: whether its description says so."""

    task_id: str
    token: int
    process: str
    worker: str
    seconds_left: float
    seconds_silent: float
    is_silent: bool


class Leases(Claims):
    """The part of Store for leases and workers."""

    def renew_leases(
        self,
        worker: str,
        slots: int,
        claims: Iterable[tuple[str, int]],
        lease_seconds: int = LEASE_SECONDS,
        queues: Iterable[str] = (DEFAULT_QUEUE,),
    ) -> dict[tuple[str, int], str]:
        """Renews a worker's claims, each a task id and a token, and its own entry, for lease_seconds.

        queues: those that it serves.

        Returns those that were not renewed, and why: `forgotten` (`restore` it), `missing`, `begun again` (under
        another claim) or the state that the task has instead.
        """
        parts = [part for claim in claims for part in claim]
        keys = [LEASES, WORKERS, WORKER_SLOTS, AWAITED]
        answer: Any = self._run("renew_leases", keys, lease_seconds, worker, slots, ",".join(queues), *parts)
        found = [text(value) for value in answer]
        rows = zip(found[::3], found[1::3], found[2::3], strict=True)
        return {(task_id, int(token)): standing for task_id, token, standing in rows}

    def remove_worker(self, worker: str) -> None:
        """Removes a worker that has no runs and gets none any more, and its slots."""
        with translated():
            self._redis.zrem(WORKERS, worker)
            self._redis.hdel(WORKER_SLOTS, worker)
            self._redis.zrem(AWAITED, worker)

    def awaited_workers(self) -> list[str]:
        """Lists the workers that no task is claimed before they have reported what they run: Redis has restarted."""
        with translated():
            found: Any = self._redis.zrange(AWAITED, 0, -1)
        return [text(name) for name in found]

    def lease_orphans(self) -> int:
        """Gives a lease to running tasks without one, which older versions have left; returns how many there were."""
        return int(self._run("lease_orphans", [LEASES, index_key(None, State.RUNNING)]))

    def runs(self) -> list[Run]:
        """Lists running tasks, at most 1,000, those first whose lease ends first."""
        answer: Any = self._run("runs", [LEASES])
        found = [text(value) for value in answer]
        rows = (found[i : i + 7] for i in range(0, len(found), 7))
        return [
            Run(task_id, int(token), process, worker, float(left), float(silent), bool(is_silent))
            for task_id, token, process, worker, left, silent, is_silent in rows
        ]

    def mark_silent(self, run: Run, description: str) -> None:
        """Says in a run's description that nothing is heard of its worker; its next renewal takes that back."""
        self._run("mark_silent", [task_key(run.task_id)], run.token, description)

    def mark_lost(self, task_id: str, cause: str, token: int | None = None) -> Transition:
        """Ends a run that has no supervisor any more: as lost, or as canceled when that was requested, or queues it
        again when its request says so and it had fewer than MAX_ATTEMPTS attempts.

        token: the run's, when its worker is known to be gone; without it, its lease must be over. Raises IllegalMove
        when its lease was renewed meanwhile, or when it is not running any more.
        """
        with translated():
            known: Any = self._redis.hmget(task_key(task_id), ["on_lost", "attempt"])
        on_lost, attempt = (text(value) if value is not None else "" for value in known)
        condition = "lapsed" if token is None else f"claim:{token}"
        return self.end_lost_run(task_id, cause, on_lost, int(attempt or 1), condition)

    def end_lost_run(self, task_id: str, cause: str, on_lost: str, attempt: int, condition: str) -> Transition:
        """Like `mark_lost`, for a caller that has read the record already."""
        canceled_by = self.cancel_requests([task_id]).get(task_id)
        if on_lost == "requeue" and attempt < MAX_ATTEMPTS and not canceled_by:
            again = f"queued again (attempt {attempt + 1} of {MAX_ATTEMPTS}): {cause}"
            try:
                return self._move(task_id, State.QUEUED, {"description": again}, condition=condition)
            except IllegalMove:
                canceled_by = self.cancel_requests([task_id]).get(task_id)  # requested just now
                if not canceled_by:
                    raise
        if canceled_by:
            description = f"canceled by {canceled_by}; {cause}"
            return self._move(task_id, State.CANCELED, {"description": description}, condition=condition)
        return self._move(task_id, State.LOST, {"description": cause}, condition=condition)
