"""Output, colours and events of runs. One worker writes those of a run, any process reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flansible.errors import OutputExpired, TaskDeleted
from flansible.models import State
from flansible.store.connection import Connection, encoded, text, translated
from flansible.store.keys import READING, task_key
from flansible.store.scripts import SCRIPTS

SEGMENT_BYTES = 4 * 1024 * 1024  # of output; a longer string would be copied whole as it grows
COLOURS_PER_SEGMENT = 65536
# A task that is read is not deleted for so long, and in all for so much longer than the retention keeps it. A reader
# says so again in time; one that takes longer for a piece of output is too slow to be waited for.
READ_SECONDS = 120
MOST_READ_SECONDS = 3600
READ_AGAIN_SECONDS = 30.0

_COLOUR = struct.Struct(">Q8s")  # the longest code Ansible makes is 38;5;255
_EVENT_PAGE = 500
_PAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class ColourMark:
    """From `offset` (plain bytes of output) on, text has the colour of this SGR code, also over the ends of lines; "0"
    ends a colour."""

    offset: int
    code: str


@dataclass(frozen=True)
class StoredEvent:
    """An event of a run. host: whose result it is; failed: whether it failed there, so that the results list this host
    first; verdict: the result's, by which results are counted; play_task: the name of the play task that starts."""

    json: str
    host: str = ""
    failed: bool = False
    is_stats: bool = False
    verdict: str = ""
    play_task: str | None = None


@dataclass(frozen=True)
class Progress:
    """How much of a task is stored. events_end: the output offset at which its last event ends."""

    output_bytes: int = 0
    colours: int = 0
    events: int = 0
    events_end: int = 0


@dataclass(frozen=True)
class Batch:
    """New output and events of a run.

    before: what is stored before them, so that storing them twice changes nothing; events_end: the output offset at
    which the last of the events ends.
    """

    before: Progress
    output: bytes
    events: tuple[StoredEvent, ...]
    colours: tuple[ColourMark, ...] = ()
    events_end: int = 0


@dataclass(frozen=True)
class AppendResult:
    """Whether a batch was stored. outcome: `running` (it was), `gap` (earlier data is missing, so nothing was stored),
    `missing` (the task), `forgotten` (Redis has lost the claim), `begun again` (under another claim), or the state that
    the task has instead."""

    outcome: str
    progress: Progress


@dataclass(frozen=True)
class Position:
    """How far the output and events of a task reach, for followers. state None: the task is unknown; expired_at: when
    they were deleted, before the task's record."""

    state: State | None
    output_bytes: int
    events: int
    expired_at: str | None = None

    def require_recordings(self, task_id: str) -> None:
        """Raises TaskDeleted when the task is gone, OutputExpired when its output and events are."""
        if self.state is None:
            raise TaskDeleted(task_id)
        if self.expired_at is not None:
            raise OutputExpired(task_id, self.expired_at)


