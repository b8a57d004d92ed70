"""What starts tasks by itself: a thread for each duty in each web process, which looks about each second.

The duties are called within an app context, so that they may use what request handlers use. Each has a thread of its
own: one that waits for a project's remote holds up no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask

from flansible.errors import StoreUnavailable
from flansible.system.periodic import Periodic
from flansible.web import hook_starts, retries
from flansible.web.context import WebContext
from flansible.web.scheduler import Scheduler

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0


class Duty(Periodic):
    """A thread of a web process."""

    def __init__(self, app: Flask, name: str, look: Callable[[], None]) -> None:
        super().__init__(name, TICK_SECONDS)
        self._app = app
        self._look = look

    def tick(self) -> None:
        with self._app.app_context():
            try:
                self._look()
            except StoreUnavailable as error:
                log.debug("what starts by itself waits: %s", error)


def start(app: Flask) -> None:
    """Starts the threads, in a process that forks no more."""
    context: WebContext = app.extensions["flansible"]
    scheduler = Scheduler(context)

    def start_calls() -> None:
        if scheduler.hold_lease():
            hook_starts.start_due(context)

    for name, look in (
        ("retries", lambda: retries.start_due(context)),
        ("schedules", scheduler.tick),
        ("hook-calls", start_calls),
    ):
        Duty(app, name, look).start()
