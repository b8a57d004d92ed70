"""How a worker stops: the first signal lets its runs go on for drain_seconds, any further one ends them at once.

TERM, INT and QUIT alike, in any order, but for a QUIT that comes first: it means at once, as it does with Celery. The
runs that are ended become `lost` and are settled; the worker waits for that. Celery's own handlers kill at the second
signal what cannot be killed, a thread, and leave the worker half dead; so ours take their place.

Called by worker/celery_task as the worker is made; then as a step of Celery's start and stop, in the main thread.
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
# The types that are published for Celery know half of it.
_Step: Any = bootsteps.StartStopStep
_state: Any = state


def install(app: Celery, shutdown: Callable[[], Shutdown], drain_seconds: Callable[[], float]) -> None:
    """Have the app's workers stop like this. To be called before a worker's steps are made (signal `worker_init`)."""

    class Stopping(_Step):  # type: ignore[misc]
        """Begun by Celery before it takes the first message and after it has set up its own signals."""

        def start(self, worker: Any) -> None:
            stop = _Stop(shutdown(), drain_seconds())
            if threading.current_thread() is threading.main_thread():
                for number in _SIGNALS:
                    signal.signal(number, stop.on_signal)
            threading.Thread(target=stop.wake, args=(worker,), name="stopping", daemon=True).start()

        def close(self, _worker: Any) -> None:
            # However the stop came about: `celery control shutdown` sends no signal.
            shutdown().begin(drain_seconds())

    app.steps["worker"].add(Stopping)


def ignore_signals() -> None:
    """From now on: this worker has no more runs. Python gives its handlers up before it is gone, and a late signal
    would make a kill of a stop that went well."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _Stop:
    def __init__(self, shutdown: Shutdown, drain_seconds: float) -> None:
        self._shutdown = shutdown
        self._drain_seconds = drain_seconds

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """In between any two instructions of the main thread: no lock may be taken here, so nothing is logged."""
        at_once = number == signal.SIGQUIT or self._shutdown.seconds_left() is not None
        self._shutdown.begin(0.0 if at_once else self._drain_seconds)
        # What Celery's event loop looks at in each round; then it stops taking messages and waits for its threads.
        _state.should_stop = os.EX_OK
        how = "its runs are ended" if at_once else f"its runs may go on for {self._drain_seconds:g} s"
        os.write(_STANDARD_ERROR, f"flansible worker: stopping on {signal.Signals(number).name}; {how}\n".encode())

    def wake(self, worker: Any) -> None:
        """Once the stop has begun, have the event loop begin a round: it may be waiting for a message, up to a second,
        and would take one that comes meanwhile."""
        select.select([self._shutdown.descriptor], [], [])
        if worker.hub is not None:
            worker.hub.call_soon(_nothing)


def _nothing() -> None:
    return None
