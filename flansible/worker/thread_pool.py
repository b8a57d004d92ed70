"""Celery's thread pool, one thread slot per run; named in broker/app.py (`worker_pool`).

Adds two things to Celery's own: a free slot wakes the event loop at once, and a request to kill a thread is ignored
instead of an error. (Threads cannot be killed; a run is ended through its record.)
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop

_CeleryPool: Any = thread.TaskPool  # typed Any: Celery's published types are incomplete


class TaskPool(_CeleryPool):  # type: ignore[misc]
    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(_wake_the_loop)
        return result

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Does nothing: the caller has canceled the record, or is stopping the worker, which ends its runs."""


def _wake_the_loop(_: Future[Any]) -> None:
    """Wakes the event loop, which polls Redis only while a slot is free and would notice up to a second later."""
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(lambda: None)
