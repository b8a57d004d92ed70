"""Who speaks for which run: leases of workers on their tasks, and what becomes of a task that nobody speaks for."""

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
    """One task that is running. process: the worker's, as flansible.system.process_identity names it."""

    task_id: str
    claim: str
    process: str
    worker: str


class Leases(Tasks):
    """Part of Store."""

    def renew_leases(self, worker: str, slots: int, task_ids: list[str]) -> None:
        """Say that this worker lives and supervises these runs; within LEASE_SECONDS it must be said again."""
        self._run("renew_leases", [LEASES, WORKERS, WORKER_SLOTS], LEASE_SECONDS, worker, slots, *task_ids)

    def remove_worker(self, worker: str) -> None:
        """The worker is about to end: its slots are no longer there for anybody."""
        with translated():
            self._redis.zrem(WORKERS, worker)
            self._redis.hdel(WORKER_SLOTS, worker)

    def lapsed_leases(self) -> list[Run]:
        """Running tasks that nobody has spoken for in time; at most 1,000."""
        return self._runs("lapsed")

    def runs(self) -> list[Run]:
        """What is running, at most 1,000 of them."""
        return self._runs("all")

    def _runs(self, which: str) -> list[Run]:
        found = [text(value) for value in self._run("runs", [LEASES], which)]
        return [Run(*found[i : i + 4]) for i in range(0, len(found), 4)]

    def mark_lost(self, task_id: str, cause: str, claim: str = "") -> Transition:
        """End a run that nobody supervises: `lost`, or `canceled` when that was asked for, or queued again when its
        request says so and it has not been tried MAX_ATTEMPTS times.

        claim: the run's, when its worker is known to be gone; without it only a lapsed lease counts. Raises
        IllegalMove when it is spoken for again, or over.
        """
        with translated():
            known: Any = self._redis.hmget(task_key(task_id), ["on_lost", "attempt"])
        on_lost, attempt = (text(value) if value is not None else "" for value in known)
        condition = f"claim:{claim}" if claim else "lapsed"
        return self.end_lost_run(task_id, cause, on_lost, int(attempt or 1), condition)

    def end_lost_run(self, task_id: str, cause: str, on_lost: str, attempt: int, condition: str) -> Transition:
        """As `lose`, for the one that knows the task already."""
        canceled_by = self.cancel_requests([task_id]).get(task_id)
        if on_lost == "requeue" and attempt < MAX_ATTEMPTS and not canceled_by:
            again = f"queued again (attempt {attempt + 1} of {MAX_ATTEMPTS}): {cause}"
            try:
                return self._move(task_id, State.QUEUED, {"description": again}, condition=condition)
            except IllegalMove:
                canceled_by = self.cancel_requests([task_id]).get(task_id)  # asked for in this moment
                if not canceled_by:
                    raise
        if canceled_by:
            description = f"canceled by {canceled_by}; {cause}"
            return self._move(task_id, State.CANCELED, {"description": description}, condition=condition)
        return self._move(task_id, State.LOST, {"description": cause}, condition=condition)
