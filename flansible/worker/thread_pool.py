"""Celery's pool of threads, one for each run; named in celery_app (`worker_pool`).

Two things Celery's own lacks: the event loop hears at once of a slot that is free, and a request to kill a thread is no
error. (It cannot be done, and is not needed: a run is ended through its record.)
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop

_CeleryPool: Any = thread.TaskPool  # the types that are published for Celery know half of it


class TaskPool(_CeleryPool):  # type: ignore[misc]
    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(_wake_the_loop)
        return result

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Whoever asks for this has told the record, or is stopping the worker, which ends its runs as well."""


def _wake_the_loop(_: Future[Any]) -> None:
    """It asks Redis for a message only while a slot is free, and would find out within a second."""
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(_nothing)


def _nothing() -> None:
    return None
