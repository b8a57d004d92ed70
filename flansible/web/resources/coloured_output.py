"""Reads a task's output chunk by chunk, with Ansible's colours as escape codes on each line, as a terminal gets them.

A colour is stored once for all lines that it has; Ansible begins and ends it on each of them. Used by output.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from flansible.errors import TaskDeleted
from flansible.store import ColourMark, Store

_END = "0"


@dataclass(frozen=True)
class Colour:
    """The colour between two chunks. code: SGR, "0" for none; is_begun: whether its escape code was written on this
    line."""

    code: str = _END
    is_begun: bool = False


class Reader:
    """Reads one task's output. colour: where the chunk before ended; None for the first one of a reply."""

    def __init__(self, store: Store, task_id: str, coloured: bool, colour: Colour | None = None) -> None:
        self._store = store
        self._task_id = task_id
        self._coloured = coloured
        self.colour = colour

    def read(self, start: int, end: int, most: int) -> tuple[bytes, int]:
        """Reads a chunk between `start` and `end`; returns it, and where it stops. What ends at `end` is closed.

        Raises TaskDeleted. A task is deleted as a whole, so what is read last shows that all before it was there.
        """
        stop = min(end, start + most)
        marks = self._marks(start, stop if stop == end else stop - 1) if self._coloured else []
        chunk = self._store.output(self._task_id, start, stop - start)
        if len(chunk) < stop - start:
            self._store.recorded_position(self._task_id)
            raise TaskDeleted(self._task_id)
        if self.colour is None:
            return chunk, stop
        data, self.colour = _with_codes(chunk, start, marks, self.colour)
        return data, stop

    def _marks(self, start: int, last: int) -> list[ColourMark]:
        """Reads the marks of a chunk; one at its end belongs to the next, except at the end of all."""
        marks = self._store.colours(self._task_id, start, last, with_previous=self.colour is None)
        if self.colour is not None:
            return marks
        before = [mark for mark in marks if mark.offset < start]
        self.colour = Colour(before[-1].code if before else _END)
        return marks[len(before) :]


def _with_codes(chunk: bytes, start: int, marks: list[ColourMark], colour: Colour) -> tuple[bytes, Colour]:
    pieces: list[bytes] = []
    position = start
    for mark in marks:
        text = chunk[position - start : mark.offset - start]
        colour = _add_text(pieces, text, colour, is_ended=mark.code == _END)
        pieces.append(_escape(mark.code))
        colour, position = Colour(mark.code, mark.code != _END), mark.offset
    colour = _add_text(pieces, chunk[position - start :], colour)
    return b"".join(pieces), colour


def _add_text(pieces: list[bytes], text: bytes, colour: Colour, is_ended: bool = False) -> Colour:
    """Adds text in this colour; returns the colour after it. is_ended: the colour ends behind it."""
    if colour.code == _END:
        pieces.append(text)
        return colour
    begin = _escape(colour.code)
    if (text or is_ended) and not colour.is_begun:
        pieces.append(begin)
    lines = text.replace(b"\n", _escape(_END) + b"\n" + begin)
    if not text.endswith(b"\n") or is_ended:
        pieces.append(lines)
        return Colour(colour.code, colour.is_begun or bool(text))
    # The next line is in another chunk.
    pieces.append(lines[: -len(begin)])
    return Colour(colour.code, False)


def _escape(code: str) -> bytes:
    return f"\x1b[{code}m".encode()
