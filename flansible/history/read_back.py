"""Reads back what was written of a task, whole, to compare it before Redis forgets it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

from sqlalchemy import Connection, select

from flansible.errors import HistoryUnavailable
from flansible.history import encoding, schema
from flansible.store import ColourMark


class Digests:
    """Sizes and digests of a task's output, colours and events, fed piece by piece, in order."""

    def __init__(self) -> None:
        self.output_bytes = self.colours = self.events = 0
        self._output, self._events = sha256(), sha256()

    def add_output(self, data: bytes, marks: Sequence[ColourMark]) -> None:
        self.output_bytes += len(data)
        self.colours += len(marks)
        self._output.update(data)
        for mark in marks:
            self._output.update(f"\0{mark.offset} {mark.code}\n".encode())

    def add_events(self, first_seq: int, texts: Sequence[bytes]) -> None:
        self.events += len(texts)
        for seq, text in enumerate(texts, first_seq):
            self._events.update(f"{seq} ".encode() + text + b"\n")

    def summary(self) -> tuple[int, int, int, str, str]:
        digests = self._output.hexdigest(), self._events.hexdigest()
        return self.output_bytes, self.colours, self.events, *digests


def digests(connection: Connection, key: int) -> Digests:
    """Reads a task's output and events; what is missing or damaged in between counts as nothing."""
    found = Digests()
    chunks, segments = schema.output_chunks, schema.event_segments
    stream = connection.execution_options(yield_per=16)
    for row in stream.execute(select(chunks).where(chunks.c.task_key == key).order_by(chunks.c.start)):
        if row.start == found.output_bytes:
            with suppress(HistoryUnavailable):
                found.add_output(encoding.unpack(row.data), encoding.unpack_marks(row.marks))
    for row in stream.execute(select(segments).where(segments.c.task_key == key).order_by(segments.c.first_seq)):
        with suppress(HistoryUnavailable):
            found.add_events(row.first_seq, encoding.unpack(row.data).split(b"\n"))
    return found
