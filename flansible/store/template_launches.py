"""Launches of templates: the slots that their tasks share (`at_most`), and when failed ones are due to be retried."""

from __future__ import annotations

from typing import Any

from flansible.store import keys
from flansible.store.connection import Connection, text, translated


class TemplateLaunches(Connection):
    """The part of Store for launches of templates."""

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
