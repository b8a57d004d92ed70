"""Buffers one task's output and events on their way to the store: numbers them and cuts them at the cap.

The supervisor adds; the worker's one StoreWriter takes batches and reports what became of them; both at any time.
Nothing here waits for Redis: while the store is away the run continues and its output is kept (spill_queue).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flansible.store import AppendResult, Batch, Claim, ColourMark, Progress, StoredEvent
from flansible.system.timestamps import timestamp
from flansible.worker.spill_queue import Piece, SpillQueue

MEMORY_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 1024 * 1024
# Stored batches are kept this long too: Redis writes to disk every second, and one that is killed may come back without
# its last seconds.
_KEEP_SECONDS = 4.0
_KEEP_BYTES = 4 * 1024 * 1024
_FAILED = frozenset({"failed", "unreachable"})
_NAMES = ("host", "play", "task", "module")
_PLAY_TASK_CHARS = 200  # of the name in the status, which lists show
_COLOUR_BYTES = 16  # of a mark in the store
_PLAIN_EVENT_BYTES = 64 * 1024 * 1024  # of events without results, at least


class Recorder:
    """Records one run. Never raises errors of the store: see `standing`."""

    def __init__(
        self,
        task_id: str,
        claim: Claim,
        max_output_bytes: int,
        directory: Path | None,
        wake: Callable[[], None],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """directory: for what does not fit into memory; wake: called when there is something to store."""
        self.task_id = task_id
        self.claim = claim
        # `running` while the record is ours; otherwise what store.AppendResult lists.
        self.standing = "running"
        # Readable when the supervisor should check `standing` and `full` again.
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Condition()
        self._queue = SpillQueue(memory_bytes, directory)
        self._wake = wake
        self._max_bytes = max_output_bytes
        self._seen = self._kept = claim.progress.output_bytes
        self._event_bytes = self._colour_bytes = 0
        self._cut_at: int | None = None  # offset at which the cap cut the output
        self._memory_bytes = memory_bytes
        # Events whose output has not arrived yet, each with its offset and approximate size.
        self._early_events: deque[tuple[dict[str, Any], int, int]] = deque()
        self._early_bytes = 0
        self._events_end = claim.progress.events_end
        self._sent: Batch | None = None
        self._stored = claim.progress
        self._recent: deque[tuple[float, Batch]] = deque()
        self._recent_bytes = 0
        self._unverified = False
        self._was_full = False  # when the batch under way was taken: the supervisor may have stopped reading
        self.finished = False
        self._closed = False

    # Called by the supervisor.

    @property
    def offset(self) -> int:
        """All bytes of output so far, stored or not, those beyond the cap included."""
        return self._seen

    @property
    def full(self) -> bool:
        """Whether the supervisor must stop reading until the store or the disk has taken something."""
        return self._queue.full

    def add_output(self, data: bytes, marks: list[ColourMark]) -> None:
        """Appends output and the colour marks in it."""
        with self._lock:
            self._seen += len(data)
            if self._cut_at is None and data:
                self._add_capped(data, marks)
            elif self._cut_at is None:
                self._add_colours(marks)
            self._release_events(self._seen)
        self._wake()

    def add_notes(self, notes: Iterable[str]) -> None:
        """Appends lines of Flansible itself, such as what a sandbox leaves out, before a step's first line."""
        for note in notes:
            self.add_output(f"[flansible] {note}.\n".encode(errors="replace"), [])

    def add_event(self, event: dict[str, Any]) -> None:
        """Appends an event. `offset`: bytes of output before it, of all attempts; `time`: seconds since 1970."""
        with self._lock:
            offset = int(event.pop("offset", 0))
            # Only events that wait are counted.
            size = len(json.dumps(event)) if offset > self._seen or self._early_events else 0
            self._early_events.append((event, offset, size))
            self._early_bytes += size
            self._release_events(self._seen)
        self._wake()

    def finish(self) -> None:
        """Marks the end: nothing more is added."""
        with self._lock:
            self._release_events(None)
            # One more batch, even an empty one: its answer shows whether the store still has everything.
            self._unverified = True
            self.finished = True
        self._wake()

    def close(self) -> None:
        """Discards what is not stored. Only the StoreWriter may still call afterwards; it gets None."""
        with self._lock:
            self._closed = True
            self._queue.close()
            os.close(self.descriptor)
            self._lock.notify_all()

    def wait_until_stored(self, seconds: float) -> bool:
        """Waits until all is stored, or nothing more can be, or the time is over; whether all is stored."""
        with self._lock:
            self._lock.wait_for(lambda: self.standing != "running" or not self._has_unstored, seconds)
            return not self._has_unstored

    def refuse(self, standing: str) -> None:
        """Notes that the task is not ours any more. Called by the thread that renews the leases."""
        with self._lock:
            if not self._closed and self.standing == "running":
                self.standing = standing
                os.eventfd_write(self.descriptor, 1)
                self._lock.notify_all()

    # Called by the StoreWriter.

    def next_batch(self) -> Batch | None:
        """Returns the batch to store next, the same one until `stored` has its answer; None when there is none."""
        with self._lock:
            if self._closed or self.standing != "running":
                return None
            if self._sent is None:
                self._was_full |= self._queue.full
                self._sent = self._batch(self._queue.take(_BATCH_BYTES))
            if self._sent is None and self._unverified:
                self._sent = Batch(self._stored, b"", (), (), self._stored.events_end)
            return self._sent

    def stored(self, answer: AppendResult) -> None:
        """Takes the store's answer to the batch."""
        with self._lock:
            if self._closed or self._sent is None:
                return
            was_full, self._was_full = self._was_full or self._queue.full, False
            if answer.outcome == "gap":
                self._rewind(answer.progress)
            elif answer.outcome != "running":
                self.standing = answer.outcome
            else:
                self._recent.append((time.monotonic(), self._sent))
                self._recent_bytes += _size(self._sent)
                self._stored = _after(self._sent)
                self._unverified = self._unverified and _has_content(self._sent)
                self._sent = None
                self._drop_old_batches()
            if self.standing != "running" or was_full:
                os.eventfd_write(self.descriptor, 1)
            if self.standing != "running" or not self._has_unstored:
                self._lock.notify_all()

    @property
    def _has_unstored(self) -> bool:
        return bool(self._sent or self._queue or self._early_events or self._unverified)

    def _add_capped(self, data: bytes, marks: list[ColourMark]) -> None:
        room = max(0, self._max_bytes - self._kept)
        if len(data) <= room:
            self._kept += len(data)
            self._queue.add(data)
            self._add_colours(marks)
            return
        while room > 0 and data[room] & 0xC0 == 0x80:
            room -= 1  # not within a UTF-8 character
        kept = data[:room]
        self._cut_at = self._kept + len(kept)
        self._queue.add(kept)
        self._add_colours([mark for mark in marks if mark.offset < self._cut_at])
        self._add_colours([ColourMark(self._cut_at, "0")])
        line_end = "" if kept.endswith(b"\n") else "\n"
        limit = f"it is over max_output_bytes ({self._max_bytes})"
        note = f"{line_end}[flansible] The output ends here: {limit}. The run goes on.\n".encode()
        self._queue.add(note)
        self._kept = self._cut_at + len(note)

    def _add_colours(self, marks: list[ColourMark]) -> None:
        """Queues marks, of no more bytes than the output may have: a run can send any number without a character."""
        for mark in marks:
            self._colour_bytes += _COLOUR_BYTES
            if self._colour_bytes <= self._max_bytes:
                self._queue.add(mark)

    def _release_events(self, up_to: int | None) -> None:
        """Queues the events whose output has arrived: an event must not be stored before its output."""
        while self._early_events and (
            up_to is None or self._early_events[0][1] <= up_to or self._early_bytes > self._memory_bytes
        ):  # a run that reports wrong offsets must not fill our memory
            event, offset, size = self._early_events.popleft()
            self._early_bytes -= size
            end = max(self._events_end, min(offset, self._kept))
            event |= {"output_start": self._events_end, "output_end": end}
            event |= {name: _as_text(event[name]) for name in _NAMES if name in event}
            if isinstance(event.get("time"), int | float):
                event["time"] = timestamp(datetime.fromtimestamp(event["time"], UTC))
            self._events_end = end
            self._add_event(event, end)

    def _add_event(self, event: dict[str, Any], end: int) -> None:
        """Queues an event. Those without results may have as many bytes again as the results, and some more; then one
        says so, and only the last one follows."""
        most = 2 * self._max_bytes + _PLAIN_EVENT_BYTES
        was_over = self._event_bytes > most
        stored = self._stored_event(event)
        if self._event_bytes <= most or stored.is_stats:
            self._queue.add((stored, end))
        elif not was_over:
            self._queue.add((_missing(end), end))

    def _stored_event(self, event: dict[str, Any]) -> StoredEvent:
        # No NaN or Infinity: JSON has none. Ansible's own arrive as text.
        text = json.dumps(event, separators=(",", ":"), allow_nan=False)
        if "result" in event and self._event_bytes + len(text) > self._max_bytes:
            left_out = f"{len(text)} bytes: the results of this task are over max_output_bytes ({self._max_bytes})"
            text = json.dumps({**event, "result": {"flansible_left_out": left_out}}, separators=(",", ":"))
        self._event_bytes += len(text)
        host = str(event.get("host", "")) if event.get("event") == "host_result" else ""
        verdict = str(event.get("verdict", "")) if host else ""
        kind = event.get("event")
        play_task = str(event.get("task", ""))[:_PLAY_TASK_CHARS] if kind == "task_start" else None
        return StoredEvent(text, host, verdict in _FAILED, kind == "stats", verdict, play_task)

    def _batch(self, pieces: list[Piece]) -> Batch | None:
        if not pieces:
            return None
        output = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        colours = tuple(piece for piece in pieces if isinstance(piece, ColourMark))
        events = [piece for piece in pieces if isinstance(piece, tuple)]
        end = events[-1][1] if events else self._stored.events_end
        return Batch(self._stored, output, tuple(event for event, _ in events), colours, end)

    def _drop_old_batches(self) -> None:
        oldest = time.monotonic() - _KEEP_SECONDS
        while self._recent and (self._recent[0][0] < oldest or self._recent_bytes > _KEEP_BYTES):
            self._recent_bytes -= _size(self._recent.popleft()[1])

    def _rewind(self, stored: Progress) -> None:
        """Queues the latest batches again, because Redis has come back with less than it had stored.

        Example: batches A (bytes 0 to 100), B (100 to 200) and C (200 to 300) were stored, A more than _KEEP_SECONDS
        ago, so B and C are still in `_recent`. D (300 to 400) is sent; Redis was killed meanwhile and answers `gap`.

        - It has 150 bytes: B, C and D go to the front of the queue, to be stored from 100 on. The script skips the
          50 bytes that Redis still has.
        - It has 60 bytes: bytes 60 to 100 are lost for good. A filler of 40 bytes takes their place, then B, C and D;
          stored from 60 on. All offsets after the hole stay true.

        Lost colour marks become ends of colours and lost events `missing` events: sequence numbers stay true as well.
        """
        again = [batch for _, batch in self._recent] + ([self._sent] if self._sent else [])
        self._recent.clear()
        self._recent_bytes = 0
        self._sent = None
        first = again[0].before
        pieces = _filler(stored, first)
        for batch in again:
            pieces += [batch.output, *batch.colours]
            pieces += [(event, batch.events_end) for event in batch.events]
        self._stored = Progress(
            min(stored.output_bytes, first.output_bytes),
            min(stored.colours, first.colours),
            min(stored.events, first.events),
            stored.events_end,
        )
        self._queue.put_back([piece for piece in pieces if piece != b""])


