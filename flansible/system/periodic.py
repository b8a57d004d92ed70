"""A thread that does something again and again, for as long as its process lives. Used by web and worker processes."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger(__name__)


class Periodic:
    """Calls `tick` every `seconds`, between `start` and `stop`. Started after any fork of the process."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def tick(self) -> None:
        """What is to be done; what it raises is logged."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._round()

    def _round(self) -> None:
        try:
            self.tick()
        except Exception:
            # The thread must survive: nobody else does its work.
            log.exception("a round of %s failed", self._thread.name)
