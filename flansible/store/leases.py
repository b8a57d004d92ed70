"""Leases: which worker owns which running task, and what happens to a task whose lease has lapsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flansible.errors import IllegalMove
from flansible.models import State
from flansible.store.connection import text, translated
from flansible.store.keys import LEASES, WORKER_SLOTS, WORKERS, task_key
from flansible.store.task_records import LEASE_SECONDS, Tasks, Transition

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Run:
    """A running task. worker: its Celery name; process: its process, as flansible.system.process_identity writes it."""

    task_id: str
    claim: str
    process: str
    worker: str


class Leases(Tasks):
    """The part of Store for leases and workers."""

    def renew_leases(self, worker: str, slots: int, task_ids: list[str]) -> None:
        """Renews this worker's leases on its runs, and its own entry, for LEASE_SECONDS."""
        self._run("renew_leases", [LEASES, WORKERS, WORKER_SLOTS], LEASE_SECONDS, worker, slots, *task_ids)

    def remove_worker(self, worker: str) -> None:
        """Removes a worker that is about to end, and its slots."""
        with translated():
            self._redis.zrem(WORKERS, worker)
            self._redis.hdel(WORKER_SLOTS, worker)

    def lapsed_leases(self) -> list[Run]:
        """Lists running tasks whose lease was not renewed in time; at most 1,000."""
        return self._runs("lapsed")

    def runs(self) -> list[Run]:
        """Lists running tasks; at most 1,000."""
        return self._runs("all")

    def _runs(self, which: str) -> list[Run]:
        found = [text(value) for value in self._run("runs", [LEASES], which)]
        return [Run(*found[i : i + 4]) for i in range(0, len(found), 4)]

    def mark_lost(self, task_id: str, cause: str, claim: str = "") -> Transition:
        """Ends a run that has no supervisor any more: as lost, or as canceled when that was requested, or queues it
        again when its request says so and it had fewer than MAX_ATTEMPTS attempts.

        claim: the run's, when its worker is known to be gone; without it, its lease must have lapsed. Raises
        IllegalMove when its lease was renewed meanwhile, or when it is not running any more.
        """
        with translated():
            known: Any = self._redis.hmget(task_key(task_id), ["on_lost", "attempt"])
        on_lost, attempt = (text(value) if value is not None else "" for value in known)
        condition = f"claim:{claim}" if claim else "lapsed"
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