class Recordings(Connection):
    """The part of Store for output and events."""

    def append(self, task_id: str, token: int, batch: Batch) -> AppendResult:
        """Stores new output and events in one round trip, while the task runs under the claim with this token."""
        colours = b"".join(_COLOUR.pack(mark.offset, mark.code.encode()) for mark in batch.colours)
        events: list[str | int] = []
        for event in batch.events:
            what = "stats" if event.is_stats else event.verdict if event.play_task is None else "play_tasks"
            events += [event.json, event.host, 0 if event.failed else 1, what]
        started = [event.play_task for event in batch.events if event.play_task is not None]
        before = batch.before
        answer: Any = self._run(
            "append",
            [task_key(task_id)],
            token,
            before.output_bytes,
            batch.output,
            before.colours,
            colours,
            batch.events_end,
            before.events + 1,
            SEGMENT_BYTES,
            COLOURS_PER_SEGMENT,
            started[-1] if started else "",
            *events,
        )
        return AppendResult(text(answer[0]), Progress(int(answer[1]), int(answer[2]), int(answer[3])))

    def positions(self, task_ids: list[str]) -> dict[str, Position]:
        """Reads the position of each of these tasks, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.hmget(task_key(task_id), ["state", "output_bytes", "events"])
        with translated():
            rows = pipeline.execute()
        return {
            task_id: Position(State(text(state)) if state else None, int(output or 0), int(events or 0))
            for task_id, (state, output, events) in zip(task_ids, rows, strict=True)
        }

    def position(self, task_id: str) -> Position:
        """Reads one position. Raises TaskDeleted: for those who have read something of the task already."""
        found = self.positions([task_id])[task_id]
        if found.state is None:
            raise TaskDeleted(task_id)
        return found

    def recorded_position(self, task_id: str) -> Position:
        """Reads one position, like `position`: for those who read output or events, before and after. Raises
        OutputExpired too."""
        found = self.position(task_id)
        found.require_recordings(task_id)
        return found

    def being_read(self) -> list[str]:
        """Lists the tasks that somebody reads now."""
        return [text(task_id) for task_id in self._run("being_read", [READING])]

    def mark_read(self, task_ids: list[str]) -> None:
        """Notes, for READ_SECONDS, that somebody reads these tasks, which are not in Redis."""
        self._run("mark_read", [READING], READ_SECONDS, *task_ids)

    def keep_while_read(self, task_ids: list[str]) -> None:
        """Has the retention spare these tasks for READ_SECONDS, if they are final. Call it again while they are read.

        What is read in one step needs none; what is read in several must in the end find the task still there.
        """
        keys = [READING, *(task_key(task_id) for task_id in task_ids)]
        self._run("keep_while_read", keys, READ_SECONDS, MOST_READ_SECONDS, SEGMENT_BYTES, COLOURS_PER_SEGMENT)

    def output(self, task_id: str, offset: int, max_bytes: int) -> bytes:
        """Reads output from a byte offset on."""
        size = SEGMENT_BYTES
        # One transaction: a segment that grew after it was read would leave a hole before the next one.
        pipeline = self._redis.pipeline(transaction=True)
        end = offset + max_bytes
        for number in range(offset // size, -(-end // size)):
            base = number * size
            first, last = max(offset - base, 0), min(end - base, size) - 1
            pipeline.getrange(task_key(task_id, f"output:{number}"), first, last)
        with translated():
            found = b"".join(pipeline.execute())
            # The first version had it all under one key.
            return found or bytes(self._redis.getrange(task_key(task_id, "output"), offset, end - 1))  # type: ignore[arg-type]

    def colours(self, task_id: str, first: int, last: int, *, with_previous: bool = False) -> list[ColourMark]:
        """Reads the colour marks from output offset `first` to `last`, both included, in order.

        with_previous: and the one before them, which says in which colour the text begins.
        """
        data: Any = self._run("colours", [task_key(task_id)], first, last, COLOURS_PER_SEGMENT, int(with_previous))
        return [ColourMark(offset, code.rstrip(b"\0").decode()) for offset, code in _COLOUR.iter_unpack(data)]

    def event_page(
        self, task_id: str, after: int = 0, limit: int = _EVENT_PAGE, max_bytes: int = _PAGE_BYTES, host: str = ""
    ) -> list[dict[str, Any]]:
        """Reads events with a seq above `after`, in order, each with its `seq`: at most `limit`, and at most max_bytes
        of JSON, but always one. host: only this host's."""
        return _events(self._run("events", _event_keys(task_id), after, limit, max_bytes, host))

    def events(self, task_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yields all events with a seq above `after`, read page by page."""
        while page := self.event_page(task_id, after):
            yield from page
            after = page[-1]["seq"]

    def stats_event(self, task_id: str) -> dict[str, Any] | None:
        """Reads the event with the counts of every host, once there is one."""
        with translated():
            seq: Any = self._redis.hget(task_key(task_id), "stats_seq")
        found = self.event_page(task_id, int(seq) - 1, 1) if seq else []
        return found[0] if found else None

    def hosts(self, task_id: str, first: int, limit: int) -> list[str]:
        """Lists hosts with results, from position `first` on: those with a failure first, each group by name."""
        with translated():
            found: Any = self._redis.zrange(task_key(task_id, "hosts"), first, first + limit - 1)
        return [text(host) for host in found]

    def host_events(self, task_id: str, hosts: list[str], limit: int, max_bytes: int) -> list[list[dict[str, Any]]]:
        """Reads the first events of each of these hosts, like `event_page`, in two round trips."""
        with translated():
            script = self._redis.register_script(SCRIPTS["events"].source)
            pipeline = self._redis.pipeline(transaction=False)
            for host in hosts:
                script(_event_keys(task_id), [0, limit, max_bytes, encoded(host)], client=pipeline)
            return [_events(row) for row in pipeline.execute()]


def _event_keys(task_id: str) -> list[str]:
    return [task_key(task_id, "events"), task_key(task_id, "by_host")]


def _events(row: Any) -> list[dict[str, Any]]:
    return [{"seq": int(seq), **json.loads(event)} for seq, event in zip(row[::2], row[1::2], strict=True)]
