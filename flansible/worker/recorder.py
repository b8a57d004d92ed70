"""Output and events of one task on their way to the store: gathered, numbered, written in batches, nothing twice.

One per task, used by its supervisor thread alone. While the store is away everything is kept, and when more than
`max_pending_bytes` waits the supervisor stops reading, so that the run waits too and memory stays bounded.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from flansible.errors import StoreUnavailable
from flansible.models import State
from flansible.store import Batch, ColourMark, Store

log = logging.getLogger(__name__)

# A batch at once when the last one is this old, else together with what follows: at most this much later.
LINGER_SECONDS = 0.004
_RETRY_SECONDS = (0.1, 0.3, 1.0, 2.0)


class Recorder:
    """Appends to one task's record."""

    def __init__(self, store: Store, task_id: str, max_pending_bytes: int = 16 * 1024 * 1024) -> None:
        self._store = store
        self._task_id = task_id
        self._max_pending_bytes = max_pending_bytes
        self._output = bytearray()
        self._output_offset = 0
        self._colours: list[ColourMark] = []
        self._first_colour = 0
        self._events: list[str] = []
        self._event_bytes = 0
        self._seq = 1
        self._failures = 0
        self._next_try = 0.0
        self.state: State | None = State.RUNNING

    @property
    def offset(self) -> int:
        """Bytes of output so far, stored or not."""
        return self._output_offset + len(self._output)

    @property
    def _waiting(self) -> bool:
        return bool(self._output or self._events or self._colours)

    @property
    def full(self) -> bool:
        """Whether to stop reading until the store has taken something."""
        return len(self._output) + self._event_bytes >= self._max_pending_bytes

    def add_output(self, data: bytes) -> None:
        self._output += data

    def add_colours(self, marks: list[ColourMark]) -> None:
        """Marks of output that was or is about to be added."""
        self._colours += marks

    def add_event(self, event: dict[str, Any]) -> None:
        text = json.dumps(event, separators=(",", ":"))
        self._events.append(text)
        self._event_bytes += len(text)

    def seconds_until_due(self) -> float | None:
        """When to call `flush`; None when nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, self._next_try - time.monotonic())

    def flush(self) -> bool:
        """Store what waits; False when the store is away (it is kept, and `seconds_until_due` tells when to retry)."""
        if not self._waiting:
            return True
        batch = Batch(
            self._output_offset,
            bytes(self._output),
            self._seq,
            tuple(self._events),
            self._first_colour,
            tuple(self._colours),
        )
        try:
            self.state = self._store.append(self._task_id, batch)
        except StoreUnavailable as error:
            pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
            if self._failures == 0:
                log.warning("task %s: %s; its output is kept until the store is back", self._task_id, error)
            self._failures += 1
            self._next_try = time.monotonic() + pause
            return False
        self._failures = 0
        self._output_offset += len(batch.output)
        self._output.clear()
        self._first_colour += len(batch.colours)
        self._colours.clear()
        self._seq += len(batch.events)
        self._events.clear()
        self._event_bytes = 0
        self._next_try = time.monotonic() + LINGER_SECONDS
        return True

    def flush_all(self, give_up_at: float) -> bool:
        """Store everything, waiting for the store if need be; False when it is not back by `give_up_at` (monotonic)."""
        while not self.flush():
            pause = self.seconds_until_due() or 0.0
            if time.monotonic() + pause > give_up_at:
                return False
            time.sleep(pause)
        return True
