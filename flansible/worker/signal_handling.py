"""Stops the worker on a signal: the first lets its runs continue for drain_seconds, a further one ends them at once.

TERM, INT and QUIT are the same, in any order, except that a QUIT that comes first means at once, as it does with
Celery. Runs that are ended become `lost`; the worker waits until that is recorded. This replaces Celery's own handlers:
at the second signal those try to kill a thread, which is impossible, and leave the worker half stopped.

Installed by celery_task.py at the worker's start; then a bootstep of Celery's start and stop, in the main thread.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import Celery, bootsteps
from celery.worker import state

from flansible.worker.shutdown import Shutdown

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_STANDARD_ERROR = 2
# Typed Any: Celery's published types are incomplete.
_Step: Any = bootsteps.StartStopStep
_state: Any = state


def install(app: Celery, shutdown: Callable[[], Shutdown], drain_seconds: Callable[[], float]) -> None:
    """Adds the bootstep to the app's workers. Call it before a worker makes its steps (signal `worker_init`)."""

    class Stopping(_Step):  # type: ignore[misc]
        """Sets our signal handlers. Celery starts it after setting its own and before it takes the first message."""

        def start(self, worker: Any) -> None:
            handler = _SignalHandler(shutdown(), drain_seconds())
            if threading.current_thread() is threading.main_thread():
                for number in _SIGNALS:
                    signal.signal(number, handler.on_signal)
            threading.Thread(target=handler.wake_loop, args=(worker,), name="stopping", daemon=True).start()

        def close(self, _worker: Any) -> None:
            # For stops without a signal too, such as `celery control shutdown`.
            shutdown().begin(drain_seconds())

    app.steps["worker"].add(Stopping)


def ignore_signals() -> None:
    """Ignores further signals, once the worker has no more runs.

    Python removes its handlers before the process ends: a late signal would then make a clean stop look like a kill.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _SignalHandler:
    def __init__(self, shutdown: Shutdown, drain_seconds: float) -> None:
        self._shutdown = shutdown
        self._drain_seconds = drain_seconds

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Begins the stop. Runs between any two instructions of the main thread: takes no lock, so logs nothing."""
        at_once = number == signal.SIGQUIT or self._shutdown.seconds_left() is not None
        self._shutdown.begin(0.0 if at_once else self._drain_seconds)
        # Celery's event loop checks this in each round; then it stops taking messages and waits for its threads.
        _state.should_stop = os.EX_OK
        how = "ending its runs" if at_once else f"its runs may continue for {self._drain_seconds:g} s"
        os.write(_STANDARD_ERROR, f"flansible worker: stopping on {signal.Signals(number).name}; {how}\n".encode())

    def wake_loop(self, worker: Any) -> None:
        """Wakes the event loop once the stop has begun: it may be waiting up to a second for a message, and would take
        one that comes meanwhile."""
        select.select([self._shutdown.descriptor], [], [])
        if worker.hub is not None:
            worker.hub.call_soon(lambda: None)
