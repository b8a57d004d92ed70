"""Replaces Celery's remote commands `revoke` and `terminate`: both cancel the task in its record.

They come from `celery control`, `app.control` and any other Celery client; Flower's buttons cancel directly
(flansible.monitoring.flower). A worker receives them in its event loop, which must not block on a store that is away: a
thread retries until the store answers, and the loop waits half a second at most.

Installed by celery_task.py at the worker's start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from queue import SimpleQueue
from typing import Any

from celery.worker import control
from celery.worker.state import revoked

from flansible.errors import StoreUnavailable
from flansible.models import State, is_task_id
from flansible.store import Store

log = logging.getLogger(__name__)

_USER = "Celery's revoke"
_ANSWER_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_command: Any = control.control_command  # typed Any: Celery's published types are incomplete

# The task's state afterwards; None when there is no such task.
_Answer = Future[State | None]


def install(store: Callable[[], Store]) -> None:
    """Replaces Celery's two commands in this process."""
    revoker = TaskRevoker(store)

    def revoke(state: Any, task_id: str | list[str], **_: Any) -> dict[str, str]:
        results = revoker.revoke(state.consumer, [task_id] if isinstance(task_id, str) else task_id)
        return {"ok": "; ".join(results)}

    def terminate(state: Any, signal: str, task_id: str | list[str], **_: Any) -> dict[str, str]:
        return revoke(state, task_id)

    ids = "[id1 [id2 [... [idN]]]]"
    _command(name="revoke", variadic="task_id", signature=ids, help="Cancel tasks by id.")(revoke)
    _command(
        name="terminate", args=[("signal", str)], variadic="task_id", signature=f"<signal> {ids}", help="As revoke."
    )(terminate)


class TaskRevoker:
    """Cancels tasks in the store, in a separate thread."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._requests: SimpleQueue[tuple[str, _Answer]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def revoke(self, consumer: Any, task_ids: list[str]) -> list[str]:
        """Returns one line per task. Called in the event loop; a task is canceled even when that takes longer."""
        answers = {task_id: self._submit(consumer, task_id) for task_id in task_ids if is_task_id(task_id)}
        wait_for(answers.values(), _ANSWER_SECONDS)
        return [f"{task_id}: {_describe(answers.get(task_id))}" for task_id in task_ids]

    def _submit(self, consumer: Any, task_id: str) -> _Answer:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="task-revoker", daemon=True)
            self._thread.start()
        answer = _Answer()
        answer.add_done_callback(lambda _: _drop_message(consumer, task_id, answer))
        self._requests.put((task_id, answer))
        return answer

    def _run(self) -> None:
        while True:
            task_id, answer = self._requests.get()
            try:
                answer.set_result(self._cancel(task_id))
            except Exception as error:
                # The thread must survive: without it the commands would have no effect any more.
                log.exception("task %s cannot be canceled", task_id)
                answer.set_exception(error)

    def _cancel(self, task_id: str) -> State | None:
        while True:
            try:
                return self._store().cancel(task_id, _USER)
            except StoreUnavailable as error:
                log.warning("task %s cannot be canceled yet: %s", task_id, error)
                time.sleep(_RETRY_SECONDS)


def _drop_message(consumer: Any, task_id: str, answer: _Answer) -> None:
    """Has Celery drop the message of a canceled task, and announce that in its events (to Flower)."""
    if answer.exception() is None and answer.result() is State.CANCELED:
        consumer.call_soon(revoked.add, task_id)


def _describe(answer: _Answer | None) -> str:
    if answer is None:
        return "unknown"
    if not answer.done():
        return "will be canceled when the store answers"
    if answer.exception() is not None:
        return "cannot be canceled; see the worker's log"
    state = answer.result()
    if state is None:
        return "unknown"
    return "is being ended" if state is State.RUNNING else state.value
