"""What starts tasks by itself: one thread in each web process, which looks about each second.

Its functions are called within an app context, so that they may use what request handlers use.
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


class Background(Periodic):
    """The thread of a web process."""

    def __init__(self, app: Flask) -> None:
        super().__init__("background", TICK_SECONDS)
        self._app = app
        self._context: WebContext = app.extensions["flansible"]
        self._scheduler = Scheduler(self._context)
        self._duties: tuple[Callable[[], None], ...] = (self._start_retries, self._scheduler.tick, self._start_calls)

    def tick(self) -> None:
        with self._app.app_context():
            for duty in self._duties:
                try:
                    duty()
                except StoreUnavailable as error:
                    log.debug("what starts by itself waits: %s", error)

    def _start_retries(self) -> None:
        retries.start_due(self._context)

    def _start_calls(self) -> None:
        if self._scheduler.hold_lease():
            hook_starts.start_due(self._context)