def _as_text(name: object) -> str:
    """Replaces lone surrogates: Python keeps non-UTF-8 inventory bytes as such, and JSON readers refuse them."""
    return str(name).encode(errors="replace").decode()


def _after(batch: Batch) -> Progress:
    before = batch.before
    return Progress(
        before.output_bytes + len(batch.output),
        before.colours + len(batch.colours),
        before.events + len(batch.events),
        batch.events_end,
    )


def _size(batch: Batch) -> int:
    return len(batch.output) + sum(len(event.json) for event in batch.events) + _COLOUR_BYTES * len(batch.colours)


def _has_content(batch: Batch) -> bool:
    return bool(batch.output or batch.events or batch.colours)


def _filler(stored: Progress, first: Progress) -> list[Piece]:
    """Returns what replaces bytes, colours and events that are lost for good, so that offsets stay true."""
    pieces: list[Piece] = []
    lost = first.output_bytes - stored.output_bytes
    if lost > 0:
        note = f"\n[flansible] Redis lost {lost} bytes of output here.\n".encode()
        pieces.append(note[:lost].ljust(lost, b"."))
    pieces += [ColourMark(stored.output_bytes, "0")] * max(0, first.colours - stored.colours)
    missing = (_missing(stored.events_end), stored.events_end)
    return pieces + [missing] * max(0, first.events - stored.events)


def _missing(at: int) -> StoredEvent:
    return StoredEvent(json.dumps({"event": "missing", "output_start": at, "output_end": at}))
