"""Celery's remote commands `revoke` and `terminate`, made to mean what cancelling means: they end the task's record.

From `celery control`, `app.control` and whatever else speaks Celery; Flower's buttons come a shorter way
(flansible.monitoring.flower). A worker gets these commands in its event loop, where nothing may wait for a store that
is away: a thread asks it, as often as it takes, and the loop waits for the answer no longer than anybody notices.

Installed by worker/celery_task as the worker is made.
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
_command: Any = control.control_command  # the types that are published for Celery know half of it

# The state of the task afterwards, None when there is no such task.
_Answer = Future[State | None]


def install(store: Callable[[], Store]) -> None:
    """Take the place of Celery's two commands in this process."""
    revoker = TaskRevoker(store)

    def revoke(state: Any, task_id: str | list[str], **_: Any) -> dict[str, str]:
        said = revoker.revoke(state.consumer, [task_id] if isinstance(task_id, str) else task_id)
        return {"ok": "; ".join(said)}

    def terminate(state: Any, signal: str, task_id: str | list[str], **_: Any) -> dict[str, str]:
        return revoke(state, task_id)

    ids = "[id1 [id2 [... [idN]]]]"
    _command(name="revoke", variadic="task_id", signature=ids, help="Cancel tasks by id.")(revoke)
    _command(
        name="terminate", args=[("signal", str)], variadic="task_id", signature=f"<signal> {ids}", help="As revoke."
    )(terminate)


class TaskRevoker:
    """Cancels tasks in the store, in a thread of its own."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._asked: SimpleQueue[tuple[str, _Answer]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def revoke(self, consumer: Any, task_ids: list[str]) -> list[str]:
        """What became of each. Called in the event loop; a task is canceled even when that takes longer than this."""
        answers = {task_id: self._ask(consumer, task_id) for task_id in task_ids if is_task_id(task_id)}
        wait_for(answers.values(), _ANSWER_SECONDS)
        return [f"{task_id}: {_in_words(answers.get(task_id))}" for task_id in task_ids]

    def _ask(self, consumer: Any, task_id: str) -> _Answer:
        if self._thread is None:
            self._thread = threading.Thread(target=self._cancel_for_ever, name="revoker", daemon=True)
            self._thread.start()
        answer = _Answer()
        answer.add_done_callback(lambda _: _have_dropped(consumer, task_id, answer))
        self._asked.put((task_id, answer))
        return answer

    def _cancel_for_ever(self) -> None:
        while True:
            task_id, answer = self._asked.get()
            try:
                answer.set_result(self._cancel(task_id))
            except Exception as error:
                # The thread must live: without it no command would do anything any more.
                log.exception("task %s cannot be canceled", task_id)
                answer.set_exception(error)

    def _cancel(self, task_id: str) -> State | None:
        while True:
            try:
                return self._store().cancel(task_id, _USER)
            except StoreUnavailable as error:
                log.warning("task %s cannot be canceled yet: %s", task_id, error)
                time.sleep(_RETRY_SECONDS)


def _have_dropped(consumer: Any, task_id: str, answer: _Answer) -> None:
    """Celery drops the message of a task that is not to begin, and tells whoever watches (Flower)."""
    if answer.exception() is None and answer.result() is State.CANCELED:
        consumer.call_soon(revoked.add, task_id)


def _in_words(answer: _Answer | None) -> str:
    if answer is None:
        return "unknown"
    if not answer.done():
        return "will be canceled when the store answers"
    if answer.exception() is not None:
        return "cannot be canceled; the worker's log says why"
    state = answer.result()
    if state is None:
        return "unknown"
    return "is being ended" if state is State.RUNNING else state.value
